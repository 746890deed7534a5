"""Log-probabilities of many continuations of one prompt, with the prompt in the pass once.

A row is packed as [prompt | branch 1 | … | branch G]: a branch's tokens see the prompt and the branch itself, and their positions
go on from the prompt's end, each branch anew. Every value and gradient is that of the prompt repeated before each branch. The
prompt's tokens run in plain causal attention; only the branches' rows carry a mask. Where the branches are many beside the prompt,
whole branches stand in blocks of one size, and a block attends to the prompt and itself: branches then cost what they see, not
what stands in the row.

Shapes: B prompts, P tokens of the longest, R branches over all prompts, C tokens of the longest branch (of its scored end), N branch
tokens of the prompt that has most, S tokens of a block (N where all stand in one), H hidden size, V vocabulary.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ffr.models.positions import next_positions, token_positions
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.text import one_line

_log = logging.getLogger(__name__)
ATTENTION_NAME = "ffr_shared_prefix"
SMALLEST_BLOCK = 128
"""Tokens of a block of branches, at least: smaller ones leave a matrix unit idle."""


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's attention, where a mask with fewer rows than there are tokens masks the last rows of a causal sequence.

    Args:
        module: The attention layer.
        query: (B, heads, T, width); `key` and `value` with as many tokens or, beside a cache, more.
        key: See `query`.
        value: See `query`.
        attention_mask: (B, 1, N, P + S) for a packed sequence of T = P + N tokens, S a divisor of N; as transformers makes it for
            everything else.
        options: Passed on.

    Returns:
        (B, T, heads, width), and None in the place of the attention weights.
    """
    num_tokens = query.shape[2]
    num_groups = query.shape[1] // key.shape[1]
    if attention_mask is not None and num_groups > 1 and 1 < num_tokens < key.shape[2]:
        return _grouped_attention(query, key, value, attention_mask, num_groups, **options), None
    if attention_mask is None or attention_mask.shape[2] == num_tokens:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output
    start = num_tokens - attention_mask.shape[2]
    prompt = sdpa_attention_forward(
        module, query[:, :, :start], key[:, :, :start], value[:, :, :start], None, **options
    )[0]
    block = attention_mask.shape[3] - start
    branches = sdpa_attention_forward(
        module,
        _in_blocks(query[:, :, start:], block),
        _behind_prompt(key, start, block),
        _behind_prompt(value, start, block),
        _in_blocks(attention_mask, block),
        **options,
    )[0]  # (B · blocks, S, heads, width)
    return torch.cat([prompt, branches.reshape(prompt.shape[0], -1, *prompt.shape[2:])], dim=1), None


def _in_blocks(rows: torch.Tensor, block: int) -> torch.Tensor:
    """(B, heads, N, width) as (B · N / S, heads, S, width)."""
    num_rows, heads, size, width = rows.shape
    if size == block:
        return rows
    return rows.reshape(num_rows, heads, -1, block, width).transpose(1, 2).flatten(0, 1)


