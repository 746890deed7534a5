"""`ffr eval --corpus`: every query asked of the whole archive of a data file's dialogues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ffr.cli.eval_options import EvalCall
from ffr.cli.output import progress_bar
from ffr.progress import Say
from ffr.text import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ffr.evaluation.results import Results
    from ffr.progress import Progress


def evaluate_archive(call: EvalCall, folder: Path, say: Say) -> Results:
    """Searches the archive for every query and scores what was found.

    Args:
        call: The call.
        folder: The output folder.
        say: Gets what happens.

    Raises:
        UsageError: where the folder or the index holds something else.
        DataError: where a query has no true answer, or the data cannot be read.
    """
    from ffr.corpus.haystack import HaystackRetriever, load_haystack_data, open_haystack
    from ffr.corpus.store import Store
    from ffr.data.dataset import FirstExamples
    from ffr.evaluation.corpus import evaluate_in_archive, meant_by

    assert call.corpus is not None
    data = load_haystack_data(call.dataset, call.corpus, call.split, say=say)
    examples = data.asked if call.limit is None else FirstExamples(data.asked, call.limit)
    # a query that cannot be measured is found out before anything is embedded
    meant = meant_by(examples, data.known, call.specific_kinds)

    def bar(what: str, total: int) -> AbstractContextManager[Progress]:
        return progress_bar(call.progress, what, total or None)

    named = ", ".join(dict.fromkeys([call.corpus, call.dataset]))
    say(f"Asking {call.archive_model} in the archive of {named}")
    with Store(call.index or folder / "archive", is_new_allowed=True) as store:
        haystack = open_haystack(store, data, call.archive_model, call.asking, say=say, bar=bar)
        say(
            f"{counted(len(examples), 'query')}, {counted(len(haystack.chats), 'dialogue')}; "
            f"output folder {folder}"
        )
        retriever = HaystackRetriever(
            haystack, name=call.archive_model, ways=call.chosen_ways or None
        )
        with bar("answers", len(examples)) as advance:
            return evaluate_in_archive(
                examples,
                meant,
                retriever,
                folder,
                dataset=call.dataset,
                split=call.data_split,
                specific=call.specific_kinds,
                seed=call.seed,
                progress=advance,
                max_failures=call.max_failures,
            )
