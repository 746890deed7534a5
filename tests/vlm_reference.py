"""What plain transformers makes of a prompt: pixels and ids from the model's own processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffr.answer import format_answer
from ffr.dialogue import FilePrompt, Fragment
from ffr.images import open_image
from ffr.models.loading import load_vlm
from ffr.models.lora import add_lora
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.prompt import IMAGE_MARK

ANSWERS = [
    format_answer(fragment)
    for fragment in (Fragment((0, 2), (1,)), Fragment((1,), ()), Fragment((0, 1, 2, 3), (0,)))
]


def chat(vlm: Vlm, prompt: FilePrompt) -> str:
    """The prompt as the model's own chat template writes it."""
    content: list[dict[str, str]] = []
    for number, text in enumerate(prompt.user.split(IMAGE_MARK)):
        content += [{"type": "image"}] * bool(number) + [{"type": "text", "text": text}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": content},
    ]
    # by the tokenizer: SmolVLM's processor looks for its video part while it renders
    text: str = vlm.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    return text


def reference_inputs(
    vlm: Vlm, prompt: FilePrompt, images: list[Path], answer: str | None = None
) -> dict[str, Any]:
    """Pixels and ids from the model's own processor; labels on the answer and the end of its turn."""
    opened = [[open_image(path) for path in images]] if images else None
    inputs = dict(vlm.processor(text=[chat(vlm, prompt)], images=opened, return_tensors="pt"))
    for unused in ("token_type_ids", "rows", "cols", "num_patches"):
        inputs.pop(unused, None)
    if answer is not None:
        ids = vlm.tokenizer(
            answer + "<|im_end|>", add_special_tokens=False, return_tensors="pt"
        ).input_ids
        inputs["labels"] = torch.cat([torch.full_like(inputs["input_ids"], -100), ids], 1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = nn.functional.pad(
                inputs["mm_token_type_ids"], (0, ids.shape[1])
            )
    return inputs


def answer_loss(vlm: Vlm, rows: list[Encoded]) -> torch.Tensor:
    logits, targets, _ = vlm.answer_logits(vlm.collate(rows, padding_side="right"))
    return nn.functional.cross_entropy(logits.float(), targets)


def with_lora(folder: Path, *, seed: int = 1) -> Vlm:
    """A model whose adapter does something from the start."""
    vlm = load_vlm(folder)
    torch.manual_seed(seed)
    add_lora(vlm, r=4, alpha=16)
    with torch.no_grad():
        for name, weight in vlm.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return vlm
