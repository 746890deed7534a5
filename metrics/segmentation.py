"""torchmetrics classes of how dialogues are cut into segments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ffr.metrics.functional.segmentation import (
    SEGMENTATION_FIGURES,
    Segmentations,
    figures_of_segmentation,
    segmentation_sums,
)
from ffr.metrics.states import WholeNumberMetric


class SegmentationScores(WholeNumberMetric):
    """All figures of segmentations by name, as `ffr.metrics.functional.segmentation_figures`.

    >>> metric = SegmentationScores()
    >>> metric.update([[0, 0, 0, 1, 1, 1]], [[0, 0, 0, 1, 1, 1]])
    >>> metric.update([[0, 0, 0, 0, 0, 0]], [[0, 0, 0, 1, 1, 1]])
    >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
    {'pk': 0.25, 'window_diff': 0.25, 'boundary_f1': 0.667, 'near_boundary_f1': 0.667, 'segment_f1': 0.833}
    """

    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        num_columns = segmentation_sums([], []).shape[1]
        zeros = torch.zeros(num_columns, dtype=torch.int64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, preds: Segmentations, targets: Segmentations) -> None:
        """Adds dialogues: for each a label a line.

        Raises:
            ValueError: as the function.
        """
        self.sums += torch.from_numpy(segmentation_sums(preds, targets).sum(0)).to(self.device)

    def _figures(self) -> Tensor:
        figures = figures_of_segmentation(self.sums.cpu().numpy())
        return torch.from_numpy(figures).float().to(self.device)

    def compute(self) -> dict[str, Tensor] | Tensor:
        """The figures by name; NaN where there is no dialogue."""
        return dict(zip(SEGMENTATION_FIGURES, self._figures(), strict=True))


class _OneFigure(SegmentationScores):
    """One figure of segmentations."""

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    _name: str

    def compute(self) -> Tensor:
        """The figure; NaN where there is no dialogue."""
        return self._figures()[SEGMENTATION_FIGURES.index(self._name)]


class SegmentationPk(_OneFigure):
    """Pk, as `ffr.metrics.functional.segmentation_pk`; less is better.

    >>> metric = SegmentationPk()
    >>> metric.update([[0, 0, 0, 0, 0, 0]], [[0, 0, 0, 1, 1, 1]])
    >>> metric.compute()
    tensor(0.5000)
    """

    higher_is_better: bool = False
    _name = "pk"


class WindowDiff(_OneFigure):
    """WindowDiff, as `ffr.metrics.functional.window_diff`; less is better.

    >>> metric = WindowDiff()
    >>> metric.update([[0, 1, 2, 3, 4, 5]], [[0, 0, 0, 1, 1, 1]])
    >>> metric.compute()
    tensor(1.)
    """

    higher_is_better: bool = False
    _name = "window_diff"


class BoundaryF1(_OneFigure):
    """F1 of boundaries, as `ffr.metrics.functional.boundary_f1`.

    Args:
        tolerance: By how many lines, 0 or 1, a boundary may miss.
        kwargs: As torchmetrics takes them.

    Raises:
        ValueError: where the tolerance is another.

    >>> metric = BoundaryF1(tolerance=1)
    >>> metric.update([[0, 0, 1, 1]], [[0, 1, 1, 2]])
    >>> metric.compute()
    tensor(0.6667)
    """

    def __init__(self, tolerance: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if tolerance not in (0, 1):
            raise ValueError(f"a tolerance of {tolerance!r} lines; give 0 or 1")
        self._name = "near_boundary_f1" if tolerance else "boundary_f1"


class SegmentF1(_OneFigure):
    """F1 of whole segments, as `ffr.metrics.functional.segment_f1`.

    >>> metric = SegmentF1()
    >>> metric.update([[0, 0, 1, 2]], [[0, 0, 1, 0]])
    >>> metric.compute()
    tensor(0.8500)
    """

    _name = "segment_f1"
