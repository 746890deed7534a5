"""Segments of a store: each message in one, remade where a dialogue changed, gone when forgotten."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_builds import TRIP, Letters, add, killed_at, no_bar, said, stored_encoder

from ffr.chats.chat import Message
from ffr.chats.cutting import Cutting
from ffr.corpus.adding import drop_messages, recut
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.indexing import index_store
from ffr.corpus.schema import DATABASE, SCHEMA, whole
from ffr.corpus.segments import NOTHING, segment_key, write_segments
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.errors import DataError

# two dialogues of one topic each, the second one of letters that the first one has not
_TALK = (
    *(said("Ann", "aaa bbb", minute) for minute in range(4)),
    *(said("Bob", text, 5 + number) for number, text in enumerate(["xyz", "xyy", "yzz"])),
    said("Ann", "cab", 60 * 24),
)


def _index(store: Store, letters: Letters | None = None) -> StoredEncoder:
    encoder = stored_encoder(store, letters)
    index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)
    return encoder


def _numbers(store: Store) -> list[tuple[int, int | None]]:
    return store.tuples("SELECT dialogue, segment FROM messages ORDER BY chat, place")


def _keys(store: Store) -> dict[tuple[int, int, int], bytes]:
    rows = store.tuples("SELECT chat, dialogue, number, key FROM segments")
    return {row[:3]: row[3] for row in rows}


def test_each_message_is_in_a_segment_whose_vector_is_that_of_its_words(
    tmp_path: Path,
) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, _TALK)
        encoder = _index(store)
        assert _numbers(store) == [(0, 0)] * 4 + [(0, 1)] * 3 + [(1, 0)]
        keys = _keys(store)
        # where all lines are one text, the line's own row serves
        texts = {text: stored_encoder(store).embed_texts([f"p: {text}"]) for text in ("aaa bbb",)}
        matrix = encoder.vectors.matrix()
        places = encoder.vectors.places(list(keys.values()))
        assert np.array_equal(matrix[places[keys[1, 0, 0]]], texts["aaa bbb"][0].numpy())
        assert len(matrix) == 1 + 3 + 1 + 1
        joined = Letters().embed_texts(["p: xyz\nxyy\nyzz"])[0].numpy()
        assert np.array_equal(matrix[places[keys[1, 0, 1]]], joined)


def test_a_message_without_words_goes_along_and_a_segment_of_none_has_no_vector(
    tmp_path: Path,
) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("Ann", "Ann left", kind="system"),), "Silent")
        add(store, TRIP)
        encoder = _index(store)
        assert all(segment is not None for _, segment in _numbers(store))
        assert _keys(store)[1, 0, 0] == NOTHING
        assert encoder.vectors.places([NOTHING]) == {}
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)


def test_what_changed_in_a_dialogue_has_it_segmented_anew_and_no_other(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, _TALK)
        _index(store)
        first = _keys(store)
        add(store, (*_TALK, said("Bob", "qqq", 60 * 24 + 1)))
        # the dialogue that grew waits; the other one stays as it is
        assert _numbers(store) == [(0, 0)] * 4 + [(0, 1)] * 3 + [(1, None)] * 2
        assert _keys(store) == {where: key for where, key in first.items() if where[1] == 0}
        _index(store)
        assert _numbers(store)[-2:] == [(1, 0)] * 2
        assert _keys(store)[1, 1, 0] != first[1, 1, 0]


@pytest.mark.parametrize(
    "change", ["words", "dropped", "recut", "joined"], ids=lambda name: f"by {name}"
)
def test_segments_after_a_change_are_those_of_a_fresh_store(tmp_path: Path, change: str) -> None:
    messages: tuple[Message, ...] = tuple(
        said("Ann" if number % 2 else "Bob", f"{'abcxyz'[number // 4] * 3} {number}", number * 60,
             id_=str(number))
        for number in range(24)
    )  # fmt: skip
    cutting = Cutting(pause_hours=8, max_messages=8)
    changed = list(messages)
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, messages, cutting=cutting, id_="1")
        _index(store)
        if change == "words":
            changed[5] = said("Ann", "qqq else", 5 * 60, id_="5")
            add(store, changed, cutting=cutting, id_="1")
        elif change == "dropped":
            with whole(store.database):
                drop_messages(store, [6])
            del changed[5]
            recut(store, 1, cutting)
        elif change == "recut":
            cutting = Cutting(pause_hours=8, max_messages=5)
            recut(store, 1, cutting)
        else:
            cutting = Cutting(0, 0)
            recut(store, 1, cutting)
        assert any(segment is None for _, segment in _numbers(store))
        _index(store)
        after = _numbers(store), _keys(store)
    with Store(tmp_path / "fresh", is_new_allowed=True) as fresh:
        add(fresh, changed, cutting=cutting, id_="1")
        _index(fresh)
        assert after == (_numbers(fresh), _keys(fresh))


def test_forgotten_segments_are_gone(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, _TALK)
        add(store, (said("Ann", "kept"), said("Ann", "too", 1)), "kept", source=tmp_path / "b")
        _index(store)
        keys = [key for (chat, *_), key in _keys(store).items() if chat == 1]
        forget_chats(store, [1])
        assert {chat for chat, *_ in _keys(store)} == {2}
        assert _index(store).vectors.places(keys) == {}
        left = b"".join(path.read_bytes() for path in sorted((tmp_path / "s").iterdir()))
        assert not any(key in left for key in keys)


def test_vectors_of_segments_do_not_depend_on_what_was_encoded_together(tmp_path: Path) -> None:
    class OneByOne(Letters):
        def embed_texts(self, texts):  # type: ignore[no-untyped-def]
            return torch.cat([super(OneByOne, self).embed_texts([text]) for text in texts])

    found = []
    for name, letters in (("together", Letters()), ("one by one", OneByOne())):
        with Store(tmp_path / name, is_new_allowed=True) as store:
            for number in range(9 if name == "together" else 0):
                add(store, (said("Zoe", f"other {number}"),), f"other {number}")
            add(store, _TALK, "Talk")
            encoder = _index(store, letters)
            chat = store.named("Talk").id
            keys = [key for where, key in sorted(_keys(store).items()) if where[0] == chat]
            places = encoder.vectors.places(keys)
            found.append(np.stack([encoder.vectors.matrix()[places[key]] for key in keys]))
    assert np.abs(found[0] - found[1]).max() < 1e-6


def test_segments_of_other_messages_are_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, _TALK)
        with pytest.raises(ValueError, match="1 messages in segments, and 7 in the dialogue"):
            write_segments(store, 1, 0, {1: 0}, "m")


def test_a_key_names_the_texts_in_their_order() -> None:
    one, two = b"1" * 16, b"2" * 16
    assert segment_key([one, two]) != segment_key([two, one])
    assert segment_key([one, NOTHING, one]) == one
    assert segment_key([]) == segment_key([NOTHING]) == NOTHING


def test_a_store_of_version_1_is_brought_up_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store(folder, is_new_allowed=True) as store:
        add(store, _TALK)
        fresh = _columns(store)
    _to_version_1(folder)
    with Store(folder) as store:
        assert store.rows("PRAGMA user_version")[0][0] == SCHEMA
        assert _columns(store) == fresh
        assert [line.message.text for line in store.lines(1, 4, 6)] == ["xyz", "xyy"]
        _index(store)
        assert _numbers(store) == [(0, 0)] * 4 + [(0, 1)] * 3 + [(1, 0)]


def test_a_store_whose_making_was_broken_off_by_an_earlier_ffr_is_made_whole(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "s"
    with Store(folder, is_new_allowed=True) as store:
        fresh = _columns(store)
    _to_version_1(folder, number=0)
    with Store(folder) as store:
        assert _columns(store) == fresh


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path, is_new_allowed=True) as store:
        store.database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(DataError, match=f"is a store of version {SCHEMA + 1}, and this ffr"):
        Store(tmp_path)


def _columns(store: Store) -> dict[str, list[str]]:
    """The columns of each table, by name."""
    tables = store.tuples("SELECT name FROM sqlite_master ORDER BY name")
    return {
        name: sorted(column for _, column, *_ in store.tuples(f"PRAGMA table_info({name})"))
        for (name,) in tables
    }


def _to_version_1(folder: Path, number: int = 1) -> None:
    """Takes out of a database what version 2 brought."""
    database = sqlite3.connect(folder / DATABASE)
    database.executescript(
        "DROP INDEX messages_without_segment; DROP TABLE segments; "
        f"ALTER TABLE messages DROP COLUMN segment; PRAGMA user_version = {number};"
    )
    database.close()


@pytest.mark.slow
def test_whoever_is_killed_while_segmenting_leaves_what_the_next_one_finishes(
    tmp_path: Path,
) -> None:
    base, folder = tmp_path / "base", tmp_path / "s"
    with Store(base, is_new_allowed=True) as store:
        add(store, _TALK)
    with Store(tmp_path / "whole", is_new_allowed=True) as store:
        add(store, _TALK)
        _index(store)
        wanted = _numbers(store), _keys(store)
    for number in range(1, 999):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        if not killed_at(folder, number, _index):
            break
        with Store(folder) as store:
            states = {segment is None for _, segment in _numbers(store)}
            assert len(states) == 1
            _index(store)
            assert (_numbers(store), _keys(store)) == wanted
    assert number > 5
