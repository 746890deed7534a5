"""How answers are written depends little on the architecture: three unlike ones here, all of them with `-m slow`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from model_builds import BUILDS

UNLIKE = ("qwen2-vl", "qwen3-vl", "smolvlm")
"""Positions in three dimensions; features that enter at several layers; neither."""


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * (name not in UNLIKE))
        for name in sorted(BUILDS)
    ]
)
def folder(request: pytest.FixtureRequest, model_folder: Callable[[str], Path]) -> Path:
    """The folder of each architecture's tiny model in turn."""
    return model_folder(request.param)
