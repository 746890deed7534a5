"""What a store still lacks to be asked: pictures in words, lines as vectors, segments.

Each batch is kept as soon as it is made: whoever is stopped goes on where they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from ffr.corpus.adding import line_text, text_key
from ffr.corpus.pictures import (
    StoredTagger,
    lay_out_pictures,
    tag_pictures,
    untagged_pictures,
    waiting_pictures,
)
from ffr.corpus.segmenting import lacks_segments, make_segments
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.progress import Progress, Say
from ffr.text import counted

_BATCH = 64
_SLOW_SECONDS = 5.0

Bar = Callable[[str, int], AbstractContextManager[Progress]]


def index_store(
    store: Store,
    chats: Sequence[int],
    encoder: StoredEncoder | None,
    tagger: StoredTagger | None,
    *,
    say: Say,
    bar: Bar,
) -> None:
    """Makes what is missing; where nothing is, nobody who writes stands in the way.

    Args:
        store: The store.
        chats: Whose lines become vectors.
        encoder: Makes the vectors; None makes none.
        tagger: Gives pictures words; None gives none.
        say: Gets a line where it takes long, and about what cannot be read.
        bar: Makes a bar of what is done and how often.

    Raises:
        UsageError: where something is missing and another process writes.
    """
    faults: list[str] = []
    if waiting_pictures(store):
        with store.writing(), bar("pictures", 0) as progress:
            faults += lay_out_pictures(store, progress)
    if tagger is not None and untagged_pictures(store, tagger):
        with store.writing(), bar("looking at pictures", 0) as progress:
            faults += tag_pictures(store, tagger, progress)
    for fault in faults:
        say(fault)
    if encoder is not None and (waiting := _waiting(store, chats, encoder, tagger)):
        with store.writing():
            # another process may have written meanwhile
            encoder.refresh()
            known = encoder.vectors.places(list(waiting))
            left = {key: text for key, text in waiting.items() if key not in known}
            _embed(encoder, left, say, bar)
            encoder.remember_weights()
    if encoder is not None and lacks_segments(store, chats, encoder):
        with store.writing(), bar("segments", 0) as progress:
            encoder.refresh()
            make_segments(store, chats, encoder, progress)


def _waiting(
    store: Store, chats: Sequence[int], encoder: StoredEncoder, tagger: StoredTagger | None
) -> dict[bytes, str]:
    """The texts that have no vector yet, by their digests: of lines, and of what pictures show."""
    nothing = text_key("")
    found: dict[bytes, str] = {}
    for chat in chats:
        rows = store.rows(
            "SELECT min(id) AS id, text_key FROM messages WHERE chat = ? AND text_key != ? AND "
            "text_key NOT IN (SELECT key FROM vectors WHERE encoder = ?) GROUP BY text_key",
            [chat, nothing, encoder.key],
        )
        for line in store.lines_of([row["id"] for row in rows]):
            text = line_text(line.message)
            found[text_key(text)] = text
    if tagger is not None and tagger.digest is not None:
        rows = store.rows(
            "SELECT DISTINCT words, words_key FROM shown WHERE looker = ? AND words != '' AND "
            "words_key NOT IN (SELECT key FROM vectors WHERE encoder = ?)",
            [tagger.digest, encoder.key],
        )
        found |= {row["words_key"]: row["words"] for row in rows}
    return found


def _embed(encoder: StoredEncoder, waiting: dict[bytes, str], say: Say, bar: Bar) -> None:
    # lines of one length together cost least
    keys = sorted(waiting, key=lambda key: (len(waiting[key]), key))
    if not keys:
        return
    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    # from the middle: of the shortest one could not tell how long all take
    middle = len(batches) // 2
    batches = [batches[middle], *batches[:middle], *batches[middle + 1 :]]
    num_done = 0
    begun: float | None = None
    with bar("indexing", len(keys)) as progress:
        for batch in batches:
            if begun is None:
                _ = encoder.encoder  # to load it is done once, and does not count
                begun = time.monotonic()
            encoder.store({key: waiting[key] for key in batch})
            if not num_done:
                _say_how_long(say, len(keys), len(batch), time.monotonic() - begun)
            num_done += len(batch)
            progress(num_done, len(keys))


def _say_how_long(say: Say, num_lines: int, num_timed: int, seconds: float) -> None:
    left = seconds / num_timed * num_lines
    if left < _SLOW_SECONDS:
        return
    words = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.0f} minutes"
    say(
        f"Indexing {counted(num_lines, 'new line')}, once: about {words}; Ctrl-C keeps what is done"
    )
