"""What a store keeps of chats, and how later exports come in."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from chat_builds import START, TRIP, add, said, stream

from ffr.chats.chat import Message, Reaction
from ffr.chats.cutting import Cutting
from ffr.corpus.adding import add_chat, line_text, recut, text_key
from ffr.corpus.store import Store
from ffr.errors import DataError, UsageError


def _texts(store: Store, chat: int = 1) -> list[str]:
    return [line.message.text for line in store.lines(chat, 0, 100)]


def test_a_chat_comes_back_as_it_was(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    messages = (
        said("Ann", "hi"),
        replace(said("Bob", "ho\nho", 1), reactions=(Reaction("👍", ("Ann",), 1),), reply_to="7"),
        Message(None, "Ann left", datetime(2024, 1, 1, tzinfo=zone), "system"),
        Message("Ann", "no time", is_edited=True, is_deleted=True, forwarded_from="Eve", line=9),
    )
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        assert add(store, messages).num_new == 4
        lines = store.lines(1, 0, 10)
        assert tuple(line.message for line in lines) == messages
        assert [line.speaker for line in lines] == ["Ann", "Bob", "", "Ann"]
        assert [line.is_me for line in lines] == [True, False, False, True]
        (chat,) = store.chats()
        assert chat.summary == "3 messages, 0 pictures, 2 people, 12 May 2023"


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "s").iterdir()
        }
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}


def test_a_later_export_brings_what_is_new(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        later = (*TRIP[1:], said("Ann", "new", 60 * 24 + 5), said("Bob", "between", 7))
        done = add(store, later, source=tmp_path / "later.txt")
        assert (done.chat, done.num_new, done.num_changed, done.num_known) == (1, 2, 0, 5)
        assert len(store.chats()) == 1
        assert _texts(store)[:3] == [TRIP[0].text, TRIP[1].text, "between"]
        assert _texts(store)[-1] == "new"
        assert [line.dialogue for line in store.lines(1, 0, 10)] == [0] * 5 + [1] * 3


def test_the_same_words_twice_are_two_messages(tmp_path: Path) -> None:
    twice = (said("Ann", "ok"), said("Ann", "ok"))
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        assert add(store, twice).num_new == 2
        assert add(store, twice).num_known == 2
        assert add(store, (*twice, twice[0])).num_new == 1


def test_words_that_changed_are_changed(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("Ann", "melon", id_="1"), said("Bob", "x", 1, id_="2")))
        edited = (said("Ann", "lemon", id_="1"), said("Bob", "x", 1, id_="2"))
        done = add(store, edited)
        assert (done.num_new, done.num_changed, done.num_known) == (0, 1, 1)
        assert _texts(store) == ["lemon", "x"]
        found = [
            [row["rowid"] for row in store.rows("SELECT rowid FROM words WHERE words MATCH ?", [w])]
            for w in ("lemon", "melon")
        ]
        assert found == [[1], []]


def test_another_chat_of_the_same_name_is_another_chat(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        add(store, (said("Zoe", "quite another trip", 3),))
        assert [chat.num_messages for chat in store.chats()] == [6, 1]
        with pytest.raises(UsageError, match="more than one chat called Trip"):
            store.named("Trip")
        assert store.named("2").num_messages == 1


def test_chats_of_one_title_are_told_apart_by_app_and_number(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for number, (title, app) in enumerate(
            [("Bob", "line"), ("Bob", "slack"), ("Bob", "slack"), ("Ann", "slack"), ("", "line")]
        ):
            add_chat(
                store,
                stream(TRIP, title, app=app, id_=str(number)),
                tmp_path / f"{number}.txt",
                Cutting(),
                state="s",
            )
        called = [chat.called(60) for chat in store.chats()]
        (alone,) = store.chats([2])
        assert [store.named(name).id for name in (*called[:4], "2")] == [1, 2, 3, 4, 2]
        with pytest.raises(UsageError, match="more than one chat called Bob"):
            store.named("Bob")

    assert called == ["Bob (line)", "Bob (slack, chat 2)", "Bob (slack, chat 3)", "Ann", ""]
    assert alone.called(2) == "B… (slack, chat 2)"


def test_an_export_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    broken = stream()

    def come():  # type: ignore[no-untyped-def]
        yield from TRIP
        raise DataError("ends in the middle")

    broken.messages = come()
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        with pytest.raises(DataError, match="ends in the middle"):
            add_chat(store, broken, tmp_path / "x", Cutting(), state="s")
        assert store.chats() == []
        assert store.rows("SELECT * FROM messages") == []


def test_cut_anew(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        recut(store, 1, Cutting(0, 4))
        assert [line.dialogue for line in store.lines(1, 0, 10)] == [0, 0, 0, 0, 1, 1]
        assert store.chats()[0].cutting == Cutting(0, 4)


def test_times_with_a_zone_keep_it(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=2))
    late = Message("Ann", "x", datetime(2023, 6, 1, 0, 30, tzinfo=zone))
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (late,))
        (line,) = store.lines(1, 0, 1)
        assert line.message.time == late.time
        assert line.message.time is not None
        assert line.message.time.utcoffset() == timedelta(hours=2)
        # the day is that of its own clock
        assert store.chats()[0].first == datetime(2023, 6, 1, 0, 30)
        assert START.replace(tzinfo=UTC) != START


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no chat yet; `ffr retrieve"):
        Store(tmp_path)
    (tmp_path / "messages.sqlite3").write_bytes(b"no database at all" * 99)
    with pytest.raises(DataError, match="cannot be used as a store of chats"):
        Store(tmp_path)


def test_one_writes_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with Store(folder, is_new_allowed=True) as store, Store(folder) as other, store.writing():
        assert other.chats() == []
        with pytest.raises(UsageError, match="is in use by"), other.writing():
            pass


@pytest.mark.parametrize("text", ["half \ud83d of a pair", "zero \0 byte", "'; DROP TABLE chats"])
def test_odd_characters_are_kept_or_replaced(tmp_path: Path, text: str) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("A\ud83dnn", text),))
        assert _texts(store) == [text.replace("\ud83d", "?")]
        assert add(store, (said("A\ud83dnn", text),)).num_known == 1


def test_times_at_both_ends_of_the_calendar(tmp_path: Path) -> None:
    ahead, odd = timezone(timedelta(hours=2)), timezone(timedelta(hours=23, minutes=59, seconds=40))
    times = [
        datetime(1, 1, 1, 0, 30, tzinfo=ahead),
        datetime(2023, 1, 1, tzinfo=odd),
        datetime.max.replace(tzinfo=UTC),
    ]
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, [Message("Ann", "x", time) for time in times])
        assert [line.message.time for line in store.lines(1, 0, 9)] == times
        assert store.chats()[0].summary.endswith("1 Jan 1 – 31 Dec 9999")


def test_an_older_and_longer_export_is_the_same_chat(tmp_path: Path) -> None:
    older = [said("Ann", f"old {number}", number - 9000) for number in range(4100)]
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        assert add(store, [*older, *TRIP], source=tmp_path / "b.txt").num_new == 4100
        assert len(store.chats()) == 1


def test_half_a_pair_does_not_make_a_line_wait_for_ever(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("Ann", "half \ud83d"),))
        (row,) = store.rows("SELECT text_key FROM messages")
        assert row["text_key"] == text_key(line_text(store.line(1).message))


def test_cutting_is_part_of_adding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with Store(tmp_path / "s", is_new_allowed=True) as store:
        with monkeypatch.context() as patch:
            patch.setattr("ffr.corpus.adding.cut_seconds", broken)
            with pytest.raises(KeyboardInterrupt):
                add(store)
        assert store.chats() == []


def test_a_dialogue_is_read_without_going_through_its_chat(tmp_path: Path) -> None:
    asked: list[str] = []
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        store.database.set_trace_callback(asked.append)
        assert [line.place for line in store.dialogue(1, 1)] == [4, 5]
        store.database.set_trace_callback(None)
        (sql,) = [text for text in asked if "FROM messages" in text]
        (plan, *_) = store.rows(f"EXPLAIN QUERY PLAN {sql}")
        assert "messages_of_dialogue (chat=? AND dialogue=?)" in plan["detail"]
