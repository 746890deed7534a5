"""Text encoders made anew for export, in torch: the vectors of transformers' own passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ffr.embedding import DualEncoder, load_encoder
from ffr.exports.text_encoders import BertTexts, ClipTexts, SiglipTexts

TEXTS = ["a red bus", "?", "两只猫 on a mat, and a bird that looks at them", ""]


def module_of(kind: str, encoder: DualEncoder) -> nn.Module:
    if kind == "chinese_clip":
        return BertTexts(encoder.model.text_model, "cls", encoder.model.text_projection)
    return (ClipTexts if kind == "clip" else SiglipTexts)(encoder.model)


def vectors(module: nn.Module, encoder: DualEncoder, texts: list[str]) -> torch.Tensor:
    given = encoder.text_inputs(texts)
    names = inspect.signature(module.forward).parameters
    with torch.no_grad():
        found: torch.Tensor = module(**{name: given[name] for name in names if name in given})[0]
    return found


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_vectors_are_those_of_transformers(built: Callable[[str], Path], kind: str) -> None:
    encoder = load_encoder(built(kind))
    assert isinstance(encoder, DualEncoder)
    module = module_of(kind, encoder)
    found = vectors(module, encoder, TEXTS)
    assert torch.allclose(found, encoder.embed_texts(TEXTS), atol=1e-5)
    assert torch.allclose(found.norm(dim=-1), torch.ones(len(TEXTS)), atol=1e-5)
    # no text is another one's: neither by what stands beside it nor by its padding
    for number, text in enumerate(TEXTS):
        assert torch.allclose(vectors(module, encoder, [text])[0], found[number], atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-4