def _behind_prompt(states: torch.Tensor, start: int, block: int) -> torch.Tensor:
    """(B, heads, P + N, width) as (B · N / S, heads, P + S, width): each block behind the prompt, which ends at `start`."""
    if states.shape[2] == start + block:
        return states
    own = _in_blocks(states[:, :, start:], block)
    prompt = states[:, :, :start].repeat_interleave(own.shape[0] // states.shape[0], dim=0)
    return torch.cat([prompt, own], dim=2)


def _grouped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    num_groups: int,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> torch.Tensor:
    """A few tokens against a long cache: heads that share keys are stacked as queries, so that the cache is not copied for each."""
    rows, _heads, num_tokens, width = query.shape
    stacked = query.reshape(rows, key.shape[1], num_groups * num_tokens, width)
    output = nn.functional.scaled_dot_product_attention(
        stacked,
        key,
        value,
        attn_mask=attention_mask.repeat(1, 1, num_groups, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return output.reshape(rows, -1, num_tokens, value.shape[-1]).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
# without this, transformers would make no mask at all for ordinary padded batches
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


@dataclass(frozen=True, slots=True)
class BranchLogprobs:
    """What a pass gives for each scored token of each branch; rows are filled up at their end.

    Args:
        logprobs: (R, C) float32; 0 where `mask` is False.
        mask: (R, C) bool, True on scored tokens.
        entropy: (R, C) float32 without gradient, of the distribution each token was drawn from, in nats; None where it was not
            asked for.
    """

    logprobs: torch.Tensor
    mask: torch.Tensor
    entropy: torch.Tensor | None


class PrefixSharing:
    """Scores branches behind prompts, the prompts shared where the model can take it.

    On making, the model's attention is set to one that can, and a small pass is compared with the repeated form: where they
    differ, or the architecture has layers that this does not fit, the repeated form is used for good, and a warning says so once.

    Args:
        vlm: The model; its decoder's attention implementation is set and stays so, since a backward pass with gradient
            checkpointing runs the attention again.
        is_wanted: False uses the repeated form.
        pad_to_multiple_of: Prompts and blocks of branches are filled up to a multiple of these tokens, so that passes have fewer
            different shapes.
    """

    def __init__(self, vlm: Vlm, *, is_wanted: bool = True, pad_to_multiple_of: int = 1) -> None:
        self._vlm = vlm
        self._multiple = pad_to_multiple_of
        self.reason: str | None = None if is_wanted else "it is turned off"
        """Why prompts are repeated; None where they are shared."""
        if is_wanted:
            self.reason = self._obstacle()
            if self.reason is not None:
                _log.warning("prompts pass through the model once for each answer, which is slow: %s", self.reason)

    @property
    def is_active(self) -> bool:
        return self.reason is None

    def score(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        *,
        num_scored: Sequence[Sequence[int]] | None = None,
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> BranchLogprobs:
        """Log-probabilities of the branches' tokens.

        Args:
            prompts: B prompts, without answers.
            branches: For each prompt, the ids of each branch.
            num_scored: For each branch, how many of its last tokens are scored; None for all.
            temperature: Divides the logits.
            with_entropy: Whether to compute the entropies as well.

        Returns:
            R rows, prompt by prompt.

        Raises:
            ValueError: where a branch holds the token that stands for an image.
        """
        counts = num_scored if num_scored is not None else [[len(branch) for branch in group] for group in branches]
        placeholders = self._vlm.placeholder_ids
        if any(item in placeholders for group in branches for branch in group for item in branch):
            raise ValueError("a branch holds the token that stands for an image")
        if self.is_active:
            return self._score_shared(prompts, branches, counts, temperature, with_entropy)
        return self._score_repeated(prompts, branches, counts, temperature, with_entropy)

    # -- the packed form ------------------------------------------------------------------------------------------------

    def _score_shared(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        counts: Sequence[Sequence[int]],
        temperature: float = 1.0,
        with_entropy: bool = False,
        *,
        block: int | None = None,
    ) -> BranchLogprobs:
        inputs = self._vlm.collate(prompts, padding_side="right", pad_to_multiple_of=self._multiple).inputs
        device = inputs["input_ids"].device
        prompt_mask = inputs.pop("attention_mask").bool()
        positions = token_positions(self._vlm, {**inputs, "attention_mask": prompt_mask})
        following = next_positions(positions, prompt_mask)
        ends = prompt_mask.sum(1)  # each prompt's length
        num_prompts, width = prompt_mask.shape
        if block is None:
            hidden_size = self._vlm.base.config.get_text_config().hidden_size
            block = _block_size(branches, width, hidden_size, self._multiple)
        starts, size = _places(branches, block)

        # token by token of the packed rows, on the host: id, branch (-1 on filling), place in the branch
        ids = torch.zeros((num_prompts, size), dtype=torch.long)
        number = torch.full((num_prompts, size), -1)
        place = torch.zeros((num_prompts, size), dtype=torch.long)
        predictors: list[list[int]] = []  # of each branch's scored tokens: which packed token predicts them
        rows: list[int] = []
        for row, group in enumerate(branches):
            for index, (branch, start) in enumerate(zip(group, starts[row], strict=True)):
                end = start + len(branch)
                ids[row, start:end] = torch.tensor(list(branch), dtype=torch.long)
                number[row, start:end] = index
                place[row, start:end] = torch.arange(len(branch))
                first_scored = end - counts[row][index]
                before = [int(ends[row]) - 1, *range(width + start, width + end - 1)]
                predictors.append(before[first_scored - start : len(branch)])
                rows.append(row)
        ids, number, place = ids.to(device), number.to(device), place.to(device)

        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = nn.functional.pad(inputs["mm_token_type_ids"], (0, size))
        branch_positions = following[:, None] + place
        if positions.ndim == 3:
            branch_positions = branch_positions.expand(3, -1, -1)
        hidden = self._vlm.core(
            **inputs,
            position_ids=torch.cat([positions, branch_positions], dim=-1),
            attention_mask=self._branch_mask(prompt_mask, number, place, block),
            use_cache=False,
        ).last_hidden_state
        at_row = torch.tensor([row for row, places in zip(rows, predictors, strict=True) for _ in places])
        at_place = torch.tensor([item for places in predictors for item in places])
        chosen = hidden[at_row.to(device), at_place.to(device)]
        targets = _scored_tokens(branches, counts, device)
        return self._read(chosen, targets, [len(places) for places in predictors], temperature, with_entropy)

    @staticmethod
    def _branch_mask(prompt_mask: torch.Tensor, number: torch.Tensor, place: torch.Tensor, block: int) -> torch.Tensor:
        """(B, 1, N, P + S) bool: a branch's token sees the prompt, and of its block its own branch up to itself."""
        number, place = (item.reshape(len(item), -1, block) for item in (number, place))  # (B, blocks, S)
        same = number[..., :, None] == number[..., None, :]
        own = (same & (place[..., :, None] >= place[..., None, :])).flatten(1, 2)
        # filling sees the filling of its block, so that no row is empty
        see_prompt = prompt_mask[:, None, :].expand(-1, own.shape[1], -1)
        return torch.cat([see_prompt, own], dim=2)[:, None]

    # -- the repeated form ----------------------------------------------------------------------------------------------

    def _score_repeated(
        self,
        prompts: Sequence[Encoded],
        branches: Sequence[Sequence[Sequence[int]]],
        counts: Sequence[Sequence[int]],
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> BranchLogprobs:
        rows = [
            Encoded([*prompt.input_ids, *branch], count, prompt.images)
            for prompt, group, numbers in zip(prompts, branches, counts, strict=True)
            for branch, count in zip(group, numbers, strict=True)
        ]
        batch = self._vlm.collate(rows, padding_side="right")
        hidden = self._vlm.core(**batch.inputs, use_cache=False).last_hidden_state
        chosen = hidden[:, :-1][batch.answer_mask[:, 1:]]
        targets = _scored_tokens(branches, counts, chosen.device)
        return self._read(chosen, targets, list(itertools.chain.from_iterable(counts)), temperature, with_entropy)

    def _read(
        self,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        lengths: Sequence[int],
        temperature: float,
        with_entropy: bool,
    ) -> BranchLogprobs:
        """From the hidden states that predict the scored tokens, one after another, to rows."""
        logits = self._vlm.base.get_output_embeddings()(hidden).float() / temperature
        flat = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
        mask = torch.arange(max(lengths, default=0))[None] < torch.tensor(lengths)[:, None]
        mask = mask.to(hidden.device)
        empty = torch.zeros(mask.shape, dtype=flat.dtype, device=hidden.device)
        entropy = None
        if with_entropy:
            with torch.no_grad():
                normalised = logits.log_softmax(1)
                entropy = empty.masked_scatter(mask, -(normalised.exp() * normalised).sum(1))
        return BranchLogprobs(empty.masked_scatter(mask, flat), mask, entropy)

    # -- whether the model can take it ----------------------------------------------------------------------------------

    def _obstacle(self) -> str | None:
        """Why prompts cannot be shared with this model; None where they can. Leaves the attention set if so."""
        vlm = self._vlm
        config = vlm.base.config.get_text_config()
        others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
        if others:
            return f"the model has layers of {', '.join(others)}"
        before = getattr(vlm.language_model.config, "_attn_implementation", None)  # type: ignore[union-attr]
        try:
            vlm.language_model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
            difference = self._difference_on_a_small_pass()
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            vlm.language_model.set_attn_implementation(before)  # type: ignore[operator]
            return f"its attention cannot be replaced ({one_line(error)})"
        # rounding differs by the order of sums; a wrong mask or position is off by whole units
        limit = 1e-2 if vlm.base.dtype == torch.float32 else 0.5
        if not difference < limit:
            vlm.language_model.set_attn_implementation(before)  # type: ignore[operator]
            return f"a trial pass was off by {difference:.2g}"
        return None

    @torch.no_grad()
    def _difference_on_a_small_pass(self) -> float:
        vlm = self._vlm
        was_training = vlm.training
        vlm.eval()
        draw = torch.Generator().manual_seed(0)
        special = set(vlm.tokenizer.all_special_ids) | set(vlm.placeholder_ids)
        size = min(len(vlm.tokenizer), vlm.base.get_input_embeddings().weight.shape[0])
        usable = [item for item in range(size) if item not in special]
        ids = [usable[item] for item in torch.randint(len(usable), (28,), generator=draw).tolist()]
        prompts = [Encoded(ids[:9]), Encoded(ids[9:14])]
        branches = [[ids[14:17], ids[17:19], ids[19:23]], [ids[23:24], ids[24:28]]]
        counts = [[len(branch) for branch in group] for group in branches]
        repeated = self._score_repeated(prompts, branches, counts).logprobs
        in_one, in_blocks = (self._score_shared(prompts, branches, counts, block=block).logprobs for block in (None, 4))
        vlm.train(was_training)
        return float(torch.stack([in_one - repeated, in_blocks - repeated]).abs().max())


def _block_size(
    branches: Sequence[Sequence[Sequence[int]]], prompt_size: int, hidden_size: int, multiple: int = 1
) -> int:
    """S for the least work, where filling counts.

    A block is half as long as the prompt at least, so that the prompt's keys, copied for each block, take less room than what is kept
    of the branches themselves.

    Args:
        branches: For each prompt, the ids of each branch.
        prompt_size: P.
        hidden_size: H; with it, what a token costs apart from attention is put in pairs of tokens that attend (of 4H operations a
            layer): about 6H.
        multiple: Of which S is one.

    >>> many, few = [[[0] * 65] * 32], [[[0] * 40] * 8]
    >>> _block_size(many, 825, 576), _block_size(few, 825, 576), _block_size(many, 832, 576, 64)
    (540, 320, 576)
    """
    longest = max(len(branch) for group in branches for branch in group)
    total = max(1, *(sum(map(len, group)) for group in branches))
    least = max(longest, prompt_size // 2, SMALLEST_BLOCK)
    sizes = [total, *(size for sixteenths in range(16, 33) if 2 * (size := least * sixteenths // 16) < total)]
    return min(
        (size + -size % multiple for size in sizes),
        key=lambda size: _places(branches, size)[1] * (prompt_size + size + 6 * hidden_size),
    )


def _places(branches: Sequence[Sequence[Sequence[int]]], block: int) -> tuple[list[list[int]], int]:
    """Where each branch starts behind its prompt, none across the border of a block; and N.

    >>> _places([[[1, 2, 3], [4, 5], [6]], [[7, 8]]], 4)
    ([[0, 4, 6], [0]], 8)
    """
    starts: list[list[int]] = []
    size = block
    for group in branches:
        places, end = [], 0
        for branch in group:
            room = -end % block
            start = end if len(branch) <= room or not end % block else end + room
            places.append(start)
            end = start + len(branch)
        starts.append(places)
        size = max(size, -(-end // block) * block)
    return starts, size


def _scored_tokens(
    branches: Sequence[Sequence[Sequence[int]]], counts: Sequence[Sequence[int]], device: torch.device
) -> torch.Tensor:
    """The scored ids of all branches, one after another."""
    ids = [
        item
        for group, numbers in zip(branches, counts, strict=True)
        for branch, count in zip(group, numbers, strict=True)
        for item in branch[len(branch) - count :]
    ]
    return torch.tensor(ids, dtype=torch.long, device=device)
