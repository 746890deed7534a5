"""Answers and truths → figures: lenient and strict reading, slices, standard errors, faults.

What was not measured (no truth, an empty slice) is None, never 0.

Shapes: N scored answers; K columns that are summed; the modality axis is (utterance, image), the
count axis (TP, FP, FN, TN), the figure axis that of `FIGURES`, F long.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffr.answer import read_response
from ffr.data.stats import language_of
from ffr.dialogue import Example, Fragment
from ffr.evaluation.figures import EXACT_MATCH, FIGURE_NAMES, SCORE_NAMES, STRICT_PREFIX
from ffr.metrics.functional.figure import Array, divide
from ffr.metrics.functional.figures import (
    F1,
    FIGURES,
    NUM_COUNTS,
    NUM_MODALITIES,
    confusion_counts,
    is_exact,
    sample_figures_of,
    scores_of_sums,
    to_fixed_point,
)
from ffr.text import one_line

LENGTH_SLICES = ("<35", "35-65", ">65")
"""Dialogue length in turns (utterances), as the paper slices it."""
DENSITY_SLICES = ("<0.15", "0.15-0.3", ">0.3")
"""Share of the dialogue's utterances that the truth names; an empty truth is in none."""
TRUTH_SLICES = ("empty", "not empty")
"""Whether the true answer names anything."""
LANGUAGE_SLICES = ("zh", "en", "mixed", "other", "unknown")
"""Language of the dialogue by its letters (`ffr.data.stats.language_of`).

It is unknown where the dialogue could not be read.
"""

SLICES = {
    "by_length": LENGTH_SLICES,
    "by_density": DENSITY_SLICES,
    "by_truth": TRUTH_SLICES,
    "by_language": LANGUAGE_SLICES,
}
"""The tables of slices, by name; an answer is in one slice of a table at most."""


def length_slice(num_utterances: int) -> str:
    """The slice that a dialogue of this many turns belongs to.

    >>> length_slice(34), length_slice(35), length_slice(65), length_slice(66)
    ('<35', '35-65', '35-65', '>65')
    """
    return LENGTH_SLICES[(num_utterances >= 35) + (num_utterances > 65)]


