"""`ffr bench`: tables of models × settings × data sets from a suite file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.cli.output import progress_bar, say
from ffr.errors import UsageError
from ffr.text import counted

if TYPE_CHECKING:
    from ffr.progress import Progress
    from ffr.suites.suite import Suite


@click.group()
def bench() -> None:
    """Measure a table of models × settings × data sets.

    `ffr bench list` shows the suites that come with ffr.
    """


@bench.command()
@click.argument("suite", metavar="SUITE")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Results folder. [default: bench/SUITE]",
)
@click.option(
    "--only", multiple=True, metavar="LABEL", help="Measure this model or row only; repeatable."
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=FILE",
    help="Data of your own, for a suite that names none (memory, corpus); repeatable.",
)
@click.option(
    "--fit",
    multiple=True,
    metavar="NAME=FILE",
    help="What models are fitted on for the --data of this name; repeatable.",
)
@click.option(
    "--corpus",
    multiple=True,
    metavar="NAME=FILE",
    help="Whose dialogues are the archive that the --data of this name is asked of (corpus).",
)
@click.option(
    "--specific",
    metavar="KINDS",
    help="Kinds of queries that mean one dialogue of the archive, such as human_*,goal. "
    "[default: all]",
)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that keeps the archive. [default: in the results folder]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="The first N queries of each data set, to try a suite.",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run code that comes with the models; only for models you trust.",
)
@click.option(
    "--outside-pictures",
    is_flag=True,
    help="Send servers pictures that lie outside the data's folder too; only for data you trust.",
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Progress bar. [default: where stderr is a terminal]",
)
def run(
    suite: str,
    out: Path | None,
    only: tuple[str, ...],
    data: tuple[str, ...],
    fit: tuple[str, ...],
    corpus: tuple[str, ...],
    specific: str | None,
    index: Path | None,
    limit: int | None,
    trust_remote_code: bool,
    outside_pictures: bool,
    progress: bool | None,
) -> None:
    """Measure the rows of a suite and write the table.

    SUITE is a name of `ffr bench list` or a YAML file. DIR gets table.md, table.csv, table.tex and
    results.json, and every evaluation in a folder of its own; the same command goes on where it was
    stopped. A row that cannot be measured does not stop the others: the table says why, and the
    exit code is 1.
    """
    from ffr.suites.run import TABLE_FILES, run_suite
    from ffr.suites.suite import load_suite

    found = load_suite(suite).with_data(data, fit, corpus, specific)
    if found.asks_archive:
        _check_archive_call(trust_remote_code, outside_pictures)
    folder = out or Path("bench") / (found.name + (f"-first-{limit}" if limit is not None else ""))
    if limit is not None:
        found = found.limited_to(limit)
    rows = found.rows_of(only)
    say(
        f"Suite {found.name}: {counted(len(rows), 'row')} on "
        f"{counted(len(found.datasets), 'data set')}; results folder "
        f"{folder}"
    )
    for line in _servers(found, only):
        say(line)

    def bar(what: str, total: int) -> AbstractContextManager[Progress]:
        return progress_bar(progress, what, total or None)

    try:
        done = run_suite(
            found,
            folder,
            only=only,
            trust_remote_code=trust_remote_code,
            sends_outside_pictures=outside_pictures,
            index=index,
            say=say,
            bar=bar,
        )
    except KeyboardInterrupt:
        say("\nStopped; the same command goes on from here.")
        raise click.exceptions.Exit(130) from None
    say()
    say((folder / TABLE_FILES[0]).read_text(encoding="utf-8").rstrip("\n"))
    say(f"Written to {folder}: {', '.join(TABLE_FILES)}, results.json")
    num_missing = done.num_of("missing")
    if num_missing:
        say(f"{num_missing} of {len(done.cells):,} cells are missing; the table says why")
        raise click.exceptions.Exit(1)


def _check_archive_call(trust_remote_code: bool, outside_pictures: bool) -> None:
    """Refuses what has no effect where an archive is asked."""
    given = {"--trust-remote-code": trust_remote_code, "--outside-pictures": outside_pictures}
    for option in (name for name, is_given in given.items() if is_given):
        raise UsageError(f"{option} has no effect where a whole archive is asked; leave it out")


def _servers(suite: Suite, only: tuple[str, ...]) -> list[str]:
    """Which servers are asked, and whose keys they get: a suite may come from someone else."""
    from ffr.retrieval.api import DEFAULT_KEY_VARIABLE, split_name
    from ffr.settings import kind_of

    found: dict[str, None] = {}
    for row in suite.rows_of(only):
        if row.model.model is None or kind_of(row.model.model) != "api":
            continue
        for dataset in suite.datasets:
            key = suite.settings_of(row, dataset).api_key_env or DEFAULT_KEY_VARIABLE
            found[
                f"{split_name(row.model.model)[0]} is sent the dialogues, and the key in {key} "
                "where that is set"
            ] = None
    return list(found)


@bench.command("list")
def list_command() -> None:
    """List the suites that come with ffr."""
    from ffr.suites import packaged_suites

    suites = packaged_suites()
    width = max(map(len, suites))
    for name, purpose in suites.items():
        say(f"{name:<{width}}  {purpose}")


@bench.command()
@click.argument("name", metavar="NAME")
def show(name: str) -> None:
    """Print a suite that comes with ffr, to be copied and edited."""
    from ffr.settings import nearest
    from ffr.suites import packaged_suites, suite_text

    known = packaged_suites()
    if name not in known:
        raise UsageError(f"there is no suite {name} ({', '.join(known)}){nearest(name, known)}")
    say(suite_text(name).rstrip("\n"))
