"""Several answers to each of a batch of prompts, sampled; what the prompts have in common goes through the model once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ffr.models.decoding.cache import RoomyCache
from ffr.models.decoding.greedy import Generated, answer_of
from ffr.models.decoding.grouped import GroupDecoder, neighbours_of
from ffr.models.positions import next_positions, token_positions
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

    Tokens that stand for images are never drawn. The kept log-probabilities are those at the temperature, before `top_p` cuts
    the distribution: the ones that a policy gradient needs.

    Args:
        vlm: The model; in evaluation mode while it answers.
        prompts: B encoded prompts without answers, of any lengths.
        num_samples: Answers to each prompt (G).
        max_new_tokens: Longest answer, the end of the turn included.
        temperature: Divides the logits; 0 takes the likeliest token (log-probabilities then are those at 1).
        top_p: Draws among the likeliest tokens of this total probability.
        generator: Where the random numbers come from, on the model's device; None for torch's own.
        is_cache_shared: Whether all answers read one copy of the prompt's keys and values, which needs layers of full
            attention only; False gives each answer a copy.
        dialogue_numbers: A number for each prompt: neighbours of one number are queries on one dialogue, which goes through the model once for
            all of them. None where nothing is known of that. Without effect where the cache is not shared.

    Returns:
        For each prompt its G answers.
    """
    was_training = vlm.training
    vlm.eval()
    num_rows = len(prompts) * num_samples
    choose = _Chooser(vlm, temperature=temperature, top_p=top_p, generator=generator, num_rows=num_rows)
    stops = torch.tensor(vlm.stop_ids, device=vlm.device)
    ids: list[list[int]] = [[] for _ in range(num_rows)]
    logprobs: list[list[float]] = [[] for _ in range(num_rows)]
    alive = torch.arange(num_rows, device=vlm.device)  # which answer each row of the decoder writes
    is_open = torch.ones(num_rows, dtype=torch.bool, device=vlm.device)
    with _weights_cast_once(vlm.device.type):
        decoder = _decoder(vlm, prompts, num_samples, dialogue_numbers, is_cache_shared)
        logits = decoder.first_logits()
        for step in range(max_new_tokens):
            token, logprob = choose(logits, alive)
            for number, item, value, goes_on in zip(
                alive.tolist(), token.tolist(), logprob.tolist(), is_open.tolist(), strict=True
            ):
                if goes_on:
                    ids[number].append(item)
                    logprobs[number].append(value)
            is_open = is_open & ~torch.isin(token, stops)
            if step + 1 == max_new_tokens or not is_open.any():
                break
            kept = decoder.drop_finished(is_open)
            if kept is not None:
                alive, is_open, token = alive[kept], is_open[kept], token[kept]
            logits = decoder.step(token)
    vlm.train(was_training)
    answers = [answer_of(vlm, row, values) for row, values in zip(ids, logprobs, strict=True)]
    return [answers[start : start + num_samples] for start in range(0, num_rows, num_samples)]


