"""What is in the way of finding one dialogue of an archive: others that are as good, and pictures.

    python benchmarks/corpus_ceilings.py ask --dataset DEV --corpus TRAIN --index DIR
    python benchmarks/corpus_ceilings.py table

DIR holds the archive of both data sets, as `ffr eval --corpus --index` leaves it. Data must say of a
query its `concept` and its `source_dialogue` beside its kind. Of n dialogues that fit alike, the right
one stands by chance among the first 20 with min(1, 20 / n): that is what `by_concept` is for all
dialogues with an answered query of the same concept, and `by_words` for those of which a query of the
same kind, on another conversation, lies as close as two people's words for one conversation lie to each
other (half of such pairs lie closer). In the first place it stands with 1 / n. `named` and `asked` are recall itself, with the concept in the
place of the classifier's words for each picture, and with the concept in the query.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asked_archive import no_bar, specific_queries
from numpy.typing import NDArray
from page_table import with_table

from ffr.corpus.archive import Archive
from ffr.corpus.haystack import load_haystack_data, open_haystack
from ffr.corpus.indexing import index_store
from ffr.corpus.opening import reader_encoder
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.store import Store
from ffr.dialogue import Example
from ffr.evaluation.bootstrap import clustered_means
from ffr.files import replace_json
from ffr.images import Location
from ffr.reader.model import Reader
from ffr.runs import resolve_model
from ffr.settings import AnswerConfig

RESULTS = Path(__file__).parent / "results" / "corpus_ceilings.json"
PAGE = Path(__file__).parents[1] / "docs" / "archive-eval.md"
BEGIN, END = "<!-- table: benchmarks/corpus_ceilings.py -->", "<!-- end of table -->"
Row = Mapping[str, float | None]
"""Figures of a query; None where one has no meaning for it."""

FIRST = 20
BEST = "_best"
"""Ends the names of shares of the first place."""

COLUMNS = {
    "by_concept": "by chance among those of its concept",
    "by_words": "among those with words as close",
    "recall": "recall",
    "named": "concepts in the pictures' place",
    "asked": "and in the query",
}
PARAPHRASED = ("human_topic_en", "human_summary_en")
"""Kinds of which several people's words for one conversation are known."""

LIMITED = (*PARAPHRASED, "human_caption_en", "human_caption_zh")
"""Kinds of queries that several dialogues answer alike."""

KINDS = {
    "human_caption_en": "captions, English",
    "human_caption_zh": "captions, Chinese",
    "human_topic_en": "topics",
    "human_summary_en": "summaries",
    "crosswoz_goal_zh": "tasks",
    "all": "all",
}


class NamedPictures(StoredTagger):
    """Words for pictures of which a concept is known: that, and the classifier's for the others.

    Args:
        store: The store.
        concepts: Of pictures, by the names of their files.
    """

    def __init__(self, store: Store, concepts: Mapping[str, str]) -> None:
        super().__init__(store)
        self._concepts = concepts

    @property
    def digest(self) -> str | None:
        return "concepts"

    def look(self, location: Location) -> tuple[str, str]:
        concept = self._concepts.get(Path(str(location)).name)
        return super().look(location) if concept is None else (f"a photo of {concept}", "")


def concepts_of_pictures(known: Iterable[Example]) -> dict[str, str]:
    """The concept of each picture that an answer names, by its file's name: that of most queries."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for example in known:
        if example.fragment is not None and example.meta.get("concept"):
            names = [Path(str(place)).name for place in example.image_locations()]
            for image in example.fragment.image_ids:
                found[names[image]][str(example.meta["concept"])] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in found.items()}


def dialogues_of_concepts(known: Iterable[Example]) -> dict[str, set[str]]:
    """The dialogues with an answered query of each concept."""
    found: dict[str, set[str]] = defaultdict(set)
    for example in known:
        if example.fragment is not None and not example.fragment.is_empty:
            found[str(example.meta.get("concept"))].add(example.dialogue.fingerprint)
    return found


def by_chance(name: str, number: int | None) -> Row:
    """How often one of so many that fit alike stands among the first, and in the first place.

    >>> by_chance("by_words", 40)
    {'by_words': 0.5, 'by_words_best': 0.025}
    """
    if number is None:
        return {name: None, name + BEST: None}
    return {name: min(1.0, FIRST / number), name + BEST: 1 / number}


class AlikeWords:
    """Queries of the archive by kind, and which say the same as one that is asked.

    Args:
        known: The archive's queries.
        vectors_of: (n, D) of texts, L2-normalised.
    """

    def __init__(
        self, known: Sequence[Example], vectors_of: Callable[[list[str]], NDArray[np.float32]]
    ) -> None:
        self._kinds: dict[str, list[Example]] = defaultdict(list)
        for example in known:
            self._kinds[str(example.meta.get("query_kind"))].append(example)
        self._vectors_of = vectors_of
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def threshold(self, kind: str) -> float:
        """The median cosine of two people's words for one conversation."""
        vectors = self._of_kind(kind)
        rows: dict[str, dict[str, int]] = defaultdict(dict)
        for row, example in enumerate(self._kinds[kind]):
            rows[str(example.meta.get("source_dialogue"))].setdefault(example.query, row)
        pairs = [
            float(vectors[one] @ vectors[other])
            for of_one in rows.values()
            for one, other in itertools.combinations(of_one.values(), 2)
        ]
        return float(np.median(pairs))

    def number(self, example: Example, kind: str, least: float) -> int:
        """How many dialogues are meant as well, the own one among them."""
        vectors, examples = self._of_kind(kind), self._kinds[kind]
        close = vectors @ vectors[examples.index(example)] >= least
        return len({examples[row].dialogue.fingerprint for row in np.flatnonzero(close)})

    def _of_kind(self, kind: str) -> NDArray[np.float32]:
        if kind not in self._vectors:
            self._vectors[kind] = self._vectors_of([item.query for item in self._kinds[kind]])
        return self._vectors[kind]


