"""What goes into a model: prompts as token ids, the images they show, and several of them as a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(slots=True)
class EncodedImage:
    """One image of a prompt: where it is, what it is, and its processed pixels where they are still needed.

    Args:
        location: Its file.
        digest: Names its bytes and how the processor cuts it.
        inputs: What the image processor gave; None where the features are in the cache.
        is_among_several: Whether the processor cuts it as one of several (LLaVA-OneVision: no tiles).
    """

    location: str | Path
    digest: str
    inputs: dict[str, Any] | None
    is_among_several: bool = False


@dataclass(slots=True)
class Encoded:
    """A prompt, and its answer where one was given, as token ids with the image tokens in place.

    Args:
        input_ids: All ids; the answer's, with the end of its turn, are the last `num_answer_tokens`.
        num_answer_tokens: 0 where there is no answer.
        images: The images, in the order of their tokens.
    """

    input_ids: list[int]
    num_answer_tokens: int = 0
    images: list[EncodedImage] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """Rows on the model's device.

    Args:
        inputs: Keyword arguments of the model: `input_ids` and `attention_mask` (B, L), `mm_token_type_ids` and
            `image_grid_thw` where the architecture has them, `mm_encoder_outputs` where there are images.
        answer_mask: (B, L) bool, True on answer tokens and the end of the turn.
    """

    inputs: dict[str, Any]
    answer_mask: torch.Tensor
