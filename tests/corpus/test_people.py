"""People of several names are one where that was said, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from chat_builds import TRIP, add, said, stream

from ffr.chats.cutting import Cutting
from ffr.corpus.adding import add_chat
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.index import Index
from ffr.corpus.people import (
    everyone,
    join_people,
    part_people,
    people_of,
    perhaps_same,
    same_as,
)
from ffr.corpus.store import Store
from ffr.errors import UsageError

NUMBER = "+351 912 345 678"
WORK = (said(NUMBER, "the flat is taken"), said("Eve", "so what"), said("Bobby", "no"))


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Ann and Bob of a trip; a number, Eve and Bobby at work."""
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        add(store, WORK, "Work", source=tmp_path / "work.txt")
        yield store


def _by(store: Store, name: str, *chats: int) -> list[str]:
    condition, values = Filters(chats, (name,)).condition(store)
    return [
        row["text"] for row in store.rows(f"SELECT text FROM messages WHERE {condition}", values)
    ]


def test_nobody_is_taken_for_somebody_else(store: Store) -> None:
    assert [(p.name, p.chats, p.num_messages, p.is_joined) for p in everyone(store)] == [
        ("Ann", (1,), 3, False), ("Bob", (1,), 3, False), (NUMBER, (2,), 1, False),
        ("Bobby", (2,), 1, False), ("Eve", (2,), 1, False),
    ]  # fmt: skip
    assert _by(store, "Ann") == [line.text for line in TRIP if line.sender == "Ann"]


def test_one_person_under_two_names_in_two_chats(store: Store) -> None:
    person = join_people(store, ["Ann", NUMBER])
    assert (person.name, person.names, person.chats) == ("Ann", ("Ann", NUMBER), (1, 2))
    assert (person.num_messages, person.is_me) == (4, True)
    all_of_ann = [*(line.text for line in TRIP if line.sender == "Ann"), "the flat is taken"]
    for name in ("Ann", NUMBER, "+351", "me"):
        assert _by(store, name) == all_of_ann
    # the name of another chat leads to the one of this chat
    assert _by(store, "Ann", 2) == ["the flat is taken"]
    assert [line.speaker for line in store.lines(2, 0, 9)] == ["Ann", "Eve", "Bobby"]
    # whose export the second one is stays unknown
    assert not any(line.is_me for line in store.lines(2, 0, 9))


def test_two_names_in_one_chat_are_one_in_its_summary(store: Store) -> None:
    before = store.chats()[1].summary
    join_people(store, ["Eve", "Bobby"])
    assert (before, store.chats()[1].summary) == (
        "3 messages, 0 pictures, 3 people, 12 May 2023",
        "3 messages, 0 pictures, 2 people, 12 May 2023",
    )
    assert [(person.key, person.name) for person in people_of(store, 2)] == [
        (NUMBER, NUMBER), ("Bobby", "Eve")]  # fmt: skip
    assert sorted(same_as(store, 2, "Bobby")) == ["Bobby", "Eve"]
    assert same_as(store, 2, NUMBER) == [NUMBER]


def test_it_holds_when_the_chat_comes_again(store: Store, tmp_path: Path) -> None:
    join_people(store, ["Ann", NUMBER])
    more = (*WORK, said(NUMBER, "new", 9))
    assert add(store, more, "Work", source=tmp_path / "later.txt").num_new == 1
    assert "new" in _by(store, "Ann")


def test_groups_grow_and_are_parted(store: Store) -> None:
    join_people(store, ["Ann", NUMBER])
    assert join_people(store, ["Eve", "ann"]).names == ("Eve", "Ann", NUMBER)
    assert part_people(store, ["Eve"]) == 1
    assert {p.name: p.names for p in everyone(store)}["Eve"] == ("Eve",)
    assert _by(store, NUMBER)[-1] == "the flat is taken"
    # of two one stays alone, and is as before
    assert part_people(store, [NUMBER]) == 1
    assert store.rows("SELECT * FROM same") == []
    assert [line.speaker for line in store.lines(2, 0, 1)] == [NUMBER]


