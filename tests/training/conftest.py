"""Trainings here read a small part of the generated set."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def sample_home(small_sample_home: Path) -> Path:
    """FFR_DATA_HOME with few dialogues in it."""
    return small_sample_home
