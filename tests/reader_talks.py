"""Dialogues that a reader learns in seconds."""

from __future__ import annotations

import random

from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance

TOPICS = ("bus tram train", "tea soup bread", "cat dog horse", "rain snow wind")


def talks(first: int, num: int) -> list[Example]:
    """Dialogues of three topics, three lines each; queries by a line of one, and by the topic not there."""
    found = []
    for number in range(first, first + num):
        draw = random.Random(number)
        chosen = draw.sample(range(len(TOPICS)), 3)
        lines = [
            Utterance(f"user{1 + place % 2}", (f"{draw.choice(TOPICS[topic].split())} {place}",))
            for place, topic in enumerate(topic for topic in chosen for _ in range(3))
        ]
        lines[1] = Utterance(lines[1].speaker, (lines[1].text, Image(f"{number}.png")))
        chat = Dialogue(f"d{number}", tuple(lines))
        meant = draw.randrange(3)
        ids = tuple(range(3 * meant, 3 * meant + 3))
        query = lines[draw.choice(ids)].text
        found.append(Example(chat, query, Fragment(ids, (0,) if meant == 0 else ())))
        (absent,) = set(range(len(TOPICS))) - set(chosen)
        found.append(Example(chat, TOPICS[absent].split()[0], Fragment()))
    return found
