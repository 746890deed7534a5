"""The modules that are exported, in torch, against transformers' own forward passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_builds import BUILDS

from ffr.embedding import load_dual_encoder
from ffr.exports.parity import Case, compare
from ffr.exports.plans import plan_encoder, plan_fragment, plan_vision
from ffr.exports.tiles import TileSettings, tile_plan
from ffr.models.loading import load_vlm


def _largest_difference(plan: Any, *, one_item: bool) -> float:
    module = plan.module.eval()

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            found = module(
                **{name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
            )
        return {name: value.numpy() for name, value in zip(module.output_names, found, strict=True)}

    cases: list[Case] = list(plan.cases())
    assert len(cases) == 6
    assert all(case.calls for case in cases)
    figures = [compare(case.name, case.calls, run, one_item=one_item) for case in cases]
    assert all(item.is_finite for item in figures)
    return max(item.max_difference for item in figures)


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_towers_equal_transformers_on_every_kind_of_picture(
    name: str, built: Callable[[str], Path]
) -> None:
    plan = plan_vision(load_vlm(built(name)))
    assert _largest_difference(plan, one_item=True) < 1e-4


@pytest.mark.parametrize("part", ["text", "image"])
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "chinese_clip"])
def test_encoders_equal_transformers(kind: str, part: Any, built: Callable[[str], Path]) -> None:
    assert (
        _largest_difference(plan_encoder(load_dual_encoder(built(kind)), part), one_item=False)
        < 1e-5
    )


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "chinese_clip"])
def test_fragments_equal_the_mean_of_transformers_vectors(
    kind: str, built: Callable[[str], Path]
) -> None:
    assert _largest_difference(plan_fragment(load_dual_encoder(built(kind))), one_item=False) < 1e-5


def test_a_wrong_window_is_noticed(built: Callable[[str], Path]) -> None:
    plan = plan_vision(load_vlm(built("qwen2.5-vl")))
    assert isinstance(plan.module.window, int)
    plan.module.window += 1
    assert _largest_difference(plan, one_item=True) > 1e-3


def test_deeper_features_of_qwen3_are_outputs(built: Callable[[str], Path]) -> None:
    assert plan_vision(load_vlm(built("qwen3-vl"))).module.output_names == [
        "pooled",
        "deepstack.0",
        "deepstack.1",
    ]


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (90, 200), (112, 112), (29, 31), (16, 200)])
@pytest.mark.parametrize("max_tiles", [9, 1])
def test_tiles_go_where_transformers_puts_them(
    size: tuple[int, int], max_tiles: int, built: Callable[[str], Path]
) -> None:
    core = load_vlm(built("llava-onevision")).core
    settings = TileSettings(
        [tuple(pair) for pair in core.config.image_grid_pinpoints], 56, 4, max_tiles
    )
    from ffr.exports.runtime import num_tiles

    tiles = num_tiles(size, settings)
    features = torch.randn(tiles, 16, 32)
    packed, _ = core.pack_image_features(
        [features],
        torch.tensor([size]),
        core.image_newline,
        vision_aspect_ratio=f"anyres_max_{max_tiles}",
    )
    taps, shares = tile_plan(tiles, size, settings)
    whole = torch.cat([features.flatten(0, 1), core.image_newline[None]])
    found = (whole[torch.from_numpy(taps)] * torch.from_numpy(shares)[..., None]).sum(1)
    assert found.shape == packed[0].shape
    assert torch.allclose(found, packed[0], atol=2e-6)
