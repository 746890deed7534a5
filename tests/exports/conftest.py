"""Tiny models on disk, and one export that many tests open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from encoder_builds import build_encoder
from model_builds import BUILDS, build_model

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was checked once is kept here and not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(tmp_path_factory.mktemp("cache") / "data"))
        yield


@pytest.fixture(scope="session")
def int8_export(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Path:
    """CLIP's text part as bytes; to be copied before anything in it is changed."""
    from ffr.exports.onnx import export_onnx

    out = tmp_path_factory.mktemp("exports") / "int8"
    export_onnx(built("clip"), "text", out, dtype="int8")
    return out


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model or encoder; built when first asked for."""
    root = tmp_path_factory.mktemp("built")

    def folder(name: str) -> Path:
        path = root / name
        if path.is_dir():
            return path
        return build_model(name, path) if name in BUILDS else build_encoder(name, path)

    return folder


@pytest.fixture(scope="session")
def text_export(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Path:
    """CLIP's text part, exported; to be copied before anything in it is changed."""
    from ffr.exports.onnx import export_onnx

    out = tmp_path_factory.mktemp("exports") / "clip" / "text"
    export_onnx(built("clip"), "text", out)
    return out


@pytest.fixture(scope="session")
def image_export(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Path:
    """CLIP's image part, exported; to be copied before anything in it is changed."""
    from ffr.exports.onnx import export_onnx

    out = tmp_path_factory.mktemp("exports") / "clip" / "image"
    export_onnx(built("clip"), "image", out)
    return out


@pytest.fixture(scope="session")
def fragment_export(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Path:
    """CLIP's fragment part, exported."""
    from ffr.exports.onnx import export_onnx

    out = tmp_path_factory.mktemp("exports") / "fragment"
    export_onnx(built("clip"), "fragment", out)
    return out
