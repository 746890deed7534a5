"""`ffr gate`: whether a result may pass: exit code 0 or 1, with a table of what passed and fell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.cli.output import say
from ffr.errors import UsageError
from ffr.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from ffr.evaluation.gate import Outcome


@click.command()
@click.argument("results", type=click.Path(path_type=Path), metavar="RESULTS")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A results.json that was kept, on the same data; not needed beside --min alone.",
)
@click.option(
    "--max-drop",
    multiple=True,
    metavar="FIGURE=SHARE",
    help="The figure may be this much below the baseline's; repeatable. [default, without any "
    "rule: joint_f1=0.01]",
)
@click.option(
    "--min",
    "minimum",
    multiple=True,
    metavar="FIGURE=SHARE",
    help="The figure's least value; repeatable.",
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the outcome as JUnit XML.",
)
@click.option(
    "--renew",
    is_flag=True,
    help="Write RESULTS to the baseline FILE in place of comparing.",
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Append the outcome as Markdown, as to "$GITHUB_STEP_SUMMARY".',
)
def gate(
    results: Path,
    baseline: Path | None,
    max_drop: tuple[str, ...],
    minimum: tuple[str, ...],
    junit: Path | None,
    renew: bool,
    summary: Path | None,
) -> None:
    """Exit with 1 where a result has fallen behind a baseline, with 0 where it holds.

    RESULTS is an output folder of `ffr eval`, or its results.json. Figures are those of
    results.json (joint_f1, image_recall, sample_joint_f1, exact_match …), with strict_ before for
    the strict reading, as shares: 0.01 is one percent. Results on other data than the baseline's,
    and figures that were not measured, are refused with exit code 2.
    """
    from ffr.evaluation.gate import (
        DEFAULT_RULES,
        check_rules,
        junit_xml,
        markdown_summary,
        parse_rule,
        renew_baseline,
    )
    from ffr.evaluation.results import Results

    if baseline is None and (renew or max_drop or not minimum):
        raise UsageError(
            "--baseline FILE is missing, a results.json that was kept; without one there is --min alone"
        )
    if renew:
        assert baseline is not None
        if max_drop or minimum or junit or summary:
            raise UsageError("--renew compares nothing; leave rules and reports out")
        renew_baseline(Results.load(results), baseline, name=str(results))
        say(f"Baseline: {baseline}")
        return
    drops = max_drop if max_drop or minimum else DEFAULT_RULES
    rules = [parse_rule("max-drop", text) for text in drops] + [
        parse_rule("min", text) for text in minimum
    ]
    found = Results.load(results)
    kept = None if baseline is None else Results.load(baseline)
    outcomes = check_rules(found, kept, rules, (str(results), str(baseline)))
    label, kept_label = found.label, None if kept is None else kept.label
    from ffr.terminal import PlainConsole

    against = "" if kept is None else f" against {kept_label} ({baseline})"
    say(one_line(f"{label} ({results}){against}", 500))
    PlainConsole().print(_table(outcomes))
    if junit is not None:
        _write(junit, junit_xml(outcomes, label=label))
    if summary is not None:
        _append(summary, markdown_summary(outcomes, label=label, baseline_label=kept_label))
    fallen = [outcome for outcome in outcomes if not outcome.is_passed]
    for outcome in fallen:
        say(one_line(f"FELL: {outcome.sentence}", 500))
    if fallen:
        raise click.exceptions.Exit(1)
    say(f"Passed: {len(outcomes)} of {len(outcomes)} rules are kept")


def _table(outcomes: list[Outcome]) -> Table:
    from ffr.terminal import Label, plain_table

    table = plain_table()
    table.add_column("", no_wrap=True)
    table.add_column("rule")
    for header in ("value", "95 % interval", "baseline", "change"):
        table.add_column(header, justify="right", no_wrap=True)
    for outcome in outcomes:
        interval = (
            "-"
            if outcome.interval is None
            else f"{outcome.interval[0]:.4f}–{outcome.interval[1]:.4f}"
        )
        cells = [
            f"{outcome.value:.4f}",
            interval,
            *outcome.against,
        ]
        verdict = "passed" if outcome.is_passed else "FELL"
        table.add_row(
            verdict, Label(str(outcome.rule)), *cells, style="" if outcome.is_passed else "bold red"
        )
    return table


def _write(path: Path, content: bytes) -> None:
    from ffr.files import replaced_file

    with replaced_file(path) as write:
        write(content)


def _append(path: Path, text: str) -> None:
    from ffr.errors import DataError
    from ffr.files import append

    try:
        append(path, text.encode("utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot be written to ({error.strerror}); choose another --summary", where=str(path)
        ) from error
