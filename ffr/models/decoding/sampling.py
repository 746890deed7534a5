"""Several answers to each of a batch of prompts, sampled.

What the prompts have in common goes through the model once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from ffr.models.decoding.decoders import CopyingDecoder, SharedDecoder
from ffr.models.decoding.drafted import decode_drafted
from ffr.models.decoding.drafts import Drafts
from ffr.models.decoding.fixed import FixedSteps
from ffr.models.decoding.loop import Decoder, Generated, answering, decode
from ffr.models.decoding.neighbours import NeighbourDecoder
from ffr.models.decoding.placed import PlacedTail
from ffr.models.decoding.tail import AnyTail, MakeTail, Placing, Tail
from ffr.models.decoding.watch import tokens_between_looks
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
    tokens_a_look: int | None = None,
    fixed: FixedSteps | None = None,
    drafts: Drafts | None = None,
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
        generator: Where each prompt's seed comes from, one number a prompt; None for torch's own.
            An answer's random numbers follow from its prompt's seed and its number among the G
            alone: they are the same on every device, and whatever is answered beside it.
        is_cache_shared: Whether all answers read one copy of the prompt's keys and values, which
            needs layers of full attention only; False gives each answer a copy.
        dialogue_numbers: A number for each prompt: neighbours of one number are queries on one
            dialogue, which goes through the model once for all of them. None where nothing is known
            of that. Without effect where the cache is not shared.
        tokens_a_look: As `ffr.models.decoding.watch.Watch`, passes where tokens are guessed; no
            answer depends on it.
        fixed: Writes in shapes that do not change; None for shapes that grow. Without effect where
            the cache is not shared.
        drafts: Guesses the next tokens, and takes several a pass; no answer depends on it, but for
            the last bits of sums. Without effect where the cache is not shared.

    Returns:
        For each prompt its G answers.
    """
    num_answers = len(prompts) * num_samples
    seeds = prompt_seeds(len(prompts), generator)
    points = draw_points(seeds, num_samples, max_new_tokens).to(vlm.device)
    are_guessed = drafts is not None and is_cache_shared
    tokens_a_look = tokens_a_look or tokens_between_looks(vlm.device, are_guessed=are_guessed)
    choose = Sampling(vlm, points, temperature=temperature, top_p=top_p, looks=tokens_a_look == 1)
    make_decoder = functools.partial(_shared, vlm, prompts, num_samples, dialogue_numbers)
    with answering(vlm):
        if drafts is not None and is_cache_shared:
            width = 1 + drafts.num_tokens
            make_placed: MakeTail[Placing] = PlacedTail
            if fixed is not None:
                # a pass begins at the last place of the longest answer at most
                most = max_new_tokens + width
                make_placed = functools.partial(fixed.placed_tail, num_places=most, width=width)
            answers = decode_drafted(
                vlm,
                make_decoder(make_placed),
                choose,
                drafts.guesses(num_samples, vlm.device),
                max_new_tokens=max_new_tokens,
                num_drafts=drafts.num_tokens,
                passes_a_look=tokens_a_look,
            )
        else:
            decoder: Decoder
            if not is_cache_shared:
                decoder = CopyingDecoder(vlm, prompts, num_samples)
            elif fixed is None:
                decoder = make_decoder(Tail)
            else:
                decoder = make_decoder(functools.partial(fixed.tail, num_steps=max_new_tokens))
            answers = decode(
                vlm, decoder, choose, max_new_tokens=max_new_tokens, tokens_a_look=tokens_a_look
            )
    return [answers[start : start + num_samples] for start in range(0, num_answers, num_samples)]


def _shared(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    num_samples: int,
    dialogue_numbers: Sequence[int] | None,
    make_tail: MakeTail[AnyTail],
) -> SharedDecoder[AnyTail] | NeighbourDecoder[AnyTail]:
    """A decoder whose answers share what their prompts have in common."""
    if dialogue_numbers is not None:
        parts = neighbours_of(prompts, dialogue_numbers, vlm.placeholder_ids)
        if len(parts) < len(prompts):
            return NeighbourDecoder(vlm, parts, num_samples, make_tail)
    return SharedDecoder(vlm, prompts, num_samples, make_tail)


_LIKELIEST = 64
"""How many tokens are sorted first: nearly always they hold the mass that `top_p` keeps."""


def prompt_seeds(num_prompts: int, generator: torch.Generator | None) -> list[int]:
    """A seed for each prompt, drawn one by one: how prompts are cut into calls changes none.

    Args:
        num_prompts: How many.
        generator: Of any device; None for torch's own.

    >>> together = prompt_seeds(3, torch.Generator().manual_seed(0))
    >>> chance = torch.Generator().manual_seed(0)
    >>> prompt_seeds(2, chance) + prompt_seeds(1, chance) == together
    True
    """
    device = None if generator is None else generator.device
    drawn = [
        torch.randint(2**63 - 1, (), generator=generator, device=device) for _ in range(num_prompts)
    ]
    # all on the device first: one wait for the host
    seeds: list[int] = torch.stack(drawn).tolist()
    return seeds


