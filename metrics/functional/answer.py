"""Whole answers: the share that are exactly right, and the share that keep to the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ffr.answer import is_well_formed
from ffr.metrics.functional.figure import divide
from ffr.metrics.functional.figures import confusion_counts, is_exact
from ffr.metrics.functional.inputs import Fragments
from ffr.text import described


def _exact_match_update(preds: Fragments, targets: Fragments) -> tuple[int, int]:
    """Number of exact matches and number of samples."""
    is_right = is_exact(confusion_counts(preds, targets))
    return int(is_right.sum()), len(is_right)


def _share_compute(num_hits: Tensor, num_samples: Tensor) -> Tensor:
    """Hits over samples, in float64; 0 where there is no sample."""
    return torch.as_tensor(divide(num_hits.cpu().numpy(), num_samples.cpu().numpy()))


def fragment_exact_match(preds: Fragments, targets: Fragments) -> Tensor:
    """Share of the samples that name just the true utterance and image ids.

    Args:
        preds: Predicted fragments, as `fragment_counts` takes them.
        targets: True fragments, as many.

    Raises:
        ValueError: where the numbers differ, or something is no fragment or id.

    >>> fragment_exact_match([((0, 1), ()), ((2,), (0,))], [((1, 0), ()), ((2,), ())])
    tensor(0.5000)
    """
    num_hits, num_samples = _exact_match_update(preds, targets)
    return _share_compute(torch.tensor(num_hits), torch.tensor(num_samples)).float()


def _format_update(answers: Iterable[bool | str] | str) -> tuple[int, int]:
    """Number of well-formed answers and number of answers."""
    listed: Any = answers.tolist() if hasattr(answers, "tolist") else answers
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, Iterable) or isinstance(listed, (bytes, Mapping)):
        found = described(answers)
        raise ValueError(f"answers are {found}; write a list of texts or of truth values")
    num_hits = num_answers = 0
    for number, item in enumerate(listed):
        plain = item.tolist() if hasattr(item, "tolist") else item
        if not isinstance(plain, (bool, str)):
            found = described(plain)
            raise ValueError(
                f"answer {number} is {found} ({type(plain).__name__}); write its text, or whether "
                "it is well-formed"
            )
        num_hits += is_well_formed(plain) if isinstance(plain, str) else plain
        num_answers += 1
    return num_hits, num_answers


def answer_format_validity(answers: Iterable[bool | str] | str) -> Tensor:
    """Share of the answers that keep to the format.

    Args:
        answers: For each answer its text, read as `ffr.answer.is_well_formed` does, or a truth
            value where somebody has judged it already.

    Raises:
        ValueError: where something is neither.

    >>> answer_format_validity([True, True, False, True])
    tensor(0.7500)
    >>> answer_format_validity("lines 0 and 1")
    tensor(0.)
    """
    num_hits, num_answers = _format_update(answers)
    return _share_compute(torch.tensor(num_hits), torch.tensor(num_answers)).float()