def density_slice(truth: Fragment, num_utterances: int) -> str | None:
    """The slice that a true answer belongs to; None for an empty one.

    >>> density_slice(Fragment((0, 1, 2)), 10), density_slice(Fragment(), 10)
    ('0.15-0.3', None)
    """
    if truth.is_empty:
        return None
    density = len(set(truth.utterance_ids)) / max(num_utterances, 1)
    return DENSITY_SLICES[(density >= 0.15) + (density > 0.3)]


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """What the figures are made of, one row for each scored answer.

    Args:
        counts: int64 of shape (N, 2, 4), read leniently.
        strict_counts: The same where an answer that is not well-formed names nothing.
        valid: bool of shape (N,): whether the answer is well-formed.
        dialogues: What names the dialogue of each answer.
        slices: For each table of `SLICES`, the slice of each answer; None where it is in none.
    """

    counts: Array
    strict_counts: Array
    valid: Array
    dialogues: tuple[str, ...]
    slices: dict[str, tuple[str | None, ...]]

    def __len__(self) -> int:
        return len(self.dialogues)

    def of(self, table: str, name: str) -> ScoredRows:
        """The rows of one slice."""
        chosen = [row for row, its_slice in enumerate(self.slices[table]) if its_slice == name]
        return ScoredRows(
            self.counts[chosen],
            self.strict_counts[chosen],
            self.valid[chosen],
            tuple(self.dialogues[row] for row in chosen),
            {key: tuple(values[row] for row in chosen) for key, values in self.slices.items()},
        )

    @property
    def exact(self) -> Array:
        """Of shape (N,), bool: whether the answer names just the truth, read leniently."""
        return is_exact(self.counts)

    @property
    def sample_figures(self) -> Array:
        """Figures of each answer: float64 of shape (N, 2, F), in the order of `FIGURES`."""
        return sample_figures_of(self.counts)

    @property
    def strict_sample_figures(self) -> Array:
        """The same read strictly: a malformed answer scores 0, even where the truth is empty."""
        return sample_figures_of(self.strict_counts) * self.valid[:, None, None]

    def sums(self) -> Array:
        """What is added up over answers to make figures of (`figures_of_sums`): int64 (N, K).

        Columns: 1; then for the lenient and for the strict reading the counts, the figures of the
        answer in fixed point, and whether it is exact.
        """
        parts = [np.ones((len(self), 1), dtype=np.int64)]
        for counts, figures, exact in (
            (self.counts, self.sample_figures, self.exact),
            (self.strict_counts, self.strict_sample_figures, self.exact & self.valid),
        ):
            flat = counts.reshape(len(self), -1)
            fixed = to_fixed_point(figures).reshape(len(self), -1)
            parts += [flat, fixed, exact[:, None].astype(np.int64)]
        return np.concatenate(parts, axis=1)

    def all_scores(self) -> dict[str, float | None]:
        """All figures by `FIGURE_NAMES`; None, not 0, where nothing was scored."""
        values = figures_of_sums(self.sums().sum(0)).tolist() if len(self) else None
        return dict(zip(FIGURE_NAMES, values or [None] * len(FIGURE_NAMES), strict=True))

    def scores(self) -> dict[str, float | None]:
        """The figures, read leniently."""
        return {name: value for name, value in self.all_scores().items() if name in SCORE_NAMES}

    def strict_scores(self) -> dict[str, float | None]:
        """The figures where a malformed answer counts as wrong, whatever the truth."""
        every = self.all_scores()
        return {name: every[STRICT_PREFIX + name] for name in SCORE_NAMES}


_COUNT_COLUMNS = NUM_MODALITIES * NUM_COUNTS
_FIXED_COLUMNS = NUM_MODALITIES * len(FIGURES)
_READING_COLUMNS = _COUNT_COLUMNS + _FIXED_COLUMNS + 1  # the last: how many are exact

IS_FIXED_POINT = np.array(
    [False] + 2 * ([False] * _COUNT_COLUMNS + [True] * _FIXED_COLUMNS + [False])
)
"""Which of the K columns of `ScoredRows.sums` hold fixed-point numbers; the others are counts."""


def figures_of_sums(sums: Array) -> Array:
    """All figures of added-up columns of `ScoredRows.sums`, of the data as of any resample of it.

    Args:
        sums: int64 of shape (…, K).

    Returns:
        float64 of shape (…, len(FIGURE_NAMES)); means are 0 where there is no answer.
    """
    lead, num_answers = sums.shape[:-1], sums[..., 0]
    parts: list[Array] = []
    for start in (1, 1 + _READING_COLUMNS):
        counts = sums[..., start : start + _COUNT_COLUMNS]
        fixed = sums[..., start + _COUNT_COLUMNS : start + _READING_COLUMNS - 1]
        exact = sums[..., start + _READING_COLUMNS - 1]
        scores = scores_of_sums(
            counts.reshape(*lead, NUM_MODALITIES, NUM_COUNTS),
            fixed.reshape(*lead, NUM_MODALITIES, len(FIGURES)),
            num_answers,
        )
        parts += [scores, divide(exact, num_answers)[..., None]]
    return np.concatenate(parts, axis=-1)


