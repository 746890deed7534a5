"""`ffr push`: a run's model, with its card, on a hub of models."""

from __future__ import annotations

from pathlib import Path

import click

from ffr.cli.output import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="OWNER/NAME", help="The repository on the hub.")
@click.option(
    "--part",
    type=click.Choice(["merged", "adapter", "reader"]),
    help="Which folder of the run. [default: merged, or the reader]",
)
@click.option("--private", "is_private", is_flag=True, help="A new repository is private.")
def push(run: Path, to: str, part: str | None, is_private: bool) -> None:
    """Upload a run's model with its card to the hub, once its figures hold.

    Token and address are those of huggingface_hub: `hf auth login` or HF_TOKEN, and HF_ENDPOINT.
    """
    from ffr.errors import DataError, UsageError
    from ffr.evaluation.results import evaluations_of
    from ffr.hub import push_folder
    from ffr.report.card import MODEL_FOLDERS, check_figures, verdict, write_figures

    there = [name for name in MODEL_FOLDERS if (run / name).is_dir()]
    part = part or next((name for name in there if name != "adapter"), None)
    if part is None or part not in there:
        found = f"it has {', '.join(there)}" if there else "is it the folder of a finished run?"
        raise UsageError(f"{run} has no {part or 'model'}; {found}")
    if evaluations_of(run):
        write_figures(run)
        checked = check_figures(run)
        if any(item.faults for item in checked):
            raise DataError(
                f"{verdict(checked)}, so nothing was pushed; `ffr card {run} --check` says which",
                where=str(run),
            )
        say(verdict(checked))
    else:
        say(
            f"{run} has no evaluation, so its card has no figures; `ffr eval --model {run}` makes one"
        )
    say(f"{run / part} is at {push_folder(run / part, to, is_private=is_private)}")
