"""What the metric classes share: states that are whole numbers, and stay so."""

from __future__ import annotations

from typing import Any

from torchmetrics import Metric


class WholeNumberMetric(Metric):  # type: ignore[misc]
    """A metric whose states are whole numbers, summed over batches and processes."""

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False

    def set_dtype(self, dst_type: Any) -> WholeNumberMetric:
        """Does nothing: as floats the sums would lose their last digits, or overflow.

        Args:
            dst_type: A type of torch.

        >>> import torch
        >>> from ffr.metrics import FragmentF1
        >>> metric = FragmentF1(average="sample")
        >>> metric.update([((0,), ())], [((0,), ())])
        >>> metric.set_dtype(torch.float16).compute()
        tensor(1.)
        """
        return self