@contextmanager
def _weights_cast_once(device_type: str) -> Iterator[None]:
    """Under autocast, keeps the weights in its type for all tokens; Lightning's has each pass cast them anew.

    They are let go at the end, so that none is there when the weights have moved.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    try:
        with torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()


def _decoder(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    num_samples: int,
    dialogue_numbers: Sequence[int] | None,
    is_cache_shared: bool,
) -> _Decoder | GroupDecoder:
    if dialogue_numbers is not None and is_cache_shared:
        parts = neighbours_of(vlm, prompts, dialogue_numbers)
        if len(parts) < len(prompts):
            return GroupDecoder(vlm, parts, num_samples)
    return (_SharedDecoder if is_cache_shared else _ExpandedDecoder)(vlm, prompts, num_samples)


class _Decoder(ABC):
    """Prompts that went through the model once, and the answers to them token by token; a row is one answer.

    Shapes: B prompts, G answers to each, P tokens of the longest prompt, rows = B·G, V vocabulary.
    """

    def __init__(self, vlm: Vlm, prompts: Sequence[Encoded], num_samples: int) -> None:
        self._vlm = vlm
        self._num_samples = num_samples
        inputs = vlm.collate(prompts, padding_side="left").inputs
        positions = token_positions(vlm, inputs)
        self._has_three_positions = positions.ndim == 3
        self._mask: torch.Tensor = inputs["attention_mask"]  # (B, P)
        self._position = next_positions(positions, self._mask)  # (B,)
        self._cache = RoomyCache(vlm.base.config.get_text_config())
        hidden = vlm.core(**inputs, position_ids=positions, past_key_values=self._cache, use_cache=True)
        self._last_hidden = hidden.last_hidden_state[:, -1]
        self._num_steps = 0

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict."""
        return self._logits(self._last_hidden).repeat_interleave(self._num_samples, dim=0)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._vlm.base.get_output_embeddings()(hidden).float()
        return logits

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            position_ids=positions.expand(3, -1, -1) if self._has_three_positions else positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    @abstractmethod
    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Logits (rows, V) after one more token (rows,) of each answer."""

    @abstractmethod
    def drop_finished(self, is_open: torch.Tensor) -> torch.Tensor | None:
        """Goes on without rows that have ended, where that saves enough: the rows that are kept; None for all."""


class _ExpandedDecoder(_Decoder):
    """Every answer has its own copy of the prompt's keys and values."""

    def __init__(self, vlm: Vlm, prompts: Sequence[Encoded], num_samples: int) -> None:
        super().__init__(vlm, prompts, num_samples)
        self._cache.batch_repeat_interleave(num_samples)
        self._position = self._position.repeat_interleave(num_samples)
        self._mask = self._mask.repeat_interleave(num_samples, dim=0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        hidden = self._forward(token[:, None], self._position[:, None] + self._num_steps, self._mask)
        self._num_steps += 1
        return self._logits(hidden[:, -1])

    def drop_finished(self, is_open: torch.Tensor) -> torch.Tensor | None:
        if 2 * int(is_open.sum()) > len(is_open):
            return None
        kept = is_open.nonzero()[:, 0]
        self._cache.batch_select_indices(kept)
        self._position, self._mask = self._position[kept], self._mask[kept]
        return kept


class _SharedDecoder(_Decoder):
    """All answers to a prompt read one copy of its keys and values.

    A forward pass takes the next token of every answer as one row of G tokens; its mask lets each see the prompt and what its own
    answer has written. The cache of a prompt then holds P + G·(steps) tokens instead of G·(P + steps).
    """

    def step(self, token: torch.Tensor) -> torch.Tensor:
        size = self._num_samples
        self._num_steps += 1
        own = torch.eye(size, dtype=torch.bool, device=token.device).repeat(1, self._num_steps)
        num_prompts = len(self._mask)
        mask = torch.cat(
            [
                self._mask.bool()[:, None].expand(-1, size, -1),
                own.expand(num_prompts, -1, -1),
            ],
            dim=2,
        )
        positions = (self._position[:, None] + self._num_steps - 1).expand(-1, size)
        hidden = self._forward(token.view(num_prompts, size), positions, mask[:, None])
        return self._logits(hidden.flatten(0, 1))

    def drop_finished(self, is_open: torch.Tensor) -> torch.Tensor | None:
        has_open = is_open.view(-1, self._num_samples).any(1)
        if 4 * int(has_open.sum()) > 3 * len(has_open):
            return None
        kept = has_open.nonzero()[:, 0]
        self._cache.batch_select_indices(kept)
        self._position, self._mask = self._position[kept], self._mask[kept]
        rows: torch.Tensor = has_open.repeat_interleave(self._num_samples).nonzero()[:, 0]
        return rows


_LIKELIEST = 64
"""How many tokens are sorted first: nearly always they hold the mass that `top_p` keeps."""


class _Chooser:
    """Draws the next token of each row.

    A random number is drawn for every row at every step, also for rows that have ended, so that an answer does not depend on
    which other rows are still there.
    """

    def __init__(
        self, vlm: Vlm, *, temperature: float, top_p: float, generator: torch.Generator | None, num_rows: int
    ) -> None:
        self._forbidden = torch.tensor(sorted(vlm.placeholder_ids), dtype=torch.long, device=vlm.device)
        self._temperature = temperature
        self._top_p = top_p
        self._generator = generator
        self._num_rows = num_rows

    def __call__(self, logits: torch.Tensor, alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows,) and their log-probabilities (rows,) from logits (rows, V); `alive` numbers the rows among all."""
        scaled = logits / self._temperature if self._temperature else logits
        allowed = scaled.index_fill(1, self._forbidden, -torch.inf)
        if not self._temperature:
            token = allowed.argmax(1)
        else:
            points = 1 - torch.rand(self._num_rows, generator=self._generator, device=logits.device)
            token = draw_tokens(allowed.softmax(1), points[alive], top_p=self._top_p)
        return token, scaled.log_softmax(1).gather(1, token[:, None])[:, 0]


def draw_tokens(probabilities: torch.Tensor, points: torch.Tensor, *, top_p: float = 1.0) -> torch.Tensor:
    """Draws from the smallest set of likeliest tokens whose probabilities reach `top_p` (nucleus sampling, arXiv 1904.09751).

    The token is the one at which the running sum of the set's probabilities reaches the point's share of their mass. Only the
    likeliest few tokens are sorted where those are enough, as they nearly always are.

    Args:
        probabilities: (rows, V), each row adding up to 1.
        points: (rows,) uniform random numbers over 0, at most 1: a token of probability 0 is never drawn.
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
        return torch.searchsorted(reached, points[:, None] * reached[:, -1:])[:, 0]
    likeliest, ids = probabilities.topk(min(_LIKELIEST, probabilities.shape[1]), dim=1)
    reached = likeliest.cumsum(1)
    if bool((reached[:, -1] < top_p).any()):
        likeliest, ids = probabilities.sort(dim=1, descending=True)
        reached = likeliest.cumsum(1)
    size = (reached < top_p).sum(1, keepdim=True).clamp(max=reached.shape[1] - 1)
    mass = reached.gather(1, size)
    place = (reached < points[:, None] * mass).sum(1, keepdim=True)
    return ids.gather(1, place)[:, 0]
