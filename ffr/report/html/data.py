"""What a page shows of an evaluation, as plain data: dialogues, queries, pictures, slices.

The page's script reads this as JSON; keys are short since they repeat by the thousand. A query is
`{n: index, k: dialogue id, d: dialogue, q: query, t: [utterance ids, image ids] | null, a: the same
of the answer, r: response, w: problems, m: is malformed, c: is cut off, u: [P, R, F1] of the
utterances, i: likewise of the images, s: slices, x: cells of the scatter by modality}`; a dialogue
is `{id, l: [[speaker, [text | [picture, caption], …]], …]}`, or `{id, p: prompt}` where the prompt
is no dialogue; a picture is `[source, width, height]` or `[fault]`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ffr.data.pictures import is_inside
from ffr.dialogue import Dialogue, Fragment, Image
from ffr.evaluation.figures import SCORE_NAMES
from ffr.metrics.functional.figures import (
    MODALITIES,
    confusion_counts,
    sample_figures_of,
    scores_of_sums,
    to_fixed_point,
)
from ffr.report.answered import SHOWN_COLUMNS, AnsweredQuery
from ffr.report.html.pictures import Thumbnail, Thumbnails

SCATTER_CELLS = 20
"""Steps of precision and of recall from 0 to 1 in which the scatter gathers samples."""


@dataclass
class ReportData:
    """All that a report shows beside `results.json`.

    Args:
        dialogues: Each dialogue once, as the module's text says; picture numbers count over
            `pictures`.
        queries: Each query, as the module's text says.
        pictures: Each distinct picture once.
        num_unopened: Locations of pictures that were not opened.
        num_outside: Those of them that lie outside the data's folder.
        faults: Why the others could not be opened, in sentences.
        scatter: For each modality, how many samples fall on each (precision, recall) in
            `SCATTER_CELLS` steps.
        scores: The global F1 of each modality over all answers, to compare with `results.json`.
    """

    dialogues: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[list[Any]] = field(default_factory=list)
    num_unopened: int = 0
    num_outside: int = 0
    faults: list[str] = field(default_factory=list)
    scatter: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


class _Gatherer:
    """Reads the answers once; pictures are numbered as they come and opened at the end."""

    def __init__(self, takes_outside_pictures: bool) -> None:
        self.data = ReportData()
        self.locations: dict[str, int] = {}  # location → its number
        self._takes_outside = takes_outside_pictures
        self._outside: set[str] = set()
        self._dialogues: dict[tuple[str, ...], int] = {}
        self._fragments: list[tuple[Fragment, Fragment]] = []
        self._sizes: list[tuple[int, int]] = []
        self._scored: list[dict[str, Any]] = []

    def add(self, answer: AnsweredQuery) -> None:
        record: dict[str, Any] = {
            "n": answer.index,
            "k": answer.dialogue_id,
            "d": self._dialogue(answer),
            "q": answer.query,
            "t": None if answer.truth is None else _lists(answer.truth),
            "a": _lists(answer.prediction),
            "r": answer.response,
            "w": list(answer.problems),
            "m": not answer.is_well_formed,
            "c": answer.is_cut_off,
            "u": None,
            "i": None,
            "s": answer.slices,
        }
        self.data.queries.append(record)
        if answer.truth is not None:
            self._fragments.append((answer.prediction, answer.truth))
            self._sizes.append(answer.sizes)
            self._scored.append(record)

    def _dialogue(self, answer: AnsweredQuery) -> int:
        dialogue = answer.dialogue
        if dialogue is None:
            key: tuple[str, ...] = ("prompt", str(answer.index))
        else:
            # the control with wrong pictures shows the queries of one dialogue the same ones, other
            # runs the right ones
            key = (dialogue.fingerprint, *map(str, answer.locations))
        if key not in self._dialogues:
            self._dialogues[key] = len(self.data.dialogues)
            root = None if answer.example is None else answer.example.image_root
            if not self._takes_outside:
                self._outside |= {str(at) for at in answer.locations if not is_inside(at, root)}
            numbers = [
                self.locations.setdefault(str(at), len(self.locations)) for at in answer.locations
            ]
            content = {"p": answer.prompt} if dialogue is None else {"l": _lines(dialogue, numbers)}
            self.data.dialogues.append({"id": answer.dialogue_id, **content})
        return self._dialogues[key]

    def finish(self) -> ReportData:
        data = self.data
        thumbnails = Thumbnails(self.locations, closed=self._outside)
        data.faults = thumbnails.faults
        data.num_outside = len(self._outside)
        data.num_unopened = len(data.faults) + data.num_outside
        numbers: dict[Thumbnail, int] = {}
        moved = [
            numbers.setdefault(thumbnails[location], len(numbers)) for location in self.locations
        ]
        data.pictures = [
            [thumbnail.fault]
            if thumbnail.fault
            else [thumbnail.source, thumbnail.width, thumbnail.height]
            for thumbnail in numbers
        ]
        for dialogue in data.dialogues:
            for _, parts in dialogue.get("l", ()):
                for part in parts:
                    if isinstance(part, list):
                        part[0] = moved[part[0]]
        if self._scored:
            self._score()
        return data

    def _score(self) -> None:
        """The figures of each scored query, where it falls on the scatter, and the global ones."""
        preds, truths = zip(*self._fragments, strict=True)
        sizes = [size[0] for size in self._sizes], [size[1] for size in self._sizes]
        counts = confusion_counts(preds, truths, *sizes)
        figures = sample_figures_of(counts)
        shown = figures[..., SHOWN_COLUMNS].tolist()
        for record, by_modality in zip(self._scored, shown, strict=True):
            for key, modality, true_ids, values in zip(
                "ui", MODALITIES, record["t"], by_modality, strict=False
            ):
                record[key] = [round(value, 4) for value in values]
                if true_ids:
                    cell = scatter_cell(values[0]), scatter_cell(values[1])
                    self.data.scatter.setdefault(modality, Counter())[cell] += 1
                    record.setdefault("x", {})[modality] = list(cell)
        sums = counts.sum(0), to_fixed_point(figures).sum(0), np.array(len(counts))
        scores = dict(zip(SCORE_NAMES, scores_of_sums(*sums).tolist(), strict=False))
        names = [f"{modality}_f1" for modality in MODALITIES]
        self.data.scores = {name: scores[name] for name in names}


def scatter_cell(share: float) -> int:
    """The step of the scatter that a precision or recall falls on.

    >>> scatter_cell(0.0), scatter_cell(0.5), scatter_cell(1.0)
    (0, 10, 20)
    """
    return round(share * SCATTER_CELLS)


def _lists(fragment: Fragment) -> list[list[int]]:
    return [sorted(set(fragment.utterance_ids)), sorted(set(fragment.image_ids))]


def _lines(dialogue: Dialogue, numbers: Sequence[int]) -> list[list[Any]]:
    following = iter(numbers)
    return [
        [
            line.speaker,
            [
                [next(following), part.caption] if isinstance(part, Image) else part
                for part in line.segments
            ],
        ]
        for line in dialogue.utterances
    ]


def gather(answers: Iterable[AnsweredQuery], *, takes_outside_pictures: bool = False) -> ReportData:
    """Reads the answers of an evaluation and makes what its page shows, pictures included.

    Args:
        answers: The evaluation.
        takes_outside_pictures: Open pictures that lie outside the data's folder too.
    """
    gatherer = _Gatherer(takes_outside_pictures)
    for answer in answers:
        gatherer.add(answer)
    return gatherer.finish()


def parts_of(data: ReportData, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Cuts dialogues with queries and pictures into parts of so many bytes of JSON, in order.

    A dialogue is never cut: one that is larger by itself makes a part of its own.

    Yields:
        `dialogues`, `queries`, `pictures` as in `ReportData`, with numbers that count within the
        part.
    """
    queries_of: dict[int, list[dict[str, Any]]] = {}
    for query in data.queries:
        queries_of.setdefault(query["d"], []).append(query)
    part = _Part(data.pictures)
    for number, dialogue in enumerate(data.dialogues):
        cost = part.cost(dialogue, queries_of[number])
        if part.dialogues and part.num_bytes + cost > max_bytes:
            yield part.content()
            part = _Part(data.pictures)
            cost = part.cost(dialogue, queries_of[number])
        part.add(dialogue, queries_of[number], cost)
    yield part.content()


