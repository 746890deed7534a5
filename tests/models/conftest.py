"""Tiny models of every architecture on disk, pictures, and dialogues to ask them about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=sorted(BUILDS))
def folder(request: pytest.FixtureRequest, model_folder: Callable[[str], Path]) -> Path:
    """The folder of each architecture's tiny model in turn."""
    return model_folder(request.param)
