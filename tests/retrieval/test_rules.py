"""What a model that is asked cannot take: an encoder by its own refusal, several by the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.dialogue import Dialogue, Example
from ffr.errors import DataError
from ffr.retrieval.rules import EncoderRules, JoinedRules

EXAMPLE = Example(Dialogue("d", ()), "q")


class Narrow:
    """An encoder that refuses pictures more than so many times as long as wide; keeps what it saw."""

    name = "narrow"

    def __init__(self, most: float) -> None:
        self._most = most
        self.seen: list[tuple[int, int]] = []

    def embed_images(self, images: Sequence[Any]) -> None:
        for path in images:
            with PIL.Image.open(path) as image:
                self.seen.append(image.size)
                if max(image.size) > self._most * min(image.size):
                    raise DataError("is too narrow")


def encoder_rules(most: float) -> tuple[EncoderRules, Narrow]:
    encoder: Any = Narrow(most)
    return EncoderRules(encoder), encoder


@pytest.mark.parametrize("size", [(20, 1), (1, 20), (2000, 100), (7, 7)])
def test_plain_shapes_are_not_tried(size: tuple[int, int]) -> None:
    rules, encoder = encoder_rules(most=1)
    assert rules.picture(*size) == ""
    assert encoder.seen == []


@pytest.mark.parametrize("size", [(21, 1), (1, 21), (2100, 99)])
def test_strips_are_tried_as_they_are(size: tuple[int, int]) -> None:
    rules, encoder = encoder_rules(most=20)
    assert rules.picture(*size) == (
        f"is a strip of {size[0]}×{size[1]} pixels, which narrow cannot take; cut it to a wider one"
    )
    assert encoder.seen == [size]
    rules, encoder = encoder_rules(most=22)
    assert rules.picture(*size) == ""
    assert encoder.seen == [size]


def test_an_encoder_takes_any_length() -> None:
    assert encoder_rules(most=1)[0].example(EXAMPLE, {}) == ""


class Said:
    """Rules that say one thing of pictures and another of examples."""

    def __init__(self, of_picture: str, of_example: str) -> None:
        self._of_picture, self._of_example = of_picture, of_example

    def picture(self, width: int, height: int) -> str:
        return self._of_picture and f"{self._of_picture} {width}×{height}"

    def example(self, example: Example, sizes: Any) -> str:
        return self._of_example and f"{self._of_example} {example.query} {len(sizes)}"


def test_the_first_that_refuses_is_heard() -> None:
    rules = JoinedRules(Said("", "long"), Said("thin", "longer"), Said("thinner", ""))
    assert rules.picture(3, 4) == "thin 3×4"
    assert rules.example(EXAMPLE, {"a.png": (1, 1)}) == "long q 1"
    assert JoinedRules(Said("", ""), Said("", "")).picture(3, 4) == ""
    assert JoinedRules(Said("", ""), Said("", "")).example(EXAMPLE, {}) == ""
    assert JoinedRules().picture(3, 4) == ""


def test_strips_beyond_the_largest_picture_are_scaled(tmp_path: Path) -> None:
    """A picture is tried at the size that it is opened with, or a strip would fill the memory."""
    from ffr.images import MAX_IMAGE_PIXELS

    rules, encoder = encoder_rules(most=10**9)
    side = int((MAX_IMAGE_PIXELS / 100) ** 0.5)
    assert rules.picture(200 * side, 4 * side) == ""
    [(width, height)] = encoder.seen
    assert width * height <= MAX_IMAGE_PIXELS
    assert width / height == pytest.approx(50, rel=0.05)