class ScoreTable:
    """Collects answers, one at a time, and makes figures of them.

    Lenient scores (the headline) read what can be read of an answer (`read_response`). Strict
    scores take an answer that is not well-formed for wrong: globally it names nothing, per sample
    it scores 0 even where the truth is empty.

    >>> table = ScoreTable()
    >>> answer = "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> table.add(answer, Fragment((0,)), num_utterances=4, num_images=0, dialogue="d1")
    Fragment(utterance_ids=(0, 1), image_ids=())
    >>> table.add("I do not know", Fragment((2,)), num_utterances=4, num_images=0, dialogue="d1")
    Fragment(utterance_ids=(), image_ids=())
    >>> summary = table.summary()
    >>> summary["scores"]["utterance_precision"], summary["scores"]["utterance_recall"]
    (0.5, 0.5)
    >>> summary["answers"]["num_malformed"]
    1
    """

    def __init__(self) -> None:
        self._preds: list[Fragment] = []
        self._targets: list[Fragment] = []
        self._sizes: list[tuple[int, int]] = []
        self._dialogues: list[str] = []
        self._languages: list[str] = []
        self._well_formed: list[bool] = []
        self._problems: Counter[str] = Counter()
        self._first_malformed: str | None = None
        self._num_without_truth = 0

    def __len__(self) -> int:
        return len(self._preds)

    def add(
        self,
        response: str,
        truth: Fragment | None,
        *,
        num_utterances: int,
        num_images: int,
        dialogue: str,
        language: str = "unknown",
        is_failed: bool = False,
    ) -> Fragment:
        """Adds one answer, and tells what was read of it.

        Args:
            response: The answer's text.
            truth: The true fragment; None where it is unknown: such an answer is counted and not
                scored.
            num_utterances: Number of utterances of the dialogue.
            num_images: Number of images of the dialogue.
            dialogue: What names the dialogue; answers on one dialogue are not independent
                (standard errors, intervals).
            language: One of `LANGUAGE_SLICES`.
            is_failed: Whether the query could not be answered: that is wrong, whatever the truth.
        """
        read = read_response(response)
        if truth is None:
            self._num_without_truth += 1
            return read.fragment
        # where the truth is empty, nothing would be right: an id behind the end is not
        wrong = (
            (num_utterances,) if not truth.utterance_ids else (),
            (num_images,) if not truth.image_ids else (),
        )
        self._preds.append(Fragment(*wrong) if is_failed else read.fragment)
        self._targets.append(truth)
        self._sizes.append((num_utterances, num_images))
        self._dialogues.append(dialogue)
        self._languages.append(language)
        self._well_formed.append(read.is_well_formed)
        if self._first_malformed is None and not read.is_well_formed and not is_failed:
            self._first_malformed = response
        self._problems.update(
            ["no answer"] if is_failed else read.within(num_utterances, num_images).problems
        )
        return read.fragment

    def add_example(self, example: Example, response: str, *, is_failed: bool = False) -> Fragment:
        """Adds the answer to an example, and tells what was read of it."""
        dialogue = example.dialogue
        return self.add(
            response,
            example.fragment,
            num_utterances=len(dialogue.utterances),
            num_images=len(dialogue.images),
            dialogue=dialogue.fingerprint,
            language=language_of(dialogue),
            is_failed=is_failed,
        )

    def rows(self) -> ScoredRows:
        """The scored answers as rows, of which figures and intervals are made."""
        strict = [
            pred if valid else Fragment()
            for pred, valid in zip(self._preds, self._well_formed, strict=True)
        ]
        pairs = list(zip(self._targets, self._sizes, strict=True))
        return ScoredRows(
            counts=self._counts(self._preds),
            strict_counts=self._counts(strict),
            valid=np.array(self._well_formed, dtype=np.bool_),
            dialogues=tuple(self._dialogues),
            slices={
                "by_length": tuple(length_slice(size[0]) for size in self._sizes),
                "by_density": tuple(density_slice(truth, size[0]) for truth, size in pairs),
                "by_truth": tuple(
                    "empty" if truth.is_empty else "not empty" for truth in self._targets
                ),
                "by_language": tuple(self._languages),
            },
        )

    @property
    def malformed_example(self) -> str | None:
        """The first answer, where there were some and not one is in the answer format."""
        return None if any(self._well_formed) else self._first_malformed

    def summary(self) -> dict[str, Any]:
        """`answers`, `scores`, `strict_scores`, `standard_errors`, and the tables of `SLICES`.

        Figures of nothing are None.
        """
        rows = self.rows()
        sliced = {
            table: {name: _slice_summary(rows.of(table, name)) for name in SLICES[table]}
            for table in SLICES
        }
        num = len(self)
        return {
            "answers": {
                "num_answers": num + self._num_without_truth,
                "num_scored": num,
                "num_without_truth": self._num_without_truth,
                "num_dialogues": len(set(self._dialogues)),
                "num_malformed": num - sum(self._well_formed),
                "malformed_share": 1 - sum(self._well_formed) / num if num else None,
                "problems": dict(sorted(self._problems.items())),
                "num_empty_truths": sum(truth.is_empty for truth in self._targets),
                "num_true_images": sum(len(set(truth.image_ids)) for truth in self._targets),
                "num_empty_answers": sum(pred.is_empty for pred in self._preds),
                "num_both_empty": sum(
                    pred.is_empty and truth.is_empty
                    for pred, truth in zip(self._preds, self._targets, strict=True)
                ),
            },
            "scores": rows.scores(),
            "strict_scores": rows.strict_scores(),
            "standard_errors": _standard_errors(rows),
            **sliced,
        }

    def _counts(self, preds: list[Fragment]) -> Array:
        sizes = [size[0] for size in self._sizes], [size[1] for size in self._sizes]
        return confusion_counts(preds, self._targets, *sizes)


