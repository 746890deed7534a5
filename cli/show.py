"""`ffr show`: one dialogue of an evaluation, with the true and the found lines marked."""

from __future__ import annotations

from pathlib import Path

import click

from ffr.cli.output import say_aside


@click.command()
@click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS")
@click.option(
    "--id",
    "wanted",
    required=True,
    metavar="DIALOGUE_ID|INDEX",
    help="The dialogue's id, or the query's index.",
)
@click.option("--plain", is_flag=True, help="No colours.")
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    help="The data that was measured. [default: as the results name it]",
)
@click.option("--split", help="Part of a named set. [default: likewise]")
def show(results: Path, wanted: str, plain: bool, dataset: str | None, split: str | None) -> None:
    """Print a dialogue with what is true and what was found.

    RESULTS is the output folder of `ffr eval`, its results.json, a prediction file, or a run with
    one evaluation. Where there are several queries on the dialogue, they are listed with their
    indices.
    """
    from ffr.evaluation.results import results_meant
    from ffr.report.answered import open_evaluation
    from ffr.report.dialogue import find_answers, print_answer
    from ffr.terminal import PlainConsole

    evaluation = open_evaluation(results_meant(results, say_aside), dataset=dataset, split=split)
    chosen, others = find_answers(evaluation, wanted)
    console = PlainConsole(is_coloured=not plain)
    print_answer(chosen, others, console)
