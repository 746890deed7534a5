"""What is usual among strangers to an encoder, on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ffr.errors import ModelError
from ffr.reader import background_file
from ffr.reader.background_file import BACKGROUND_FILE, read_background, write_background
from ffr.reader.likeness import Background

WEIGHTS = "ab" * 32


def _background() -> Background:
    drawn = torch.randn(2, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    return Background(*torch.nn.functional.normalize(drawn, dim=-1))


def test_it_comes_back_in_half_precision(tmp_path: Path) -> None:
    assert read_background(tmp_path, WEIGHTS) is None
    made = _background()
    write_background(tmp_path, made, WEIGHTS)
    found = read_background(tmp_path, WEIGHTS)
    assert found is not None
    assert torch.equal(found.lines, made.lines.half().float())
    assert torch.equal(found.queries, made.queries.half().float())


def _infinite(folder: Path) -> None:
    lines = torch.full((1, 2, 4), float("inf"))
    tensors = {"lines": lines, "queries": lines.clone()}
    save_file(tensors, folder / BACKGROUND_FILE, {"encoder": WEIGHTS})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / BACKGROUND_FILE).write_bytes(b"x" * 20), "cannot be read as"),
        (
            lambda folder: save_file({"lines": torch.ones(1, 2, 4)}, folder / BACKGROUND_FILE),
            "cannot be read as",
        ),
        (
            lambda folder: save_file(
                {"lines": torch.ones(2, 4), "queries": torch.ones(1, 2, 4)},
                folder / BACKGROUND_FILE,
            ),
            "does not fit together",
        ),
        (_infinite, "NaN or infinite"),
        (lambda folder: write_background(folder, _background(), "cd" * 32), "by other weights"),
    ],
)
def test_what_is_no_background_of_the_encoder_is_refused(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_background(tmp_path, _background(), WEIGHTS)
    change(tmp_path)
    with pytest.raises(ModelError, match=message) as refused:
        read_background(tmp_path, WEIGHTS)
    assert "train the encoder again" in str(refused.value)


def test_a_large_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_background(tmp_path, _background(), WEIGHTS)
    monkeypatch.setattr(background_file, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match="it is too large"):
        read_background(tmp_path, WEIGHTS)
