"""Drawings of every topic, each another one."""

from __future__ import annotations

import random

from ffr.world.lexicon import TOPICS
from ffr.world.pictures import PICTURE_KEYS, draw


def test_drawings_differ_and_keep_their_size() -> None:
    assert set(PICTURE_KEYS) == {topic.key for topic in TOPICS}
    chance = random.Random(0)
    drawn = [draw(key, chance, width=90, height=84) for key in PICTURE_KEYS for _ in range(5)]
    assert {picture.size for picture in drawn} == {(90, 84)}
    assert len({picture.tobytes() for picture in drawn}) == len(drawn)
    assert draw("cars", random.Random(1)).tobytes() == draw("cars", random.Random(1)).tobytes()
