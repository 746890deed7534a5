"""A store that is asked: by words, by meaning, through filters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import PIL.Image
import pytest
from chat_builds import TRIP, Letters, add, no_bar, said, stored_encoder

from ffr.answer import format_answer
from ffr.chats.chat import Media
from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.corpus.vectors import compact
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError, UsageError
from ffr.retrieval.interface import Answer
from ffr.retrieval.lexical import BaselineRetriever


class Nothing(BaselineRetriever):
    """Finds nothing anywhere."""

    def __init__(self) -> None:
        super().__init__("nothing")


class Asked(BaselineRetriever):
    """Finds every line; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__("everything")
        self.dialogues: list[str] = []

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        self.dialogues += [example.dialogue.utterances[0].text for example in examples]
        everything = [self.fragment(example) for example in examples]
        return [
            Answer(format_answer(Fragment(f.utterance_ids, f.image_ids)), score=0.5)
            for f in everything
        ]


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    folder = tmp_path / "s"
    with Store(folder, is_new_allowed=True) as opened:
        PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "flat.png")
        (tmp_path / "export.txt").write_text("as an app wrote it")
        add(opened, source=tmp_path / "export.txt")
        index_store(opened, [1], None, None, say=print, bar=no_bar)
        yield opened


def _texts(hit) -> list[str]:  # type: ignore[no-untyped-def]
    return [line.message.text for line in hit.lines]


def test_words_find_their_line_even_where_the_model_finds_nothing(store: Store) -> None:
    archive = Archive(store, Nothing(), None, None)
    found = archive.ask("Alfama")
    assert [_texts(hit) for hit in found.hits] == [["I found a flat in Alfama"]]
    assert (found.hits[0].score, found.hits[0].found_by) == (None, ("words",))
    assert found.searched == "searched 6 of 6 messages"
    assert [_texts(hit) for hit in archive.ask("公园").hits] == [["这周末去公园吗"]]
    assert archive.ask("zebra").hits == ()
    # both words stand in the chat, but in no line together
    assert archive.ask("Lisbon dentist").hits == ()


def test_a_picture_belongs_to_its_fragment(store: Store) -> None:
    archive = Archive(store, BaselineRetriever("overlap"), None, None)
    (hit,) = archive.ask("公园", top=1).hits
    assert _texts(hit) == ["这周末去公园吗", ""]
    assert hit.pictures == {(4, 0)}
    assert hit.lines[1].pictures == (str(store.folder.parent / "flat.png"),)
    assert hit.span == (2, 3)
    assert hit.score == 1.0


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(by=("bob",)), ["no dentist today"]),
        (Filters(by=("me",)), ["did the dentist call?"]),
        (Filters(since=date(2023, 5, 13)), ["did the dentist call?", "no dentist today"]),
        (Filters(until=date(2023, 5, 12)), []),
        (Filters(has="photo"), []),
        (Filters(chats=(99,)), []),
    ],
)
def test_filters(store: Store, filters: Filters, expected: list[str]) -> None:
    found = Archive(store, Nothing(), None, None).ask("dentist", filters)
    assert [text for hit in found.hits for text in _texts(hit)] == expected


def test_a_photo_is_asked_for(store: Store) -> None:
    archive = Archive(store, BaselineRetriever("overlap"), None, None)
    assert len(archive.ask("公园", Filters(has="photo")).hits) == 1
    assert archive.ask("Lisbon", Filters(has="photo")).hits == ()


def test_what_cannot_be_asked_is_refused(store: Store) -> None:
    archive = Archive(store, Nothing(), None, None)
    with pytest.raises(UsageError, match="--by Eve: nobody is called so; there are Ann, Bob"):
        archive.ask("x", Filters(by=("Eve",)))
    with pytest.raises(UsageError, match="the query is empty"):
        archive.ask("  ")
    with pytest.raises(UsageError, match="--top 0"):
        archive.ask("x", top=0)
    with pytest.raises(UsageError, match="which leaves no day"):
        Filters(since=date(2024, 1, 2), until=date(2024, 1, 1))
    with pytest.raises(UsageError, match="--has cake is unknown"):
        Filters(has="cake")


def test_meaning_recalls_the_closest_dialogues_first(store: Store, tmp_path: Path) -> None:
    for number in range(40):
        add(store, (said("Zoe", chr(0x4E00 + number) * 5, number),), f"chat {number}")
    letters = Letters()
    encoder = stored_encoder(store, letters)
    chats = [chat.id for chat in store.chats()]
    index_store(store, chats, encoder, None, say=print, bar=no_bar)
    said_by_all = {message.text for message in TRIP if message.text}
    said_by_all |= {chr(0x4E00 + number) * 5 for number in range(40)}
    embedded = {text.removeprefix("p: ") for text in set(letters.asked) - {"a"}}
    assert said_by_all <= embedded
    # the rest are segments: some lines as one text
    joined = embedded - said_by_all
    assert joined
    assert all(len(text.split("\n")) > 1 for text in joined)
    assert {line for text in joined for line in text.split("\n")} <= said_by_all
    asked = Asked()
    archive = Archive(store, asked, encoder, letters.embed_texts)
    found = archive.ask("no dentist at all today")
    assert _texts(found.hits[0]) == ["did the dentist call?", "no dentist today"]
    assert len(asked.dialogues) <= 20
    # a query leaves nothing behind
    before = len(letters.asked)
    index_store(store, chats, stored_encoder(store, letters), None, say=print, bar=no_bar)
    assert len(letters.asked) == before


