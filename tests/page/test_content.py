"""Messages as they are shown: what stands together, what is told of each, what is made harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_builds import TRIP, asked, fill

from ffr.corpus.store import Store
from ffr.page.content import harmless, shown_chat, shown_found, shown_lines


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(fill(tmp_path)) as opened:
        yield opened


def test_lines_as_they_stand_under_each_other(store: Store) -> None:
    lines = shown_lines(store, store.lines(1, 0, 20))
    assert [line.text for line in lines] == [message.text for message in TRIP]
    assert [line.speaker for line in lines[:6]] == ["Ann", "Bob", "Bob", "Bob", "Ann", ""]
    assert [line.place for line in lines if line.is_me] == [0, 4, 6, 9]
    assert [line.place for line in lines if line.starts_day] == [0, 6]
    assert [line.place for line in lines if line.continues] == [2, 3, 8]
    assert [line.place for line in lines if line.is_edited] == [2]
    assert (lines[6].day, lines[6].day_words, lines[6].clock) == (
        "2023-05-13",
        "13 May 2023",
        "18:00",
    )
    assert [(item.kind, item.is_picture) for line in lines for item in line.media] == [
        ("picture", True),
        ("picture", False),
        ("voice", False),
    ]


def test_replies_and_reactions_are_named(store: Store) -> None:
    line = shown_lines(store, store.lines(1, 1, 2))[0]
    assert line.reply is not None
    assert (line.reply.place, line.reply.speaker) == (0, "Ann")
    assert line.reply.text == "shall we fly to Lisbon in May?"
    assert [(item.sign, item.count, item.people) for item in line.reactions] == [
        ("👍", 1, ("Ann",))
    ]


def test_what_is_left_out_between_lines_is_counted(store: Store) -> None:
    lines = [*store.lines(1, 0, 1), *store.lines(1, 4, 5)]
    assert [line.num_skipped for line in shown_lines(store, lines)] == [0, 3]
    before = store.lines(1, 5, 6)[0]
    (after,) = shown_lines(store, store.lines(1, 6, 7), before)
    assert (after.starts_day, after.num_skipped) == (True, 0)


def test_foreign_words_steer_nothing(store: Store) -> None:
    lines = shown_lines(store, store.lines(2, 0, 9))
    assert lines[1].text == "turned ⟨U+202E⟩ round␛[31m :: here"
    assert lines[1].speaker == "⟨U+202E⟩evE␛[31m"
    # what emoji and right-to-left words are written with stays
    assert harmless("👨‍👩‍👧 \u200fאב \u2068Ann\u2069") == "👨‍👩‍👧 \u200fאב \u2068Ann\u2069"
    assert shown_chat(store, store.chats([2])[0]).title == "<i>Strange</i>"


def test_hits_and_chats(store: Store) -> None:
    found = shown_found(store, asked(store).ask("the flat in Alfama", top=1))
    (hit,) = found.hits
    assert (hit.chat, hit.title, hit.when) == (1, "Trip", "12 May 2023, 18:00–18:09")
    assert {line.day for line in hit.lines} == {"2023-05-12"}
    assert found.searched == "searched 13 of 13 messages"
    chat = shown_chat(store, store.chats([1])[0])
    assert (chat.num_lines, chat.has_times) == (10, True)
    assert [(person.name, person.is_me) for person in chat.people] == [
        ("Ann", True),
        ("Bob", False),
    ]