def test_what_is_forgotten_is_no_ones_name(store: Store) -> None:
    join_people(store, ["Ann", NUMBER])
    forget_chats(store, [2])
    assert store.rows("SELECT * FROM same") == []
    assert everyone(store)[0].names == ("Ann",)


def test_a_name_of_one_chat_alone(store: Store, tmp_path: Path) -> None:
    add(store, (said("Ann", "another Ann"),), "Other", source=tmp_path / "other.txt")
    assert join_people(store, ["Eve", "3/Ann"]).chats == (2, 3)
    # and `--by Ann` goes by any name
    assert _by(store, "Eve") == ["so what", "another Ann"]


def test_two_of_a_name_in_one_chat_are_not_guessed(store: Store, tmp_path: Path) -> None:
    chat = stream((said("17", "one"), said("18", "two")), "Twins", app="telegram")
    chat.person("17", "Kim")
    chat.person("18", "Kim")
    add_chat(store, chat, tmp_path / "t.json", Cutting(), state="s")
    with pytest.raises(UsageError, match=r"2 people of chat 3 are called so; .*: 17, 18"):
        join_people(store, ["Ann", "Kim"])
    join_people(store, ["Ann", "18"])
    assert "two" in _by(store, "Ann")
    assert "one" not in _by(store, "Ann")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Ann", "Nobody"], "Nobody: nobody in .* is called so"),
        (["Ann", "An"], "An: nobody"),
        (["Ann"], "Ann is one person already; name two"),
        (["Ann", "ANN "], "Ann is one person already"),
        (["Ann", "2/Bob"], "2/Bob: nobody"),
    ],
)
def test_what_cannot_be_joined_is_said(store: Store, names: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        join_people(store, names)
    assert store.rows("SELECT * FROM same") == []


def test_who_was_not_joined_cannot_be_parted(store: Store) -> None:
    with pytest.raises(UsageError, match="Ann: nobody else was said to be the same"):
        part_people(store, ["Ann"])


def test_a_number_is_a_question_and_no_more(store: Store, tmp_path: Path) -> None:
    chat = stream((said("351912345678@s.whatsapp.net", "hi"),), "Other", app="chatlab")
    chat.person("351912345678@s.whatsapp.net", "Ann Lee")
    add_chat(store, chat, tmp_path / "c.json", Cutting(), state="s")
    assert [[person.name for person in people] for people in perhaps_same(store)] == [
        [NUMBER, "Ann Lee"]
    ]
    join_people(store, ["Ann Lee", NUMBER])
    assert perhaps_same(store) == []


def test_years_and_short_numbers_are_no_telephones(store: Store, tmp_path: Path) -> None:
    lines = (said("12345", "a"), said("user 12345678", "b"), said("wxid_12345678", "c"))
    add(store, lines, "Numbers", source=tmp_path / "n.txt")
    add(store, tuple(replace(line, sender=f"{line.sender} ") for line in lines), "Numbers 2",
        source=tmp_path / "m.txt")  # fmt: skip
    assert perhaps_same(store) == []


def test_from_python(tmp_path: Path) -> None:
    with Index(tmp_path / "s", model="baseline:overlap") as index:
        add(index.store)
        add(index.store, WORK, "Work", source=tmp_path / "work.txt")
        assert index.retrieve("flat", by=["Ann"]).hits == ()
        assert index.same("Ann", NUMBER).chats == (1, 2)
        (hit,) = index.retrieve("flat", by=["Ann"]).hits
        assert [line.speaker for line in hit.lines] == ["Ann"]
        index.apart(NUMBER)
        assert index.retrieve("flat", by=["Ann"]).hits == ()
        assert [person.name for person in index.people][:2] == ["Ann", "Bob"]
        for wrong in ((), ("Ann", 3)):
            with pytest.raises(ValueError, match="the names are"):
                index.same(*wrong)  # type: ignore[arg-type]
