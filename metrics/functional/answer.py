"""Whole answers: the share that name exactly the true fragment, and the share that keep to the answer format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ffr.metrics.functional.fragment import FragmentLike, _divide, _id_sets


def _exact_match_update(preds: Sequence[FragmentLike], targets: Sequence[FragmentLike]) -> tuple[int, int]:
    """Number of exact matches and number of samples."""
    if len(preds) != len(targets):
        raise ValueError(f"{len(preds)} predictions but {len(targets)} targets: their numbers must be equal")
    return sum(_id_sets(pred) == _id_sets(target) for pred, target in zip(preds, targets, strict=True)), len(preds)


def _share_compute(num_hits: Tensor, num_samples: Tensor) -> Tensor:
    """Hits over samples, in float64; 0 where there is no sample."""
    return _divide(num_hits.cpu(), num_samples.cpu())


def fragment_exact_match(preds: Sequence[FragmentLike], targets: Sequence[FragmentLike]) -> Tensor:
    """Share of the samples whose utterance ids and image ids are all right, none missing and none too many.

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
    """Share of the answers that keep to the format; who reads them decides what that means (`ffr.answer.parse_strict`).

    Args:
        is_valid: For each answer, whether it is well-formed.

    >>> answer_format_validity([True, True, False, True])
    tensor(0.7500)
    """
    return _share_compute(torch.tensor(sum(map(bool, is_valid))), torch.tensor(len(is_valid))).float()
