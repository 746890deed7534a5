"""What a store does is the same on every engine: in a folder, and on a server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_builds import TRIP, Letters, add, no_bar, said, stored_encoder

from ffr.chats.chat import Message, Reaction
from ffr.chats.cutting import Cutting
from ffr.corpus.adding import recut
from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import finish_forgetting, forget_chats, forget_store, size_of
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.corpus.terms import query_terms
from ffr.errors import DataError, UsageError
from ffr.retrieval.lexical import BaselineRetriever


@pytest.fixture
def store(place: str | Path) -> Iterator[Store]:
    with Store(place, is_new_allowed=True) as opened:
        yield opened


def _texts(store: Store, chat: int = 1) -> list[str]:
    return [line.message.text for line in store.lines(chat, 0, 10_000)]


def _index(store: Store, letters: Letters | None = None) -> None:
    encoder = stored_encoder(store, letters)
    index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)


def _found(store: Store, *terms: str, is_every: bool = True) -> list[tuple[int, float]]:
    matched, values = store.database.matched("words", terms, is_every=is_every)
    return store.database.tuples(f"SELECT id, score FROM {matched} AS m ORDER BY score, id", values)


def test_a_chat_comes_back_as_it_was(store: Store) -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    messages = (
        said("Ann", "zero \0 one \1 and 10; '%s' ? {}"),
        replace(said("Bob", "ho\nho", 1), reactions=(Reaction("👍", ("Ann",), 1),), reply_to="7"),
        Message(None, "Ann left", datetime(2024, 1, 1, tzinfo=zone), "system"),
        Message("Ann", "no time", is_edited=True, is_deleted=True, forwarded_from="Eve", line=9),
    )
    assert add(store, messages).num_new == 4
    lines = store.lines(1, 0, 10)
    assert tuple(line.message for line in lines) == messages
    assert [line.is_me for line in lines] == [True, False, False, True]
    assert store.chats()[0].summary == "3 messages, 0 pictures, 2 people, 12 May 2023"
    assert [line.message for line in store.lines_of([4, 1, 99])] == [messages[0], messages[3]]
    assert add(store, messages).num_known == 4


def test_a_later_export_brings_what_is_new_and_what_changed(store: Store, tmp_path: Path) -> None:
    add(store, (said("Ann", "melon", id_="1"), said("Bob", "x", 9, id_="2")))
    later = (said("Ann", "lemon", id_="1"), said("Eve", "between", 5, id_="3"))
    done = add(store, later, source=tmp_path / "later.txt", id_="")
    assert (done.num_new, done.num_changed, done.num_known) == (1, 1, 0)
    assert _texts(store) == ["lemon", "between", "x"]
    assert [id_ for id_, _ in _found(store, "lemon")] == [1]
    assert _found(store, "melon") == []
    recut(store, 1, Cutting(0, 2))
    assert [line.dialogue for line in store.lines(1, 0, 9)] == [0, 1, 1]
    assert store.chats()[0].cutting == Cutting(0, 2)


def test_an_export_that_breaks_leaves_nothing(store: Store) -> None:
    def come() -> Iterator[Message]:
        yield from TRIP
        raise DataError("ends in the middle")

    with pytest.raises(DataError, match="ends in the middle"):
        add(store, come())  # type: ignore[arg-type]
    assert store.chats() == []
    assert store.rows("SELECT * FROM messages") == []
    assert add(store).num_new == 6


def test_what_is_forgotten_leaves_no_row(store: Store, tmp_path: Path) -> None:
    add(store, (said("Mallory", "xylophone"), said("Ann", "kept")), "secret")
    add(store, (said("Ann", "kept"), said("Ann", "too", 1)), "plain", source=tmp_path / "b")
    letters = Letters()
    _index(store, letters)
    num_asked = len(letters.asked)
    forget_chats(store, [1])
    assert not store.database.is_unfinished()
    assert [chat.title for chat in store.chats()] == ["plain"]
    assert _found(store, "xylophone") == []
    _index(store, letters)
    assert len(letters.asked) == num_asked
    kept = stored_encoder(store)
    # two lines and what they are together
    assert kept.vectors.matrix().shape == (3, 64)
    for text in ("p: kept", "p: too"):
        assert torch.equal(kept.embed_texts([text]), Letters().embed_texts([text]))
    assert [id_ for id_, _ in _found(store, "kept")] == [3]
    finish_forgetting(store)


def test_a_whole_store_is_forgotten(store: Store, place: str | Path) -> None:
    add(store)
    assert size_of(store) > 4096
    store.close()
    forget_store(place)
    with pytest.raises(DataError, match="holds no chat yet"):
        Store(place)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(by=("bob",)), ["no dentist today"]),
        (Filters(by=("me",)), ["did the dentist call?"]),
        (Filters(since=date(2023, 5, 13)), ["did the dentist call?", "no dentist today"]),
        (Filters(until=date(2023, 5, 12)), []),
        (Filters(has="photo"), []),
        (Filters(chats=(1,)), ["did the dentist call?", "no dentist today"]),
        (Filters(chats=(99,)), []),
    ],
)
def test_filters(store: Store, filters: Filters, expected: list[str]) -> None:
    add(store)
    archive = Archive(store, BaselineRetriever("nothing"), None, None)
    found = archive.ask("dentist", filters)
    assert [line.message.text for hit in found.hits for line in hit.lines] == expected


def test_it_is_found_by_meaning_by_words_and_in_any_script(store: Store) -> None:
    add(store)
    for number in range(30):
        add(store, (said("Zoe", chr(0x4E00 + number) * 5, number),), f"chat {number}")
    letters = Letters()
    _index(store, letters)
    archive = Archive(
        store, BaselineRetriever("everything"), stored_encoder(store, letters), letters.embed_texts
    )
    for query, text in (
        ("no dentist at all today", "no dentist today"),
        ("公园", "这周末去公园吗"),
        ("ALFAMA", "I found a flat in Alfama"),
    ):
        assert text in [line.message.text for line in archive.ask(query).hits[0].lines]
    assert archive.ask("dentist").num_messages == 36
    # more terms than a server takes columns
    archive.ask(" ".join(f"word{number}" for number in range(3000)))


def test_what_this_process_adds_is_found_by_who_asked_before(store: Store) -> None:
    add(store)
    archive = Archive(store, None, None, None)
    assert [item.where[0] for item in archive.recall("dentist zebra")] == [1]
    add(store, [said("Zoe", "a zebra")], "second")
    assert [item.where[0] for item in archive.recall("dentist zebra")] == [2, 1]


def test_both_engines_have_the_same_tables(tmp_path: Path, remote: str) -> None:
    with (
        Store(tmp_path / "s", is_new_allowed=True) as own,
        Store(remote, is_new_allowed=True) as other,
    ):
        names = [
            row["name"]
            for row in own.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row["name"].startswith(("words", "shown_words", "sqlite_"))
        ]
        expected = {
            name: [row["name"] for row in own.rows(f"PRAGMA table_info({name})")] for name in names
        }
        found = {
            name: [
                row["column_name"]
                for row in other.rows(
                    "SELECT column_name FROM information_schema.columns WHERE table_schema = "
                    "current_schema() AND table_name = ? ORDER BY ordinal_position",
                    [name],
                )
            ]
            for name in names
        }
    # where vectors lie is each engine's own
    expected["matrices"].remove("file")
    expected["vectors"].append("vector")
    assert found == expected
    assert {"chats", "messages", "segments", "people"} < found.keys()


def test_the_score_is_that_of_sqlite(tmp_path: Path, remote: str) -> None:
    random = np.random.default_rng(0)
    words = ["café", "naïve", "x" * 3000, "公交车", "🎉", *(f"w{number}" for number in range(40))]
    lines = [
        said("Ann", " ".join(random.choice(words, random.integers(1, 30))), number)
        for number in range(300)
    ]
    questions = ["cafe w1 w2", "naive", "x" * 3000, "公交车", "🎉 w3 w3 w4 w5", "w39 none"]
    with (
        Store(tmp_path / "s", is_new_allowed=True) as own,
        Store(remote, is_new_allowed=True) as other,
    ):
        for store in (own, other):
            add(store, lines)
            add(store, [replace(line, text="w1 w1") for line in lines[:9]], id_="second")
            forget_chats(store, [2])
        for question in questions:
            for is_every in (True, False):
                terms = query_terms(question)
                expected = _found(own, *terms, is_every=is_every)
                found = _found(other, *terms, is_every=is_every)
                assert dict(found) == pytest.approx(dict(expected), abs=1e-9)
                assert len(expected) > 0 or is_every


def test_vectors_are_kept_to_the_bit_and_made_once(store: Store) -> None:
    letters = Letters()
    add(store)
    _index(store, letters)
    num_asked = len(letters.asked)
    _index(store, letters)
    texts = ["p: no dentist today", "p: I found a flat in Alfama", "p: no dentist today"]
    encoder = stored_encoder(store, letters)
    assert torch.equal(encoder.embed_texts(texts), Letters().embed_texts(texts))
    assert len(letters.asked) == num_asked

    class Broken(Letters):
        def embed_texts(self, texts):  # type: ignore[no-untyped-def]
            return super().embed_texts(texts) * float("nan")

    add(store, (said("Zoe", "later"),), "other")
    with pytest.raises(DataError, match="not finite"):
        _index(store, Broken())


def test_who_reads_sees_one_state_and_nobody_stands_in_the_way(
    store: Store, place: str | Path
) -> None:
    add(store)
    with Store(place) as reader:
        with reader.snapshot() as before:
            add(store, (*TRIP, said("Ann", "new", 9999)))
            assert reader.chats()[0].num_messages == 6
            with reader.database.writing():
                assert store.chats()[0].num_messages == 7
        with reader.snapshot() as after:
            assert reader.chats()[0].num_messages == 7
            assert after != before
        with reader.snapshot() as again:
            assert again == after


def test_one_writes_at_a_time(store: Store, place: str | Path) -> None:
    with Store(place) as other, store.writing():
        assert other.chats() == []
        with pytest.raises(UsageError, match=r"is in use by process \d+ on "), other.writing():
            pass
    with Store(place) as other, other.writing():
        pass


def test_days_are_those_of_the_clock(store: Store) -> None:
    ahead = timezone(timedelta(hours=2))
    times = [datetime(1, 1, 1, 0, 30), datetime(2023, 6, 1, 0, 30, tzinfo=ahead), datetime.max]
    add(store, [Message("Ann", "x", time) for time in times])
    day = store.database.day("seconds + coalesce(zone, 0) * 60")
    found = [row["day"] for row in store.rows(f"SELECT {day} AS day FROM messages ORDER BY id")]
    assert found[:2] == ["0001-01-01", "2023-06-01"]


def test_a_closed_store_is_said(store: Store) -> None:
    add(store)
    store.close()
    with pytest.raises(UsageError, match="was closed; open it again"):
        store.chats()
    with pytest.raises(UsageError, match="was closed; open it again"):
        add(store)
