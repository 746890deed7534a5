"""Draws the sample world's pictures: one pictogram per topic, varied in colour, place, size, turn, background and noise.

What a picture shows is the only thing that tells its topic: size, file name and everything else are drawn independently.
Coordinates of a pictogram run from -1 to 1, x to the right and y downwards.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

_MAX_ASPECT = 1.25
"""Beyond 4:3 the tiny model's image processor would give another number of tokens."""


class _Canvas:
    """Draws shapes given in pictogram coordinates, turned, scaled and shifted onto a picture."""

    def __init__(self, image: Image.Image, centre: Point, scale: Point, turn: float) -> None:
        self.draw = ImageDraw.Draw(image)
        self._centre, self._scale = centre, scale
        self._cos, self._sin = math.cos(turn), math.sin(turn)

    def _place(self, x: float, y: float) -> Point:
        turned_x, turned_y = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        return self._centre[0] + turned_x * self._scale[0], self._centre[1] + turned_y * self._scale[1]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.draw.polygon([self._place(*point) for point in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour) -> None:
        steps = [2 * math.pi * step / 24 for step in range(24)]
        self.polygon([(x + radius_x * math.cos(a), y + radius_y * math.sin(a)) for a in steps], colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.ellipse(x, y, radius, radius, colour)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        length = math.hypot(end[0] - start[0], end[1] - start[1]) or 1.0
        nx, ny = -(end[1] - start[1]) / length * width / 2, (end[0] - start[0]) / length * width / 2
        self.polygon(
            [
                (start[0] + nx, start[1] + ny),
                (end[0] + nx, end[1] + ny),
                (end[0] - nx, end[1] - ny),
                (start[0] - nx, start[1] - ny),
            ],
            colour,
        )

    def star(self, x: float, y: float, outer: float, inner: float, num_points: int, colour: Colour) -> None:
        points = []
        for step in range(2 * num_points):
            radius = inner if step % 2 else outer
            angle = math.pi * step / num_points
            points.append((x + radius * math.sin(angle), y - radius * math.cos(angle)))
        self.polygon(points, colour)


def _pictogram(canvas: _Canvas, topic: str, main: Colour, other: Colour, dark: Colour, light: Colour) -> None:
    c = canvas
    if topic == "pets":
        c.polygon([(-0.8, -0.9), (-0.2, -0.5), (-0.7, 0.0)], main)
        c.polygon([(0.8, -0.9), (0.2, -0.5), (0.7, 0.0)], main)
        c.dot(0, 0.1, 0.7, main)
        c.dot(-0.28, -0.05, 0.12, dark)
        c.dot(0.28, -0.05, 0.12, dark)
        c.polygon([(-0.12, 0.25), (0.12, 0.25), (0, 0.42)], other)
    elif topic == "cooking":
        c.box(0.3, -0.1, 1.0, 0.1, dark)
        c.dot(-0.25, 0, 0.7, dark)
        c.dot(-0.25, 0, 0.5, light)
        c.dot(-0.25, 0, 0.25, other)
    elif topic == "travel":
        c.polygon([(-0.12, -0.9), (0.12, -0.9), (0.15, 0.9), (-0.15, 0.9)], main)
        c.polygon([(0, -0.3), (0.95, 0.35), (0.95, 0.5), (0, 0.2), (-0.95, 0.5), (-0.95, 0.35)], main)
        c.polygon([(0, 0.6), (0.4, 0.95), (-0.4, 0.95)], other)
    elif topic == "football":
        c.dot(0, 0, 0.85, light)
        c.star(0, 0, 0.35, 0.28, 5, dark)
        for step in range(5):
            angle = 2 * math.pi * step / 5
            c.dot(0.68 * math.sin(angle), -0.68 * math.cos(angle), 0.17, dark)
    elif topic == "music":
        c.box(-0.45, -0.8, -0.3, 0.6, dark)
        c.box(0.5, -0.8, 0.65, 0.4, dark)
        c.box(-0.45, -0.9, 0.65, -0.55, dark)
        c.ellipse(-0.55, 0.62, 0.3, 0.22, main)
        c.ellipse(0.4, 0.42, 0.3, 0.22, main)
    elif topic == "movies":
        c.box(-0.9, -0.25, 0.9, 0.85, dark)
        c.box(-0.9, -0.75, 0.9, -0.35, light)
        for x in (-0.8, -0.3, 0.2, 0.7):
            c.polygon([(x, -0.35), (x + 0.2, -0.35), (x + 0.05, -0.75), (x - 0.15, -0.75)], dark)
        c.polygon([(-0.2, 0.05), (0.3, 0.3), (-0.2, 0.55)], main)
    elif topic == "health":
        c.box(-0.9, -0.7, 0.9, 0.8, light)
        c.box(-0.2, -0.5, 0.2, 0.6, main)
        c.box(-0.55, -0.15, 0.55, 0.25, main)
    elif topic == "garden":
        c.line((0, 0), (0, 0.95), 0.14, other)
        c.ellipse(0.35, 0.6, 0.3, 0.13, other)
        for step in range(6):
            angle = 2 * math.pi * step / 6
            c.dot(0.4 * math.sin(angle), -0.3 - 0.4 * math.cos(angle), 0.26, main)
        c.dot(0, -0.3, 0.22, (240, 205, 60))
    elif topic == "cars":
        c.polygon([(-0.5, -0.1), (-0.3, -0.55), (0.35, -0.55), (0.6, -0.1)], light)
        c.box(-0.95, -0.12, 0.95, 0.35, main)
        c.dot(-0.5, 0.4, 0.26, dark)
        c.dot(0.5, 0.4, 0.26, dark)
    elif topic == "weather":
        c.dot(-0.4, -0.2, 0.35, main)
        c.dot(0.05, -0.4, 0.42, main)
        c.dot(0.5, -0.15, 0.33, main)
        c.box(-0.5, -0.2, 0.55, 0.15, main)
        for x in (-0.5, 0.0, 0.5):
            c.line((x, 0.35), (x - 0.15, 0.85), 0.12, other)
    elif topic == "school":
        c.polygon([(0, -0.65), (1.0, -0.2), (0, 0.25), (-1.0, -0.2)], dark)
        c.polygon([(-0.5, 0.08), (0, 0.32), (0.5, 0.08), (0.5, 0.55), (0, 0.75), (-0.5, 0.55)], main)
        c.line((0.85, -0.2), (0.85, 0.6), 0.09, other)
    elif topic == "fashion":
        c.polygon(
            [(-0.3, -0.8), (0.3, -0.8), (0.95, -0.35), (0.7, 0.0), (0.45, -0.2), (0.45, 0.85), (-0.45, 0.85)]
            + [(-0.45, -0.2), (-0.7, 0.0), (-0.95, -0.35)],
            main,
        )
        c.ellipse(0, -0.8, 0.22, 0.14, light)
    elif topic == "phones":
        c.box(-0.48, -0.95, 0.48, 0.95, dark)
        c.box(-0.38, -0.75, 0.38, 0.65, main)
        c.dot(0, 0.8, 0.09, light)
    elif topic == "fitness":
        c.box(-0.6, -0.1, 0.6, 0.1, other)
        for side in (-1, 1):
            c.box(side * 0.7 - 0.12, -0.65, side * 0.7 + 0.12, 0.65, dark)
            c.box(side * 0.45 - 0.1, -0.45, side * 0.45 + 0.1, 0.45, main)
    elif topic == "camping":
        c.polygon([(0, -0.75), (0.98, 0.75), (-0.98, 0.75)], main)
        c.polygon([(0, -0.1), (0.35, 0.75), (-0.35, 0.75)], dark)
    elif topic == "money":
        c.box(-0.95, -0.55, 0.95, 0.55, main)
        c.box(-0.8, -0.4, 0.8, 0.4, light)
        c.dot(0, 0, 0.33, main)
        c.box(-0.06, -0.28, 0.06, 0.28, dark)
    elif topic == "wedding":
        for x in (-0.38, 0.38):
            for step in range(16):
                angle = 2 * math.pi * step / 16
                c.dot(x + 0.48 * math.sin(angle), 0.2 - 0.48 * math.cos(angle), 0.12, main)
        c.polygon([(0.38, -0.35), (0.1, -0.7), (0.38, -0.95), (0.66, -0.7)], other)
    elif topic == "gaming":
        c.ellipse(-0.55, 0.15, 0.42, 0.5, dark)
        c.ellipse(0.55, 0.15, 0.42, 0.5, dark)
        c.box(-0.55, -0.35, 0.55, 0.3, dark)
        c.box(-0.65, -0.06, -0.25, 0.06, light)
        c.box(-0.51, -0.2, -0.39, 0.2, light)
        c.dot(0.35, 0.1, 0.11, main)
        c.dot(0.58, -0.12, 0.11, other)
    elif topic == "coffee":
        c.dot(0.6, 0.2, 0.33, main)
        c.dot(0.6, 0.2, 0.18, light)
        c.polygon([(-0.7, -0.25), (0.55, -0.25), (0.4, 0.8), (-0.55, 0.8)], main)
        c.ellipse(-0.08, -0.25, 0.62, 0.14, (90, 55, 30))
        for x in (-0.35, 0.15):
            c.line((x, -0.5), (x + 0.1, -0.95), 0.09, other)
    elif topic == "house":
        c.box(-0.65, -0.1, 0.65, 0.85, light)
        c.polygon([(0, -0.9), (0.95, -0.05), (-0.95, -0.05)], main)
        c.box(-0.18, 0.25, 0.18, 0.85, dark)
    elif topic == "ocean":
        for row in range(3):
            y = -0.5 + row * 0.5
            top = [(-1 + step * 0.1, y + 0.18 * math.sin(step * 0.9 + row)) for step in range(21)]
            c.polygon(top + [(x, y + 0.24) for x, y in reversed(top)], main if row % 2 else other)
    elif topic == "space":
        c.dot(0, 0, 0.5, main)
        for step in range(28):
            angle = 2 * math.pi * step / 28
            x, y = 0.95 * math.cos(angle), 0.28 * math.sin(angle)
            if y > -0.1:
                c.dot(x, y + x * 0.25, 0.09, other)
        c.star(0.7, -0.75, 0.2, 0.07, 4, light)
        c.star(-0.75, 0.7, 0.2, 0.07, 4, light)
    elif topic == "books":
        for row, colour in enumerate((main, other, dark)):
            shift = (-0.1, 0.1, 0.0)[row]
            c.box(-0.8 + shift, -0.7 + row * 0.5, 0.8 + shift, -0.28 + row * 0.5, colour)
            c.box(0.45 + shift, -0.62 + row * 0.5, 0.8 + shift, -0.36 + row * 0.5, light)
    elif topic == "birthday":
        c.box(-0.8, 0.1, 0.8, 0.85, main)
        c.box(-0.8, 0.1, 0.8, 0.3, light)
        for x in (-0.45, 0.0, 0.45):
            c.box(x - 0.07, -0.4, x + 0.07, 0.1, other)
            c.ellipse(x, -0.58, 0.1, 0.18, (245, 190, 40))
    else:
        raise ValueError(f"no pictogram for topic {topic!r}")


_MAIN_COLOURS: tuple[Colour, ...] = (
    (205, 60, 55), (60, 110, 205), (60, 150, 80), (215, 140, 40), (140, 75, 180), (50, 160, 170), (190, 80, 130), (130, 95, 60),
)  # fmt: skip


def draw_picture(topic: str, rng: random.Random) -> Image.Image:
    """Draws a picture of a topic.

    Args:
        topic: A topic key of the lexicon.
        rng: Where all variation comes from; the same state gives the same pixels.

    Returns:
        An RGB picture, 80 to 116 pixels a side, sides within a ratio of 5:4.

    Raises:
        ValueError: for a topic without a pictogram.

    >>> draw_picture("coffee", random.Random(0)).mode
    'RGB'
    """
    width = rng.randint(80, 116)
    height = max(80, min(116, round(width * rng.uniform(1 / _MAX_ASPECT, _MAX_ASPECT))))
    if max(width, height) > _MAX_ASPECT * min(width, height):
        height = width
    warm = rng.randint(175, 235)
    background = tuple(min(255, warm + rng.randint(-15, 20)) for _ in range(3))
    image = Image.new("RGB", (width, height), background)
    # faint clutter behind, the same for all topics
    clutter = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 3)):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(5, 16)
        shade = tuple(max(0, channel - rng.randint(5, 30)) for channel in background)
        clutter.ellipse([x, y, x + size, y + size], fill=shade)

    def vary(colour: Colour, by: int) -> Colour:
        red, green, blue = (max(0, min(255, channel + rng.randint(-by, by))) for channel in colour)
        return red, green, blue

    main, other = (vary(colour, 25) for colour in rng.sample(_MAIN_COLOURS, 2))
    scale = rng.uniform(0.34, 0.43)
    centre = (width * rng.uniform(0.45, 0.55), height * rng.uniform(0.45, 0.55))
    canvas = _Canvas(image, centre, (width * scale, height * scale), rng.uniform(-0.12, 0.12))
    _pictogram(canvas, topic, main, other, vary((45, 45, 50), 20), vary((245, 245, 240), 10))
    # grain, drawn coarse and enlarged so that it costs little
    grain = Image.frombytes("L", (29, 29), rng.randbytes(29 * 29)).resize((width, height))
    return Image.blend(image, Image.merge("RGB", (grain, grain, grain)), 0.06)
