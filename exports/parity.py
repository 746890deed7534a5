"""Whether a graph gives what the model gives.

On inputs of every kind that it must take, none of which it was exported with.

Difference is relative: the largest difference of a call over the largest value that torch gives.
Cosine is that of a text's or an image's whole
output, the smallest over a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.errors import ModelError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a graph may differ by.

    Args:
        max_difference: Largest difference over the largest value.
        min_cosine: Smallest cosine similarity of an item's output.
    """

    max_difference: float
    min_cosine: float


TOLERANCES = {
    "fp32": Tolerance(1e-4, 0.999_99),
    "fp16": Tolerance(3e-2, 0.999),
    "int8": Tolerance(0.3, 0.99),
}
"""What each type of number may differ by.

Half precision has 11 bits and the towers some 30 layers; bytes are held to the cosine first.
"""


REFERENCE_CASES = {
    "vision": "one image",
    "text": "texts of mixed lengths",
    "image": "one image",
    "fragment": "texts and images",
    "reader": "a dialogue",
}
"""The kind of input whose last call an export brings with it (`ffr.exports.reference`)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How near one kind of input came.

    Args:
        name: The kind.
        num_calls: Calls of the graph.
        max_difference: As `Tolerance` has it.
        min_cosine: Likewise.
        is_finite: Whether all that came out are numbers.
    """

    name: str
    num_calls: int
    max_difference: float
    min_cosine: float
    is_finite: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the graph and what must come out.

    Args:
        inputs: The graph's inputs.
        expected: What torch gives, by output.
    """

    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True, slots=True)
class Case:
    """Calls of one kind.

    Args:
        name: What is special about them.
        calls: The calls.
    """

    name: str
    calls: Sequence[Call]


def compare(
    name: str, calls: Sequence[Call], run: Callable[[Arrays], Arrays], *, one_item: bool
) -> Figures:
    """Runs a graph on calls whose results are known.

    Args:
        name: The kind of input.
        calls: The calls.
        run: The graph.
        one_item: Whether a call's output is one item's (a tower's image), or has an item a row
            (vectors).

    Raises:
        ModelError: where an output has another shape.

    >>> call = Call({}, {"x": np.array([[1.0, 0.0]])})
    >>> compare("half", [call], lambda _: {"x": np.array([[0.5, 0.0]])}, one_item=False)
    Figures(name='half', num_calls=1, max_difference=0.5, min_cosine=1.0, is_finite=True)
    """
    difference, cosine, is_finite = 0.0, 1.0, True
    for call in calls:
        found = run(call.inputs)
        for output, right in call.expected.items():
            got = np.asarray(found[output], np.float64)
            want = np.asarray(right, np.float64)
            if got.shape != want.shape:
                raise ModelError(
                    f"its graph gives {output} of shape {got.shape} where torch gives {want.shape} "
                    f"({name})"
                )
            # a largest difference would pass over what is no number, on either side
            if not (np.isfinite(got).all() and np.isfinite(want).all()):
                is_finite = False
                continue
            # over the largest value of the whole output: small ones are rounded as coarsely
            scale = max(float(np.abs(want).max()), 1e-12)
            difference = max(difference, float(np.abs(got - want).max()) / scale)
            # an item's output as one vector, however many axes it has
            rows = 1 if one_item else len(want)
            left, other = got.reshape(rows, -1), want.reshape(rows, -1)
            # of two vectors of zeros the cosine is then 0, no NaN
            lengths = np.maximum(
                np.linalg.norm(left, axis=-1) * np.linalg.norm(other, axis=-1), 1e-300
            )
            cosine = min(cosine, float(((left * other).sum(-1) / lengths).min()))
    return Figures(name, len(calls), difference, cosine, is_finite)


def check(figures: Sequence[Figures], tolerance: Tolerance) -> None:
    """Refuses figures beyond the tolerance.

    Raises:
        ModelError: naming the worst kind of input.
    """
    for item in figures:
        if not item.is_finite:
            raise ModelError(
                f"its graph gives numbers that are not finite on {item.name}; nothing was written"
            )
    worst = max(figures, key=lambda item: item.max_difference)
    if worst.max_difference > tolerance.max_difference:
        raise ModelError(
            f"its graph differs from torch by {worst.max_difference:.2g} on {worst.name}, more "
            "than the "
            f"{tolerance.max_difference:.2g} that is allowed; nothing was written"
        )
    least = min(figures, key=lambda item: item.min_cosine)
    if least.min_cosine < tolerance.min_cosine:
        raise ModelError(
            f"its graph's outputs have a cosine similarity of {least.min_cosine:.5f} with torch's "
            f"on {least.name}, less than "
            f"the {tolerance.min_cosine} that is asked for; nothing was written"
        )


def between_processors(dtype: str, figures: Sequence[Figures]) -> Tolerance:
    """What a graph's outputs on one processor may differ by from those on another.

    Sums are rounded in another order there. Bytes magnify that: an activation near the middle
    between two of them falls to the one or the other. This is a part of what rounding to bytes
    costs anyway, so the difference to torch bounds it; up to 0.017 was seen.

    Args:
        dtype: fp32, fp16 or int8.
        figures: What the check against torch found.
    """
    if dtype != "int8":
        return TOLERANCES[dtype]
    return Tolerance(
        max(0.02, *(item.max_difference for item in figures)),
        min(0.9995, *(item.min_cosine for item in figures)),
    )


def as_content(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """For `export.json`."""
    return [asdict(item) for item in figures]


# -- what to try -----------------------------------------------------------------------------------

TEXTS: dict[str, list[str]] = {
    "one text": ["A cat sleeps on a mat."],
    "one empty text": [""],
    "texts of one length": ["a red car", "a big dog", "the old sea"],
    "texts of mixed lengths": [
        "a",
        "a dog and a cat in the rain beside the station",
        "",
        "红色的汽车停在路边",
        "sea " * 9,
    ],
    "texts longer than the context": ["word " * 600, "好" * 900, "short"],
    "texts with rare signs": [
        "\N{PILE OF POO}\N{COMBINING ACUTE ACCENT}",
        "\x00\x07",
        "ﷺ" * 5,
        "<|endoftext|> [PAD]",
    ],
}
"""What the text part is tried with."""


FRAGMENTS: dict[str, list[tuple[list[str], list[tuple[int, int]]]]] = {
    "one text": [(TEXTS["one text"], [])],
    "one image": [([], [(224, 224)])],
    "texts alone": [(TEXTS["texts of one length"], []), (TEXTS["texts of mixed lengths"], [])],
    "images alone": [([], [(64, 64), (200, 90), (90, 230)])],
    "texts and images": [
        (TEXTS["one empty text"], [(120, 90)]),
        (TEXTS["texts with rare signs"], [(16, 480), (120, 90), (1, 1)]),
        (TEXTS["texts longer than the context"], [(113, 57)] * 2),
    ],
    "many texts and images": [
        ([f"{'a dog ' * (number % 7)}{number}" for number in range(40)], [(60, 90)] * 12)
    ],
}
"""What the fragment part is tried with.

The texts of each fragment, and width and height of its images.
"""


def picture_sizes(max_pixels: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Widths and heights of the pictures that vision and image parts are tried with, by kind.

    Args:
        max_pixels: The largest picture that a model keeps.
    """
    side = max(8, int(max_pixels**0.5))
    yield "one image", [(224, 224)]
    yield "images of one size", [(120, 90)] * 3
    yield "images of mixed sizes", [(64, 64), (200, 90), (90, 230), (113, 57)]
    yield "extreme aspect ratios", [(16, 480), (480, 12)]
    yield "the smallest images", [(1, 1), (8, 8)]
    yield "the largest image", [(side, side)]


def draw_picture(path: Path, width: int, height: int, *, seed: int) -> Path:
    """Writes a picture with both even and noisy parts.

    Args:
        path: Its file, PNG.
        width: In pixels.
        height: In pixels.
        seed: Of its noise.
    """
    from PIL import Image

    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 200, width)[None, :, None] * np.array([1.0, 0.5, 0.2])
    slope = slope + np.linspace(0, 55, height)[:, None, None]
    noise = rng.integers(0, 255, (height, width, 3))
    # stripes of 16 columns, even and noisy in turn
    pixels = np.where(np.arange(width)[None, :, None] % 32 < 16, slope, noise)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path
