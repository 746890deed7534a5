"""torchmetrics classes for whole answers: exact match and format validity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ffr.metrics.functional.answer import (
    _exact_match_update,
    _format_update,
    _share_compute,
)
from ffr.metrics.functional.inputs import Fragments
from ffr.metrics.states import WholeNumberMetric


class _Share(WholeNumberMetric):
    """Hits over samples."""

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    num_hits: Tensor
    num_samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("num_hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_samples", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The share."""
        return _share_compute(self.num_hits, self.num_samples).float().to(self.device)


class FragmentExactMatch(_Share):
    """Share of the samples whose utterance ids and image ids are all right.

    >>> metric = FragmentExactMatch()
    >>> metric([((0, 1), ()), ((2,), (0,))], [((1, 0), ()), ((2,), ())])
    tensor(0.5000)
    """

    def update(self, preds: Fragments, targets: Fragments) -> None:
        """Adds a batch of predicted and true fragments.

        Raises:
            ValueError: where their numbers differ, or something is no fragment or id.
        """
        num_hits, num_samples = _exact_match_update(preds, targets)
        self.num_hits += num_hits
        self.num_samples += num_samples


class AnswerFormatValidity(_Share):
    """Share of the answers that keep to the format.

    >>> metric = AnswerFormatValidity()
    >>> metric([True, False])
    tensor(0.5000)
    """

    def update(self, answers: Iterable[bool | str] | str) -> None:
        """Adds a batch: for each answer its text, or whether it is well-formed.

        Raises:
            ValueError: where something is neither.
        """
        num_hits, num_samples = _format_update(answers)
        self.num_hits += num_hits
        self.num_samples += num_samples
