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

    from ffr.data.dataset import ExampleDataset
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
    from ffr.corpus.haystack import HaystackRetriever, open_haystack
    from ffr.corpus.store import Store
    from ffr.corpus.ways import WAYS
    from ffr.data.dataset import FirstExamples
    from ffr.evaluation.corpus import add_archive, meant_by
    from ffr.evaluation.run import evaluate
    from ffr.retrieval.answer_log import PREDICTIONS_FILE

    assert call.corpus is not None
    assert call.model is not None
    named = list(dict.fromkeys([call.corpus, call.dataset]))
    data = {name: _opened(name, call.split, say) for name in named}
    known = [example for examples in data.values() for example in examples]
    asked = data[call.dataset]
    examples = asked if call.limit is None else FirstExamples(asked, call.limit)
    # a query that cannot be measured is found out before anything is embedded
    meant = meant_by(examples, known, call.specific_kinds)

    def bar(what: str, total: int) -> AbstractContextManager[Progress]:
        return progress_bar(call.progress, what, total or None)

    say(f"Asking {call.model} in the archive of {', '.join(named)}")
    with Store(call.index or folder / "archive", is_new_allowed=True) as store:
        haystack = open_haystack(
            store,
            [examples.path for examples in data.values()],
            known,
            call.model,
            call.asking,
            say=say,
            bar=bar,
        )
        say(
            f"{counted(len(examples), 'query')}, {counted(len(haystack.chats), 'dialogue')}; "
            f"output folder {folder}"
        )
        retriever = HaystackRetriever(haystack, name=call.model, ways=call.chosen_ways or WAYS)
        with progress_bar(call.progress, "answers", len(examples)) as advance:
            results = evaluate(
                examples,
                retriever,
                folder,
                dataset=call.dataset,
                split=call.data_split,
                seed=call.seed,
                baselines=(),
                progress=advance,
                max_failures=call.max_failures,
            )
    dialogues = [example.dialogue.fingerprint for example in examples]
    add_archive(results, folder / PREDICTIONS_FILE, meant, dialogues, call.specific_kinds)
    results.save(folder)
    return results


def _opened(name: str, split: str, say: Say) -> ExampleDataset:
    from ffr.data.catalog import load_dataset

    # pictures that cannot be read are found by the words around them, as in a chat
    return load_dataset(name, split=split, require_images=False, echo=say)
