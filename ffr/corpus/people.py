"""Who speaks in a store, and who of them are one person under several names, as its owner said.

Nobody is taken for somebody else by guessing: people are one where that was said, and at most a
question is raised.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ffr.chats.chat import Person
from ffr.corpus.schema import whole
from ffr.corpus.store import Store
from ffr.errors import UsageError
from ffr.text import one_line

_NUMBER = re.compile(r"\+?[\d\s().\-\u00a0\u2011]+(@[\w.]+)?")
# shorter ones are no telephone's
_LEAST_DIGITS = 8
_MAX_NAMED = 12

Entry = tuple[int, str]
"""Somebody as one chat has them: the number of the chat, and the key there."""


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Someone who speaks in a store.

    Args:
        name: What they are called.
        names: All their names, this one first.
        entries: Where they speak, and by which key.
        num_messages: How many messages are theirs.
        is_me: Whether they are the owner of an export.
        is_joined: Whether it was said that these are one.
    """

    name: str
    names: tuple[str, ...]
    entries: tuple[Entry, ...]
    num_messages: int
    is_me: bool
    is_joined: bool

    @property
    def chats(self) -> tuple[int, ...]:
        """The numbers of the chats in which they speak."""
        return tuple(dict.fromkeys(chat for chat, _ in self.entries))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the database: somebody of one chat, and the person that they were said to be."""

    place: Entry
    names: tuple[str, ...]
    is_me: bool
    person: int | None
    called: str | None


def _entries(store: Store) -> list[_Entry]:
    rows = store.rows(
        "SELECT people.chat, people.key, people.name, other_names, is_me, person, called "
        "FROM people LEFT JOIN same ON same.chat = people.chat AND same.key = people.key "
        "ORDER BY people.chat, people.key"
    )
    return [
        _Entry(
            (row["chat"], row["key"]),
            (row["name"], *json.loads(row["other_names"])),
            bool(row["is_me"]),
            row["person"],
            row["called"],
        )
        for row in rows
    ]


def everyone(store: Store) -> list[KnownPerson]:
    """Everyone who speaks, those who wrote most first.

    Whoever is in several chats is there once for each, until it is said that they are one.
    """
    sizes = Counter[Entry]()
    for row in store.rows(
        "SELECT chat, sender, count(*) AS n FROM messages WHERE sender IS NOT NULL "
        "GROUP BY chat, sender"
    ):
        sizes[row["chat"], row["sender"]] = row["n"]
    return sorted(_known(store, sizes), key=lambda person: (-person.num_messages, person.name))


def _known(store: Store, sizes: Counter[Entry] | None = None) -> list[KnownPerson]:
    """Everyone, in the order of chats and keys."""
    groups: dict[object, list[_Entry]] = {}
    for entry in _entries(store):
        groups.setdefault(entry.place if entry.person is None else entry.person, []).append(entry)
    return [_person(entries, sizes or Counter()) for entries in groups.values()]


def _person(entries: Sequence[_Entry], sizes: Counter[Entry]) -> KnownPerson:
    called = entries[0].called or entries[0].names[0]
    return KnownPerson(
        called,
        tuple(dict.fromkeys([called, *(name for entry in entries for name in entry.names)])),
        tuple(entry.place for entry in entries),
        sum(sizes[entry.place] for entry in entries),
        any(entry.is_me for entry in entries),
        entries[0].person is not None,
    )


def entries_called(store: Store, name: str, chats: Sequence[int] = ()) -> list[Entry]:
    """Everyone who goes by a name, whole or by its beginning; by any name of theirs.

    Args:
        store: The store.
        name: The name; `me` is the owner of an export too.
        chats: Those that are meant; none for all.

    Raises:
        UsageError: where nobody does.
    """
    meant = frozenset(chats)
    people = [person for person in _known(store) if not meant or meant & {*person.chats}]
    wanted = name.strip().casefold()
    exact, begun = list[Entry](), list[Entry]()
    for person in people:
        names = [item.casefold() for item in (*person.names, *(["me"] if person.is_me else []))]
        if wanted in names:
            exact += person.entries
        elif wanted and any(item.startswith(wanted) for item in names):
            begun += person.entries
    found = [place for place in exact or begun if not meant or place[0] in meant]
    if not found:
        known = list(dict.fromkeys(one_line(person.name, 30) for person in people))
        more = ", …" if len(known) > _MAX_NAMED else ""
        raise UsageError(
            f"--by {one_line(name, 40)}: nobody is called so; there are "
            f"{', '.join(known[:_MAX_NAMED])}{more}"
        )
    return found


def people_of(store: Store, chat: int) -> list[Person]:
    """Who speaks in a chat, each once; of several keys of a person the first stands for all."""
    rows = store.rows("SELECT key, person FROM same WHERE chat = ?", [chat])
    person_of = {row["key"]: row["person"] for row in rows}
    found: dict[object, Person] = {}
    for person in store.people(chat).values():
        found.setdefault(person_of.get(person.key, person.key), person)
    return list(found.values())


def same_as(store: Store, chat: int, key: str) -> list[str]:
    """The keys by which a person speaks in a chat, given one of them."""
    rows = store.rows(
        "SELECT key FROM same WHERE chat = ? AND person = "
        "(SELECT person FROM same WHERE chat = ? AND key = ?)",
        [chat, chat, key],
    )
    return [row["key"] for row in rows] or [key]


def join_people(store: Store, names: Sequence[str]) -> KnownPerson:
    """Has people be one from now on, called by the first name.

    Whoever goes by one of the names, in any chat, is meant, and who was said to be the same as they
    before. `NUMBER/NAME` means a chat alone.

    Args:
        store: The store.
        names: Whole names, or keys.

    Raises:
        UsageError: where nobody, or two people of one chat, go by one of them, where they are one
            already, or where another process writes.
    """
    with store.writing(), whole(store.database):
        entries = _entries(store)
        chosen = [entry for name in names for entry in _meant(store, entries, name)]
        people = {entry.person for entry in chosen if entry.person is not None}
        joined = {entry.place: entry for entry in chosen}
        joined |= {entry.place: entry for entry in entries if entry.person in people}
        if len(joined) < 2:
            raise UsageError(
                f"{one_line(names[0], 40)} is one person already; name two at least, as "
                "`ffr index people` shows them"
            )
        first = next(iter(joined.values()))
        name = names[0] if names[0] in first.names else first.names[0]
        numbers = [entry.person for entry in entries if entry.person is not None]
        number = min(people) if people else max(numbers, default=0) + 1
        store.database.executemany(
            "DELETE FROM same WHERE chat = ? AND key = ?", [list(place) for place in joined]
        )
        store.database.executemany(
            "INSERT INTO same(chat, key, person, called) VALUES (?, ?, ?, ?)",
            [[*place, number, name] for place in joined],
        )
    return next(person for person in everyone(store) if first.place in person.entries)


def part_people(store: Store, names: Sequence[str]) -> int:
    """Has those who go by these names be people of their own again.

    Args:
        store: The store.
        names: As `join_people` takes them.

    Returns:
        How many of them were joined with others.

    Raises:
        UsageError: where nobody goes by one of them, nobody of them was joined, or another process
            writes.
    """
    with store.writing(), whole(store.database):
        entries = _entries(store)
        chosen = {
            entry.place: entry
            for name in names
            for entry in _meant(store, entries, name, is_one=False)
            if entry.person is not None
        }
        if not chosen:
            raise UsageError(
                f"{', '.join(one_line(name, 40) for name in names)}: nobody else was said to be the "
                "same; `ffr index people` shows who was"
            )
        store.database.executemany(
            "DELETE FROM same WHERE chat = ? AND key = ?", [list(place) for place in chosen]
        )
        drop_alone(store)
    return len(chosen)


def drop_alone(store: Store) -> None:
    """Takes out what says of one entry alone that it is the same: others were parted or forgotten."""
    store.database.execute(
        "DELETE FROM same WHERE person IN "
        "(SELECT person FROM same GROUP BY person HAVING count(*) < 2)"
    )


def _meant(
    store: Store, entries: Sequence[_Entry], name: str, *, is_one: bool = True
) -> list[_Entry]:
    """Those who go by a whole name or a key, in any chat, or in the one before the slash."""
    wanted = name.strip().casefold()
    found = [entry for entry in entries if wanted in _spelt(entry)]
    if not found:
        number, slash, rest = wanted.partition("/")
        found = [
            entry
            for entry in entries
            if slash and str(entry.place[0]) == number and rest in _spelt(entry)
        ]
    if not found:
        raise UsageError(
            f"{one_line(name, 40)}: nobody in {store.folder} is called so; write the whole name, as "
            "`ffr index people` shows it"
        )
    chats = Counter(entry.place[0] for entry in found)
    doubled = [chat for chat, number in chats.items() if number > 1]
    people = {entry.person for entry in found}
    if is_one and doubled and (None in people or len(people) > 1):
        keys = [one_line(key, 40) for chat, key in (e.place for e in found) if chat == doubled[0]]
        raise UsageError(
            f"{one_line(name, 40)}: {chats[doubled[0]]} people of chat {doubled[0]} are called so; "
            f"name the one that is meant by the app's own name for them: {', '.join(keys)}"
        )
    return found


def _spelt(entry: _Entry) -> set[str]:
    return {text.strip().casefold() for text in (*entry.names, entry.place[1])}


def perhaps_same(store: Store) -> list[tuple[KnownPerson, ...]]:
    """People who may be one, since the same telephone number names them; nothing is done about it."""
    by_digits: dict[str, list[KnownPerson]] = {}
    for person in _known(store):
        keys = [key for _, key in person.entries]
        for digits in dict.fromkeys(filter(None, map(_digits, [*person.names, *keys]))):
            by_digits.setdefault(digits, []).append(person)
    found = dict.fromkeys(tuple(people) for people in by_digits.values() if len(people) > 1)
    # who is called alike everywhere is found by that name already
    return [people for people in found if len({person.name for person in people}) > 1]


def _digits(name: str) -> str:
    """The digits of a telephone number; "" where a text is none."""
    digits = "".join(character for character in name.partition("@")[0] if character.isdigit())
    is_number = _NUMBER.fullmatch(name.strip()) is not None and len(digits) >= _LEAST_DIGITS
    return digits if is_number else ""