def test_what_is_added_is_found_once_it_is_refreshed(store: Store) -> None:
    archive = Archive(store, Nothing(), None, None)
    assert archive.ask("zebra").hits == ()
    add(store, (*TRIP, said("Ann", "a zebra!", 9999)))
    archive.refresh()
    assert [_texts(hit) for hit in archive.ask("zebra").hits] == [["a zebra!"]]


def test_weak_hits_are_left_out_beside_strong_ones(store: Store) -> None:
    class Sure(BaselineRetriever):
        """As sure as the number in the first line says."""

        def answer(self, examples: Sequence[Example]) -> list[Answer]:
            return [
                Answer(
                    format_answer(Fragment((0,))),
                    score=float(example.dialogue.utterances[0].text.split()[-1]),
                )
                for example in examples
            ]

    for number, score in enumerate((0.9, 0.6, 0.5, 0.3)):
        add(store, (said("Zoe", f"about cats {score}", number),), f"chat {number}")
    archive = Archive(store, Sure("nothing"), None, None)
    ours = Filters(chats=(2, 3, 4, 5))
    # .54 is .6 of the best; what has every word of the question stays
    assert [hit.score for hit in archive.ask("dogs", ours).hits] == [0.9, 0.6]
    assert [hit.score for hit in archive.ask("about cats", ours, top=9).hits] == [
        0.9,
        0.6,
        0.5,
        0.3,
    ]
    assert [hit.score for hit in archive.ask("dogs", Filters(chats=(5,))).hits] == [0.3]


def test_what_another_process_adds_and_forgets_meanwhile(store: Store, tmp_path: Path) -> None:
    encoder = stored_encoder(store, Letters())
    index_store(store, [1], encoder, None, say=print, bar=no_bar)
    archive = Archive(store, Asked(), encoder, lambda queries: encoder.embed_texts(queries))
    assert archive.ask("Alfama").num_messages == 6
    with Store(tmp_path / "s") as other:
        add(other, (said("Zoe", "zebra crossing"),), "Zoo", source=tmp_path / "zoo.txt")
        index_store(other, [2], stored_encoder(other, Letters()), None, say=print, bar=no_bar)
        found = archive.ask("zebra")
        assert (found.hits[0].chat.title, found.num_searched) == ("Zoo", 7)
        forget_chats(other, [1])
    found = archive.ask("zebra")
    assert [_texts(hit) for hit in found.hits] == [["zebra crossing"]]
    assert found.num_searched == found.num_messages == 1


def test_vectors_that_are_packed_anew_between_two_looks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = stored_encoder(store, Letters())
    index_store(store, [1], encoder, None, say=print, bar=no_bar)
    add(store, (said("Zoe", "zebra crossing"),), "Zoo", source=tmp_path / "zoo.txt")
    index_store(store, [2], encoder, None, say=print, bar=no_bar)
    archive = Archive(store, Asked(), encoder, lambda queries: encoder.embed_texts(queries))
    hold, held = encoder.hold, list[int]()

    def late() -> None:
        if not held:
            held.append(1)
            with Store(tmp_path / "s") as other:
                monkeypatch.setattr("ffr.corpus.forgetting.take_off_disk", compact)
                forget_chats(other, [1])
        hold()

    monkeypatch.setattr(encoder, "hold", late)
    assert [hit.chat.title for hit in archive.ask("zebra").hits] == ["Zoo"]
    (path,) = (tmp_path / "s").glob("vectors-*")
    path.unlink()
    with Store(tmp_path / "s") as third:
        fresh = stored_encoder(third, Letters())
        broken = Archive(third, Asked(), fresh, lambda queries: fresh.embed_texts(queries))
        with pytest.raises(DataError, match="is shorter than the store says"):
            broken.ask("zebra")


@pytest.mark.parametrize(
    "query",
    [
        "x" * 100_000,
        " ".join(f"w{number}" for number in range(20_000)),
        "!?…—()[]{}",
        "🙈🙉🙊",
        'flat" OR words MATCH "x*',
        "NEAR(flat Alfama) AND NOT flat* ^a : -",
        "\0\x1b[31m",
        "half \udcff",
    ],
)
def test_any_query_is_answered(store: Store, query: str) -> None:
    found = Archive(store, Nothing(), None, None).ask(query)
    assert found.num_searched == 6


def test_filters_of_any_size(store: Store) -> None:
    many = Filters(chats=tuple(range(1, 40_000)), by=("Ann",) * 40_000)
    assert Archive(store, Nothing(), None, None).ask("Alfama", many).num_messages == 6
    last = Filters(until=date.max, since=date.min)
    assert Archive(store, Nothing(), None, None).ask("Alfama", last).num_searched == 6
    with pytest.raises(UsageError, match="nobody is called so"):
        Archive(store, Nothing(), None, None).ask("Alfama", Filters(by=("",)))


def test_a_picture_that_is_not_the_first_of_its_message_is_one(
    store: Store, tmp_path: Path
) -> None:
    both = (Media("file", "a.pdf"), Media("picture", "b.png"))
    add(store, (said("Zoe", "tickets", 0, *both),), "Zoo", source=tmp_path / "export.txt")
    found = Archive(store, Asked(), None, None).ask("tickets", Filters(has="photo", chats=(2,)))
    assert found.num_searched == len(found.hits) == 1
