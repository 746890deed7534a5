"""Several answers to each of a batch of prompts, sampled.

What the prompts have in common goes through the model once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ffr.models.decoding.decoders import CopyingDecoder, SharedDecoder
from ffr.models.decoding.loop import Decoder, Generated, answering, decode
from ffr.models.decoding.neighbours import NeighbourDecoder
from ffr.models.packing import neighbours_of
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


@torch.no_grad()
def sample_answers(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    is_cache_shared: bool = True,
    dialogue_numbers: Sequence[int] | None = None,
) -> list[list[Generated]]:
    """Samples several answers to each prompt; the prompts pass through the model once.

    Tokens that stand for images are never drawn. The kept log-probabilities are those at the
    temperature, before `top_p` cuts the distribution: the ones that a policy gradient needs.

    Args:
        vlm: The model; in evaluation mode while it answers.
        prompts: B encoded prompts without answers, of any lengths.
        num_samples: Answers to each prompt (G).
        max_new_tokens: Longest answer, the end of the turn included.
        temperature: Divides the logits; 0 takes the likeliest token (log-probabilities then are
            those at 1).
        top_p: Draws among the likeliest tokens of this total probability.
        generator: Where the random numbers come from, on the model's device; None for torch's own.
        is_cache_shared: Whether all answers read one copy of the prompt's keys and values, which
            needs layers of full attention only; False gives each answer a copy.
        dialogue_numbers: A number for each prompt: neighbours of one number are queries on one
            dialogue, which goes through the model once for all of them. None where nothing is known
            of that. Without effect where the cache is not shared.

    Returns:
        For each prompt its G answers.
    """
    num_answers = len(prompts) * num_samples
    choose = Sampling(
        vlm, temperature=temperature, top_p=top_p, generator=generator, num_answers=num_answers
    )
    with answering(vlm):
        decoder = _decoder(vlm, prompts, num_samples, dialogue_numbers, is_cache_shared)
        answers = decode(vlm, decoder, choose, max_new_tokens=max_new_tokens)
    return [answers[start : start + num_samples] for start in range(0, num_answers, num_samples)]


def _decoder(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    num_samples: int,
    dialogue_numbers: Sequence[int] | None,
    is_cache_shared: bool,
) -> Decoder:
    if not is_cache_shared:
        return CopyingDecoder(vlm, prompts, num_samples)
    if dialogue_numbers is not None:
        parts = neighbours_of(prompts, dialogue_numbers, vlm.placeholder_ids)
        if len(parts) < len(prompts):
            return NeighbourDecoder(vlm, parts, num_samples)
    return SharedDecoder(vlm, prompts, num_samples)


_LIKELIEST = 64
"""How many tokens are sorted first: nearly always they hold the mass that `top_p` keeps."""


class Sampling:
    """Draws the next token of each row.

    A random number is drawn for every row at every step, also for rows that have ended, so that an
    answer does not depend on which other rows are still there.
    """

    def __init__(
        self,
        vlm: Vlm,
        *,
        temperature: float,
        top_p: float,
        generator: torch.Generator | None,
        num_answers: int,
    ) -> None:
        self._forbidden = torch.tensor(
            sorted(vlm.placeholder_ids), dtype=torch.long, device=vlm.device
        )
        self._temperature = temperature
        self._top_p = top_p
        self._generator = generator
        self._num_answers = num_answers

    def __call__(
        self, logits: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows,) and their log-probabilities (rows,) from logits (rows, V).

        `rows` numbers them among all.
        """
        # the kept log-probability is of all tokens, placeholders included: scoring knows no ban
        scaled = logits / self._temperature if self._temperature else logits
        allowed = scaled.index_fill(1, self._forbidden, -torch.inf)
        if not self._temperature:
            token = allowed.argmax(1)
        else:
            # over 0 and up to 1: a point of 0 would draw a token of probability 0
            points = 1 - torch.rand(
                self._num_answers, generator=self._generator, device=logits.device
            )
            token = draw_tokens(allowed.softmax(1), points[rows], top_p=self._top_p)
        return token, scaled.log_softmax(1).gather(1, token[:, None])[:, 0]


def draw_tokens(
    probabilities: torch.Tensor, points: torch.Tensor, *, top_p: float = 1.0
) -> torch.Tensor:
    """Draws from the least set of likeliest tokens that reaches `top_p` (arXiv 1904.09751).

    The token is the one at which the running sum of the set's probabilities reaches the point's
    share of their mass. Only the likeliest few tokens are sorted where those are enough, as they
    nearly always are.

    Args:
        probabilities: (rows, V), each row adding up to 1.
        points: (rows,) uniform random numbers over 0, at most 1: a token of probability 0 is never
            drawn.
        top_p: Probability that the set must reach; 1 takes all tokens.

    Returns:
        (rows,) token ids.

    >>> draw_tokens(torch.tensor([[0.1, 0.7, 0.2]]).expand(3, -1), torch.tensor([0.05, 0.5, 1.0]))
    tensor([0, 1, 2])
    >>> draw_tokens(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([1.0]), top_p=0.6)
    tensor([1])
    """
    if top_p >= 1:
        reached = probabilities.cumsum(1)
        place = torch.searchsorted(reached, points[:, None] * reached[:, -1:])[:, 0]
        # behind the last only where probabilities are NaN, which must show in a figure, not here
        return place.clamp(max=probabilities.shape[1] - 1)
    likeliest, ids = probabilities.topk(min(_LIKELIEST, probabilities.shape[1]), dim=1)
    reached = likeliest.cumsum(1)
    if bool((reached[:, -1] < top_p).any()):
        # a flat distribution: the set is wider than what was sorted
        likeliest, ids = probabilities.sort(dim=1, descending=True)
        reached = likeliest.cumsum(1)
    # the place of the last token of the set; rounding may leave the sum short of top_p
    size = (reached < top_p).sum(1, keepdim=True).clamp(max=reached.shape[1] - 1)
    mass = reached.gather(1, size)
    # the first token at which the running sum reaches the point
    place = (reached < points[:, None] * mass).sum(1, keepdim=True)
    return ids.gather(1, place)[:, 0]
