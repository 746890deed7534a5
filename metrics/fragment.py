"""torchmetrics classes for fragments: states only, `ffr.metrics.functional.fragment` has the logic.

All states are whole numbers that are summed over processes, so batches and processes never change a
bit of a result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ffr.metrics.functional.figures import (
    FIGURES,
    NUM_COUNTS,
    NUM_MODALITIES,
    Modality,
    names_that_need_sizes,
)
from ffr.metrics.functional.fragment import (
    Average,
    _fragment_compute,
    _fragment_update,
    _score_name,
)
from ffr.metrics.functional.inputs import Fragments
from ffr.metrics.states import WholeNumberMetric


class FragmentScores(WholeNumberMetric):
    """All figures for utterances, images and jointly, global and as means over samples, at once.

    See `ffr.metrics.functional.fragment_scores` for the definitions and the names of the
    results.

    >>> metric = FragmentScores()
    >>> metric.update([((0, 1), ())], [((0, 1, 2), ())], num_utterances=[4], num_images=[0])
    >>> metric.update([((2,), (0,))], [((2,), (0,))], num_utterances=[4], num_images=[2])
    >>> scores = metric.compute()
    >>> scores["utterance_recall"], scores["image_f1"], scores["sample_utterance_recall"]
    (tensor(0.7500), tensor(1.), tensor(0.8333))
    """

    counts: Tensor
    sample_sums: Tensor
    num_samples: Tensor
    num_unsized: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, width in (("counts", NUM_COUNTS), ("sample_sums", len(FIGURES))):
            zeros = torch.zeros(NUM_MODALITIES, width, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        self.add_state("num_samples", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_unsized", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        preds: Fragments,
        targets: Fragments,
        num_utterances: Iterable[int] | None = None,
        num_images: Iterable[int] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            preds: Predicted fragments, as `ffr.metrics.functional.fragment_counts` takes them.
            targets: True fragments.
            num_utterances: Number of utterances of each sample's dialogue; only MCC needs it.
            num_images: Number of images of each sample's dialogue; likewise.

        Raises:
            ValueError: where they differ in length, something is no fragment, id or size, or sizes
                are missing that a single figure needs.
        """
        self._check_sizes(has_sizes=num_utterances is not None)
        counts, sample_sums, num_samples = _fragment_update(
            preds, targets, num_utterances, num_images
        )
        self.counts += counts.to(self.device)
        self.sample_sums += sample_sums.to(self.device)
        self.num_samples += num_samples
        self.num_unsized += num_samples * (num_utterances is None)

    def _check_sizes(self, *, has_sizes: bool) -> None:
        """Refuses a batch without the sizes of its dialogues, where they are needed."""

    def compute(self) -> dict[str, Tensor]:
        """All scores; without those that need sizes where a batch came without them."""
        scores = _fragment_compute(
            self.counts, self.sample_sums, self.num_samples, has_sizes=not self.num_unsized
        )
        return {name: score.float().to(self.device) for name, score in scores.items()}


class _FragmentScore(FragmentScores):
    """One of the scores, chosen by modality and average."""

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    figure: ClassVar[str]

    def __init__(
        self, modality: Modality = "joint", average: Average = "global", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.score_name = _score_name(modality, average, self.figure)

    def _check_sizes(self, *, has_sizes: bool) -> None:
        if not has_sizes and self.score_name in names_that_need_sizes():
            raise ValueError(
                f"{self.figure} counts true negatives, so it needs the sizes of the dialogues; "
                "pass num_utterances and num_images"
            )

    def compute(self) -> Tensor:  # type: ignore[override]
        """The score."""
        return super().compute()[self.score_name]


class FragmentPrecision(_FragmentScore):
    """Share of the predicted ids that are true.

    Args:
        modality: `utterance`, `image` or `joint` (the harmonic mean of the two).
        average: `global` over summed counts, or `sample` for the mean over samples.
        kwargs: For `torchmetrics.Metric`.

    >>> metric = FragmentPrecision(modality="utterance")
    >>> metric([((0, 1), ())], [((1,), ())])
    tensor(0.5000)
    """

    figure = "precision"


class FragmentRecall(_FragmentScore):
    """Share of the true ids that are predicted.

    Args:
        modality: `utterance`, `image` or `joint` (the harmonic mean of the two).
        average: `global` over summed counts, or `sample` for the mean over samples.
        kwargs: For `torchmetrics.Metric`.

    >>> metric = FragmentRecall(modality="utterance")
    >>> metric([((0, 1), ())], [((1,), ())])
    tensor(1.)
    """

    figure = "recall"


class FragmentF1(_FragmentScore):
    """Harmonic mean of precision and recall.

    Args:
        modality: `utterance`, `image` or `joint` (the plain mean of the two).
        average: `global` over summed counts, or `sample` for the mean over samples.
        kwargs: For `torchmetrics.Metric`.

    >>> metric = FragmentF1(modality="utterance", average="sample")
    >>> preds, targets = [((0, 1), ()), ((), ())], [((1,), ()), ((), ())]
    >>> metric(preds, targets)
    tensor(0.8333)
    """

    figure = "f1"


class FragmentMcc(_FragmentScore):
    """Matthews correlation of predicted and true ids, over the ids of the dialogue.

    Args:
        modality: `utterance`, `image` or `joint` (the plain mean of the two).
        average: `global` over summed counts, or `sample` for the mean over samples.
        kwargs: For `torchmetrics.Metric`.

    >>> metric = FragmentMcc(modality="utterance")
    >>> metric([((0, 1), ())], [((1,), ())], num_utterances=[3], num_images=[0])
    tensor(0.5000)
    """

    plot_lower_bound: float = -1.0
    figure = "mcc"
