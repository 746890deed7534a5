"""What encoders take for texts, pictures and fragments: every natural way alike, the rest refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from ffr.embedding import CachedEncoder, Encoder, load_encoder
from ffr.embedding.policy import PolicyEncoder
from ffr.embedding.pooled import PooledEncoder
from ffr.encoders import open_encoder
from ffr.errors import DataError, ModelError, UsageError
from ffr.exports.encoder import load_onnx_encoder
from ffr.exports.runtime import load_onnx
from ffr.images import LoadedPicture, as_location
from ffr.models.loading import load_vlm

KINDS = ["dual", "sentence", "pooled", "policy", "cached"]
OF_PICTURES = [kind for kind in KINDS if kind != "sentence"]


@pytest.fixture(scope="module")
def encoders(
    encoder_folder: Callable[[str], Path],
    model_folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Encoder]:
    vlm = load_vlm(model_folder("qwen2-vl"))
    dual = load_encoder(encoder_folder("clip"))
    folder = str(tmp_path_factory.mktemp("vectors"))
    return {
        "dual": dual,
        "sentence": load_encoder(encoder_folder("bert")),
        "pooled": PooledEncoder(vlm, name="vlm:x"),
        "policy": PolicyEncoder(vlm),
        "cached": CachedEncoder(dual, folder, max_bytes=10**6),
    }


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_str_is_one_text(encoders: dict[str, Encoder], kind: str) -> None:
    encoder = encoders[kind]
    one = encoder.embed_texts(["a cat on a mat"])
    assert one.shape[0] == 1
    assert close(encoder.embed_texts("a cat on a mat"), one)
    assert close(encoder.embed_texts(np.array(["a cat on a mat"])), one)
    assert close(encoder.embed_texts(text for text in ["a cat on a mat"]), one)
    assert close(encoder.embed_fragments("a cat"), encoder.embed_fragments([["a cat"]]))
    assert close(encoder.embed_fragments(["a", "b"]), encoder.embed_fragments([["a"], ["b"]]))


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_paths_pictures_and_pixels_are_pictures(
    encoders: dict[str, Encoder], kind: str, pictures: list[Path]
) -> None:
    encoder, path = encoders[kind], pictures[0]
    expected = encoder.embed_images([path])
    with PIL.Image.open(path) as image:
        picture = image.convert("RGB")
    pixels = np.asarray(picture)
    ways = [path, str(path), picture, pixels, torch.from_numpy(pixels.copy()), as_location(picture)]
    for way in ways:
        assert close(encoder.embed_images([way]), expected), type(way)
        assert close(encoder.embed_images(way), expected), type(way)
    for batch in (pixels[None], torch.from_numpy(pixels.copy())[None]):
        assert close(encoder.embed_images(batch), expected)
    fragment = encoder.embed_fragments([["a cat", path]])
    for way in (picture, pixels, as_location(picture)):
        assert close(encoder.embed_fragments([["a cat", way]]), fragment), type(way)
    other = encoder.embed_images([PIL.Image.new("RGB", picture.size, "red")])
    assert not close(other, expected)


@pytest.mark.parametrize("kind", OF_PICTURES)
def test_a_text_that_names_a_picture_is_said_to_be_words(
    encoders: dict[str, Encoder], kind: str, pictures: list[Path]
) -> None:
    with pytest.warns(UserWarning, match="is the name of a file and is embedded as words; .*Path"):
        encoders[kind].embed_fragments([["a cat", str(pictures[0])]])


WRONG_TEXTS = [
    (None, r"texts are None \(NoneType\); give a list with one text each"),
    (3, r"texts are 3 \(int\)"),
    (b"a cat", r"texts are b'a cat' \(bytes\)"),
    ({"text": "a cat"}, r"texts are {'text': 'a cat'} \(dict\)"),
    (Path("a.txt"), r"texts are PosixPath"),
    ([3], r"text 0 is 3 \(int\); give texts"),
    (["a", None], "text 1 is None"),
    ([b"a"], "text 0 is b'a'"),
    ([["a", "b"]], r"text 0 is \['a', 'b'\]"),
    ([Path("a.png")], "text 0 is PosixPath"),
    (torch.tensor([1, 2]), r"text 0 is tensor\(1\)"),
]
WRONG_PICTURES = [
    (None, "pictures are None"),
    (3, "pictures are 3"),
    ({"a.png": 1}, "pictures are {'a.png'"),
    (b"a.png", "pictures are b'a.png'"),
    ([None], "None .NoneType. is no picture; give a path, a PIL.Image or an array of pixels"),
    ([b"bytes"], "b'bytes' .bytes. is no picture"),
    ([3.5], "3.5 .float. is no picture"),
    ([np.zeros((4, 4, 3))], r"pixels of float64 and shape \(4, 4, 3\) are no picture; give uint8"),
    ([np.zeros((3, 40, 40), np.uint8)], r"shape \(3, 40, 40\) are no picture.*colours last"),
    (torch.zeros((3, 8, 8)), r"pixels of float32 and shape \(3, 8, 8\)"),
    (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\) are no picture"),
]
WRONG_FRAGMENTS = [
    (None, "fragments are None"),
    (3, "fragments are 3"),
    ({"a": 1}, "fragments are {'a'"),
    ([None], "the parts of fragment 0 are None"),
    ([["a"], 3], "the parts of fragment 1 are 3"),
    ([[None]], "None .NoneType. is no picture"),
    ([["a", 3]], "3 .int. is no picture"),
    ([[["a"]]], r"\['a'\] .list. is no picture"),
    ([{"text": "a"}], "the parts of fragment 0 are {'text'"),
    ([["a", b"b"]], "b'b' .bytes. is no picture"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_natural_wrong_things_are_refused(encoders: dict[str, Encoder], kind: str) -> None:
    encoder = encoders[kind]
    for embed, wrong in (
        (encoder.embed_texts, WRONG_TEXTS),
        (encoder.embed_images, WRONG_PICTURES),
        (encoder.embed_fragments, WRONG_FRAGMENTS),
    ):
        for value, sentence in wrong:
            with pytest.raises(ValueError, match=sentence):
                embed(value)  # type: ignore[operator]
    with pytest.raises(UsageError, match="fragment 0 has neither text nor picture"):
        encoder.embed_fragments([[]])


def test_pictures_that_cannot_be_taken_are_refused_at_the_door() -> None:
    with pytest.raises(DataError, match="the picture has greys of 32 bits"):
        as_location(PIL.Image.new("F", (4, 4)))
    with pytest.raises(DataError, match="more than the 80,000,000 that are decoded"):
        as_location(PIL.Image.new("1", (10_000, 9_000)))


def test_a_picture_in_memory_is_known_by_its_pixels() -> None:
    red, same = (LoadedPicture(PIL.Image.new("RGB", (4, 3), "red")) for _ in range(2))
    turned = LoadedPicture(PIL.Image.new("RGB", (3, 4), "red"))
    assert (red == same, hash(red) == hash(same), red == turned, red == "red") == (
        True, True, False, False
    )  # fmt: skip


def test_folders_may_be_texts(tmp_path: Path) -> None:
    for load in (load_onnx_encoder, load_onnx, open_encoder):
        for folder in (tmp_path / "none", str(tmp_path / "none")):
            with pytest.raises(ModelError, match="none"):
                load(folder)  # type: ignore[operator]
