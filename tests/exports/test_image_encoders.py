"""Image encoders made anew for export, in torch: the vectors of transformers' own passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import random_picture

from ffr.embedding import DualEncoder, load_encoder
from ffr.errors import ModelError
from ffr.exports.image_encoders import ClipImages, Siglip2Images, SiglipImages

MODULES = {
    "clip": ClipImages,
    "chinese_clip": ClipImages,
    "siglip": SiglipImages,
    "siglip2": Siglip2Images,
}
SIZES = [(64, 64), (90, 40), (30, 120)]


@pytest.mark.parametrize("kind", MODULES)
def test_vectors_are_those_of_transformers(
    built: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    encoder = load_encoder(built(kind))
    assert isinstance(encoder, DualEncoder)
    module = MODULES[kind](encoder.model)
    paths = [
        random_picture(tmp_path / f"{number}.png", *size, seed=number)
        for number, size in enumerate(SIZES)
    ]

    def vectors(shown: list[Path]) -> torch.Tensor:
        given = encoder.image_inputs(shown)
        names = inspect.signature(module.forward).parameters
        with torch.no_grad():
            found: torch.Tensor = module(**{name: given[name] for name in names})[0]
        return found

    found = vectors(paths)
    assert torch.allclose(found, encoder.embed_images(paths), atol=1e-5)
    for number, path in enumerate(paths):
        assert torch.allclose(vectors([path])[0], found[number], atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_a_tower_without_a_head_gives_no_vectors(built: Callable[[str], Path], kind: str) -> None:
    encoder = load_encoder(built(kind))
    encoder.model.vision_model.use_head = False  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="has no pooling head and so gives no vectors"):
        MODULES[kind](encoder.model)  # type: ignore[union-attr]
