"""Vision towers made anew for export, in torch: the features that the language model is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_builds import BUILDS

from ffr.exports.parity import compare
from ffr.exports.plans import plan_vision
from ffr.models.loading import load_vlm

EXPORTED = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "internvl", "smolvlm", "llava-onevision"]


@pytest.mark.parametrize("name", EXPORTED)
def test_features_are_those_of_the_model(built: Callable[[str], Path], name: str) -> None:
    assert name in BUILDS
    plan = plan_vision(load_vlm(built(name)))

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = plan.module(*(torch.from_numpy(np.array(item)) for item in inputs.values()))
        names = plan.module.output_names
        return {key: value.numpy() for key, value in zip(names, found, strict=True)}

    kinds = {case.name: case.calls for case in itertools.islice(plan.cases(), 4)}
    assert list(kinds) == [
        "one image", "images of one size", "images of mixed sizes", "extreme aspect ratios",
    ]  # fmt: skip
    for kind, calls in kinds.items():
        near = compare(kind, calls, run, one_item=True)
        assert near.is_finite
        assert near.max_difference < 1e-4, (kind, near)
    # another picture has other features
    first, second = (run(call.inputs)["pooled"] for call in kinds["images of mixed sizes"][:2])
    assert first.shape != second.shape or np.abs(first - second).max() > 1e-4
