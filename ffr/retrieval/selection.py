"""From how close the parts of a dialogue lie to a query to those that answer it.

Shapes: U utterances and I images of a dialogue, n of either (of the longest dialogue in tables).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ffr.dialogue import Fragment

Rule = Literal["threshold", "top-share", "z-score", "stretch"]
"""`threshold`: what scores at least so much. `top-share`: so large a share of the dialogue, the
highest scores. `z-score`: what lies at least so many deviations above the dialogue's mean.
`stretch`: the neighbouring parts with the largest sum of (z − number); of pictures, `z-score`.
"""

RELATIVE_RULES = ("z-score", "stretch")
"""Rules that look at one dialogue's scores alone, so that it matters not where a query's lie."""

_OUTSIDE = -1e9


@dataclass(frozen=True, slots=True)
class Scores:
    """How close each part of a dialogue lies to a query.

    Args:
        utterances: (U,) float64.
        images: (I,) float64; None where a picture follows its utterance.
        hosts: (I,) int64, the utterance that each picture hangs on.
    """

    utterances: Tensor
    images: Tensor | None
    hosts: Tensor


@dataclass(frozen=True, slots=True)
class FitRecord:
    """What a rule was fitted on, and how well it did there.

    Args:
        dataset: What the user called the data.
        split: The part of a named set.
        fingerprint: Names the data.
        num_queries: Queries with a known answer.
        utterance_f1: Mean F1 of the utterances over these queries.
        image_f1: Mean F1 of the images.
    """

    dataset: str
    split: str | None
    fingerprint: str
    num_queries: int
    utterance_f1: float
    image_f1: float


@dataclass(frozen=True, slots=True)
class Selection:
    """A rule that turns scores into an answer.

    Args:
        rule: One of `Rule`.
        utterance: Its number for utterances.
        image: Its number for images; None where a picture follows its utterance.
        fit: What the numbers were fitted on; None where they were given.
        gate: Nothing is found where the best utterance lies less than this above the dialogue's
            mean (`prominence`).
    """

    rule: Rule
    utterance: float
    image: float | None
    fit: FitRecord | None = None
    gate: float = 0.0

    def choose(self, scores: Scores) -> Fragment:
        """The fragment of a dialogue that the rule chooses.

        >>> scores = Scores(torch.tensor([0.9, 0.2, 0.6]).double(), None, torch.tensor([1, 2]))
        >>> Selection("threshold", 0.5, None).choose(scores)
        Fragment(utterance_ids=(0, 2), image_ids=(1,))
        >>> Selection("stretch", 0.0, None, gate=0.4).choose(scores)
        Fragment(utterance_ids=(), image_ids=())
        """
        if float(prominence(scores.utterances)) < self.gate:
            return Fragment()
        utterances = chosen(self.rule, self.utterance, scores.utterances)
        if self.image is None or scores.images is None:
            images = utterances[scores.hosts]
        else:
            images = chosen(image_rule(self.rule), self.image, scores.images)
        return Fragment(
            tuple(utterances.nonzero()[:, 0].tolist()), tuple(images.nonzero()[:, 0].tolist())
        )


def prominence(scores: Tensor) -> Tensor:
    """How far the best of a dialogue lies above its mean: small where a query means nothing in it.

    Args:
        scores: (…, n) float64; -inf where a row of a table is shorter.

    Returns:
        (…,) float64; 0 for a dialogue of nothing.

    >>> prominence(torch.tensor([[0.9, 0.2, 0.4], [0.5, 0.5, -torch.inf]]).double())
    tensor([0.4000, 0.0000], dtype=torch.float64)
    """
    is_real = scores > -math.inf
    num_real = is_real.sum(-1)
    mean = torch.where(is_real, scores, 0.0).sum(-1) / num_real.clamp(min=1)
    best = scores.amax(-1) if scores.shape[-1] else torch.zeros_like(mean)
    # equal scores may differ from their mean in its last bits
    return torch.where(num_real > 0, (best - mean).clamp(min=0.0), 0.0)


def chosen(rule: Rule, number: float, scores: Tensor) -> Tensor:
    """Which items a rule chooses.

    A share of n items is `floor(share · n + ½)` of them; of equal scores the first goes first. A
    deviation is z = (score − mean) / standard deviation over the dialogue, 0 where all are equal.

    Args:
        rule: One of `Rule`.
        number: The threshold, the share, or the number of deviations.
        scores: (…, n) float64; -inf where a row of a table is shorter, which is never chosen.

    Returns:
        (…, n) bool.

    >>> chosen("top-share", 0.5, torch.tensor([[0.1, 0.3, 0.3, 0.2], [0.5, 0.6, -torch.inf, -torch.inf]]))
    tensor([[False,  True,  True, False],
            [False,  True, False, False]])
    >>> chosen("stretch", 0.0, torch.tensor([0.9, 0.1, 0.7, 0.5, 0.8, 0.2]).double())
    tensor([False, False,  True,  True,  True, False])
    """
    is_real = scores > -math.inf
    if rule == "threshold":
        return (scores >= number) & is_real
    if rule == "top-share":
        places = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        num_chosen = (number * is_real.sum(-1, keepdim=True).double() + 0.5).floor()
        return (places < num_chosen) & is_real
    above = _deviations(scores, is_real) - number
    if rule == "z-score":
        return (above >= 0) & is_real
    return _best_stretch(torch.where(is_real, above, _OUTSIDE)) & is_real


def image_rule(rule: Rule) -> Rule:
    """The rule for pictures beside one for utterances.

    Args:
        rule: That for utterances.

    >>> image_rule("stretch"), image_rule("top-share")
    ('z-score', 'top-share')
    """
    # pictures that stand side by side may lie far from each other in the chat
    return "z-score" if rule == "stretch" else rule


def _deviations(scores: Tensor, is_real: Tensor) -> Tensor:
    """(…, n) deviations from the dialogue's mean; of no account where `is_real` is False."""
    num_real = is_real.sum(-1, keepdim=True).clamp(min=1)
    known = torch.where(is_real, scores, 0.0)
    centred = torch.where(is_real, known - known.sum(-1, keepdim=True) / num_real, 0.0)
    deviation = ((centred**2).sum(-1, keepdim=True) / num_real).sqrt()
    return torch.where(deviation > 1e-9, centred / deviation.clamp(min=1e-9), 0.0)


def _best_stretch(values: Tensor) -> Tensor:
    """(…, n) bool: the neighbours with the largest sum, the first of several; none above 0, none."""
    if not values.shape[-1]:
        return values > 0
    sums = values.cumsum(-1)
    before = torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], dim=-1)
    # for each end the beginning that leaves least before it
    least, start = before.cummin(-1)
    gain = sums - least
    end = gain.argmax(-1, keepdim=True)
    place = torch.arange(values.shape[-1], device=values.device)
    inside = (place >= start.gather(-1, end)) & (place <= end)
    return inside & (gain.gather(-1, end) > 0)
