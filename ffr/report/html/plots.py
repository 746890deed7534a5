"""Plots as SVG inside a page: grouped bars, a scatter of counts, lines, stacked shares.

Colours come from the page's style sheet (classes `s0` … `s9`), so that a plot follows light and
dark. Every text is escaped, since all is put together by `markupsafe`. (A run's `curve.png` and
`levels.png` show the same curves: they are made by matplotlib when a training ends, without any
evaluation, and importing it takes longer than writing a whole page.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_WIDTH, _HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 30, 50
_MAX_POINTS = 400
_NUM_COLOURS = 10
_CHAR_WIDTH = 6.6  # of the legend's letters, about
_LEGEND_WIDTH, _LEGEND_HEIGHT = 320, 15

Points = Sequence[tuple[float, float]]
Interval = tuple[float, float]


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie, and how values become places."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top: float = _TOP

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return (
            _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - self.top - _BOTTOM)
        )


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _tag(name: str, *content: str, **attributes: str) -> Markup:
    """An element; `class` is written `kind`. Texts and values are escaped, elements are not."""
    named = {
        "class" if key == "kind" else key.replace("_", "-"): its for key, its in attributes.items()
    }
    written = Markup("").join(Markup(' {}="{}"').format(key, its) for key, its in named.items())
    if not content:
        return Markup("<{}{}/>").format(Markup(name), written)
    inner = Markup("").join(content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def _text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "tick") -> Markup:
    return _tag("text", words, kind=kind, x=_at(x), y=_at(y), text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return _tag("line", kind=kind, x1=_at(x1), y1=_at(y1), x2=_at(x2), y2=_at(y2))


def _rect(x: float, y: float, width: float, height: float, kind: str, *content: str) -> Markup:
    size = {"width": _at(width), "height": _at(height)}
    return _tag("rect", *content, kind=kind, x=_at(x), y=_at(y), **size, rx="2")


def ticks(low: float, high: float, num: int = 5) -> list[float]:
    """Round values from low to high, about so many.

    >>> ticks(0, 1), ticks(0, 430)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 100.0, 200.0, 300.0, 400.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(
        factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9)
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _axes(
    frame: _Frame, *, y_ticks: Sequence[float], x_label: str, y_label: str, scale: float = 1
) -> Markup:
    parts: list[Markup] = []
    for value in y_ticks:
        parts.append(_line(_LEFT, frame.y(value), _WIDTH - _RIGHT, frame.y(value), "grid"))
        words = f"{scale * value:.4g}"
        parts.append(_text(_LEFT - 6, frame.y(value) + 4, words, anchor="end"))
    parts.append(_line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label, kind="label"))
    parts.append(_text(4, 14, y_label, anchor="start", kind="label"))
    return Markup("").join(parts)


def _legend_lines(names: Sequence[str]) -> list[list[int]]:
    """Which names stand on which line above the plot, by their numbers, the last line lowest."""
    lines: list[list[int]] = [[]]
    room = float(_LEGEND_WIDTH)
    for number in reversed(range(len(names))):
        width = _CHAR_WIDTH * len(names[number]) + 24
        if lines[0] and width > room:
            lines.insert(0, [])
            room = _LEGEND_WIDTH
        lines[0].insert(0, number)
        room -= width
    return lines


def _legend(names: Sequence[str]) -> Markup:
    parts: list[Markup] = []
    for row, numbers in enumerate(_legend_lines(names)):
        # from the right
        x, y = float(_WIDTH - _RIGHT), 14.0 + _LEGEND_HEIGHT * row
        for number in reversed(numbers):
            x -= _CHAR_WIDTH * len(names[number])
            parts.append(_text(x, y, names[number], anchor="start"))
            x -= 14
            parts.append(_rect(x, y - 9, 10, 10, _colour("s", number)))
            x -= 10
    return Markup("").join(parts)


def _top(names: Sequence[str]) -> float:
    """Where a plot begins below its legend."""
    return _TOP + _LEGEND_HEIGHT * (len(_legend_lines(names)) - 1)


def _colour(kind: str, number: int) -> str:
    return f"{kind}{number % _NUM_COLOURS}"


def _svg(content: Sequence[str], title: str, role: str = "img") -> Markup:
    """A plot; `group` where parts of it can be chosen, for nothing within an `img` is ever told."""
    return _tag(
        "svg",
        _tag("title", title),
        *content,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role=role,
        aria_label=title,
    )


def bar_chart(
    title: str,
    groups: Sequence[tuple[str, int]],
    series: Mapping[str, Sequence[float | None]],
    *,
    intervals: Mapping[str, Sequence[Interval | None]] | None = None,
    x_label: str,
) -> Markup:
    """Bars from 0 to 1 in groups, with values above them and whiskers where there are intervals.

    Args:
        title: What it shows, for readers who cannot see it.
        groups: Name of each group and how many samples it has.
        series: For each series its value in each group; None for no bar.
        intervals: Likewise the interval of each value.
        x_label: What the groups are.
    """
    frame = _Frame((0, max(len(groups), 1)), (0, 1))
    parts = [_axes(frame, y_ticks=ticks(0, 1), x_label=x_label, y_label="F1, %", scale=100)]
    parts.append(_legend(list(series)))
    width = 0.8 / max(len(series), 1)
    for place, (name, num) in enumerate(groups):
        middle = frame.x(place + 0.5)
        parts.append(_text(middle, _HEIGHT - _BOTTOM + 13, name, kind="group"))
        parts.append(_text(middle, _HEIGHT - _BOTTOM + 25, f"n = {num}"))
        for number, (label, values) in enumerate(series.items()):
            value = values[place]
            if value is None:
                continue
            left, right = (frame.x(place + 0.1 + width * (number + step)) for step in (0.06, 0.94))
            top = frame.y(value)
            words = _tag("title", f"{label}, {name}: {100 * value:.2f} %")
            bar = (left, top, right - left, frame.y(0) - top)
            parts.append(_rect(*bar, _colour("s", number), words))
            interval = intervals.get(label, [None] * len(groups))[place] if intervals else None
            if interval is not None:
                centre = (left + right) / 2
                ends = [frame.y(end) for end in interval]
                parts.append(_line(centre, ends[0], centre, ends[1], "whisker"))
                top = min(top, ends[1])
            parts.append(_text((left + right) / 2, top - 4, f"{100 * value:.0f}", kind="value"))
    return _svg(parts, title)


