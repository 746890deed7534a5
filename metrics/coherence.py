"""torchmetrics classes of what vectors say: order coherence, likeness of query and fragment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ffr.metrics.functional.coherence import (
    Vectors,
    fragment_order_coherence,
    query_fragment_similarity,
)
from ffr.metrics.functional.figures import fixed_point_mean, to_fixed_point
from ffr.metrics.states import WholeNumberMetric


class _MeanOfVectors(WholeNumberMetric):
    """The mean over samples of a figure of vectors, summed in fixed point."""

    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    fixed_point_sum: Tensor
    num_samples: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("fixed_point_sum", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_samples", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, value: Tensor) -> None:
        if not value.isfinite():
            raise ValueError(f"the figure is {value.item()}: a vector holds no finite numbers")
        self.fixed_point_sum += int(to_fixed_point(value.detach().cpu().double().numpy()))
        self.num_samples += 1

    def compute(self) -> Tensor:
        """The mean; 0 where there is no sample."""
        mean = fixed_point_mean(self.fixed_point_sum.cpu().numpy(), self.num_samples.cpu().numpy())
        return torch.as_tensor(mean).float().to(self.device)


class FragmentOrderCoherence(_MeanOfVectors):
    """Mean over samples of `ffr.metrics.functional.fragment_order_coherence`.

    >>> metric = FragmentOrderCoherence()
    >>> words = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> pictures = torch.tensor([[0.0, 1.0]])
    >>> metric.update([3, 7], words, [3], pictures, is_target_empty=False)    # 0.4
    >>> metric.update([], words[:0], [], words[:0], is_target_empty=True)    # 1
    >>> metric.compute()
    tensor(0.7000)
    """

    def update(
        self,
        utterance_ids: Iterable[int],
        utterance_embeddings: Vectors,
        image_utterance_ids: Iterable[int],
        image_embeddings: Vectors,
        *,
        is_target_empty: bool,
    ) -> None:
        """Adds one sample; the arguments are those of the function.

        Raises:
            ValueError: as the function, and where a vector holds no finite numbers.
        """
        self._add(
            fragment_order_coherence(
                utterance_ids,
                utterance_embeddings,
                image_utterance_ids,
                image_embeddings,
                is_target_empty=is_target_empty,
            )
        )


class QueryFragmentSimilarity(_MeanOfVectors):
    """Mean over samples of `ffr.metrics.functional.query_fragment_similarity`.

    >>> metric = QueryFragmentSimilarity()
    >>> metric.update([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], is_target_empty=False)    # 0.5
    >>> metric.update([1.0, 0.0], [], is_target_empty=True)    # 1
    >>> metric.compute()
    tensor(0.7500)
    """

    def update(self, query_embedding: Any, elements: Vectors, *, is_target_empty: bool) -> None:
        """Adds one sample; the arguments are those of the function.

        Raises:
            ValueError: as the function, and where a vector holds no finite numbers.
        """
        self._add(
            query_fragment_similarity(query_embedding, elements, is_target_empty=is_target_empty)
        )
