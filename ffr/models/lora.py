"""LoRA adapters on the language model's linear layers, through peft.

The vision tower and the projector stay frozen.
"""

from __future__ import annotations

import re

from peft import LoraConfig, get_peft_model
from torch import nn

from ffr.models.vlm import Vlm


def language_model_linears(vlm: Vlm) -> list[str]:
    """Full names of all linear layers of the language model, in order."""
    # by what they are, since the language model knows them by other names than the whole
    inside = {id(module) for module in vlm.language_model.modules()}
    return [
        name
        for name, module in vlm.base.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]


def add_lora(vlm: Vlm, *, r: int = 8, alpha: float = 32.0, dropout: float = 0.0) -> None:
    """Puts a fresh adapter on all linear layers of the language model (the paper's setting).

    Args:
        vlm: The model; only the adapter's weights are trainable afterwards.
        r: Rank.
        alpha: Scale: the update is multiplied by alpha / r.
        dropout: Dropout in front of the adapter.
    """
    names = language_model_linears(vlm)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        # a pattern of whole names: an end alone would meet the tower's layers too
        target_modules="|".join(re.escape(name) for name in names),
        task_type="CAUSAL_LM",
    )
    vlm.model = get_peft_model(vlm.base, config)