# -- commands --------------------------------------------------------------------------------------


def by_recall(name: str, archive: Archive, query: str, right: int) -> Row:
    """Whether the right dialogue is among the first that are recalled, and in the first place."""
    found = [item.where[0] == right for item in archive.recall(query, k=FIRST)]
    return {name: float(any(found)), name + BEST: float(found[:1] == [True])}


def figures_of(rows: Sequence[Row], dialogues: Sequence[str]) -> dict[str, Any]:
    """Means of some queries with intervals over dialogues; null where a column has no value."""
    found: dict[str, Any] = {"num_queries": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if any(value is None for value in values):
            found[name] = None
            continue
        ((mean, interval),) = clustered_means(np.array(values, float)[:, None], dialogues)
        found[name] = {"mean": mean, "interval": interval}
    return found


def ask(call: argparse.Namespace) -> None:
    """Counts and asks, and writes the figures."""
    data = load_haystack_data(call.dataset, call.corpus, "all", say=print)
    known, asked = data.known, specific_queries(data)
    of_concept = dialogues_of_concepts(known)
    reader = Reader.load(resolve_model("reader").location)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        # pictures get other words in it
        folder = Path(shutil.copytree(call.index, Path(scratch) / "index"))
        with Store(folder, is_new_allowed=True) as store:
            haystack = open_haystack(store, data, "none", AnswerConfig(), say=print, bar=no_bar)
            encoder = reader_encoder(store, AnswerConfig(), reader)
            tagger = NamedPictures(store, concepts_of_pictures(known))
            index_store(store, store.numbers(), encoder, tagger, say=print, bar=no_bar)
            named = Archive(
                store,
                None,
                encoder,
                lambda queries: reader.recall_vectors(queries, encoder),
                tagger.digest,
                reader.background.usual_queries,
            )
            alike = AlikeWords(known, lambda given: reader.recall_vectors(given, encoder).numpy())
            least = {kind: alike.threshold(kind) for kind in PARAPHRASED}
            for example, own in asked:
                right = haystack.chats[example.dialogue.fingerprint]
                concept = str(example.meta["concept"])
                number = len(of_concept[concept])
                words = (
                    alike.number(example, own.kind, least[own.kind]) if own.kind in least else None
                )
                rows.append(
                    {
                        "num_of_concept": float(number),
                        "num_alike": None if words is None else float(words),
                        **by_chance("by_concept", number),
                        **by_chance("by_words", words),
                        **by_recall("recall", haystack.archive, example.query, right),
                        **by_recall("named", named, example.query, right),
                        **by_recall("asked", named, f"{example.query} {concept}", right),
                    }
                )
    names = [example.dialogue.fingerprint for example, _ in asked]
    kinds = [own.kind for _, own in asked]
    replace_json(
        RESULTS,
        {
            "data_fingerprint": data.asked.fingerprint,
            "archive_fingerprint": haystack.fingerprint,
            "least_cosine": least,
            "kinds": {
                kind: figures_of(
                    [row for row, its in zip(rows, kinds, strict=True) if kind in (its, "all")],
                    [name for name, its in zip(names, kinds, strict=True) if kind in (its, "all")],
                )
                for kind in KINDS
            },
        },
    )


def reachable(kinds: Mapping[str, Any], name_end: str) -> float:
    """The share of queries of which the right dialogue is found, if all but these things were known.

    Of captions the concept alone is known, of topics and summaries what they say alone.

    Args:
        kinds: Figures by kind.
        name_end: "" for the first ones, `BEST` for the first place.
    """
    ways = {kind: "by_words" if kind in PARAPHRASED else "by_concept" for kind in LIMITED}
    found = sum(
        its["num_queries"] * (its[ways[kind] + name_end]["mean"] if kind in ways else 1.0)
        for kind, its in kinds.items()
        if kind != "all"
    )
    return float(found / kinds["all"]["num_queries"])


def table_of(found: Mapping[str, Any]) -> str:
    """The table of the page, in percent of the queries: of the first ones, and of the first place."""
    lines = [f"| | queries | {' | '.join(COLUMNS.values())} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for kind, label in KINDS.items():
        its = found["kinds"][kind]
        cells = [
            "–"
            if its[name] is None
            else f"{100 * its[name]['mean']:.0f} ({100 * its[name + BEST]['mean']:.0f})"
            for name in COLUMNS
        ]
        lines.append(f"| {label} | {its['num_queries']} | {' | '.join(cells)} |")
    most = [f"{100 * reachable(found['kinds'], end):.0f} %" for end in ("", BEST)]
    said = (
        f"A search that knew of each photo its concept alone, of topics and summaries what they say "
        f"alone, and missed nothing else, would have the right one among the first {FIRST} of "
        f"{most[0]}, and in the first place of {most[1]}."
    )
    return "\n".join([BEGIN, *lines, "", said, END])


def write_table(call: argparse.Namespace) -> None:
    """Writes the table into the page."""
    found = json.loads(RESULTS.read_text("utf-8"))
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), table_of(found)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    asking = commands.add_parser("ask", help="Ask the queries of a data set.")
    asking.add_argument("--dataset", required=True, help="Whose queries are asked.")
    asking.add_argument("--corpus", required=True, help="Whose dialogues are in the archive too.")
    asking.add_argument("--index", type=Path, required=True, help="The archive.")
    asking.set_defaults(do=ask)
    commands.add_parser("table", help="Write the table.").set_defaults(do=write_table)
    call = parser.parse_args()
    call.do(call)


if __name__ == "__main__":
    main()
