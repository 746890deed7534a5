"""Whole answers: the share that are exactly right, and the share that keep to the format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ffr.metrics.functional.figure import divide
from ffr.metrics.functional.figures import FragmentLike, confusion_counts, is_exact


def _exact_match_update(
    preds: Sequence[FragmentLike], targets: Sequence[FragmentLike]
) -> tuple[int, int]:
    """Number of exact matches and number of samples."""
    if len(preds) != len(targets):
        raise ValueError(
            f"{len(preds)} predictions but {len(targets)} targets: their numbers must be equal"
        )
    # true negatives say nothing here, so no dialogue's size is needed
    sizes = [0] * len(preds)
    return int(is_exact(confusion_counts(preds, targets, sizes, sizes)).sum()), len(preds)


def _share_compute(num_hits: Tensor, num_samples: Tensor) -> Tensor:
    """Hits over samples, in float64; 0 where there is no sample."""
    return torch.as_tensor(divide(num_hits.cpu().numpy(), num_samples.cpu().numpy()))


def fragment_exact_match(preds: Sequence[FragmentLike], targets: Sequence[FragmentLike]) -> Tensor:
    """Share of the samples that name just the true utterance and image ids.

    Args:
        preds: Predicted fragments.
        targets: True fragments, as many.

    Raises:
        ValueError: where the numbers differ or an id is negative.

    >>> fragment_exact_match([((0, 1), ()), ((2,), (0,))], [((1, 0), ()), ((2,), ())])
    tensor(0.5000)
    """
    num_hits, num_samples = _exact_match_update(preds, targets)
    return _share_compute(torch.tensor(num_hits), torch.tensor(num_samples)).float()


def answer_format_validity(is_valid: Sequence[bool]) -> Tensor:
    """Share of the answers that keep to the format; who reads them decides what that means.

    Args:
        is_valid: For each answer, whether it is well-formed.

    >>> answer_format_validity([True, True, False, True])
    tensor(0.7500)
    """
    return _share_compute(
        torch.tensor(sum(map(bool, is_valid))), torch.tensor(len(is_valid))
    ).float()
