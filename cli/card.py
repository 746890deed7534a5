"""`ffr card`: the figures of a run's evaluations in its model's card, and whether they hold."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import click

from ffr.cli.output import print_json, say

_MAX_SHOWN = 10


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--check",
    "is_check",
    is_flag=True,
    help="Write nothing: score the stored answers anew, and exit with 1 where a digit differs.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check, print what was found as JSON.")
def card(run: Path, is_check: bool, as_json: bool) -> None:
    """Write the figures of a run's evaluations into the card of its model, or check them.

    RUN is the folder of a training run; with --check also that of an evaluation.
    """
    from ffr.errors import UsageError
    from ffr.report.card import MODEL_FOLDERS, check_figures, verdict, write_figures

    if as_json and not is_check:
        raise UsageError("--json has no meaning without --check; give both")
    if not is_check:
        cards = write_figures(run)
        named = ", ".join(str(path) for path in cards)
        say(f"figures written into {named}  ·  next: ffr card {quote(str(run))} --check")
        return
    checked = check_figures(run)
    num_faults = sum(len(item.faults) for item in checked)
    if as_json:
        print_json(
            [
                {
                    "folder": str(item.folder),
                    "num_figures": item.num_figures,
                    "faults": list(item.faults),
                    "notes": list(item.notes),
                }
                for item in checked
            ]
        )
    else:
        for item in checked:
            say(f"{item.folder}: {verdict([item])}")
            for line in (*item.faults[:_MAX_SHOWN], *item.notes):
                say(f"  {line}")
            if len(item.faults) > _MAX_SHOWN:
                say(f"  and {len(item.faults) - _MAX_SHOWN} more; --json lists all")
        is_model = any((run / name).is_dir() for name in MODEL_FOLDERS)
        comes = (
            f"push {quote(str(run))} --to OWNER/NAME" if is_model else f"report {quote(str(run))}"
        )
        last = verdict(checked)
        say(last if num_faults else f"{last}  ·  next: ffr {comes}")
    if num_faults:
        raise SystemExit(1)
