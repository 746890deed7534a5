"""Attention of rows that stand packed behind their prompts, under a name that transformers knows.

Shapes: B prompts, T tokens of a row = P of its prompt + N packed behind it, S tokens of a block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ffr.models.vlm import Vlm

ATTENTION_NAME = "ffr_shared_prefix"


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's attention, where a mask of fewer rows masks the last ones of a causal sequence.

    Args:
        module: The attention layer.
        query: (B, heads, T, width); `key` and `value` with as many tokens or, beside a cache, more.
        key: See `query`.
        value: See `query`.
        attention_mask: (B, 1, N, P + S) for a packed sequence of T = P + N tokens, S a divisor of
            N; as transformers makes it for everything else, and beside a cache with its rows
            repeated where `mask_repeats` says so.
        options: Passed on.

    Returns:
        (B, T, heads, width), and None in the place of the attention weights.
    """
    num_tokens = query.shape[2]
    num_groups = query.shape[1] // key.shape[1]
    if attention_mask is not None and num_groups > 1 and 1 < num_tokens < key.shape[2]:
        return _grouped_attention(query, key, value, attention_mask, num_groups, **options), None
    if attention_mask is None or attention_mask.shape[2] == num_tokens:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return output
    # the mask has the packed rows alone, so the prompt is what it lacks
    start = num_tokens - attention_mask.shape[2]
    prompt = sdpa_attention_forward(
        module, query[:, :, :start], key[:, :, :start], value[:, :, :start], None, **options
    )[0]
    # and of its columns those behind the prompt are one block's
    block = attention_mask.shape[3] - start
    branches = sdpa_attention_forward(
        module,
        _in_blocks(query[:, :, start:], block),
        _behind_prompt(key, start, block),
        _behind_prompt(value, start, block),
        _in_blocks(attention_mask, block),
        **options,
    )[0]  # (B · blocks, S, heads, width)
    return torch.cat(
        [prompt, branches.reshape(prompt.shape[0], -1, *prompt.shape[2:])], dim=1
    ), None


def mask_repeats(vlm: Vlm, num_tokens: int) -> int:
    """How often the rows of a mask are best repeated for a few tokens beside a cache.

    Heads that share keys are stacked there, and each needs the mask; repeated once for all layers,
    no layer has to.

    Args:
        vlm: The model.
        num_tokens: Of each row of the pass.

    Returns:
        How many heads share keys where the model's attention is this one, else 1.
    """
    config: Any = vlm.language_model.config
    if num_tokens == 1 or config._attn_implementation != ATTENTION_NAME:
        return 1
    return int(config.num_attention_heads // config.num_key_value_heads)


def _in_blocks(rows: torch.Tensor, block: int) -> torch.Tensor:
    """(B, heads, N, width) as (B · N / S, heads, S, width)."""
    num_rows, heads, size, width = rows.shape
    if size == block:
        return rows
    return rows.reshape(num_rows, heads, -1, block, width).transpose(1, 2).flatten(0, 1)


def _behind_prompt(states: torch.Tensor, start: int, block: int) -> torch.Tensor:
    """(B, heads, P + N, width) as (B · N / S, heads, P + S, width); `start` is P."""
    if states.shape[2] == start + block:
        return states
    own = _in_blocks(states[:, :, start:], block)
    # each block brings its own copy of the prompt's states, block by block of one row
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
    """A few tokens against a long cache: heads that share keys are stacked, so it is not copied."""
    rows, _heads, num_tokens, width = query.shape
    # heads that share a key lie side by side, so their tokens become one longer query
    is_stacked = attention_mask.shape[2] == num_groups * num_tokens
    stacked = query.reshape(rows, key.shape[1], num_groups * num_tokens, width)
    output = nn.functional.scaled_dot_product_attention(
        stacked,
        key,
        value,
        attn_mask=attention_mask if is_stacked else attention_mask.repeat(1, 1, num_groups, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return output.reshape(rows, -1, num_tokens, value.shape[-1]).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
# without this, transformers would make no mask at all for ordinary padded batches
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
