"""Vectors of a store's texts made on many machines, and brought into the store's matrix.

Each machine makes those of the texts whose digest falls to its shard, and writes them as files
(`ffr/corpus/shard_files.py`). To merge them writes the rows that one machine would have written,
in the same order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.indexing import (
    Bar,
    embedded_batches,
    index_store,
    look_at_pictures,
    waiting_texts,
    written_order,
)
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.sealing import seal_if_broken
from ffr.corpus.shard_files import Shard, ShardFile, shard_files, write_shard_file
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.errors import DataError, InUseError
from ffr.progress import Say
from ffr.text import counted, one_line

_TEXTS_OF_A_FILE = 8192
_ROWS_AT_ONCE = 8192
_MOST_NAMED = 20
_SECONDS_BETWEEN_LOOKS = 0.5
_Made = TypeVar("_Made")


def patiently(work: Callable[[], _Made], say: Say) -> _Made:
    """Does something in a store once nobody else writes there: shards of one machine share one.

    Args:
        work: Is done anew where another process writes.
        say: Is told once that it waits.
    """
    is_said = False
    while True:
        try:
            return work()
        except InUseError as error:
            if not is_said:
                say(f"{error}; waiting for it")
            is_said = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def embed_shard(
    store: Store,
    chats: Sequence[int],
    encoder: StoredEncoder,
    tagger: StoredTagger | None,
    shard: Shard,
    folder: Path,
    *,
    say: Say,
    bar: Bar,
) -> int:
    """Writes the vectors of a shard's texts as files into a folder; nothing into the store.

    Whoever is killed loses the texts of one file at most; files that are there are not made again.

    Args:
        store: The store, of which texts that have vectors are left out.
        chats: Whose lines become vectors.
        encoder: Makes the vectors.
        tagger: Gives pictures words, which are texts too; None gives none.
        shard: Which texts.
        folder: Gets the files.
        say: Gets a line where it takes long.
        bar: Shows how far it is.

    Returns:
        How many vectors were made.

    Raises:
        DataError: where a file of the folder is not as it was written, or one cannot be written.
    """
    left = left_of_shard(store, chats, encoder, tagger, shard, folder, say=say, bar=bar)
    keys: list[bytes] = []
    vectors: list[Tensor] = []
    for batch, made in embedded_batches(encoder, left, say, bar):
        keys += batch
        vectors.append(made)
        if len(keys) >= _TEXTS_OF_A_FILE:
            write_shard_file(folder, shard, encoder.key, keys, torch.cat(vectors))
            keys, vectors = [], []
    if keys:
        write_shard_file(folder, shard, encoder.key, keys, torch.cat(vectors))
    return len(left)


def left_of_shard(
    store: Store,
    chats: Sequence[int],
    encoder: StoredEncoder,
    tagger: StoredTagger | None,
    shard: Shard,
    folder: Path,
    *,
    say: Say,
    bar: Bar,
) -> dict[bytes, str]:
    """The texts of a shard that have a vector neither in the store nor in the folder.

    Raises:
        DataError: where a file of the folder is not as it was written.
    """
    patiently(lambda: look_at_pictures(store, tagger, say=say, bar=bar), say)
    waiting = {
        key: text
        for key, text in waiting_texts(store, chats, encoder, tagger).items()
        if shard.holds(key)
    }
    if folder.is_dir():
        for file in shard_files([folder]):
            if file.encoder == encoder.key:
                for key in file.keys:
                    waiting.pop(_whole_key(key), None)
    return waiting


def _whole_key(key: bytes) -> bytes:
    """A digest as it was: numpy leaves bytes of 0 at its end out."""
    return key.ljust(16, b"\0")


def merge_shards(
    store: Store,
    encoder: StoredEncoder,
    tagger: StoredTagger | None,
    paths: Sequence[Path],
    *,
    say: Say,
    bar: Bar,
) -> int:
    """Brings the vectors of files into a store, as rows in the order of one machine.

    Args:
        store: The store, which holds the chats.
        encoder: Whose vectors they must be.
        tagger: As in `embed_shard`.
        paths: Files, or folders with such.
        say: Is told what is in them that the store has no text for.
        bar: Shows how far it is.

    Returns:
        How many rows were added.

    Raises:
        DataError: where a file is torn, changed or of another encoder, two files say different
            things of a text, or the vectors of some texts are in none: it names their shards.
        UsageError: where another process writes into the store.
    """
    look_at_pictures(store, tagger, say=say, bar=bar)
    chats = store.numbers()
    with store.writing():
        encoder.refresh()
        table = _Table(encoder, list(shard_files(paths)))
        waiting = waiting_texts(store, chats, encoder, tagger)
        order = written_order(waiting)
        places = table.places(order)
        if num_unknown := len(table.keys) - len(order):
            say(f"{counted(num_unknown, 'vector')} of texts that have one, or are not in the store")
        with bar("merging", len(order)) as progress:
            for start in range(0, len(order), _ROWS_AT_ONCE):
                part = order[start : start + _ROWS_AT_ONCE]
                rows = table.rows(places[start : start + len(part)])
                encoder.vectors.add(part, torch.from_numpy(rows))
                progress(start + len(part), len(order))
    index_store(store, chats, encoder, tagger, say=say, bar=bar)
    seal_if_broken(store)
    return len(order)


class _Table:
    """What files hold together: each text once, with the file and the row of its vector.

    Args:
        encoder: Whose vectors they must be.
        files: The files.

    Raises:
        DataError: where one is of another encoder, or two differ in a text.
    """

    def __init__(self, encoder: StoredEncoder, files: Sequence[ShardFile]) -> None:
        if not files:
            raise DataError("no file of vectors is there; name those of `ffr index add --shard`")
        for file in files:
            if file.encoder != encoder.key:
                raise DataError(
                    f"holds vectors of another encoder ({file.encoder[:16]}) than this index has "
                    f"({encoder.key[:16]}, {encoder.name}); leave it out, or name its --model",
                    where=one_line(file.path),
                )
            if file.width != files[0].width:
                raise DataError(
                    f"has vectors of {file.width} numbers, and {one_line(files[0].path)} of "
                    f"{files[0].width}; embed one of the two again",
                    where=one_line(file.path),
                )
        self._files = files
        keys = np.concatenate([file.keys for file in files])
        numbers = np.repeat(np.arange(len(files)), [len(file.keys) for file in files])
        rows = np.concatenate([np.arange(len(file.keys)) for file in files])
        order = np.argsort(keys, kind="stable")
        self.keys, self._numbers, self._rows = keys[order], numbers[order], rows[order]
        self._take_twins_out()

    def _take_twins_out(self) -> None:
        is_twin = np.zeros(len(self.keys), bool)
        is_twin[1:] = self.keys[1:] == self.keys[:-1]
        later = np.flatnonzero(is_twin)
        for start in range(0, len(later), _ROWS_AT_ONCE):
            part = later[start : start + _ROWS_AT_ONCE]
            differing = (self.rows(part) != self.rows(part - 1)).any(axis=1)
            if differing.any():
                at = part[differing][0]
                one, other = (self._files[self._numbers[place]].path for place in (at - 1, at))
                raise DataError(
                    f"has another vector of a text than {one_line(one)}: they were made on "
                    "machines that do not compute alike; leave one of the two out",
                    where=one_line(other),
                )
        kept = ~is_twin
        self.keys, self._numbers, self._rows = (
            self.keys[kept],
            self._numbers[kept],
            self._rows[kept],
        )

    def places(self, keys: Sequence[bytes]) -> NDArray[np.intp]:
        """(n) where texts are in the table.

        Raises:
            DataError: where some are not: it names the shards that would have them.
        """
        wanted = np.array(keys, self.keys.dtype)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        missing = np.flatnonzero(self.keys[places] != wanted)
        if len(missing):
            raise DataError(
                f"{counted(len(missing), 'text')} of {len(keys):,} have no vector in these files: "
                + self._whose([keys[int(number)] for number in missing])
            )
        return places

    def _whose(self, keys: Sequence[bytes]) -> str:
        """Which shards lack texts, for the number of shards that the files were cut into."""
        of = max(file.shard.of for file in self._files)
        counts = Counter(Shard.number_of(key, of) for key in keys)
        named = [f"{number}/{of} ({count:,})" for number, count in sorted(counts.items())]
        further = f" and {len(named) - _MOST_NAMED:,} more" if len(named) > _MOST_NAMED else ""
        return (
            f"shard {', '.join(named[:_MOST_NAMED])}{further}; embed what is missing with "
            "`ffr index add --shard`, and merge its files too"
        )

    def rows(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, D) the vectors at some places of the table, each file opened once."""
        found = np.empty((len(places), self._files[0].width), np.float32)
        numbers = self._numbers[places]
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self._files[number].rows(self._rows[places[here]])
        return found
