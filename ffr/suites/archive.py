"""The archives of a suite: made once for all rows, in the results folder, and searched for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ffr.corpus.haystack import (
    HaystackData,
    HaystackRetriever,
    load_haystack_data,
    open_haystack,
)
from ffr.corpus.indexing import Bar
from ffr.corpus.store import Store
from ffr.data.dataset import FirstExamples
from ffr.dialogue import Example
from ffr.errors import FfrError, UsageError
from ffr.evaluation.corpus import Meant, evaluate_in_archive, meant_by
from ffr.evaluation.results import Results
from ffr.progress import Say
from ffr.suites.file import SuiteDataset
from ffr.suites.suite import Suite, SuiteRow

ARCHIVES_FOLDER = "archives"


@dataclass(frozen=True, eq=False)
class _Asked:
    """The queries of a data set, what each means in the archive, and the data it is made of."""

    data: HaystackData
    examples: Sequence[Example]
    meant: Sequence[Meant]


def check_index(suite: Suite, index: Path | None) -> None:
    """Refuses a folder of an archive where none is asked, or more than one.

    Raises:
        UsageError: likewise.
    """
    if index is None:
        return
    if not suite.asks_archive:
        raise UsageError(f"--index {index}: the suite {suite.name} asks no archive; leave it out")
    if len(suite.datasets) > 1:
        raise UsageError(
            f"--index {index} is one archive, and each of the {len(suite.datasets)} data sets of "
            f"{suite.name} has its own; leave it out"
        )


@dataclass
class Archives:
    """Searches the archives of a suite's data sets, each data set read once.

    Args:
        suite: The suite.
        folder: Where their stores lie, by the names that `slug` gives.
        index: The store of the only one, where it lies elsewhere; None for in `folder`.
        slug: A folder's name for a data set's label.
        say: Gets what is to be known.
        bar: Shows how far it is.
    """

    suite: Suite
    folder: Path
    index: Path | None
    slug: Callable[[str], str]
    say: Say
    bar: Bar
    _asked: dict[str, _Asked | FfrError] = field(default_factory=dict)

    def measure(self, row: SuiteRow, dataset: SuiteDataset, out: Path) -> Results:
        """Asks the queries of a data set in the way of a row, or goes on where that was stopped.

        Args:
            row: The row.
            dataset: The data set.
            out: The folder of the cell.

        Raises:
            FfrError: where it cannot be measured.
        """
        assert row.model.model is not None
        asked = self._asked_of(dataset)
        settings = self.suite.settings_of(row, dataset)
        place = self.index or self.folder / self.slug(dataset.label)
        with Store(place, is_new_allowed=True) as store:
            haystack = open_haystack(
                store, asked.data, row.model.model, settings, say=self.say, bar=self.bar
            )
            retriever = HaystackRetriever(haystack, name=row.model.model, ways=row.model.ways)
            with self.bar("answers", len(asked.examples)) as advance:
                return evaluate_in_archive(
                    asked.examples,
                    asked.meant,
                    retriever,
                    out,
                    dataset=dataset.dataset,
                    split=dataset.split_asked,
                    specific=dataset.specific,
                    seed=self.suite.seed,
                    progress=advance,
                    max_failures=settings.max_failures,
                )

    def _asked_of(self, dataset: SuiteDataset) -> _Asked:
        if dataset.label not in self._asked:
            try:
                self._asked[dataset.label] = self._read(dataset)
            except FfrError as error:
                self._asked[dataset.label] = error
        found = self._asked[dataset.label]
        if isinstance(found, FfrError):
            raise found
        return found

    def _read(self, dataset: SuiteDataset) -> _Asked:
        assert dataset.corpus is not None
        data = load_haystack_data(dataset.dataset, dataset.corpus, dataset.split, say=self.say)
        examples: Sequence[Example] = data.asked
        if dataset.limit is not None:
            examples = FirstExamples(data.asked, dataset.limit)
        # a query that cannot be measured is found out before anything is embedded
        return _Asked(data, examples, meant_by(examples, data.known, dataset.specific))
