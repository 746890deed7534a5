"""The segments of a store: which messages belong together within a dialogue, kept with its chat.

A message knows the number of its segment in its dialogue; NULL says that none was made yet. What
changes in a dialogue makes all of it NULL, in the same transaction, so a segment that is there is
always one of the messages as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ffr.corpus.store import Store

NOTHING = hashlib.sha256(b"").digest()[:16]
"""The key of a text that is empty, and of a segment without words: neither has a vector."""


def segment_key(keys: Sequence[bytes]) -> bytes:
    """Names the words of a segment by those of its lines, each text once; of one it is its own.

    Args:
        keys: `text_key` of each of its messages, in order; those without words do not count.

    >>> segment_key([NOTHING, b"a line", NOTHING])
    b'a line'
    """
    told = list(dict.fromkeys(key for key in keys if key != NOTHING))
    if len(told) == 1:
        return told[0]
    return hashlib.sha256(b"".join(told)).digest()[:16]


def loosen_messages(store: Store, ids: Sequence[int]) -> None:
    """Has the dialogues of messages that go away be segmented anew."""
    among, values = store.database.among("id", ids)
    store.database.execute(
        "UPDATE messages SET segment = NULL WHERE segment IS NOT NULL AND (chat, dialogue) IN "
        f"(SELECT chat, dialogue FROM messages WHERE {among})",
        values,
    )


def loosen_dialogues(store: Store, chat: int, dialogues: Iterable[int]) -> None:
    """Has dialogues that messages leave be segmented anew."""
    store.database.executemany(
        "UPDATE messages SET segment = NULL WHERE chat = ? AND dialogue = ?",
        [(chat, number) for number in sorted(dialogues)],
    )


def drop_stale(store: Store, chat: int) -> None:
    """Takes out the segments of each dialogue of a chat in which one message has none."""
    loose = "SELECT dialogue FROM messages WHERE chat = ? AND segment IS NULL"
    store.database.execute(
        "UPDATE messages SET segment = NULL WHERE chat = ? AND segment IS NOT NULL "
        f"AND dialogue IN ({loose})",
        [chat, chat],
    )
    store.database.execute(
        f"DELETE FROM segments WHERE chat = ? AND (dialogue IN ({loose}) OR dialogue NOT IN "
        "(SELECT dialogue FROM messages WHERE chat = ?))",
        [chat, chat, chat],
    )


def write_segments(
    store: Store, chat: int, dialogue: int, numbers: Mapping[int, int], method: str
) -> None:
    """Writes the segments of a dialogue in the place of those that it has.

    Args:
        store: The store, in a transaction.
        chat: The number of the chat.
        dialogue: Of the dialogue in it.
        numbers: For each message, by its id, the number of its segment.
        method: What made them.

    Raises:
        ValueError: where these are other messages than those of the dialogue.
    """
    rows = store.rows(
        "SELECT id, text_key FROM messages WHERE chat = ? AND dialogue = ? ORDER BY +place",
        [chat, dialogue],
    )
    if {row["id"] for row in rows} != set(numbers):
        raise ValueError(f"{len(numbers)} messages in segments, and {len(rows)} in the dialogue")
    keys: dict[int, list[bytes]] = {}
    for row in rows:
        keys.setdefault(numbers[row["id"]], []).append(row["text_key"])
    database = store.database
    database.renumber(chat, ["segment"], list(numbers.items()))
    database.execute("DELETE FROM segments WHERE chat = ? AND dialogue = ?", [chat, dialogue])
    database.executemany(
        "INSERT INTO segments VALUES (?, ?, ?, ?, ?)",
        [(chat, dialogue, number, segment_key(told), method) for number, told in keys.items()],
    )
