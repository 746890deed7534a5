"""Plots by hand-worked places: 404 × 190 units between the axes, from (44, 30) to (448, 220)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from ffr.report.html.plots import bar_chart, line_chart, scatter, share_chart, thinned, ticks


def elements(svg: str, name: str, kind: str | None = None) -> list[dict[str, str]]:
    """The attributes of the elements of a name, and of a class if one is given."""
    found = [item.attrib for item in ElementTree.fromstring(svg).iter(name)]
    return [item for item in found if kind is None or item.get("class") == kind]


def words(svg: str, name: str = "title") -> list[str]:
    return [item.text or "" for item in ElementTree.fromstring(svg).iter(name)]


def test_a_bar_is_as_high_as_its_value() -> None:
    svg = bar_chart(
        "F1 <by length>",
        [("short", 3), ("long", 0)],
        {"a & b": [0.5, None]},
        intervals={"a & b": [(0.25, 0.75), None]},
        x_label="turns",
    )
    # a group is 202 wide; its one bar takes .8 of that, less .06 of itself on either side
    [bar] = [item for item in elements(svg, "rect", "s0") if item["width"] != "10"]
    assert (bar["x"], bar["width"], bar["y"], bar["height"]) == ("73.9", "142.2", "125", "95")
    [whisker] = elements(svg, "line", "whisker")
    assert (whisker["x1"], whisker["y1"], whisker["y2"]) == ("145", "172.5", "77.5")
    assert words(svg) == ["F1 <by length>", "a & b, short: 50.00 %"]
    assert [text for text in words(svg, "text") if text.startswith("n = ")] == ["n = 3", "n = 0"]
    # the value stands above the whisker, not in it
    [value] = elements(svg, "text", "value")
    assert value["y"] == "73.5"


def test_a_circles_area_is_its_number_of_samples() -> None:
    svg = scatter("p", {(20, 20): 4, (0, 10): 1}, num_steps=20, modality="image")
    most, other = elements(svg, "circle", "dot")
    assert (most["cx"], most["cy"], most["r"]) == ("433", "40.2", "16")
    assert (other["cx"], other["cy"], other["r"]) == ("59", "125", "8")
    assert (most["data-cell"], other["data-cell"]) == ("image 20 20", "image 0 10")
    assert words(svg)[1:] == [
        "precision 1.00, recall 1.00: 4",
        "precision 0.00, recall 0.50: 1",
    ]


def test_a_line_goes_through_its_points() -> None:
    svg = line_chart("loss", {"loss": [(0, 2.0), (5, 1.0), (10, 0.0)]}, y_label="nats")
    [line] = elements(svg, "polyline")
    assert line["points"] == "44,30 246,125 448,220"
    assert [(dot["cx"], dot["cy"]) for dot in elements(svg, "circle")] == [
        ("44", "30"),
        ("246", "125"),
        ("448", "220"),
    ]
    many = [(float(step), 0.0) for step in range(1000)]
    svg = line_chart("loss", {"loss": many}, y_label="nats", y_range=(0, 1))
    assert len(elements(svg, "polyline")[0]["points"].split()) == 334  # means of three
    assert elements(svg, "circle") == []


def test_names_that_have_no_room_beside_each_other_make_the_plot_lower() -> None:
    curves = {
        f"a name of thirty letters, no. {number}": [(0, 1.0), (1, 0.0)] for number in range(3)
    }
    # 30 letters of 6.6 and 24 beside: two do not fit into 320, so three lines of 15
    points = elements(line_chart("t", curves, y_label="y"), "polyline")[0]["points"]
    assert points == "44,60 448,220"


def test_shares_lie_on_each_other() -> None:
    svg = share_chart("levels", {"easy": [(0, 0.5), (1, 0.0)], "hard": [(0, 0.5), (1, 1.0)]})
    low, high = (item["points"] for item in elements(svg, "polygon"))
    assert low == "44,125 448,220 448,220 44,220"
    assert high == "44,30 448,30 448,220 44,125"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0, 0), [0]),
        ((0, 7), [0, 2, 4, 6]),
        ((-1, 1), [-1, -0.5, 0, 0.5, 1]),
        ((3, 4), [3, 3.2, 3.4, 3.6, 3.8, 4]),
    ],
)
def test_ticks_are_round(ends: tuple[float, float], expected: list[float]) -> None:
    assert ticks(*ends) == expected


def test_few_points_stay_as_they_are() -> None:
    assert thinned([(0, 1.0), (9, 2.0)]) == [(0, 1.0), (9, 2.0)]
    assert thinned([(x, 2.0 * x) for x in range(5)], 2) == [(1, 2.0), (3.5, 7.0)]
