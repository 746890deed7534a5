"""`ffr runs`: the training runs on this machine, listed, shown and cleared away."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from ffr.cli.output import print_json, say

if TYPE_CHECKING:
    from ffr.run_summary import RunSummary
    from ffr.runs import RunRecord

_root = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default="runs",
    show_default=True,
    help="Folder of the runs.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def runs(context: click.Context) -> None:
    """List training runs, look at one, clear away what failed; alone it lists them."""
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@runs.command("list")
@_root
@_json
def list_command(root: Path = Path("runs"), as_json: bool = False) -> None:
    """List the runs with status, last step, best figure and size."""
    from ffr.run_summary import all_runs

    found = all_runs(root)
    if as_json:
        print_json([run.to_json() for run in found])
        return
    if not found:
        say(f"No runs under {root}; `ffr train sft` makes one.")
        return
    from rich.filesize import decimal

    from ffr.terminal import Label, PlainConsole, plain_table

    table = plain_table()
    table.add_column("run")
    for column in ("status", "step", "best", "size"):
        table.add_column(column, no_wrap=True, justify="right" if column == "size" else "left")
    for run in found:
        size = decimal(run.num_bytes)
        label = Label(run.path.name)
        table.add_row(label, run.status, str(run.step or ""), _best(run), size)
    PlainConsole().print(table)


@runs.command()
@click.argument("run", type=click.Path(path_type=Path))
@_json
def show(run: Path, as_json: bool) -> None:
    """Show a run: what it was given, its figures and files, and what comes next.

    RUN is its folder, or its name under ./runs.
    """
    from rich.filesize import decimal

    from ffr.run_summary import summary_of

    if not run.exists() and (Path("runs") / run).is_dir():
        run = Path("runs") / run
    found = summary_of(run)
    if as_json:
        print_json(found.to_json())
        return
    say(f"{run}: {found.status}" + (f" after step {found.step}" if found.step else ""))
    record = found.record
    if record is not None:
        left_out = f", {record.num_left_out} left out" if record.num_left_out else ""
        say(f"  {record.stage} of {record.model} on {record.dataset}{left_out}")
        say(f"  recipe {record.recipe or 'none'}, seed {record.seed}, data {_short(record)}")
        say(f"  begun {record.started_at}, ended {record.finished_at or 'not yet'}")
        if record.error:
            say(f"  error: {record.error}")
    if found.best is not None:
        say(f"  best {_best(found)}")
    for name, value in found.figures.items():
        say(f"  {name:<24} {value:.6g}")
    for name, size in found.sizes.items():
        say(f"  {decimal(size):>10}  {name}")
    for line in _next(found):
        say(line)


@runs.command()
@_root
@click.option(
    "--checkpoints", is_flag=True, help="Also the checkpoints of finished runs; their models stay."
)
@click.option("--yes", is_flag=True, help="Delete. [default: only say what would be deleted]")
def clean(root: Path, checkpoints: bool, yes: bool) -> None:
    """Clear away runs that left nothing: no checkpoint to go on from, no model, no evaluation.

    Runs that a process works on stay.
    """
    from rich.filesize import decimal

    from ffr.run_summary import all_runs, clear_away, what_can_go

    found = what_can_go(all_runs(root), checkpoints=checkpoints)
    for path, size in found.items():
        if yes:
            clear_away(path)
        say(f"{'deleted' if yes else 'would be deleted'}: {path} ({decimal(size)})")
    if not found:
        say(f"Nothing under {root} can go.")
    elif not yes:
        say("Delete them with --yes.")


def _best(run: RunSummary) -> str:
    if run.best is None:
        return ""
    name, value, step = run.best
    return f"{name} {value:.4g} at step {step}"


def _short(record: RunRecord) -> str:
    return record.data_fingerprint[:16] or "unknown"


def _next(run: RunSummary) -> list[str]:
    """What may be done with a run."""
    if run.status == "finished" and run.record is not None and run.record.stage == "embedding":
        return [f"Measure it: ffr eval --model embedding:{quote(str(run.path))}"]
    if run.status == "finished":
        return [f"Measure it: ffr eval --model {quote(str(run.path))}"]
    if run.record is not None and run.status in ("stopped", "interrupted", "failed"):
        if run.leaves_nothing:
            return ["It left nothing to go on with: ffr runs clean"]
        return [f"Go on: ffr train {run.record.stage} --resume {quote(str(run.path))}"]
    return []
