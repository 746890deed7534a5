"""Figures of queries that were asked of a whole archive: the right dialogue, and what of it.

What is right follows from the data. A query means its own dialogue; where it only names a concept
(meta `concept`), every dialogue with a query of that concept is right, and what such queries mean
there is the truth.

Shapes: N queries of a group, F figures (`ARCHIVE_FIGURES`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError
from ffr.evaluation.bootstrap import LEVEL, NUM_RESAMPLES, clustered_means
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.metrics.functional.figures import F1, confusion_counts, sample_figures_of
from ffr.metrics.functional.ranking import RANKING_FIGURES, ranking_figures
from ffr.progress import Progress
from ffr.retrieval.answer_log import FAILURE, PREDICTIONS_FILE
from ffr.retrieval.interface import Retriever

ARCHIVE = "archive"
"""Under this key a line of the answers says what was found where in the archive."""

ONE, SEVERAL, ABSENT = "one dialogue", "several dialogues", "absent"
"""Queries that mean one dialogue, that several answer, that none answers."""

GROUPS = ONE, SEVERAL, ABSENT

HITS_PREFIX = "hits_"
"""Stands before a figure of the order of the hits, where the same without it is of recall."""

KNOWN_PREFIX = "known_"
"""Stands before a figure of answers that were given knowing the dialogue."""

_F1 = ("utterance_f1", "image_f1")
ARCHIVE_FIGURES = (
    *RANKING_FIGURES,
    *(HITS_PREFIX + name for name in RANKING_FIGURES),
    *_F1,
    *(KNOWN_PREFIX + name for name in _F1),
    "empty",
    "wrong",
)
"""Names of the figures of a group: recall, the order of hits, the best hit, the same knowing the
dialogue, and the share of queries to which nothing, or a dialogue that is not right, was found."""

NO_GOODS = ("empty", "wrong")
"""Those of which more is not better."""

_FIGURE_WORDS = {"reciprocal_rank": "MRR", "ndcg_at_10": "nDCG@10"}

_ELSEWHERE = 10**9
"""Is added to ids of a dialogue that is not right, so that none of them is one of the truth's."""

KIND, CONCEPT = "query_kind", "concept"
"""Keys of a record's meta: what kind of query it is, and the concept that it names."""


def archive_figure_words(name: str) -> str:
    """What tables call a figure of an archive.

    >>> [archive_figure_words(name) for name in ("recall_at_5", "hits_reciprocal_rank", "known_image_f1")]
    ['recall@5', 'hits MRR', 'known image F1']
    """
    for prefix in (HITS_PREFIX, KNOWN_PREFIX):
        if name.startswith(prefix):
            return prefix.replace("_", " ") + archive_figure_words(name.removeprefix(prefix))
    words = _FIGURE_WORDS.get(name, name.replace("_at_", "@").replace("_f1", " F1"))
    return words.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Meant:
    """What a query means in an archive.

    Args:
        group: One of `ONE`, `SEVERAL`, `ABSENT`.
        kind: Of the query; "" where the data says none.
        own: What it means in its own dialogue; empty where that is nothing.
        truths: What is right, by the fingerprint of the dialogue; none where nothing is.
    """

    group: str
    kind: str
    own: Fragment
    truths: Mapping[str, Fragment]


def meant_by(
    queries: Iterable[Example], archive: Iterable[Example], specific: Sequence[str] = ("*",)
) -> list[Meant]:
    """What each query means in an archive.

    Args:
        queries: The queries, with their true answers.
        archive: All that is known of the archive's dialogues, the queries on them included.
        specific: Patterns of kinds (`human_*`) whose queries mean one dialogue; of any other each
            dialogue with an answered query of the same concept is right.

    Raises:
        DataError: where a query has no true answer.

    >>> from ffr.dialogue import Dialogue, Utterance
    >>> chats = [Dialogue(name, (Utterance("a", (name,)),)) for name in ("d", "e")]
    >>> asked = [Example(chat, "a bus", Fragment((0,)), meta={"concept": "bus"}) for chat in chats]
    >>> [len(meant.truths) for meant in meant_by(asked[:1], asked, specific=())]
    [2]
    >>> [meant.group for meant in meant_by(asked[:1], asked)]
    ['one dialogue']
    """
    speaking: dict[str, dict[str, Fragment]] = defaultdict(dict)
    for example in archive:
        concept = example.meta.get(CONCEPT)
        truth = example.fragment
        if isinstance(concept, str) and truth is not None and not truth.is_empty:
            of_concept, name = speaking[concept], example.dialogue.fingerprint
            of_concept[name] = _joined(of_concept.get(name, Fragment()), truth)
    return [_meant(example, speaking, specific) for example in queries]


