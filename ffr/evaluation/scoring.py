"""Answers and truths → figures: lenient and strict reading, slices of the data, standard errors, what was malformed.

Shapes: N scored answers; the modality axis is (utterance, image); the count axis is (TP, FP, FN, TN).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ffr.answer import is_well_formed, parse_lenient, read_answer
from ffr.dialogue import Fragment
from ffr.metrics.functional import fragment_counts, name_figures, sample_figures_from_counts, scores_from_counts

LENGTH_SLICES = ("<35", "35-65", ">65")
"""Dialogue length in turns (utterances), as the paper slices it."""
DENSITY_SLICES = ("<0.15", "0.15-0.3", ">0.3")
"""Share of the dialogue's utterances that the true answer names; an empty truth is in none of them."""
TRUTH_SLICES = ("empty", "not empty")
"""Whether the true answer names anything."""
LANGUAGE_SLICES = ("zh", "en", "mixed", "other", "unknown")
"""Language of the dialogue by its letters (`ffr.data.stats.language_of`); unknown where the dialogue could not be read."""

SLICES = {
    "by_length": LENGTH_SLICES,
    "by_density": DENSITY_SLICES,
    "by_truth": TRUTH_SLICES,
    "by_language": LANGUAGE_SLICES,
}
"""How the data is sliced: name of the table → its slices. Within one table an answer is in one slice at most."""

STRICT_PREFIX = "strict_"
"""Stands before a figure's name where figures of strict reading stand among lenient ones."""

_F1 = 2  # column of F1 among (precision, recall, f1, mcc)


def length_slice(num_utterances: int) -> str:
    """The slice that a dialogue of this many turns belongs to.

    >>> length_slice(34), length_slice(35), length_slice(65), length_slice(66)
    ('<35', '35-65', '35-65', '>65')
    """
    return LENGTH_SLICES[(num_utterances >= 35) + (num_utterances > 65)]


def density_slice(truth: Fragment, num_utterances: int) -> str | None:
    """The slice that a true answer belongs to; None for an empty one.

    >>> density_slice(Fragment((0, 1, 2)), 20), density_slice(Fragment((0, 1, 2)), 10), density_slice(Fragment(), 10)
    ('0.15-0.3', '0.15-0.3', None)
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
        exact: float64 of shape (N,), 1 where the answer names exactly the truth, read leniently.
        valid: float64 of shape (N,), 1 where the answer is well-formed.
        dialogues: What names the dialogue of each answer.
        slices: For each table of `SLICES`, the slice of each answer; None where it is in none.
    """

    counts: Tensor
    strict_counts: Tensor
    exact: Tensor
    valid: Tensor
    dialogues: tuple[str, ...]
    slices: dict[str, tuple[str | None, ...]]

    def __len__(self) -> int:
        return len(self.dialogues)

    def of(self, table: str, name: str) -> ScoredRows:
        """The rows of one slice."""
        chosen = [row for row, its_slice in enumerate(self.slices[table]) if its_slice == name]
        rows = torch.tensor(chosen, dtype=torch.long)
        return ScoredRows(
            self.counts[rows],
            self.strict_counts[rows],
            self.exact[rows],
            self.valid[rows],
            tuple(self.dialogues[row] for row in chosen),
            {key: tuple(values[row] for row in chosen) for key, values in self.slices.items()},
        )

    @property
    def sample_figures(self) -> Tensor:
        """Figures of each answer: float64 of shape (N, 2, 4), figures in the order of `ffr.metrics.functional.FIGURES`."""
        return sample_figures_from_counts(self.counts)

    @property
    def strict_sample_figures(self) -> Tensor:
        """The same read strictly: a malformed answer scores 0, even where the truth is empty."""
        return sample_figures_from_counts(self.strict_counts) * self.valid[:, None, None]

    def scores(self) -> dict[str, float]:
        """The figures, read leniently."""
        return _scores(self.counts, self.exact)

    def strict_scores(self) -> dict[str, float]:
        """The figures where a malformed answer counts as wrong, whatever the truth."""
        scores = _scores(self.strict_counts, self.exact * self.valid)
        if len(self):
            # an empty truth must not credit a malformed answer, which stands here as an empty one
            means = self.strict_sample_figures.mean(0)
            scores |= {name: float(value) for name, value in name_figures(means, prefix="sample_").items()}
        return scores

    def all_scores(self) -> dict[str, float]:
        """Lenient figures under their names, strict ones with `STRICT_PREFIX` before."""
        return self.scores() | {STRICT_PREFIX + name: value for name, value in self.strict_scores().items()}