class _Part:
    def __init__(self, pictures: Sequence[list[Any]]) -> None:
        self._all_pictures = pictures
        self._numbers: dict[int, int] = {}
        self.dialogues: list[dict[str, Any]] = []
        self._queries: list[dict[str, Any]] = []
        self.num_bytes = 0

    def cost(self, dialogue: dict[str, Any], queries: list[dict[str, Any]]) -> int:
        new = {number for number in _picture_numbers(dialogue) if number not in self._numbers}
        pictures = sum(len(str(self._all_pictures[number][0]).encode()) + 16 for number in new)
        return pictures + sum(len(to_json(item).encode()) for item in (dialogue, *queries))

    def add(self, dialogue: dict[str, Any], queries: list[dict[str, Any]], cost: int) -> None:
        self.num_bytes += cost
        for number in _picture_numbers(dialogue):
            self._numbers.setdefault(number, len(self._numbers))
        self._queries += [{**query, "d": len(self.dialogues)} for query in queries]
        lines = [
            [
                speaker,
                [
                    [self._numbers[part[0]], part[1]] if isinstance(part, list) else part
                    for part in parts
                ],
            ]
            for speaker, parts in dialogue.get("l", ())
        ]
        self.dialogues.append({**dialogue, "l": lines} if "l" in dialogue else dialogue)

    def content(self) -> dict[str, Any]:
        return {
            "dialogues": self.dialogues,
            "queries": sorted(self._queries, key=lambda query: query["n"]),
            "pictures": [self._all_pictures[number] for number in self._numbers],
        }


def _picture_numbers(dialogue: dict[str, Any]) -> Iterator[int]:
    for _, parts in dialogue.get("l", ()):
        for part in parts:
            if isinstance(part, list):
                yield part[0]


_UNSAFE = ("<", ">", "&", "\u2028", "\u2029")


def to_json(value: Any) -> str:
    r"""JSON that may stand inside a script element: nothing in it ends it or begins a comment.

    >>> print(to_json("</script>\u2028"))
    "\u003c/script\u003e\u2028"
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in _UNSAFE:
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