_MAX_SHOWN = 160


def malformed_note(table: ScoreTable) -> list[str]:
    """A sentence with an example where not one answer is in the answer format; else nothing.

    >>> table = ScoreTable()
    >>> sizes = {"num_utterances": 4, "num_images": 0}
    >>> read = table.add("Lines 2 and 3.", Fragment((2,)), dialogue="d", **sizes)
    >>> malformed_note(table)[0][:70]
    "Not one answer is in the answer format; the first: 'Lines 2 and 3.'. A"
    """
    if table.malformed_example is None:
        return []
    return [
        f"Not one answer is in the answer format; the first: "
        f"{one_line(table.malformed_example, _MAX_SHOWN)!r}. A model on this machine writes "
        "nothing "
        "else with --constrained; for another, try --template en or zh, or train it first."
    ]


def _slice_summary(rows: ScoredRows) -> dict[str, Any]:
    counted = {"num_answers": len(rows), "num_dialogues": len(set(rows.dialogues))}
    return {**counted, **rows.all_scores()}


def _standard_errors(rows: ScoredRows) -> dict[str, float | None]:
    f1 = rows.sample_figures[..., F1]
    columns = {
        "sample_utterance_f1": f1[:, 0],
        "sample_image_f1": f1[:, 1],
        "sample_joint_f1": f1.mean(1),
        EXACT_MATCH: rows.exact.astype(np.float64),
    }
    return {
        name: _clustered_standard_error(values.tolist(), rows.dialogues)
        for name, values in columns.items()
    }


def _clustered_standard_error(values: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Standard error of a mean whose values come in clusters; None with fewer than two clusters.

    sqrt(G/(G-1) · Σ_g (Σ_{i in g} (x_i - mean))²) / n for G clusters and n values (Cameron and
    Miller 2015, with no other regressor than a constant).
    """
    num_clusters = len(set(clusters))
    if num_clusters < 2:
        return None
    mean = math.fsum(values) / len(values)
    sums: dict[str, float] = dict.fromkeys(clusters, 0.0)
    for cluster, value in zip(clusters, values, strict=True):
        sums[cluster] += value - mean
    spread = math.fsum(item * item for item in sums.values())
    return math.sqrt(num_clusters / (num_clusters - 1) * spread) / len(values)
