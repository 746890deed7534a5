"""Which message of a store another export brings again, with other files or without them.

A chat may be exported with its files and without, in any order. What was there stays: a picture is
not taken away by an export that has none.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence

from ffr.chats.chat import Media, Message
from ffr.corpus.store import Store, stored_time

Known = tuple[bytes, int]
"""A message of a chat: its key, and how many of that key stand before it."""

# an iPhone's names of files begin with their number in the export, which is another each time
_NUMBERED = re.compile(r"^\d{8}-")


@dataclasses.dataclass(frozen=True, slots=True)
class Met:
    """A message of the store that carries files: what it is known by, its number, and the files."""

    known: Known
    id: int
    media: tuple[Media, ...]

    def lacks(self, message: Message) -> bool:
        """Whether a message brings files, or names of files, that were left out here."""
        return any(
            (old.file is None and new.file is not None) or bool(new.name and not old.name)
            for old, new in zip(self.media, message.media, strict=True)
        )


class Carriers:
    """Messages of a chat that carry files and have no name of the app's own.

    Such a message has another key where the export says "left out" in the place of a file's name.
    It is known by sender, time and words, in their order: an export that has a minute has all of it.

    Args:
        store: The store.
        chat: The chat.
    """

    def __init__(self, store: Store, chat: int) -> None:
        self._found: dict[tuple[object, ...], list[Met]] = {}
        for row in store.rows(
            "SELECT id, key, twin, sender, seconds, zone, text, media FROM messages "
            "WHERE chat = ? AND app_id = '' AND media != '[]' AND seconds IS NOT NULL ORDER BY place",
            [chat],
        ):
            place = (row["sender"], row["seconds"], row["zone"], row["text"])
            self._found.setdefault(place, []).append(
                Met((row["key"], row["twin"]), row["id"], _media(row["media"]))
            )

    def take(self, message: Message, known: Known | None = None) -> Met | None:
        """The message of the store that this is; each is given once.

        Args:
            message: A message of another export.
            known: What it is in the store, where its key tells: then it is only noted.
        """
        if message.id or not message.media or message.time is None:
            return None
        place = (message.sender, *stored_time(message.time), message.text)
        for met in self._found.get(place, ()):
            if met.known == known if known else _fits(met.media, message.media):
                self._found[place].remove(met)
                return met
        return None


def _fits(kept: Sequence[Media], brought: Sequence[Media]) -> bool:
    return len(kept) == len(brought) and all(map(_is_one, kept, brought))


def _is_one(one: Media, other: Media) -> bool:
    if one.name and other.name:
        names = [_NUMBERED.sub("", item.name) for item in (one, other)]
        return one.kind == other.kind and names[0] == names[1]
    # a file of which is only said that it was left out may be of any kind
    kinds = {item.kind for item in (one, other) if item.name or item.kind != "file"}
    return len(kinds) <= 1


def with_kept_files(
    store: Store, number: int, source: int, message: Message
) -> tuple[Message, frozenset[int]]:
    """A message that is there already, with the files that another export brought and this has not.

    Args:
        store: The store.
        number: The message's.
        source: The export that brings it now; what the same export brought before is not kept.
        message: As it comes now.

    Returns:
        The message, and which of its files are kept.
    """
    (row,) = store.rows("SELECT source, media FROM messages WHERE id = ?", [number])
    before = _media(row["media"])
    if row["source"] == source or len(before) != len(message.media):
        return message, frozenset()
    kept = frozenset(
        place
        for place, (old, new) in enumerate(zip(before, message.media, strict=True))
        if new.file is None and old.file is not None and old.kind == new.kind
    )
    media = [before[place] if place in kept else new for place, new in enumerate(message.media)]
    return dataclasses.replace(message, media=tuple(media)), kept


def _media(written: str) -> tuple[Media, ...]:
    return tuple(Media(*item) for item in json.loads(written))
