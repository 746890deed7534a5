"""Tiny encoders on disk, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_builds import SENTENCE_BUILDS, build_encoder, build_sentence_encoder
from model_builds import random_picture


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in built:
            build_one = build_sentence_encoder if kind in SENTENCE_BUILDS else build_encoder
            built[kind] = build_one(kind, tmp_path_factory.mktemp(kind))
        return built[kind]

    return build


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(60, 40), (32, 32), (20, 90), (130, 100)]
    return [
        random_picture(folder / f"{seed}.png", *size, seed=seed) for seed, size in enumerate(sizes)
    ]
