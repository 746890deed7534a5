"""Answers to several queries on one dialogue: what their prompts begin with in common goes through the model once.

A row of the cache is [prefix | rest of prompt 1 | … | rest of prompt Q | step 1 of all | step 2 of all | …]; a mask lets each answer see
the prefix, the rest of its own prompt and what it has written, and positions start anew behind the prefix for each. It is exact.

Shapes: D groups of prompts (one dialogue each), P tokens of the longest prefix, N tokens of the longest packed rests, Q queries of the group
that has most, G answers to each query, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ffr.answer import AnswerGrammar
from ffr.models.decoding.cache import RoomyCache
from ffr.models.decoding.greedy import Generated, _GrammarProcessor, answer_of
from ffr.models.packing import PackedRows, shared_beginning
from ffr.models.positions import next_positions, token_positions
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


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
        groups: D groups of prompts without answers, each with a `shared_beginning`.
        max_new_tokens: Longest answer, the end of the turn included.
        grammars: The grammar of each prompt; None for free writing.

    Returns:
        For each group its answers.

    Raises:
        ValueError: where an image stands behind what the prompts of a group have in common.
    """
    if any(shared_beginning(group, vlm.placeholder_ids) is None for group in groups):
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
        lengths = [shared_beginning(group, vlm.placeholder_ids) or 0 for group in groups]
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

        packed = PackedRows.of(rests, filling_id=vlm.stop_ids[0], device=device)
        last = torch.zeros((num_groups, num_queries), dtype=torch.long)
        for row, group in enumerate(rests):
            for number, rest in enumerate(group):
                last[row, number] = packed.starts[row][number] + len(rest) - 1
        last = last.to(device)
        mask = packed.mask(prefix_mask)
        hidden = self._forward(packed.ids, following[:, None] + packed.place, mask)
        at = torch.arange(num_groups, device=device)[:, None]
        # (D, Q, V), and then once for each answer
        self._first = self._logits(hidden[at, last]).repeat_interleave(num_samples, dim=1)
        # what a written token sees besides what its own answer has written: (D, Q·G, P + N)
        numbers = torch.arange(num_queries, device=device)
        its_rest = packed.owner[:, None, :] == numbers[None, :, None]
        of_prefix = prefix_mask[:, None, :].expand(-1, num_queries, -1)
        seen = torch.cat([of_prefix, its_rest], dim=2)
        self._mask = seen.repeat_interleave(num_samples, dim=1)
        self._position = (following[:, None] + packed.place[at, last] + 1).repeat_interleave(
            num_samples, dim=1
        )  # (D, Q·G)
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
        mask = torch.cat([self._mask, own.expand(num_rows, -1, -1)], dim=2)[:, None]
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
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        embedding: nn.Module = self._vlm.base.get_output_embeddings()
        logits: torch.Tensor = embedding(hidden).float()
        return logits
