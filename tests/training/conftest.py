"""Trainings here read a small part of the generated set, or dialogues that a reader learns in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from encoder_builds import build_sentence_encoder
from reader_talks import talks

from ffr.data.forms.formats import write_examples


@pytest.fixture(scope="module")
def sample_home(small_sample_home: Path) -> Path:
    """FFR_DATA_HOME with few dialogues in it."""
    return small_sample_home


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sentence_encoder("bert", tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and val.jsonl."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("talks")
    for number in range(40):
        PIL.Image.new("RGB", (28, 28), (6 * number, 10, 10)).save(folder / f"{number}.png")
    write_examples(folder / "train.jsonl", talks(0, 24))
    write_examples(folder / "val.jsonl", talks(24, 8))
    return folder