def draw_points(seeds: Sequence[int], num_samples: int, num_tokens: int) -> torch.Tensor:
    """Uniform random numbers over 0, up to 1, for every token of every answer.

    By Philox, which counts (Salmon et al. 2011): an answer's are those of its key, its prompt's
    seed and its own number, so no answer, prompt or length changes those of another.

    Args:
        seeds: Of each prompt, from 0 to 2⁶³ − 1.
        num_samples: Answers to each prompt (G).
        num_tokens: Of the longest answer.

    Returns:
        (tokens, prompts · G) float32, multiples of 2⁻²⁴, on the host.

    >>> draw_points([3, 7], 2, 5).shape, bool(draw_points([3], 1, 5).eq(draw_points([3], 2, 9)[:5, :1]).all())
    (torch.Size([5, 4]), True)
    """
    drawn = [
        np.random.Philox(key=np.array([seed, number], dtype=np.uint64)).random_raw(num_tokens)
        for seed in seeds
        for number in range(num_samples)
    ]
    # a point of 0 would draw a token of probability 0
    points = ((np.stack(drawn, axis=1) >> np.uint64(40)) + np.uint64(1)) / np.float32(2**24)
    return torch.from_numpy(points.astype(np.float32))


class Sampling:
    """Draws the next token of each row, by points that were drawn before for every token.

    Args:
        vlm: The model.
        points: (tokens, answers) over 0, at most 1, on its device.
        temperature: As `sample_answers`.
        top_p: As `sample_answers`.
        looks: As `draw_tokens`.
    """

    def __init__(
        self, vlm: Vlm, points: torch.Tensor, *, temperature: float, top_p: float, looks: bool
    ) -> None:
        self._forbidden = torch.tensor(
            sorted(vlm.placeholder_ids), dtype=torch.long, device=vlm.device
        )
        self._points = points
        self._temperature = temperature
        self._top_p = top_p
        self._looks = looks
        self._num_chosen = 0
        self._numbers = torch.arange(points.shape[1], device=points.device)

    def __call__(
        self, logits: torch.Tensor, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ffr.models.decoding.loop.Choose`."""
        points = self._points[self._num_chosen]
        self._num_chosen += 1
        return self._drawn(logits, points if rows is None else points[rows])

    def along(
        self,
        logits: torch.Tensor,
        drafts: torch.Tensor,
        count: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ffr.models.decoding.drafted.ChooseAlong`."""
        num_rows, width, _ = logits.shape
        at = count[:, None] + torch.arange(width, device=logits.device)
        numbers = self._numbers[:num_rows] if rows is None else rows
        # behind the longest answer no token is kept
        points = self._points[at.clamp(max=len(self._points) - 1), numbers[:, None]]
        token, logprob = self._drawn(logits.flatten(0, 1), points.flatten())
        return token.view(num_rows, width), logprob.view(num_rows, width)

    def note(self, tokens: torch.Tensor, num_new: torch.Tensor) -> None:
        """As `ffr.models.decoding.drafted.ChooseAlong`: a draw follows from its place alone."""

    def _drawn(
        self, logits: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their log-probabilities (n,) from logits (n, V) and points (n,)."""
        # the kept log-probability is of all tokens, placeholders included: scoring knows no ban
        scaled = logits if self._temperature in (0, 1) else logits / self._temperature
        allowed = scaled.index_fill(1, self._forbidden, -torch.inf)
        if not self._temperature:
            token = allowed.argmax(1)
        else:
            token = draw_tokens(allowed.softmax(1), points, top_p=self._top_p, looks=self._looks)
        return token, scaled.log_softmax(1).gather(1, token[:, None])[:, 0]


def draw_tokens(
    probabilities: torch.Tensor,
    points: torch.Tensor,
    *,
    top_p: float = 1.0,
    looks: bool = True,
) -> torch.Tensor:
    """Draws from the least set of likeliest tokens that reaches `top_p` (arXiv 1904.09751).

    The token is the one at which the running sum of the set's probabilities reaches the point's
    share of their mass. Only the likeliest few tokens are sorted where those are enough, as they
    nearly always are; where the host is not to look whether they are, all of them.

    Args:
        probabilities: (rows, V), each row adding up to 1.
        points: (rows,) uniform random numbers over 0, at most 1: a token of probability 0 is never
            drawn.
        top_p: Probability that the set must reach; 1 takes all tokens.
        looks: Whether the host may wait for a value to save work, which on a CPU it does not.

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
    number = _LIKELIEST if looks else probabilities.shape[1]
    likeliest, ids = probabilities.topk(min(number, probabilities.shape[1]), dim=1)
    reached = likeliest.cumsum(1)
    if looks and bool((reached[:, -1] < top_p).any()):
        # a flat distribution: the set is wider than what was sorted
        likeliest, ids = probabilities.sort(dim=1, descending=True)
        reached = likeliest.cumsum(1)
    # the place of the last token of the set; rounding may leave the sum short of top_p
    size = (reached < top_p).sum(1, keepdim=True).clamp(max=reached.shape[1] - 1)
    mass = reached.gather(1, size)
    # the first token at which the running sum reaches the point
    place = torch.searchsorted(reached, points[:, None] * mass)
    return ids.gather(1, place)[:, 0]
