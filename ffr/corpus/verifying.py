"""Whether a store is as it was written: every row, vector, digest and file; and how it is made good.

A sealed store is compared byte for byte; one that was written to since, row by row with the
digests that rows carry.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ffr.corpus.adding import stored_digests
from ffr.corpus.database import Row
from ffr.corpus.forgetting import size_of, take_off_disk
from ffr.corpus.nearest import LISTS_FILES, ON_DISK
from ffr.corpus.schema import DATABASE, whole
from ffr.corpus.seal import Sealed, differing_bytes, read_seal
from ffr.corpus.sealing import num_bytes, seal_store
from ffr.corpus.segments import segment_key
from ffr.corpus.store import Store
from ffr.text import counted, one_line

_BATCH = 2000
_ROWS = 65_536
# of a vector whose length is 1 as far as rounding allows
_LONGEST = 1.001

AGAIN = "forget its chats with `ffr index forget`, and read their exports again"
ANEW = "`ffr index compact` takes out what is damaged, and the next `ffr index add` makes it anew"


@dataclass
class Verdict:
    """What was found wrong with a store.

    Args:
        faults: A sentence each: where, what, and what to do.
        notes: What is no fault, but to be known.
        num_checked: How many messages, vectors, pictures and bytes were looked at, by name.
        was_sealed: Whether nobody had written since the seal, so that each byte was compared.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_checked: Counter[str] = field(default_factory=Counter)
    was_sealed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(store: Store) -> Verdict:
    """Looks at all of a store; writes nothing but a seal, where there is none and all is well.

    Args:
        store: The store.

    Raises:
        UsageError: where another process writes.
    """
    verdict = Verdict()
    with store.database.held():
        seal = read_seal(store.folder)
        verdict.was_sealed = seal is not None and seal.is_whole
        if seal is not None:
            _check_bytes(store, seal.files, verdict)
        _check_database(store, verdict)
        # a database that is torn says nothing of what it holds
        if verdict.is_whole:
            _check_messages(store, verdict)
            _check_segments(store, verdict)
            _check_vectors(store, verdict)
            _check_pictures(store, verdict)
        if verdict.is_whole and not verdict.was_sealed:
            seal_store(store)
    return verdict


def compact_store(store: Store) -> tuple[int, int]:
    """Packs a store: what nobody has any more, and vectors that are damaged, leave the disk.

    Returns:
        Its bytes before and after.

    Raises:
        UsageError: where another process writes.
        DataError: where another process reads all the time.
    """
    before = size_of(store)
    with store.writing():
        _drop_damaged(store)
        take_off_disk(store)
        seal_store(store)
    return before, size_of(store)


def _check_bytes(store: Store, files: Mapping[str, Sealed], verdict: Verdict) -> None:
    """Compares files with their seal: the vectors' always, the database's where none wrote since."""
    known = {row["file"] for row in store.rows("SELECT file FROM matrices")}
    for name, sealed in files.items():
        path = store.folder / name
        if name == DATABASE:
            remedy = f"take the database from a copy, or {AGAIN}"
            if not verdict.was_sealed:
                continue
        elif name in known:
            remedy = ANEW
        elif path.match(LISTS_FILES) and path.is_file() and verdict.was_sealed:
            remedy = "delete it, and the next `ffr index add` makes it anew"
        else:
            continue  # packed into another since
        verdict.num_checked["bytes"] += sealed.size
        for start, stop in differing_bytes(path, sealed):
            verdict.faults.append(
                f"{path}: bytes {start:,} to {stop:,} are not as they were written; {remedy}"
            )


def _check_database(store: Store, verdict: Verdict) -> None:
    verdict.faults += [
        f"{store.database.place}: is damaged ({one_line(words, 200)}); take it from a copy, or "
        f"{AGAIN}"
        for words in store.database.faults()
    ]


def _check_messages(store: Store, verdict: Verdict) -> None:
    last = 0
    while rows := store.rows(
        "SELECT id, text_key, content FROM messages WHERE id > ? ORDER BY id LIMIT ?",
        [last, _BATCH],
    ):
        last = rows[-1]["id"]
        verdict.num_checked["messages"] += len(rows)
        lines = {line.id: line for line in store.lines_of([row["id"] for row in rows])}
        for row in rows:
            message = lines[row["id"]].message
            key, content = stored_digests(message)
            # half a pair of surrogates stands as a question mark, of which no digest knows
            is_content = content == row["content"] or "?" in repr(message)
            if key != row["text_key"] or not is_content:
                verdict.faults.append(
                    f"{store.database.place}: message {row['id']} is not as it was read; {AGAIN}"
                )


