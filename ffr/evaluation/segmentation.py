"""`ffr eval --segmentation`: dialogues cut into segments, held against true ones, with intervals.

Shapes: G dialogues, R resamples, C summed columns and F figures of
`ffr.metrics.functional.segmentation`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.evaluation.bootstrap import LEVEL, NUM_RESAMPLES, draw_dialogues, percentile_interval
from ffr.evaluation.results import sealed_json
from ffr.files import replaced_file
from ffr.metrics.functional.figure import Array
from ffr.metrics.functional.segmentation import (
    SEGMENTATION_FIGURES,
    figures_of_segmentation,
    segmentation_sums,
)
from ffr.retrieval.segmentation import Segmenter
from ffr.text import counted

SEGMENTATION_FILE = "segmentation.json"

Labels = tuple[int, ...]
"""For each line of a dialogue the number of its segment."""


@dataclass(frozen=True)
class TrueSegments:
    """Dialogues with their true segments.

    Args:
        examples: One of each dialogue.
        labels: Of each, its lines' true segments.
        num_by_topic: Dialogues whose lines name their topic; of the others the queries' fragments
            are the truth.
        num_left_out: Dialogues of which nothing tells segments.
    """

    examples: tuple[Example, ...]
    labels: tuple[Labels, ...]
    num_by_topic: int
    num_left_out: int

    @property
    def words(self) -> str:
        """What is taken as the truth, in a sentence."""
        num_by_query = len(self.examples) - self.num_by_topic
        parts = []
        if self.num_by_topic:
            parts.append(f"topics of lines ({counted(self.num_by_topic, 'dialogue')})")
        if num_by_query:
            parts.append(f"fragments of queries ({counted(num_by_query, 'dialogue')})")
        said = "True segments: " + " and ".join(parts)
        if self.num_left_out:
            said += f"; {counted(self.num_left_out, 'dialogue')} without any left out"
        return said


def true_segments(examples: Iterable[Example]) -> TrueSegments:
    """The true segments of the dialogues that examples ask about.

    Where lines name their topic (`topic_index` of the raw form), lines of one topic are a segment.
    Else lines are that belong to the same queries' fragments. Either way lines that belong to none
    are one segment as far as they stand side by side.

    Args:
        examples: All queries on a dialogue, anywhere among others.

    Raises:
        DataError: where there is no dialogue with a truth.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.dialogue.fingerprint, []).append(example)
    kept: list[Example] = []
    labels: list[Labels] = []
    num_by_topic = 0
    for group in groups.values():
        topics = _topics(group[0])
        num_by_topic += topics is not None
        found = _memberships(group) if topics is None else topics
        if any(label is not None for label in found):
            kept.append(group[0])
            labels.append(_numbered(found))
    if not kept:
        raise DataError(
            "no dialogue tells its segments: neither a topic_index of its lines nor a query's true "
            "fragment"
        )
    return TrueSegments(tuple(kept), tuple(labels), num_by_topic, len(groups) - len(kept))


def _topics(example: Example) -> list[Hashable | None] | None:
    lines = example.meta.get(EXTRA_LINE_KEYS)
    if not isinstance(lines, list) or len(lines) != len(example.dialogue.utterances):
        return None
    found = [line.get("topic_index") if isinstance(line, Mapping) else None for line in lines]
    kept = [topic if type(topic) is int else None for topic in found]
    return list(kept) if any(topic is not None for topic in kept) else None


def _memberships(group: Sequence[Example]) -> list[Hashable | None]:
    """For each line the queries whose true fragment has it; None for those of no query."""
    found: list[set[int]] = [set() for _ in group[0].dialogue.utterances]
    for number, example in enumerate(group):
        for line in example.fragment.utterance_ids if example.fragment is not None else ():
            if line < len(found):
                found[line].add(number)
    return [frozenset(queries) or None for queries in found]


def _numbered(labels: Sequence[Hashable | None]) -> Labels:
    """Numbers from 0 in the order of first lines; a run of None is a segment of its own."""
    known: dict[Hashable, int] = {}
    numbers: list[int] = []
    num_runs = 0
    previous: Hashable | None = ""
    for label in labels:
        if label is None and previous is not None:
            num_runs += 1
        previous = label
        numbers.append(known.setdefault(("run", num_runs) if label is None else label, len(known)))
    return tuple(numbers)


@dataclass
class SegmentationResults:
    """What came of cutting dialogues into segments.

    Args:
        method: What cut them: its name and all that decides what it does.
        data: The data: name, fingerprint, dialogues, and what is taken as the truth.
        figures: By name; None where there is none.
        intervals: Of each figure, 95 %; None where there is one dialogue alone.
        counts: Of segments, lines, and of what had to be repaired.
        provenance: Versions and command.
    """

    method: dict[str, Any]
    data: dict[str, Any]
    figures: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    counts: dict[str, int]
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Writes `segmentation.json` into a folder, whole or not at all, and tells where.

        Raises:
            DataError: where the folder cannot be written to.
        """
        path = folder / SEGMENTATION_FILE
        content = sealed_json(asdict(self)).encode("utf-8", "backslashreplace")
        with replaced_file(path) as write:
            write(content)
        return path


def evaluate_segmentation(
    truth: TrueSegments, segmenter: Segmenter, *, data: Mapping[str, Any], seed: int = 0
) -> SegmentationResults:
    """Cuts the dialogues and holds what comes of it against the truth.

    Args:
        truth: Dialogues with their true segments.
        segmenter: What cuts them.
        data: What names the data in the results.
        seed: Of the draws of dialogues for the intervals.

    Raises:
        ValueError: where a cut has another number of lines than its dialogue.
    """
    cuts = segmenter.cut(truth.examples)
    sums = segmentation_sums([cut.numbers for cut in cuts], truth.labels)
    figures = figures_of_segmentation(sums.sum(0))
    return SegmentationResults(
        {"label": segmenter.name, **segmenter.identity},
        {**data, "num_dialogues": len(cuts), "truth": truth.words},
        {
            name: None if math.isnan(value) else value
            for name, value in zip(SEGMENTATION_FIGURES, figures.tolist(), strict=True)
        },
        _intervals(sums, figures, seed),
        {
            "num_lines": sum(len(cut.numbers) for cut in cuts),
            "num_segments": sum(len(set(cut.numbers)) for cut in cuts),
            "num_true_segments": sum(len(set(labels)) for labels in truth.labels),
            "num_missing": sum(cut.num_missing for cut in cuts),
            "num_extra": sum(cut.num_extra for cut in cuts),
            "num_doubled": sum(cut.num_doubled for cut in cuts),
            "num_failed": sum(cut.failure is not None for cut in cuts),
        },
    )


def _intervals(sums: Array, point: Array, seed: int) -> dict[str, list[float] | None]:
    """For each figure the middle 95 % over resamples of whole dialogues."""
    if len(sums) < 2:
        return dict.fromkeys(SEGMENTATION_FIGURES)
    # whole numbers, so that no order of additions changes a bit
    drawn = np.concatenate(
        [
            figures_of_segmentation(weights.astype(np.int64) @ sums)
            for weights in draw_dialogues(len(sums), NUM_RESAMPLES, seed)
        ]
    )
    found: dict[str, list[float] | None] = {}
    for column, name in enumerate(SEGMENTATION_FIGURES):
        if math.isnan(point[column]):
            found[name] = None
            continue
        low, high = percentile_interval(drawn[:, [column]], LEVEL)[:, 0]
        found[name] = [float(min(low, point[column])), float(max(high, point[column]))]
    return found
