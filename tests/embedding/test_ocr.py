"""Text in pictures: with a stand-in for the engine everywhere, with the engine where it is installed."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from ffr.embedding import ocr
from ffr.embedding.ocr import OcrIfInstalled, installed_ocr
from ffr.errors import DataError


def stand_in(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    """Puts a module called rapidocr in the engine's place."""
    module = types.ModuleType("rapidocr")
    module.RapidOCR = lambda params: engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rapidocr", module)
    monkeypatch.setattr(ocr, "installed_ocr", lambda: "rapidocr-0")


def picture(tmp_path: Path, text: str = "") -> Path:
    image = PIL.Image.new("RGB", (620, 120), (255, 250, 240))
    font = PIL.ImageFont.load_default(28)
    PIL.ImageDraw.Draw(image).text((20, 40), text, fill="black", font=font)
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_sure_lines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def engine(pixels: np.ndarray) -> Any:
        seen.append(pixels)
        return types.SimpleNamespace(txts=(" Gleis 9 ", "x", "18:45"), scores=(0.9, 0.3, 0.7))

    stand_in(monkeypatch, engine)
    assert OcrIfInstalled().text(picture(tmp_path)) == "Gleis 9\n18:45"
    # blue stands first
    assert seen[0][0, 0].tolist() == [240, 250, 255]


def test_nothing_is_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_: np.ndarray) -> Any:
        raise RuntimeError("an engine's own fault")

    stand_in(monkeypatch, lambda _: types.SimpleNamespace(txts=None, scores=None))
    assert OcrIfInstalled().text(picture(tmp_path)) == ""
    stand_in(monkeypatch, broken)
    assert OcrIfInstalled().text(picture(tmp_path)) == ""
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        OcrIfInstalled().text(tmp_path / "b.png")


def test_without_the_engine_there_is_no_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ocr, "installed_ocr", lambda: None)
    assert OcrIfInstalled().text(picture(tmp_path)) == ""


@pytest.mark.slow
@pytest.mark.skipif(installed_ocr() is None, reason="rapidocr is not installed")
def test_the_engine_reads(tmp_path: Path) -> None:
    assert OcrIfInstalled().text(picture(tmp_path, "Train to Lisbon 18:45")) == (
        "Train to Lisbon 18:45"
    )