def _check_segments(store: Store, verdict: Verdict) -> None:
    """Every message of a dialogue with segments is in one, and each has the key of its texts."""
    rows = store.tuples(
        "SELECT chat, dialogue, segment, text_key FROM messages WHERE segment IS NOT NULL "
        "ORDER BY chat, dialogue, segment, place"
    )
    keys = {
        where: segment_key([row[3] for row in of_one])
        for where, of_one in itertools.groupby(rows, lambda row: tuple(row[:3]))
    }
    kept = {
        tuple(row[:3]): row[3]
        for row in store.tuples("SELECT chat, dialogue, number, key FROM segments")
    }
    verdict.num_checked["segments"] += len(kept)
    differing = [where for where in {**keys, **kept} if keys.get(where) != kept.get(where)]
    verdict.faults += [
        f"{store.database.place}: segment {number} of dialogue {dialogue} of chat {chat} is not "
        f"of its messages; {AGAIN}"
        for chat, dialogue, number in sorted(differing)
    ]


def _check_vectors(store: Store, verdict: Verdict) -> None:
    for row in _files(store):
        path = store.folder / row["file"]
        if not path.is_file() or path.stat().st_size < num_bytes(row):
            verdict.faults.append(f"{path}: is missing or too short; {ANEW}")
            continue
        places = sorted(
            place
            for (place,) in store.tuples(
                "SELECT place FROM vectors WHERE encoder = ?", [row["encoder"]]
            )
        )
        if places != list(range(row["num_rows"])):
            verdict.faults.append(f"{path}: the database knows other rows than it has; {ANEW}")
        verdict.num_checked["vectors"] += row["num_rows"]
        for start, stop in _broken_rows(path, row):
            verdict.faults.append(
                f"{path}: vectors {start:,} to {stop:,} hold numbers that no vector has; {ANEW}"
            )


def _files(store: Store) -> Sequence[Row]:
    """The rows of `matrices` whose vectors lie in files; a server looks at its own."""
    return [] if store.is_remote else store.rows("SELECT * FROM matrices")


def _broken_rows(path: Path, row: Row) -> list[tuple[int, int]]:
    """Stretches of rows of which one is not finite, or longer than 1."""
    if not row["num_rows"]:
        return []
    shape = (row["num_rows"], row["width"])
    matrix = np.memmap(path, ON_DISK, mode="r", shape=shape)
    found = []
    for start in range(0, len(matrix), _ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(matrix[start : start + _ROWS], axis=1)
        bad = start + np.flatnonzero(~(lengths <= _LONGEST))
        found += [(int(place), int(place) + 1) for place in bad]
    return found


def _check_pictures(store: Store, verdict: Verdict) -> None:
    num_missing, first = 0, ""
    for row in store.rows(
        "SELECT files.path, digest, sources.path AS export FROM files "
        "JOIN sources ON sources.id = source WHERE digest IS NOT NULL ORDER BY files.path"
    ):
        verdict.num_checked["pictures"] += 1
        try:
            digest = hashlib.sha256(Path(row["path"]).read_bytes()).digest()
        except OSError:
            num_missing += 1
            first = first or row["path"]
            continue
        if digest != row["digest"]:
            verdict.faults.append(
                f"{row['path']}: is not the picture that was read; put it back from {row['export']}"
            )
    if num_missing:
        verdict.notes.append(
            f"{counted(num_missing, 'picture')} of exports that lie elsewhere now, the first "
            f"{one_line(first)}; name the exports again where they lie"
        )


def _drop_damaged(store: Store) -> None:
    """Takes vectors that are damaged out of the database, so that they are made anew."""
    seal = read_seal(store.folder)
    for row in _files(store):
        path = store.folder / row["file"]
        if not path.is_file() or path.stat().st_size < num_bytes(row):
            continue  # packing drops it whole
        spans = _broken_rows(path, row)
        if seal is not None and path.name in seal.files:
            stride = row["width"] * ON_DISK.itemsize
            spans += [
                (start // stride, -(-stop // stride))
                for start, stop in differing_bytes(path, seal.files[path.name])
            ]
        with whole(store.database):
            store.database.executemany(
                "DELETE FROM vectors WHERE encoder = ? AND place >= ? AND place < ?",
                [(row["encoder"], start, stop) for start, stop in spans],
            )
