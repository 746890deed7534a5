"""Small dialogues with pictures on disk, and a retriever that can be made to stop."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.evaluation.retrievers import Answer
from ffr.prompt import prompt_of


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """Five dialogues of 4 to 40 lines, two queries each; each dialogue has pictures of its own."""
    found = []
    for number in range(5):
        lines, root = [], tmp_path / "pictures"
        root.mkdir(exist_ok=True)
        for index in range(4 + 9 * number):
            if index % 4 == 3:
                name = f"{number}-{index}.png"
                PIL.Image.new("RGB", (8, 8), (40 * number, 5 * index, 90)).save(root / name)
                lines.append(Utterance("b", (Image(name),)))
            else:
                lines.append(Utterance("a", (f"line {index} of talk {number}",)))
        chat = Dialogue(f"d{number}", tuple(lines))
        found.append(Example(chat, "talk about lines", Fragment((0, 1), (0,)), image_root=root))
        found.append(Example(chat, "nothing of the kind", Fragment(), image_root=root))
    return found


class FakeRetriever:
    """Answers the truth for even lengths and talks past the point otherwise; can stop after some batches."""

    def __init__(self, stop_after: int | None = None, batch: int = 3, flavour: str = "plain") -> None:
        self.stop_after, self.batch, self.flavour = stop_after, batch, flavour
        self.num_asked = 0

    @property
    def name(self) -> str:
        return "fake"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": "fake", "flavour": self.flavour}

    def plan(self, examples):
        order = sorted(range(len(examples)), key=lambda index: (-len(examples[index].dialogue.utterances), index))
        return [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

    def prompt(self, example):
        return prompt_of(example)

    def answer(self, examples):
        if self.stop_after is not None:
            if self.stop_after == 0:
                raise KeyboardInterrupt
            self.stop_after -= 1
        self.num_asked += len(examples)
        return [
            Answer(format_answer(example.fragment) if len(example.query) % 2 == 0 else "well…", (-0.5, -0.25), False)
            for example in examples
        ]


@pytest.fixture
def fake_retriever() -> type[FakeRetriever]:
    return FakeRetriever
