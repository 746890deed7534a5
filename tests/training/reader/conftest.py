"""A sentence encoder and dialogues, small enough for a training in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from encoder_builds import build_sentence_encoder

from ffr.data.forms.formats import write_examples
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


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sentence_encoder("bert", tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and val.jsonl."""
    import PIL.Image

    folder = tmp_path_factory.mktemp("talks")
    for number in range(40):
        PIL.Image.new("RGB", (28, 28), (6 * number, 10, 10)).save(folder / f"{number}.png")
    write_examples(folder / "train.jsonl", talks(0, 24))
    write_examples(folder / "val.jsonl", talks(24, 8))
    return folder
