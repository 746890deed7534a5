"""How near a graph comes to torch: differences and cosines by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ffr.errors import ModelError
from ffr.exports.parity import (
    TOLERANCES,
    Call,
    Figures,
    Tolerance,
    as_content,
    between_processors,
    check,
    compare,
    draw_picture,
    picture_sizes,
)


def call(*rows: list[float]) -> Call:
    return Call({}, {"x": np.array(rows)})


def test_the_worst_of_all_calls_counts() -> None:
    right = [call([4.0, 0.0], [0.0, 2.0]), call([0.0, 1.0], [1.0, 0.0])]
    given = iter([[[4.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]]])
    found = compare("two", right, lambda _: {"x": np.array(next(given))}, one_item=False)
    # 1 of 4 in the first call, 1 of 1 in the second; (1, 0) and (1, 1) are 45° apart
    assert (found.num_calls, found.max_difference, found.is_finite) == (2, 1.0, True)
    assert found.min_cosine == pytest.approx(0.5**0.5)


def test_one_item_has_one_cosine() -> None:
    half = lambda _: {"x": np.array([[1.0, 0.0], [0.0, 0.0]])}  # noqa: E731
    found = compare("one", [call([1.0, 0.0], [0.0, 1.0])], half, one_item=True)
    assert found.min_cosine == pytest.approx(0.5**0.5)
    rows = compare("rows", [call([1.0, 0.0], [0.0, 1.0])], half, one_item=False)
    assert rows.min_cosine == 0.0


def test_what_is_no_number_is_seen_on_either_side() -> None:
    for got, want in (([np.nan, 1.0], [1.0, 1.0]), ([1.0, 1.0], [np.inf, 1.0])):
        found = compare(
            "odd", [call(want)], lambda _, got=got: {"x": np.array([got])}, one_item=True
        )
        assert not found.is_finite
        with pytest.raises(ModelError, match="numbers that are not finite on odd; nothing was wri"):
            check([found], TOLERANCES["fp32"])


def test_another_shape_is_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"gives x of shape \(1, 1\) where torch gives \(1, 2\)"):
        compare("s", [call([1.0, 2.0])], lambda _: {"x": np.array([[1.0]])}, one_item=True)


def figures(difference: float, cosine: float, name: str = "kind") -> Figures:
    return Figures(name, 1, difference, cosine, True)


def test_the_worst_kind_is_named() -> None:
    allowed = Tolerance(0.1, 0.9)
    check([figures(0.1, 0.9)], allowed)
    with pytest.raises(ModelError, match=r"differs from torch by 0\.3 on b, more than the 0\.1"):
        check([figures(0.2, 1, "a"), figures(0.3, 1, "b")], allowed)
    with pytest.raises(ModelError, match=r"cosine similarity of 0\.50000 with torch's on a, less"):
        check([figures(0, 0.5, "a"), figures(0, 0.8, "b")], allowed)


def test_bytes_may_differ_between_processors_by_what_rounding_costs() -> None:
    assert between_processors("fp32", [figures(0.5, 0.1)]) == TOLERANCES["fp32"]
    assert between_processors("int8", [figures(0.01, 0.9999)]) == Tolerance(0.02, 0.9995)
    assert between_processors("int8", [figures(0.2, 0.99)]) == Tolerance(0.2, 0.99)


def test_what_is_written_down() -> None:
    assert as_content([figures(0.25, 0.5)]) == [
        {
            "name": "kind",
            "num_calls": 1,
            "max_difference": 0.25,
            "min_cosine": 0.5,
            "is_finite": True,
        }
    ]


def test_pictures_that_are_tried(tmp_path: Path) -> None:
    sizes = dict(picture_sizes(90_000))
    assert sizes["the largest image"] == [(300, 300)]
    assert sizes["the smallest images"] == [(1, 1), (8, 8)]
    one, same, other = (
        draw_picture(tmp_path / f"{number}.png", 64, 20, seed=seed)
        for number, seed in enumerate((0, 0, 1))
    )
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()
    with PIL.Image.open(one) as image:
        assert image.size == (64, 20)
        # the even part begins black, and ends in red 100 of the 200 that the slope reaches
        assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
