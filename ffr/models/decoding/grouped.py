"""Answers to several queries on one dialogue: what their prompts begin with in common goes through the model once.

A row of the cache is [prefix | rest of prompt 1 | … | rest of prompt Q | step 1 of all | step 2 of all | …]; a mask lets each answer see
the prefix, the rest of its own prompt and what it has written, and positions start anew behind the prefix for each. It is exact.

Shapes: D groups of prompts (one dialogue each), P tokens of the longest prefix, N tokens of the longest packed rests, Q queries of the group
that has most, G answers to each query, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from ffr.answer import AnswerGrammar
from ffr.models.decoding.cache import RoomyCache
from ffr.models.decoding.greedy import Generated, _GrammarProcessor, answer_of
from ffr.models.packing import common_length
from ffr.models.positions import next_positions, token_positions
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


def common_prefix_length(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with in common, at least one being left to each.

    >>> common_prefix_length([[1, 2, 3, 4], [1, 2, 5]]), common_prefix_length([[1, 2], [1, 2, 3]])
    (2, 1)
    """
    return min(common_length(prompts), min(map(len, prompts)) - 1)


def can_share(vlm: Vlm, prompts: Sequence[Encoded]) -> bool:
    """Whether all images of a group of prompts stand in what the prompts begin with in common."""
    length = common_prefix_length([prompt.input_ids for prompt in prompts])
    images = {tuple(image.digest for image in prompt.images) for prompt in prompts}
    placeholders = vlm.placeholder_ids
    return (
        length > 0
        and len(images) == 1
        and not any(item in placeholders for prompt in prompts for item in prompt.input_ids[length:])
    )


def neighbours_of(vlm: Vlm, prompts: Sequence[Encoded], dialogue_numbers: Sequence[int]) -> list[list[Encoded]]:
    """Prompts in parts: neighbours of one number together, each by itself where these cannot share what they begin with.

    Args:
        vlm: The model.
        prompts: B prompts.
        dialogue_numbers: B numbers.
    """
    numbered = zip(dialogue_numbers, prompts, strict=True)
    parts = [[prompt for _, prompt in part] for _, part in itertools.groupby(numbered, key=lambda item: item[0])]
    return [part for whole in parts for part in ([whole] if can_share(vlm, whole) else [[prompt] for prompt in whole])]


@torch.no_grad()
def answer_groups(
    vlm: Vlm,
    groups: Sequence[Sequence[Encoded]],
    *,
    max_new_tokens: int,
    grammars: Sequence[Sequence[AnswerGrammar]] | None = None,
) -> list[list[Generated]]:
    """Answers groups of prompts greedily; the answers are those of `ffr.models.decoding.greedy.generate_answers`.

    The model's layers must all be of full attention, and its attention must take a mask of its own: `PrefixSharing.is_active` tells,
    and has set the attention.

    Args:
        vlm: The model; in evaluation mode while it answers.
        groups: D groups of prompts without answers, each of which `can_share`.
        max_new_tokens: Longest answer, the end of the turn included.
        grammars: The grammar of each prompt; None for free writing.

    Returns:
        For each group its answers.

    Raises:
        ValueError: where an image stands behind what the prompts of a group have in common.
    """
    if not all(can_share(vlm, group) for group in groups):
        raise ValueError("an image stands behind what the prompts of a group have in common")
    if not groups:
        return []
    was_training = vlm.training
    vlm.eval()
    decoder = GroupDecoder(vlm, groups)
    stops = torch.tensor(vlm.stop_ids, device=vlm.device)
    num_rows = sum(map(len, groups))
    processor = None
    if grammars is not None:
        processor = _GrammarProcessor(vlm, [grammar for group in grammars for grammar in group], 0)
    written = torch.zeros((num_rows, 0), dtype=torch.long, device=vlm.device)
    logprobs = torch.zeros((num_rows, 0), device=vlm.device)
    is_open = torch.ones(num_rows, dtype=torch.bool, device=vlm.device)
    logits = decoder.first_logits()  # one row for each prompt, group after group, finished ones included
    for step in range(max_new_tokens):
        allowed = logits if processor is None else processor(written, logits)  # type: ignore[arg-type]
        token = allowed.argmax(1)
        logprob = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
        written = torch.cat([written, token[:, None]], dim=1)
        logprobs = torch.cat([logprobs, logprob[:, None]], dim=1)
        is_open = is_open & ~torch.isin(token, stops)
        if step + 1 == max_new_tokens or not is_open.any():
            break
        decoder.drop_finished(is_open)
        logits = decoder.step(token)
    vlm.train(was_training)
    answers = iter([answer_of(vlm, *row) for row in zip(written.tolist(), logprobs.tolist(), strict=True)])
    return [[next(answers) for _ in group] for group in groups]


