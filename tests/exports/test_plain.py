"""An export without ffr: the README's code runs with small packages alone and gives the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from encoder_builds import build_sentence_encoder, write_sentence_settings
from model_builds import random_picture
from transformers import AutoImageProcessor

from ffr.exports.encoder import load_onnx_encoder
from ffr.exports.onnx import export_onnx
from ffr.exports.parity import TEXTS, Call, Case
from ffr.exports.plain import (
    limits_of,
    picture_as_patches,
    pictures_as_pixels,
    texts_as_ids,
    usage_without_ffr,
)
from ffr.exports.runtime import load_onnx

BLOCKER = """\
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ffr", "torch", "transformers", "scipy"}:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Blocker())
"""


def blocks(folder: Path) -> list[str]:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", readme, re.DOTALL)


def run_plain(folder: Path, picture: Path | None = None) -> np.ndarray:
    """What the README's second block computes, in a process that can import no torch."""
    _, code = blocks(folder)
    code = code.replace('"."', repr(str(folder)))
    if picture is not None:
        assert '"picture.jpg"' in code
        code = code.replace('"picture.jpg"', repr(str(picture)))
    target = folder.parent / f"{folder.name}.npy"
    code += f"\nnp.save({str(target)!r}, outputs[0])\n"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + code.removeprefix("from __future__ import annotations")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.load(target)


def preparation(model: Path, folder: Path) -> Path:
    """A folder with the image processor's files as an export has them."""
    AutoImageProcessor.from_pretrained(str(model), backend="pil").save_pretrained(str(folder))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return random_picture(tmp_path / "wide.png", 90, 47, seed=5)


def test_clip(text_export: Path, image_export: Path, fragment_export: Path, picture: Path) -> None:
    texts = run_plain(text_export)
    encoder = load_onnx_encoder(text_export, device="cpu")
    assert np.allclose(texts, encoder.embed_texts(["a cat on a mat"]), atol=1e-5)
    images = run_plain(image_export, picture)
    encoder = load_onnx_encoder(image_export, device="cpu")
    assert np.allclose(images, encoder.embed_images([picture]), atol=1e-5)
    fragments = run_plain(fragment_export, picture)
    encoder = load_onnx_encoder(fragment_export, device="cpu")
    expected = encoder.embed_fragments([["a cat on a mat", picture]])
    assert np.allclose(fragments, expected, atol=1e-5)


def test_siglip(built: Callable[[str], Path], tmp_path: Path) -> None:
    # its texts are padded to the longest, its pictures are squeezed into a square
    export_onnx(built("siglip"), "text", tmp_path / "text")
    expected = load_onnx_encoder(tmp_path / "text", device="cpu").embed_texts(["a cat on a mat"])
    assert np.allclose(run_plain(tmp_path / "text"), expected, atol=1e-5)
    for kind in ("siglip", "chinese_clip"):
        folder = preparation(built(kind), tmp_path / kind)
        assert usage_without_ffr("image", kind, folder, []) is not None


def test_a_sentence_encoder(tmp_path: Path) -> None:
    source = build_sentence_encoder("bert", tmp_path / "bert")
    write_sentence_settings(source)
    export_onnx(source, "text", tmp_path / "out")
    expected = load_onnx_encoder(tmp_path / "out", device="cpu").embed_texts(["a cat on a mat"])
    assert np.allclose(run_plain(tmp_path / "out"), expected, atol=1e-5)
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| longest text | 24 tokens, the special ones among them; longer texts are cut" in readme
    assert readme.startswith("# text part of bert as ONNX\n")
    assert str(tmp_path) not in readme


def test_a_vision_tower(built: Callable[[str], Path], tmp_path: Path, picture: Path) -> None:
    folder = tmp_path / "out"
    export_onnx(built("qwen2-vl"), "vision", folder)
    processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    opened = PIL.Image.open(picture).convert("RGB")
    inputs = processor(images=[opened], return_tensors="np")
    (expected,) = load_onnx(folder, device="cpu").image_features(inputs)
    assert np.allclose(run_plain(folder, picture), expected["pooled"], atol=1e-4)
    # below and above what the image processor takes, and a strip
    for size in ((3, 5), (900, 700), (29, 1200)):
        drawn = PIL.Image.open(random_picture(tmp_path / f"{size[0]}.png", *size, seed=1))
        expected = processor(images=[drawn], return_tensors="np")
        found = picture_as_patches(str(folder), drawn)
        assert found["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
        assert np.allclose(found["pixel_values"], expected["pixel_values"], atol=1e-5)


def test_what_is_not_found_equal_is_not_shown(
    built: Callable[[str], Path], text_export: Path, tmp_path: Path
) -> None:
    # it cuts pictures into patches of any number
    assert (
        usage_without_ffr("image", "siglip2", preparation(built("siglip2"), tmp_path), []) is None
    )
    assert limits_of("image", text_export, {})["crop"] == "the middle 32 × 32"
    right = texts_as_ids(str(text_export), TEXTS["one text"])["input_ids"]
    for ids, is_shown in ((right, True), (right + 1, False)):
        case = Case("one text", [Call({"input_ids": ids}, {})])
        assert bool(usage_without_ffr("text", "clip", text_export, [case])) is is_shown
    assert usage_without_ffr("text", "clip", text_export.parent, []) is None
    assert usage_without_ffr("vision", "internvl", text_export, []) is None


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    how = {
        "do_resize": True, "size": {"shortest_edge": 4}, "resample": 0, "do_center_crop": True,
        "crop_size": {"width": 2, "height": 4}, "rescale_factor": 0.1, "image_mean": [1, 2, 3],
        "image_std": [2, 2, 2],
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(how))
    picture = PIL.Image.new("RGB", (8, 4))
    picture.putpixel((3, 0), (30, 20, 10))
    found = pictures_as_pixels(str(tmp_path), [picture])["pixel_values"]
    assert found.shape == (1, 3, 4, 2)
    # the middle two of eight columns: the pixel is the first of its row
    assert found[0, :, 0, 0].tolist() == pytest.approx([(3 - 1) / 2, (2 - 2) / 2, (1 - 3) / 2])
    assert found[0, :, 0, 1].tolist() == pytest.approx([-0.5, -1.0, -1.5])


def test_the_title_is_a_name(text_export: Path) -> None:
    readme = (text_export / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# text part of clip as ONNX\n")
