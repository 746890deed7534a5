"""Exported encoders without torch: the same vectors, from a bare process, and every wrong call in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from encoder_builds import build_sentence_encoder
from model_builds import random_picture

import ffr.exports
from ffr.errors import DataError, ModelError, UsageError
from ffr.exports.encoder import encoder_parts, load_onnx_encoder
from ffr.exports.onnx import export_all, export_onnx

TEXTS = ["a cat on a mat", "", "rain, and a long walk by the lake " * 9, "ein Hund"]
BARE = """\
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "safetensors", "filelock", "onnx",
                                      "pydantic", "datasets", "scipy", "lightning", "peft", "trl"}:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Path:
    """All parts of CLIP."""
    out = tmp_path_factory.mktemp("all") / "clip"
    assert list(export_all(built("clip"), out)) == ["text", "image", "fragment"]
    return out


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return [
        random_picture(tmp_path / f"{number}.png", 90 - 20 * number, 47, seed=number)
        for number in range(3)
    ]


def test_in_a_bare_process(whole: Path, pictures: list[Path], tmp_path: Path) -> None:
    """Nothing but numpy, ONNX Runtime, tokenizers and Pillow beside ffr."""
    target = tmp_path / "found.npz"
    code = f"""
from pathlib import Path
import numpy as np
import ffr.exports
encoder = ffr.exports.load({str(whole)!r}, device="cpu")
pictures = {[str(path) for path in pictures]!r}
np.savez({str(target)!r}, texts=encoder.embed(texts={TEXTS!r}), images=encoder.embed(images=pictures),
         fragments=encoder.embed_fragments([["a cat", Path(pictures[0])], ["hi"], [Path(pictures[1])]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", BARE + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = np.load(target)
    encoder = load_onnx_encoder(whole, device="cpu")
    wanted = {
        "texts": encoder.embed_texts(TEXTS),
        "images": encoder.embed_images(pictures),
        "fragments": encoder.embed_fragments([["a cat", pictures[0]], ["hi"], [pictures[1]]]),
    }
    for name, vectors in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], vectors.numpy(), atol=2e-6, err_msg=name)


def test_any_set_of_parts_gives_the_same(whole: Path, pictures: list[Path], tmp_path: Path) -> None:
    every = ffr.exports.load(whole, device="cpu")
    mixed = [["a cat", pictures[0], "a dog"], [pictures[1], pictures[2]], "one text"]
    texts, images = every.embed(texts=TEXTS), every.embed(images=pictures)
    assert texts.shape == (4, 16)
    assert images.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm([*texts, *images], axis=1), 1, atol=1e-6)
    assert np.array_equal(every.embed(texts=TEXTS, images=pictures), [*texts, *images])
    for parts in (("text", "image"), ("fragment",)):
        folder = tmp_path / "-".join(parts)
        for part in parts:
            shutil.copytree(whole / part, folder / part)
        some = ffr.exports.load(folder, device="cpu")
        assert (some.takes_texts, some.takes_images) == (True, True)
        np.testing.assert_allclose(some.embed(texts=TEXTS), texts, atol=2e-6)
        np.testing.assert_allclose(some.embed(images=pictures), images, atol=2e-6)
        np.testing.assert_allclose(
            some.embed_fragments(mixed), every.embed_fragments(mixed), atol=2e-6
        )


def test_whatever_stands_for_texts_and_pictures(whole: Path, pictures: list[Path]) -> None:
    encoder = ffr.exports.load(whole, device="cpu")
    row = encoder.embed(images=[pictures[0]])
    with PIL.Image.open(pictures[0]) as file:
        picture = file.convert("RGB")
    for way in (pictures[0], str(pictures[0]), picture, np.asarray(picture), [str(pictures[0])]):
        np.testing.assert_allclose(encoder.embed(images=way), row, atol=1e-6)
    assert np.array_equal(encoder.embed(texts="a cat"), encoder.embed(texts=("a cat",)))
    for nothing in (encoder.embed(texts=[]), encoder.embed(images=[]), encoder.embed_fragments([])):
        assert nothing.shape == (0, 16)


def test_wrong_calls(
    whole: Path, text_export: Path, built: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = ffr.exports.load(whole, device="cpu")
    with pytest.raises(ValueError, match="nothing to embed; give texts=…, images=…, or both"):
        encoder.embed()
    with pytest.raises(ValueError, match=r"text 0 is 3 \(int\); give texts"):
        encoder.embed(texts=[3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="fragment 1 has no parts; leave it out"):
        encoder.embed_fragments([["a"], []])
    with pytest.raises(DataError, match=r"none\.png"):
        encoder.embed(images="none.png")
    alone = ffr.exports.load(text_export, device="cpu")
    assert (alone.takes_texts, alone.takes_images) == (True, False)
    with pytest.raises(UsageError, match="the image part was not exported; run `ffr export onnx"):
        alone.embed(images="none.png")
    with pytest.raises(ModelError, match="holds no text or image encoder"):
        ffr.exports.load(tmp_path)
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = ffr.exports.other
    # of SigLIP 2, whose pictures are cut by rules that are transformers'
    export_onnx(built("siglip2"), "image", tmp_path / "siglip2")
    with pytest.raises(ModelError, match="by rules that need transformers; open it with"):
        ffr.exports.load(tmp_path / "siglip2", device="cpu")


def test_files_that_say_nonsense(text_export: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(text_export, tmp_path / "copy"))
    said = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    for settings in (
        {},
        {**said["settings"], "max_text_tokens": -1},
        {**said["settings"], "pad_id": []},
    ):
        (folder / "export.json").write_text(json.dumps({**said, "settings": settings}))
        with pytest.raises(ModelError, match="its files do not say how to prepare an input"):
            ffr.exports.load(folder, device="cpu").embed(texts="a")
    inputs = {"input_ids": {"dtype": "object", "shape": []}}
    (folder / "export.json").write_text(json.dumps({**said, "inputs": inputs}))
    with pytest.raises(ModelError, match="an input is of no known type and shape"):
        ffr.exports.load(folder, device="cpu")


def test_all_parts_or_none(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encoder_parts(built("qwen2-vl")) == ()
    bert = build_sentence_encoder("bert", tmp_path / "bert")
    assert list(export_all(bert, tmp_path / "bert-onnx")) == ["text"]
    with pytest.raises(UsageError, match="is there already; name another folder or pass --replace"):
        export_all(bert, tmp_path / "bert-onnx")

    def write(model: Path, part: str, out: Path, **_: object) -> dict[str, str]:
        if part in failing:
            raise ModelError("differs")
        out.mkdir()
        (out / "export.json").write_text(part)
        return {"part": part}

    failing = {"fragment"}
    monkeypatch.setattr("ffr.exports.onnx.export_onnx", write)
    with pytest.raises(ModelError, match="differs"):
        export_all(built("clip"), tmp_path / "clip")
    assert not (tmp_path / "clip").exists()
    failing.clear()
    assert list(export_all(built("qwen2-vl"), tmp_path / "vision")) == ["vision"]
    assert list(export_all(built("clip"), tmp_path / "clip")) == ["text", "image", "fragment"]
    assert list(export_all(built("clip"), tmp_path / "clip", replace=True)) == [
        "text",
        "image",
        "fragment",
    ]
