"""What a store still lacks to be asked: pictures laid out and put into words, lines as vectors.

Each batch is kept as soon as it is made: whoever is stopped goes on where they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from ffr.corpus.adding import line_text
from ffr.corpus.pictures import StoredTagger, lay_out_pictures, tag_pictures
from ffr.corpus.store import Store, lines_in_order
from ffr.corpus.vectors import StoredEncoder
from ffr.progress import Progress, Say
from ffr.text import counted

_BATCH = 64
_SLOW_SECONDS = 5.0

Bar = Callable[[str, int], AbstractContextManager[Progress]]


def index_store(
    store: Store,
    chats: Iterable[int],
    encoder: StoredEncoder | None,
    tagger: StoredTagger | None,
    *,
    say: Say,
    bar: Bar,
) -> None:
    """Makes what is missing.

    Args:
        store: The store; this process must be the one that writes (`Store.writing`).
        chats: Whose lines become vectors.
        encoder: Makes the vectors; None makes none.
        tagger: Gives pictures words; None gives none.
        say: Gets a line where it takes long, and about what cannot be read.
        bar: Makes a bar of what is done and how often.
    """
    with bar("pictures", 0) as progress:
        faults = lay_out_pictures(store, progress)
    if tagger is not None:
        with bar("looking at pictures", 0) as progress:
            faults += tag_pictures(store, tagger, progress)
    for fault in faults:
        say(fault)
    if encoder is not None:
        waiting = encoder.missing(list(_texts(store, chats, tagger)))
        _embed(encoder, waiting, say, bar)


def _texts(store: Store, chats: Iterable[int], tagger: StoredTagger | None) -> Iterator[str]:
    for chat in chats:
        for line in lines_in_order(store, chat):
            yield line_text(line.message)
    if tagger is not None and tagger.digest is not None:
        for row in store.rows("SELECT words FROM shown WHERE tagger = ?", [tagger.digest]):
            yield row["words"]


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
                encoder.embed_texts(["a"])  # what is done once does not count
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