class GroupDecoder:
    """Groups of prompts that went through the model once, and the answers to them token by token.

    Args:
        vlm: The model; in evaluation mode.
        groups: D groups of prompts without answers.
        num_samples: Answers to each prompt (G). A row is one answer: those to one prompt adjacent, prompt after prompt.
    """

    def __init__(self, vlm: Vlm, groups: Sequence[Sequence[Encoded]], num_samples: int = 1) -> None:
        self._vlm = vlm
        device = vlm.device
        lengths = [common_prefix_length([prompt.input_ids for prompt in group]) for group in groups]
        prefixes = [
            Encoded(group[0].input_ids[:length], images=group[0].images)
            for group, length in zip(groups, lengths, strict=True)
        ]
        rests = [[prompt.input_ids[length:] for prompt in group] for group, length in zip(groups, lengths, strict=True)]
        num_groups, num_queries = len(groups), max(map(len, groups))
        self._size = num_queries * num_samples
        # where each answer's logits stand in (D, Q·G)
        sizes = [num_samples * len(group) for group in groups]
        self._groups = torch.tensor([row for row, size in enumerate(sizes) for _ in range(size)], device=device)
        self._places = torch.tensor([place for size in sizes for place in range(size)], device=device)
        self._alive = torch.arange(num_groups, device=device)  # which group each row of the cache is

        inputs = vlm.collate(prefixes, padding_side="right").inputs
        positions = token_positions(vlm, inputs)
        self._has_three_positions = positions.ndim == 3
        following = next_positions(positions, inputs["attention_mask"])  # (D,)
        # causal attention needs no mask where padding comes last: what it computes there, nobody is let see
        prefix_mask = inputs.pop("attention_mask").bool()  # (D, P)
        self._cache = RoomyCache(vlm.base.config.get_text_config())
        vlm.core(**inputs, position_ids=positions, past_key_values=self._cache, use_cache=True)

        width = max(sum(map(len, group)) for group in rests)
        ids = torch.full((num_groups, width), vlm.stop_ids[0])
        number = torch.full((num_groups, width), -1)  # which prompt of the group a token is of; -1 on filling
        place = torch.zeros((num_groups, width), dtype=torch.long)
        last = torch.zeros((num_groups, num_queries), dtype=torch.long)
        for row, group in enumerate(rests):
            start = 0
            for index, rest in enumerate(group):
                end = start + len(rest)
                ids[row, start:end] = torch.tensor(rest)
                number[row, start:end] = index
                place[row, start:end] = torch.arange(len(rest))
                last[row, index] = end - 1
                start = end
        ids, number, place, last = ids.to(device), number.to(device), place.to(device), last.to(device)
        same = number[:, :, None] == number[:, None, :]
        own = same & (place[:, :, None] >= place[:, None, :])
        see_prefix = prefix_mask[:, None, :]  # (D, 1, P)
        mask = torch.cat([see_prefix.expand(-1, width, -1), own], dim=2)
        hidden = self._forward(ids, following[:, None] + place, mask)
        at = torch.arange(num_groups, device=device)[:, None]
        # (D, Q, V), and then once for each answer
        self._first = self._logits(hidden[at, last]).repeat_interleave(num_samples, dim=1)
        # what a written token sees besides what its own answer has written: (D, Q·G, P + N)
        its_rest = number[:, None, :] == torch.arange(num_queries, device=device)[None, :, None]
        seen = torch.cat([see_prefix.expand(-1, num_queries, -1), its_rest], dim=2)
        self._mask = seen.repeat_interleave(num_samples, dim=1)
        self._position = (following[:, None] + place[at, last] + 1).repeat_interleave(num_samples, dim=1)  # (D, Q·G)
        self._num_steps = 0

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict."""
        logits, self._first = self._first[self._groups, self._places], torch.empty(0)
        return logits

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """What comes after one more token of each answer.

        Args:
            token: (rows,).

        Returns:
            (rows, V) float32; those of groups that were dropped have no meaning.
        """
        num_rows, size = len(self._alive), self._size
        packed = token.new_zeros((int(self._groups.max()) + 1, size))
        packed[self._groups, self._places] = token
        self._num_steps += 1
        own = torch.eye(size, dtype=torch.bool, device=token.device).repeat(1, self._num_steps)
        mask = torch.cat([self._mask, own.expand(num_rows, -1, -1)], dim=2)
        hidden = self._forward(packed[self._alive], self._position + self._num_steps - 1, mask)
        row_of = torch.zeros(len(packed), dtype=torch.long, device=token.device)
        row_of[self._alive] = torch.arange(num_rows, device=token.device)
        return self._logits(hidden[row_of[self._groups], self._places])

    def drop_finished(self, is_open: torch.Tensor) -> torch.Tensor | None:
        """Goes on without groups whose answers have all ended, where that saves enough to be worth the copy.

        Args:
            is_open: (rows,) bool, True where the answer goes on.

        Returns:
            None: rows that have ended stay, and what `step` gives for them has no meaning.
        """
        open_groups = torch.zeros(int(self._groups.max()) + 1, dtype=torch.bool, device=is_open.device)
        open_groups[self._groups[is_open]] = True
        kept = open_groups[self._alive].nonzero()[:, 0]
        if 4 * len(kept) > 3 * len(self._alive):
            return None
        self._cache.batch_select_indices(kept)
        self._alive, self._mask, self._position = self._alive[kept], self._mask[kept], self._position[kept]
        return None

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            position_ids=positions.expand(3, -1, -1) if self._has_three_positions else positions,
            attention_mask=mask[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        embedding: nn.Module = self._vlm.base.get_output_embeddings()
        logits: torch.Tensor = embedding(hidden).float()
        return logits
