"""What a store still lacks to be asked: pictures in words, lines as vectors, segments.

Each batch is kept as soon as it is made: whoever is stopped goes on where they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor

from ffr.corpus.adding import line_text, text_key
from ffr.corpus.nearest import faiss_if_installed
from ffr.corpus.pictures import (
    StoredTagger,
    lay_out_pictures,
    tag_pictures,
    untagged_pictures,
    waiting_pictures,
)
from ffr.corpus.segmenting import lacks_segments, make_segments, waiting_segments
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.errors import DataError, UsageError
from ffr.progress import Progress, Say
from ffr.text import counted

_BATCH = 256
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
    look_at_pictures(store, tagger, say=say, bar=bar)
    if encoder is not None and (waiting := waiting_texts(store, chats, encoder, tagger)):
        with store.writing():
            # another process may have written meanwhile
            encoder.refresh()
            known = encoder.vectors.places(list(waiting))
            left = {key: text for key, text in waiting.items() if key not in known}
            _embed(encoder, left, say, bar)
            encoder.remember_weights()
    if encoder is not None and encoder.takes_images and _unseen_pictures(store, encoder):
        with store.writing(), bar("embedding pictures", 0) as progress:
            encoder.refresh()
            for fault in _embed_pictures(store, encoder, progress):
                say(fault)
    if encoder is not None and lacks_segments(store, chats, encoder):
        with store.writing():
            encoder.refresh()
            with bar("segments", 0) as progress:
                make_segments(store, chats, encoder, progress)
            _embed(encoder, waiting_segments(store, chats, encoder), say, bar, "new segment")
            encoder.remember_weights()
    if encoder is not None and encoder.has_vectors:
        _make_lists(store, encoder, say, bar)


def _make_lists(store: Store, encoder: StoredEncoder, say: Say, bar: Bar) -> None:
    """Makes the inverted file by which many vectors are searched, where it is missing."""
    if not encoder.vectors.lacks_lists():
        return
    if not store.is_remote and faiss_if_installed() is None:
        say(
            f"{counted(encoder.vectors.num_rows, 'vector')}: each is compared with a question; "
            "pip install 'ffr-vlm[faiss]' makes that faster"
        )
        return
    try:
        with store.writing(), bar("lists of vectors", encoder.vectors.num_rows) as progress:
            encoder.refresh()
            encoder.vectors.make_lists(progress)
    except UsageError as error:
        # whoever writes makes them at their end; a question goes without meanwhile
        say(f"{error}; every vector is compared")


def look_at_pictures(store: Store, tagger: StoredTagger | None, *, say: Say, bar: Bar) -> None:
    """Lays out the pictures that are new, and puts them into words.

    Raises:
        UsageError: where there are such and another process writes.
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


def waiting_texts(
    store: Store, chats: Sequence[int], encoder: StoredEncoder, tagger: StoredTagger | None
) -> dict[bytes, str]:
    """The texts that have no vector yet, by their digests: of lines, and of what pictures show."""
    nothing = text_key("")
    found: dict[bytes, str] = {}
    for chat in chats:
        rows = store.rows(
            "SELECT min(id) AS id, text_key FROM messages WHERE chat = ? AND text_key != ? AND "
            "NOT EXISTS (SELECT 1 FROM vectors WHERE encoder = ? AND vectors.key = text_key) "
            "GROUP BY text_key",
            [chat, nothing, encoder.key],
        )
        for line in store.lines_of([row["id"] for row in rows]):
            text = line_text(line.message)
            found[text_key(text)] = text
    if tagger is not None and tagger.digest is not None:
        rows = store.rows(
            "SELECT DISTINCT words, words_key FROM shown WHERE looker = ? AND words != '' AND "
            "NOT EXISTS (SELECT 1 FROM vectors WHERE encoder = ? AND vectors.key = words_key)",
            [tagger.digest, encoder.key],
        )
        found |= {row["words_key"]: row["words"] for row in rows}
    return found


def _unseen_pictures(store: Store, encoder: StoredEncoder) -> dict[bytes, Path]:
    """The pictures that have no vector of their own yet, by their digests."""
    rows = store.rows(
        "SELECT digest, min(path) AS path FROM files WHERE digest IS NOT NULL AND digest NOT IN "
        "(SELECT key FROM vectors WHERE encoder = ?) GROUP BY digest",
        [encoder.key],
    )
    return {row["digest"]: Path(row["path"]) for row in rows}


def _embed_pictures(store: Store, encoder: StoredEncoder, progress: Progress) -> list[str]:
    """Makes the vectors of pictures themselves; what is wrong with some, a line."""
    waiting = list(_unseen_pictures(store, encoder).items())
    num_lost, first = 0, ""
    for start in range(0, len(waiting), _BATCH):
        part = dict(waiting[start : start + _BATCH])
        try:
            _embed_images(encoder, part)
        except DataError:
            # one that cannot be opened does not take the others along
            for digest, path in part.items():
                try:
                    _embed_images(encoder, {digest: path})
                except DataError as error:
                    num_lost += 1
                    first = first or str(error)
        progress(min(start + _BATCH, len(waiting)), len(waiting))
    if not num_lost:
        return []
    return [f"{counted(num_lost, 'picture')} cannot be embedded, the first is {first}"]


def _embed_images(encoder: StoredEncoder, pictures: dict[bytes, Path]) -> None:
    made = encoder.encoder.embed_images(list(pictures.values()))
    encoder.vectors.add(list(pictures), made.float().cpu())


def written_order(waiting: Mapping[bytes, str]) -> list[bytes]:
    """The order in which texts become rows, whoever makes their vectors: the shortest first.

    What is left of it after any end is its rest, so that whoever goes on writes the same file.
    """
    # lines of one length together cost least
    return sorted(waiting, key=lambda key: (len(waiting[key]), key))


def embedded_batches(
    encoder: StoredEncoder,
    waiting: Mapping[bytes, str],
    say: Say,
    bar: Bar,
    what: str = "new line",
) -> Iterator[tuple[list[bytes], Tensor]]:
    """The vectors of texts, batch by batch in the order of `written_order`.

    Args:
        encoder: Makes them.
        waiting: The texts by their digests.
        say: Is told how long it takes, where that is long.
        bar: Shows how far it is.
        what: What one of them is, in words.
    """
    keys = written_order(waiting)
    batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
    if not batches:
        return
    _ = encoder.encoder  # to load it is done once, and does not count
    begun = time.monotonic()
    # the middle one tells how long all take, as the shortest could not
    middle = len(batches) // 2
    timed = encoder.embed_lines([waiting[key] for key in batches[middle]])
    num_timed = len(batches[middle])
    left = (time.monotonic() - begun) / num_timed * (len(keys) - num_timed)
    _say_how_long(say, counted(len(keys), what), left)
    num_done = 0
    with bar("indexing", len(keys)) as progress:
        for number, batch in enumerate(batches):
            is_timed = number == middle
            yield (
                batch,
                timed if is_timed else encoder.embed_lines([waiting[key] for key in batch]),
            )
            num_done += len(batch)
            progress(num_done, len(keys))


def _embed(
    encoder: StoredEncoder,
    waiting: Mapping[bytes, str],
    say: Say,
    bar: Bar,
    what: str = "new line",
) -> None:
    for keys, vectors in embedded_batches(encoder, waiting, say, bar, what):
        encoder.vectors.add(keys, vectors)


def _say_how_long(say: Say, what: str, left: float) -> None:
    if left < _SLOW_SECONDS:
        return
    words = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.0f} minutes"
    say(f"Indexing {what}, once: about {words}; Ctrl-C keeps what is done")