def scatter(
    title: str, counts: Mapping[tuple[int, int], int], *, num_steps: int, modality: str
) -> Markup:
    """Samples by precision (right) and recall (up) on a grid; a circle's area is their number.

    Args:
        title: What it shows.
        counts: Number of samples at each (precision, recall) in steps.
        num_steps: Steps from 0 to 1.
        modality: Goes into each circle's `data-cell`, by which the page's script finds the samples.
    """
    frame = _Frame((-0.04, 1.04), (-0.06, 1.06))
    parts = [_axes(frame, y_ticks=ticks(0, 1), x_label="precision", y_label="recall")]
    parts += [
        _text(frame.x(value), _HEIGHT - _BOTTOM + 14, f"{value:.4g}") for value in ticks(0, 1)
    ]
    most = max(counts.values(), default=1)
    # the largest first, so that none hides another
    for place, ((precision, recall), num) in enumerate(
        sorted(counts.items(), key=lambda item: -item[1])
    ):
        radius = max(2.5, 16 * math.sqrt(num / most))
        words = f"precision {precision / num_steps:.2f}, recall {recall / num_steps:.2f}: {num}"
        parts.append(
            _tag(
                "circle",
                _tag("title", words),
                kind="dot",
                tabindex="-1" if place else "0",
                role="button",
                data_cell=f"{modality} {precision} {recall}",
                aria_label=words,
                cx=_at(frame.x(precision / num_steps)),
                cy=_at(frame.y(recall / num_steps)),
                r=_at(radius),
            )
        )
    return _svg(parts, title, role="group")


def thinned(points: Points, max_points: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """At most so many points: means of neighbours where there are more.

    >>> thinned([(1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0)], 2)
    [(1.5, 0.5), (3.5, 3.0)]
    """
    size = math.ceil(len(points) / max_points)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def line_chart(
    title: str,
    curves: Mapping[str, Points],
    *,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Curves over optimizer steps; those with few points have dots.

    Args:
        title: What it shows.
        curves: For each name its (step, value) in order; more than 400 are drawn as means of
            neighbours.
        y_label: What the values are.
        y_range: Ends of the vertical axis; None for those of the values.
    """
    drawn = {name: thinned(points) for name, points in curves.items()}
    everything = [point for points in drawn.values() for point in points]
    steps, values = [x for x, _ in everything], [y for _, y in everything]
    value_range = y_range or (min(*values, 0.0), max(values))
    frame = _Frame((min(steps), max(steps)), value_range, _top(list(drawn)))
    parts = [
        _axes(frame, y_ticks=ticks(*frame.y_range), x_label="optimizer step", y_label=y_label),
        _legend(list(drawn)),
        *(
            _text(frame.x(value), _HEIGHT - _BOTTOM + 14, f"{value:.6g}")
            for value in ticks(*frame.x_range)
        ),
    ]
    for number, points in enumerate(drawn.values()):
        places = [(_at(frame.x(x)), _at(frame.y(y))) for x, y in points]
        path = " ".join(",".join(place) for place in places)
        parts.append(_tag("polyline", kind=f"curve {_colour('c', number)}", points=path))
        if len(points) <= 20:
            kind = _colour("s", number)
            parts += [_tag("circle", kind=kind, cx=cx, cy=cy, r="3") for cx, cy in places]
    return _svg(parts, title)


def share_chart(title: str, curves: Mapping[str, Points]) -> Markup:
    """Shares over optimizer steps, stacked on each other from 0 to 1.

    Args:
        title: What it shows.
        curves: For each name its (step, share); all at the same steps.
    """
    drawn = {name: thinned(points) for name, points in curves.items()}
    steps = [x for x, _ in next(iter(drawn.values()))]
    frame = _Frame((min(steps), max(steps)), (0, 1))
    parts: list[Markup] = []
    below = [0.0] * len(steps)
    for number, points in enumerate(drawn.values()):
        above = [low + share for low, (_, share) in zip(below, points, strict=True)]
        outline = [*zip(steps, above, strict=True), *reversed(list(zip(steps, below, strict=True)))]
        path = " ".join(f"{_at(frame.x(x))},{_at(frame.y(y))}" for x, y in outline)
        parts.append(_tag("polygon", kind=f"area {_colour('s', number)}", points=path))
        below = above
    parts += [
        _axes(frame, y_ticks=ticks(0, 1), x_label="optimizer step", y_label="share"),
        _legend(list(drawn)),
        *(
            _text(frame.x(value), _HEIGHT - _BOTTOM + 14, f"{value:.6g}")
            for value in ticks(*frame.x_range)
        ),
    ]
    return _svg(parts, title)
