"""Draws the sample's pictures.

A pictogram for each topic, with size, place, colours and background left to chance.

Nothing but what is drawn tells the topic: sizes, colours and places come from the same distribution
for all topics.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

# Shapes of each pictogram on a unit square: (kind, coordinates, colour: 0 main, 1 second, 2 dark).
# Kinds: "o" ellipse box, "r" rectangle box, "p" polygon, "l" line of the width given first, "a" arc
# box with start and end degrees.
_SHAPES: dict[str, list[tuple[str, tuple[float, ...], int]]] = {
    "pets": [
        ("p", (0.1, 0.1, 0.4, 0.3, 0.15, 0.55), 0),
        ("p", (0.9, 0.1, 0.6, 0.3, 0.85, 0.55), 0),
        ("o", (0.12, 0.2, 0.88, 0.95), 0),
        ("o", (0.3, 0.45, 0.42, 0.57), 2),
        ("o", (0.58, 0.45, 0.7, 0.57), 2),
        ("p", (0.44, 0.66, 0.56, 0.66, 0.5, 0.76), 2),
    ],
    "cooking": [
        ("o", (0.05, 0.3, 0.65, 0.9), 2),
        ("o", (0.13, 0.38, 0.57, 0.82), 0),
        ("l", (0.1, 0.58, 0.38, 0.98, 0.05), 2),
    ],
    "travel": [
        ("r", (0.1, 0.35, 0.9, 0.9), 0),
        ("a", (0.32, 0.12, 0.68, 0.55, 180, 360), 2),
        ("r", (0.1, 0.5, 0.9, 0.58), 1),
        ("r", (0.1, 0.7, 0.9, 0.78), 1),
    ],
    "football": [
        ("o", (0.05, 0.05, 0.95, 0.95), 0),
        ("p", (0.5, 0.3, 0.7, 0.45, 0.62, 0.68, 0.38, 0.68, 0.3, 0.45), 2),
        ("l", (0.05, 0.5, 0.3, 0.5, 0.05), 2),
        ("l", (0.05, 0.7, 0.45, 0.95, 0.4), 2),
        ("l", (0.05, 0.38, 0.68, 0.25, 0.9), 2),
        ("l", (0.05, 0.62, 0.68, 0.75, 0.9), 2),
    ],
    "music": [
        ("l", (0.08, 0.35, 0.2, 0.35, 0.8), 0),
        ("l", (0.08, 0.8, 0.1, 0.8, 0.7), 0),
        ("l", (0.14, 0.33, 0.22, 0.82, 0.12), 0),
        ("o", (0.12, 0.7, 0.4, 0.92), 0),
        ("o", (0.57, 0.6, 0.85, 0.82), 0),
    ],
    "movies": [
        ("r", (0.08, 0.35, 0.92, 0.92), 2),
        ("p", (0.08, 0.3, 0.9, 0.08, 0.93, 0.2, 0.1, 0.42), 0),
        ("p", (0.4, 0.5, 0.4, 0.8, 0.68, 0.65), 1),
    ],
    "health": [("r", (0.36, 0.06, 0.64, 0.94), 0), ("r", (0.06, 0.36, 0.94, 0.64), 0)],
    "garden": [
        ("l", (0.07, 0.5, 0.95, 0.5, 0.45), 2),
        ("o", (0.36, 0.05, 0.64, 0.33), 0),
        ("o", (0.15, 0.22, 0.43, 0.5), 0),
        ("o", (0.57, 0.22, 0.85, 0.5), 0),
        ("o", (0.38, 0.28, 0.62, 0.5), 1),
        ("p", (0.5, 0.85, 0.85, 0.62, 0.8, 0.85), 2),
    ],
    "cars": [
        ("p", (0.22, 0.5, 0.35, 0.25, 0.68, 0.25, 0.8, 0.5), 1),
        ("r", (0.03, 0.48, 0.97, 0.74), 0),
        ("o", (0.14, 0.62, 0.38, 0.86), 2),
        ("o", (0.62, 0.62, 0.86, 0.86), 2),
    ],
    "weather": [
        ("o", (0.08, 0.25, 0.5, 0.62), 0),
        ("o", (0.3, 0.1, 0.75, 0.6), 0),
        ("o", (0.55, 0.28, 0.95, 0.62), 0),
        ("l", (0.06, 0.3, 0.7, 0.22, 0.92), 2),
        ("l", (0.06, 0.52, 0.7, 0.44, 0.92), 2),
        ("l", (0.06, 0.74, 0.7, 0.66, 0.92), 2),
    ],
    "school": [
        ("p", (0.15, 0.95, 0.05, 0.7, 0.7, 0.05, 0.92, 0.28, 0.3, 0.92), 0),
        ("p", (0.05, 0.7, 0.3, 0.92, 0.03, 0.97), 2),
        ("p", (0.7, 0.05, 0.92, 0.28, 0.82, 0.38, 0.6, 0.15), 1),
    ],
    "fashion": [
        ("p", (0.38, 0.05, 0.62, 0.05, 0.6, 0.4, 0.9, 0.95, 0.1, 0.95, 0.4, 0.4), 0),
        ("r", (0.4, 0.37, 0.6, 0.45), 2),
    ],
    "phones": [
        ("r", (0.25, 0.03, 0.75, 0.97), 2),
        ("r", (0.31, 0.12, 0.69, 0.8), 0),
        ("o", (0.45, 0.84, 0.55, 0.93), 1),
    ],
    "fitness": [
        ("r", (0.2, 0.45, 0.8, 0.55), 2),
        ("r", (0.05, 0.25, 0.2, 0.75), 0),
        ("r", (0.8, 0.25, 0.95, 0.75), 0),
    ],
    "camping": [
        ("p", (0.5, 0.08, 0.97, 0.92, 0.03, 0.92), 0),
        ("p", (0.5, 0.45, 0.68, 0.92, 0.32, 0.92), 2),
    ],
    "money": [
        ("o", (0.05, 0.05, 0.95, 0.95), 1),
        ("o", (0.17, 0.17, 0.83, 0.83), 0),
        ("r", (0.44, 0.25, 0.56, 0.75), 2),
        ("r", (0.32, 0.25, 0.68, 0.35), 2),
    ],
    "wedding": [
        ("a", (0.02, 0.3, 0.62, 0.9, 0, 360), 0),
        ("a", (0.38, 0.3, 0.98, 0.9, 0, 360), 0),
        ("p", (0.62, 0.3, 0.52, 0.1, 0.82, 0.1), 1),
    ],
    "gaming": [
        ("o", (0.02, 0.3, 0.45, 0.85), 0),
        ("o", (0.55, 0.3, 0.98, 0.85), 0),
        ("r", (0.22, 0.3, 0.78, 0.65), 0),
        ("r", (0.14, 0.5, 0.36, 0.56), 2),
        ("r", (0.22, 0.42, 0.28, 0.64), 2),
        ("o", (0.68, 0.45, 0.82, 0.6), 2),
    ],
    "coffee": [
        ("r", (0.15, 0.4, 0.68, 0.92), 0),
        ("a", (0.55, 0.45, 0.92, 0.82, 270, 90), 0),
        ("l", (0.05, 0.3, 0.32, 0.3, 0.08), 2),
        ("l", (0.05, 0.52, 0.32, 0.52, 0.08), 2),
    ],
    "house": [
        ("r", (0.18, 0.45, 0.82, 0.95), 0),
        ("p", (0.5, 0.04, 0.97, 0.48, 0.03, 0.48), 1),
        ("r", (0.42, 0.62, 0.6, 0.95), 2),
    ],
    "ocean": [
        ("o", (0.2, 0.25, 0.95, 0.75), 0),
        ("p", (0.28, 0.5, 0.03, 0.22, 0.03, 0.78), 0),
        ("o", (0.74, 0.4, 0.83, 0.49), 2),
        ("p", (0.5, 0.28, 0.7, 0.08, 0.72, 0.3), 1),
    ],
    "space": [("o", (0.25, 0.25, 0.75, 0.75), 0), ("a", (0.0, 0.36, 1.0, 0.64, 0, 360), 1)],
    "books": [
        ("p", (0.5, 0.25, 0.05, 0.12, 0.05, 0.8, 0.5, 0.93), 0),
        ("p", (0.5, 0.25, 0.95, 0.12, 0.95, 0.8, 0.5, 0.93), 1),
        ("l", (0.05, 0.5, 0.2, 0.5, 0.95), 2),
    ],
    "birthday": [
        ("r", (0.08, 0.55, 0.92, 0.95), 0),
        ("r", (0.2, 0.35, 0.8, 0.55), 1),
        ("l", (0.06, 0.35, 0.35, 0.35, 0.12), 2),
        ("l", (0.06, 0.5, 0.35, 0.5, 0.12), 2),
        ("l", (0.06, 0.65, 0.35, 0.65, 0.12), 2),
    ],
}
PICTURE_KEYS = tuple(_SHAPES)


def draw(key: str, rng: random.Random, *, width: int = 84, height: int = 84) -> Image.Image:
    """Draws one picture of a topic.

    Args:
        key: The topic's key, one of `PICTURE_KEYS`.
        rng: Chance: background, colours, size, place, mirroring.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        An RGB picture.

    >>> draw("coffee", random.Random(0)).size
    (84, 84)
    """
    scale = 2  # drawn twice as large and scaled down, for smooth edges
    background = tuple(rng.randint(185, 255) for _ in range(3))
    colours = [
        _colour(rng, 60, 200),
        _colour(rng, 90, 230),
        tuple(rng.randint(10, 60) for _ in range(3)),
    ]
    picture = Image.new("RGB", (width * scale, height * scale), background)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.randint(2, 6)):  # faint blots behind
        x, y, r = (
            rng.random() * width * scale,
            rng.random() * height * scale,
            rng.uniform(0.03, 0.1) * width * scale,
        )
        pen.ellipse(
            (x - r, y - r, x + r, y + r),
            fill=tuple(max(0, c - rng.randint(8, 35)) for c in background),
        )
    side = rng.uniform(0.62, 0.9) * min(width, height) * scale
    left = rng.uniform(0.02, 0.98) * (width * scale - side)
    top = rng.uniform(0.02, 0.98) * (height * scale - side)
    mirrored = rng.random() < 0.5
    line = max(2, round(side * 0.06))

    def place(values: tuple[float, ...]) -> list[float]:
        points = []
        for x, y in zip(values[::2], values[1::2], strict=True):
            points += [left + side * (1 - x if mirrored else x), top + side * y]
        return points

    def box(values: tuple[float, ...]) -> list[float]:
        x0, y0, x1, y1 = place(values)
        return [min(x0, x1), y0, max(x0, x1), y1]

    for kind, values, colour in _SHAPES[key]:
        ink = tuple(colours[colour])
        if kind == "o":
            pen.ellipse(box(values), fill=ink)
        elif kind == "r":
            pen.rectangle(box(values), fill=ink)
        elif kind == "p":
            pen.polygon(place(values), fill=ink)
        elif kind == "l":
            pen.line(place(values[1:]), fill=ink, width=max(2, round(values[0] * side)))
        else:
            start, end = (540 - values[5], 540 - values[4]) if mirrored else (values[4], values[5])
            pen.arc(box(values[:4]), start, end, fill=ink, width=line)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _colour(rng: random.Random, low: int, high: int) -> Colour:
    """A colour with some strength in it: one channel high, one low, one anywhere between."""
    channels = [high + rng.randint(-15, 15), low + rng.randint(-30, 15), rng.randint(low, high)]
    rng.shuffle(channels)
    return tuple(max(0, min(255, c)) for c in channels)  # type: ignore[return-value]