class ScoreTable:
    """Collects answers, one at a time, and makes figures of them.

    Lenient scores (the headline) read what can be read of an answer (`read_answer`). Strict scores take an answer that is not
    well-formed for wrong: globally it names nothing, per sample it scores 0 even where the truth is empty.

    >>> table = ScoreTable()
    >>> answer = "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> table.add(answer, Fragment((0,)), num_utterances=4, num_images=0, dialogue="d1")
    >>> table.add("I do not know", Fragment((2,)), num_utterances=4, num_images=0, dialogue="d1")
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
    ) -> None:
        """Adds one answer.

        Args:
            response: The answer's text.
            truth: The true fragment; None where it is unknown: such an answer is counted and not scored.
            num_utterances: Number of utterances of the dialogue.
            num_images: Number of images of the dialogue.
            dialogue: What names the dialogue; answers on one dialogue are not independent (standard errors, intervals).
            language: One of `LANGUAGE_SLICES`.
        """
        if truth is None:
            self._num_without_truth += 1
            return
        self._preds.append(read_answer(response))
        self._targets.append(truth)
        self._sizes.append((num_utterances, num_images))
        self._dialogues.append(dialogue)
        self._languages.append(language)
        self._well_formed.append(is_well_formed(response))
        self._problems.update(parse_lenient(response, num_utterances=num_utterances, num_images=num_images).problems)

    def rows(self) -> ScoredRows:
        """The scored answers as rows, of which figures and intervals are made."""
        strict = [pred if valid else Fragment() for pred, valid in zip(self._preds, self._well_formed, strict=True)]
        pairs = list(zip(self._targets, self._sizes, strict=True))
        return ScoredRows(
            counts=self._counts(self._preds),
            strict_counts=self._counts(strict),
            exact=torch.tensor(
                [
                    set(pred.utterance_ids) == set(truth.utterance_ids) and set(pred.image_ids) == set(truth.image_ids)
                    for pred, truth in zip(self._preds, self._targets, strict=True)
                ],
                dtype=torch.float64,
            ),
            valid=torch.tensor(self._well_formed, dtype=torch.float64),
            dialogues=tuple(self._dialogues),
            slices={
                "by_length": tuple(length_slice(size[0]) for size in self._sizes),
                "by_density": tuple(density_slice(truth, size[0]) for truth, size in pairs),
                "by_truth": tuple("empty" if truth.is_empty else "not empty" for truth in self._targets),
                "by_language": tuple(self._languages),
            },
        )

    def summary(self) -> dict[str, Any]:
        """The figures: `answers`, `scores`, `strict_scores`, `standard_errors`, and a table for each of `SLICES`."""
        rows = self.rows()
        sliced = {table: {name: _slice_summary(rows.of(table, name)) for name in SLICES[table]} for table in SLICES}
        num = len(self)
        return {
            "answers": {
                "num_answers": num + self._num_without_truth,
                "num_scored": num,
                "num_without_truth": self._num_without_truth,
                "num_dialogues": len(set(self._dialogues)),
                "num_malformed": num - sum(self._well_formed),
                "malformed_share": 1 - sum(self._well_formed) / num if num else 0.0,
                "problems": dict(sorted(self._problems.items())),
                "num_empty_truths": sum(truth.is_empty for truth in self._targets),
                "num_empty_answers": sum(pred.is_empty for pred in self._preds),
                "num_both_empty": sum(
                    pred.is_empty and truth.is_empty for pred, truth in zip(self._preds, self._targets, strict=True)
                ),
            },
            "scores": rows.scores(),
            "strict_scores": rows.strict_scores(),
            "standard_errors": _standard_errors(rows),
            **sliced,
        }

    def _counts(self, preds: list[Fragment]) -> Tensor:
        return fragment_counts(
            preds, self._targets, [size[0] for size in self._sizes], [size[1] for size in self._sizes]
        )


def _slice_summary(rows: ScoredRows) -> dict[str, Any]:
    counted = {"num_answers": len(rows), "num_dialogues": len(set(rows.dialogues))}
    return {**counted, **rows.all_scores()} if len(rows) else counted


def _standard_errors(rows: ScoredRows) -> dict[str, float | None]:
    f1 = rows.sample_figures[..., _F1]
    columns = {
        "sample_utterance_f1": f1[:, 0],
        "sample_image_f1": f1[:, 1],
        "sample_joint_f1": f1.mean(1),
        "exact_match": rows.exact,
    }
    return {name: _clustered_standard_error(values, rows.dialogues) for name, values in columns.items()}


def _scores(counts: Tensor, exact: Tensor) -> dict[str, float]:
    scores = {name: float(value) for name, value in scores_from_counts(counts).items()}
    return {**scores, "exact_match": float(exact.mean()) if len(exact) else 0.0}


def _clustered_standard_error(values: Tensor, clusters: Sequence[str]) -> float | None:
    """Standard error of a mean whose values come in clusters; None with fewer than two clusters.

    sqrt(G/(G-1) · Σ_g (Σ_{i in g} (x_i - mean))²) / n for G clusters and n values (Cameron and Miller 2015, with no other
    regressor than a constant).
    """
    num_clusters = len(set(clusters))
    if num_clusters < 2:
        return None
    sums: dict[str, float] = dict.fromkeys(clusters, 0.0)
    for cluster, deviation in zip(clusters, (values - values.mean()).tolist(), strict=True):
        sums[cluster] += deviation
    return math.sqrt(num_clusters / (num_clusters - 1) * math.fsum(item * item for item in sums.values())) / len(values)
