"""A conversation that stands in two dialogues is an answer in both, a picture where it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import script

from ffr.dialogue import Dialogue, Example, Fragment, Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asked() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "asked_archive.py") as module:
        yield module


def _example(name: str, picture: str, kind: str, lines: tuple[int, ...], source: str) -> Example:
    dialogue = Dialogue.of([("Ann", name), ("Bob", "see"), ("Bob", Image(picture))])
    meta = {"query_kind": kind, "source_dialogue": source}
    return Example(dialogue, "a bus", Fragment(lines, (0,)), meta=meta)


def test_the_same_conversation_is_right_wherever_it_stands(asked: ModuleType) -> None:
    own = _example("one", "bus.png", "human_topic_en", (1, 2), "s")
    known = [
        own,
        _example("two", "tram.png", "concept_en", (0, 2), "s"),
        _example("three", "bus.png", "concept_en", (0,), "another"),
    ]
    truths = asked.Conversations(known).truths(own)
    assert truths == {
        own.dialogue.fingerprint: own.fragment,
        known[1].dialogue.fingerprint: known[1].fragment,
    }


def test_a_caption_means_the_same_picture_too(asked: ModuleType) -> None:
    own = _example("one", "bus.png", "human_caption_en", (1, 2), "s")
    other, same = (
        _example("two", "tram.png", "concept_en", (0, 2), "s"),
        _example("three", "bus.png", "concept_en", (0,), "s"),
    )
    truths = asked.Conversations([other, same]).truths(own)
    assert set(truths) == {own.dialogue.fingerprint, same.dialogue.fingerprint}


def test_a_query_without_an_answer_is_refused(asked: ModuleType) -> None:
    dialogue = Dialogue.of([("Ann", "one")])
    with pytest.raises(ValueError, match="has no true answer"):
        asked.Conversations([]).truths(Example(dialogue, "a bus"))
