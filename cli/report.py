"""`ffr report`: an evaluation as a web page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from ffr.cli.output import say, say_aside
from ffr.text import counted


@click.command()
@click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="The page. [default: report.html in RESULTS]",
)
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    help="The data that was measured. [default: as the results name it]",
)
@click.option("--split", help="Part of a named set. [default: likewise]")
@click.option(
    "--image-root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that image paths are relative to. [default: beside the data]",
)
@click.option(
    "--outside-pictures",
    is_flag=True,
    help="Show pictures that lie outside that folder too; only for data you trust.",
)
def report(
    results: Path,
    out: Path | None,
    dataset: str | None,
    split: str | None,
    image_root: Path | None,
    outside_pictures: bool,
) -> None:
    """Write an evaluation as one web page.

    Figures, plots, and the dialogues with what was found in them.

    RESULTS is the output folder of `ffr eval`, its results.json, a prediction file, or a run with
    one evaluation. The page needs nothing beside itself and fetches nothing. Where it would be
    larger than 48 MB, the dialogues go on in FILE-2.html and so on. Pictures are taken from the
    folder of the data alone.
    """
    from ffr.evaluation.results import results_meant
    from ffr.report.answered import open_evaluation
    from ffr.report.html.page import write_report
    from ffr.text import one_line

    results = results_meant(results, say_aside)
    evaluation = open_evaluation(
        results, dataset=dataset, split=split, image_root=image_root, echo=say
    )
    folder = results if results.is_dir() else results.parent
    written = write_report(
        evaluation, out or folder / "report.html", takes_outside_pictures=outside_pictures
    )
    for note in written.notes:
        say(f"! {one_line(note, 2000)}")
    say(
        f"{counted(written.num_queries, 'query')} on {counted(written.num_dialogues, 'dialogue')}, "
        f"{counted(written.num_pictures, 'picture')}"
        + (f", {written.num_unopened} that could not be opened" if written.num_unopened else "")
    )
    for page in written.pages:
        say(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
