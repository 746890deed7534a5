"""What a store still lacks of segments: dialogues without any, and segments without a vector.

The vector of a segment is that of its lines' words, joined: questions find the right dialogue by it
where the mean of the lines' vectors adds nothing (benchmarks/segmentation.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ffr.corpus.adding import line_text
from ffr.corpus.schema import whole
from ffr.corpus.segmentation import by_vectors
from ffr.corpus.segments import NOTHING, write_segments
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.progress import Progress

METHOD = "vectors"
_BATCH = 64


def lacks_segments(store: Store, chats: Sequence[int], encoder: StoredEncoder) -> bool:
    """Whether a dialogue of these chats has no segments, or one of them no vector."""
    return bool(_unsegmented(store, chats) or _without_vector(store, chats, encoder))


def make_segments(
    store: Store, chats: Sequence[int], encoder: StoredEncoder, progress: Progress
) -> None:
    """Makes the segments that are missing; each batch of dialogues is kept at once.

    Args:
        store: The store, written by nobody else meanwhile.
        chats: Whose dialogues.
        encoder: Whose vectors their lines have.
        progress: Is told how many dialogues are done, of how many.
    """
    waiting = _unsegmented(store, chats)
    for start in range(0, len(waiting), _BATCH):
        part = waiting[start : start + _BATCH]
        with whole(store.database):
            lines = [_lines(store, chat, dialogue) for chat, dialogue in part]
            # asked for at once: a server answers few questions sooner than many
            kept = encoder.vectors.of([key for rows in lines for _, key, _ in rows])
            for (chat, dialogue), rows in zip(part, lines, strict=True):
                _segment(store, chat, dialogue, rows, kept, encoder.vectors.width)
        progress(start + len(part), len(waiting))


def waiting_segments(
    store: Store, chats: Sequence[int], encoder: StoredEncoder
) -> dict[bytes, str]:
    """The words of segments that have no vector yet, by their keys: a line each, each text once."""
    lacking: dict[tuple[int, int], dict[int, bytes]] = {}
    for key, chat, dialogue, number in _without_vector(store, chats, encoder):
        lacking.setdefault((chat, dialogue), {})[number] = key
    found: dict[bytes, str] = {}
    for (chat, dialogue), keys in lacking.items():
        segments = dict(
            store.tuples(
                "SELECT id, segment FROM messages WHERE chat = ? AND dialogue = ?",
                [chat, dialogue],
            )
        )
        words: dict[int, list[str]] = {number: [] for number in keys}
        for line in store.dialogue(chat, dialogue):
            if segments[line.id] in words and (text := line_text(line.message)):
                words[segments[line.id]].append(text)
        found |= {key: "\n".join(dict.fromkeys(words[number])) for number, key in keys.items()}
    return found


def _unsegmented(store: Store, chats: Sequence[int]) -> list[tuple[int, int]]:
    among, values = store.database.among("chat", chats)
    return store.tuples(
        f"SELECT DISTINCT chat, dialogue FROM messages WHERE segment IS NULL AND {among} "
        "ORDER BY chat, dialogue",
        values,
    )


def _without_vector(
    store: Store, chats: Sequence[int], encoder: StoredEncoder
) -> list[tuple[bytes, int, int, int]]:
    """Key, chat, dialogue and number of one segment of each key that has no vector yet."""
    among, values = store.database.among("chat", chats)
    return store.tuples(
        "SELECT key, chat, dialogue, number FROM (SELECT key, chat, dialogue, number, row_number() "
        "OVER (PARTITION BY key ORDER BY chat, dialogue, number) AS nth FROM segments "
        f"WHERE key != ? AND {among} AND NOT EXISTS (SELECT 1 FROM vectors WHERE encoder = ? "
        "AND vectors.key = segments.key)) AS lacking WHERE nth = 1 "
        "ORDER BY chat, dialogue, number",
        [NOTHING, *values, encoder.key],
    )


def _lines(store: Store, chat: int, dialogue: int) -> list[tuple[int, bytes, float | None]]:
    """Number, key of the words, and time of each message of a dialogue, in order."""
    return store.tuples(
        "SELECT id, text_key, seconds FROM messages WHERE chat = ? AND dialogue = ? "
        "ORDER BY +place",
        [chat, dialogue],
    )


def _segment(
    store: Store,
    chat: int,
    dialogue: int,
    rows: Sequence[tuple[int, bytes, float | None]],
    kept: Mapping[bytes, NDArray[np.float32]],
    width: int,
) -> None:
    ids, keys, times = zip(*rows, strict=True)
    vectors = _vectors_of(keys, kept, width)
    if vectors is None:
        return
    numbers = by_vectors(vectors, times)
    write_segments(store, chat, dialogue, dict(zip(ids, numbers, strict=True)), METHOD)


def _vectors_of(
    keys: Sequence[bytes], kept: Mapping[bytes, NDArray[np.float32]], width: int
) -> NDArray[np.float32] | None:
    """(n, D) the vectors of lines, of zeros where one has no words.

    None where one has words and no vector yet: its chat was added a moment ago, and is indexed by
    who added it.
    """
    if any(key not in kept for key in keys if key != NOTHING):
        return None
    found = np.zeros((len(keys), width), np.float32)
    for row, key in zip(found, keys, strict=True):
        if key != NOTHING:
            row[:] = kept[key]
    return found