def _meant(
    example: Example, speaking: Mapping[str, Mapping[str, Fragment]], specific: Sequence[str]
) -> Meant:
    if example.fragment is None:
        raise DataError(
            f"the query {example.query!r} on dialogue {example.dialogue.id!r} has no true answer, "
            "by which a search is measured; leave it out"
        )
    kind, concept = str(example.meta.get(KIND) or ""), example.meta.get(CONCEPT)
    own = {} if example.fragment.is_empty else {example.dialogue.fingerprint: example.fragment}
    is_shared = isinstance(concept, str) and not any(
        fnmatchcase(kind, pattern) for pattern in specific
    )
    group = ABSENT if not own else SEVERAL if is_shared else ONE
    truths = {**speaking.get(str(concept), {}), **own} if is_shared else own
    return Meant(group, kind, example.fragment, truths)


def _joined(one: Fragment, other: Fragment) -> Fragment:
    return Fragment(
        tuple(sorted({*one.utterance_ids, *other.utterance_ids})),
        tuple(sorted({*one.image_ids, *other.image_ids})),
    )


def archive_summary(
    answers: Iterable[Mapping[str, Any]],
    meant: Sequence[Meant],
    dialogues: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """The figures of every group and every kind of query, with intervals over whole dialogues.

    Args:
        answers: What the lines of the answers say under `ARCHIVE`, in the order of the queries.
        meant: What each query means.
        dialogues: The fingerprint of each query's own dialogue.
        seed: Seed of the resamples.
        num_resamples: How many.

    Returns:
        `level`, `num_resamples`, `seed`, and under `groups` and `kinds` by name: `num_queries`,
        `num_dialogues`, `figures` (`ARCHIVE_FIGURES`; None where there is nothing that it could be
        of), and `intervals` of the same names.
    """
    rows = np.array(
        [_row(answer, own) for answer, own in zip(answers, meant, strict=True)], np.float64
    ).reshape(-1, len(ARCHIVE_FIGURES))
    tables: dict[str, dict[str, list[int]]] = {"groups": {}, "kinds": {}}
    for number, own in enumerate(meant):
        tables["groups"].setdefault(own.group, []).append(number)
        tables["kinds"].setdefault(own.kind or "unnamed", []).append(number)

    def part(numbers: Sequence[int]) -> dict[str, Any]:
        clusters = [dialogues[number] for number in numbers]
        found = clustered_means(rows[numbers], clusters, seed=seed, num_resamples=num_resamples)
        named = list(zip(ARCHIVE_FIGURES, found, strict=True))
        return {
            "num_queries": len(numbers),
            "num_dialogues": len(set(clusters)),
            "figures": {name: mean for name, (mean, _) in named},
            "intervals": {name: interval for name, (_, interval) in named},
        }

    return {
        "level": LEVEL,
        "num_resamples": num_resamples,
        "seed": seed,
        **{
            table: {name: part(numbers) for name, numbers in of_name.items()}
            for table, of_name in tables.items()
        },
    }


def _row(answer: Mapping[str, Any], meant: Meant) -> list[float]:
    """The figures of one query, in the order of `ARCHIVE_FIGURES`; NaN for one that it has not."""
    values: dict[str, float] = {}
    if meant.truths:
        for prefix, ranking in {"": "recalled", HITS_PREFIX: "hits"}.items():
            is_right = [name in meant.truths for name in dict.fromkeys(answer[ranking])]
            figures = ranking_figures(is_right, len(meant.truths))
            values |= {prefix + name: value for name, value in figures.items()}
    best = answer["best"]
    truth = None if best is None else meant.truths.get(best["dialogue"])
    found = Fragment() if best is None else _fragment_of(best)
    if best is not None and truth is None:
        found = _elsewhere(found)
    values |= _f1s("", found, meant.own if truth is None else truth)
    if answer["known"] is not None:
        values |= _f1s(KNOWN_PREFIX, _fragment_of(answer["known"]), meant.own)
    values["empty"] = float(best is None)
    values["wrong"] = float(best is not None and truth is None)
    return [values.get(name, float("nan")) for name in ARCHIVE_FIGURES]


def _fragment_of(said: Mapping[str, Any]) -> Fragment:
    return Fragment(tuple(said["utterance_ids"]), tuple(said["image_ids"]))


def _elsewhere(found: Fragment) -> Fragment:
    return Fragment(
        tuple(_ELSEWHERE + number for number in found.utterance_ids),
        tuple(_ELSEWHERE + number for number in found.image_ids),
    )


def _f1s(prefix: str, found: Fragment, truth: Fragment) -> dict[str, float]:
    figures = sample_figures_of(confusion_counts([found], [truth]))[0, :, F1].tolist()
    return {prefix + name: value for name, value in zip(_F1, figures, strict=True)}


def evaluate_in_archive(
    examples: Sequence[Example],
    meant: Sequence[Meant],
    retriever: Retriever,
    out: Path,
    *,
    dataset: str,
    split: str | None,
    specific: Sequence[str],
    seed: int = 0,
    progress: Progress | None = None,
    max_failures: int | None = None,
) -> Results:
    """Asks every query of a whole archive, scores what was found, and writes both into a folder.

    Args:
        examples: The queries.
        meant: What each of them means there, as `meant_by` says.
        retriever: What searches the archive: its answers say what was found where, under `ARCHIVE`.
        out: The output folder; an evaluation that was stopped there is taken up.
        dataset: What the user called the data of the queries.
        split: The part of a named set.
        specific: What `meant_by` was given.
        seed: Seed of the intervals.
        progress: Is told how far the work is.
        max_failures: As in `ffr.evaluation.run.evaluate`.

    Returns:
        The results, with the figures of the archive under `ARCHIVE` of their summary.

    Raises:
        UsageError: as `ffr.evaluation.run.evaluate`.
        DataError: likewise.
    """
    results = evaluate(
        examples,
        retriever,
        out,
        dataset=dataset,
        split=split,
        seed=seed,
        baselines=(),
        progress=progress,
        max_failures=max_failures,
    )
    dialogues = [example.dialogue.fingerprint for example in examples]
    add_archive(results, out / PREDICTIONS_FILE, meant, dialogues, specific)
    results.save(out)
    return results


def add_archive(
    results: Results,
    predictions: Path,
    meant: Sequence[Meant],
    dialogues: Sequence[str],
    specific: Sequence[str],
) -> None:
    """Puts the figures of the archive into results, beside those of the best hit.

    A query that could not be answered counts as one to which nothing was found.

    Args:
        results: Results of the answers in `predictions`, whose seed is taken.
        predictions: The prediction file.
        meant: What each query means.
        dialogues: The fingerprint of each query's own dialogue.
        specific: What `meant_by` was given.
    """
    answers = list(_answers_of_file(predictions))
    seed = int(results.settings["seed"])
    summary = archive_summary(answers, meant, dialogues, seed=seed)
    results.summary[ARCHIVE] = {"specific": list(specific), **summary}


_NOTHING: Mapping[str, Any] = {"recalled": [], "hits": [], "best": None, "known": None}


def _answers_of_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """What each line of a prediction file says under `ARCHIVE`, in the order of the file.

    Raises:
        DataError: where a line says nothing there, and is no failure.
    """
    records = RecordFile(path)
    for number, data in enumerate(records):
        if isinstance(data, DataError):
            raise data
        record = parse_record(data, records.where(number))
        said = _NOTHING if FAILURE in record else record.get(ARCHIVE)
        if not isinstance(said, Mapping):
            raise DataError("is no answer out of an archive", where=records.where(number))
        yield said
