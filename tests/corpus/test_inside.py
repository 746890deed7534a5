"""A long dialogue is asked around what was recalled; what cannot be answered is counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from chat_builds import add, said

from ffr.chats.cutting import Cutting
from ffr.corpus.archive import Archive
from ffr.corpus.inside import MOST_LINES, stretches
from ffr.corpus.recall import Recalled, Trace
from ffr.corpus.store import Store
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.retrieval.interface import Answer
from ffr.retrieval.lexical import BaselineRetriever

NUM_LINES = 1000


class Seen(BaselineRetriever):
    """Overlap of words; remembers the sizes of the dialogues that it was asked on."""

    def __init__(self) -> None:
        super().__init__("overlap")
        self.sizes: list[int] = []

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        self.sizes += [len(example.dialogue.utterances) for example in examples]
        return super().answer(examples)


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    texts = [f"nothing {number}" for number in range(NUM_LINES)]
    texts[5], texts[100], texts[990] = "a zebra", "zebra again", "one more zebra"
    lines = [said("Zoe", text, number) for number, text in enumerate(texts)]
    with Store(tmp_path / "s", is_new_allowed=True) as opened:
        add(opened, lines, cutting=Cutting(0, 0))
        yield opened


def test_stretches_hold_what_was_recalled_and_meet_nowhere(store: Store) -> None:
    found = Recalled((1, 0), {"words": Trace(1, 1.0, (6, 101, 991))})
    spans = [(lines[0].place, lines[-1].place) for lines in stretches(store, found)]
    # the two near ones are one stretch; the last does not go beyond the end
    assert spans == [(0, 239), (760, 999)]
    assert [len(lines) for lines in stretches(store, Recalled((1, 0), {}))] == [NUM_LINES]


def test_ids_of_a_stretch_are_messages_again(store: Store) -> None:
    asked = Seen()
    hits = Archive(store, asked, None, None).ask("zebra", top=9).hits
    assert asked.sizes == [MOST_LINES, MOST_LINES]
    assert sorted(line.place for hit in hits for line in hit.lines) == [5, 100, 990]
    assert {hit.words for hit in hits} == {("zebra",)}
    assert [dict(hit.ways) for hit in hits] == [{"words": 1}] * 2


class Broken(BaselineRetriever):
    """Answers where a line says so."""

    def __init__(self) -> None:
        super().__init__("everything")

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        if any("broken" in example.dialogue.utterances[0].text for example in examples):
            raise DataError("the server is gone")
        return super().answer(examples)


def test_a_dialogue_that_cannot_be_answered_on_is_counted(store: Store) -> None:
    for number, text in enumerate(("a lynx", "broken lynx")):
        add(store, (said("Zoe", text),), f"chat {number}")
    archive = Archive(store, Broken(), None, None)
    found = archive.ask("lynx")
    # the words were found all the same
    assert len(found.hits) == 2
    assert found.searched.endswith(
        "; 1 dialogue could not be answered on, the first because the server is gone"
    )
