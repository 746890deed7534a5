"""`ffr search`: what a whole archive holds that a query means, or many queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.chat_options import (
    ArchiveCall,
    check_filled,
    encoder_option,
    image_model_option,
    index_option,
)
from ffr.cli.filter_options import FilterCall, ShownCall, filter_options, shown_options
from ffr.cli.model_options import with_options
from ffr.cli.output import print_json, say_aside
from ffr.errors import DataError, FfrError, UsageError

if TYPE_CHECKING:
    from ffr.corpus.found import Found


@click.command()
@click.argument("query", required=False)
@click.option(
    "-k",
    "k",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many fragments at most; so many dialogues are asked, 20 at least.",
)
@click.option(
    "--rerank",
    default="reader",
    show_default=True,
    metavar="reader|MODEL|none",
    help="What is asked inside what was recalled, as for `ffr eval`; none: nobody is.",
)
@click.option(
    "--ways",
    metavar="WAY,...",
    help="How dialogues are recalled: some of words,lines,segments,pictures.  [default: all]",
)
@click.option(
    "--queries",
    "queries_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Ask many: one a line, or .jsonl or .csv with `query` and perhaps `id`. Prints a line of "
    "JSON for each.",
)
@with_options(index_option, encoder_option, image_model_option, *filter_options, *shown_options)
def search(
    query: str | None,
    k: int,
    rerank: str,
    ways: str | None,
    queries_file: Path | None,
    index_folder: Path | None,
    encoder: str | None,
    image_model: str | None,
    html: Path | None,
    is_json: bool,
    plain: bool,
    **narrowing: Any,
) -> None:
    """Search everything that was read for what QUERY means.

    The archive is what `ffr index add` and `ffr retrieve` keep. `ffr retrieve` gives the few
    fragments that are meant; this gives a long list, the best first, and says how each was found.

    Nothing found is an answer too: exit code 0.
    """
    from ffr.corpus.store import Store
    from ffr.corpus.ways import WAYS, check_ways
    from ffr.text import counted

    if (query is None) == (queries_file is None):
        raise UsageError("give a query, or a file of them with --queries")
    if queries_file is not None and plain:
        raise UsageError("--queries prints JSON lines; --plain is for one query")
    shown = ShownCall(html, is_json, plain, says_how=True)
    chosen = WAYS if ways is None else tuple(filter(None, ways.split(",")))
    check_ways(chosen, k)
    call = ArchiveCall(
        index_folder=index_folder, model=rerank, encoder=encoder, image_model=image_model
    )
    with Store(index_folder) as store:
        check_filled(store)
        filters = FilterCall(**narrowing).filters(store)
        archive = call.open(store, filters.chats, has_vectors=True, ways=chosen)

        def ask(words: str) -> Found:
            return archive.search(words, filters, k=k, ways=chosen)

        if queries_file is None:
            shown.show(ask(str(query)), archive)
            return
        found, num_failed = _ask_all(queries_file, ask)
        shown.write_page(found, archive, queries_file.name)
        if num_failed:
            raise DataError(
                f"{counted(num_failed, 'question')} of {num_failed + len(found):,} could not be "
                "answered; each says why under `error`",
                where=str(queries_file),
            )
        say_aside(f"{counted(len(found), 'question')} answered")


def _ask_all(path: Path, ask: Callable[[str], Found]) -> tuple[list[Found], int]:
    """Prints a line of JSON for each question of a file: what was found, or why nothing could be.

    Gives what was found, and how many could not be answered.
    """
    from ffr.corpus.queries import read_queries
    from ffr.report.found import found_as_json

    found: list[Found] = []
    num_failed = 0
    for asked in read_queries(path):
        told: dict[str, Any] = {"id": asked.id, "query": asked.query}
        try:
            found.append(ask(asked.query))
            told |= found_as_json(found[-1])
        except FfrError as error:
            num_failed += 1
            told["error"] = str(error)
        print_json(told, indent=None)
    return found, num_failed
