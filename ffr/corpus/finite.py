"""Vectors that hold a number that is none are refused, by the name of what they are of."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ffr.corpus.store import Store
from ffr.errors import DataError
from ffr.text import one_line


def check_finite(store: Store, keys: Sequence[bytes], vectors: Tensor) -> None:
    """Refuses vectors of which one holds a number that is none, and names what it is of.

    Args:
        store: The store.
        keys: n digests of what has the vectors.
        vectors: (n, D).

    Raises:
        DataError: likewise.
    """
    is_finite = vectors.isfinite().all(dim=-1)
    if bool(is_finite.all()):
        return
    key = keys[int((~is_finite).nonzero()[0])]
    named = {
        "SELECT text AS what FROM messages WHERE text_key = ?": "the line {}",
        "SELECT title || ', dialogue ' || dialogue || ', segment ' || number AS what FROM segments "
        "JOIN chats ON chats.id = chat WHERE key = ?": "the segment {}",
        "SELECT words AS what FROM shown WHERE words_key = ?": "a picture of {}",
        "SELECT path AS what FROM files WHERE digest = ?": "the picture {}",
    }
    what = "a text that is not in the store"
    for sql, words in named.items():
        if found := store.rows(f"{sql} LIMIT 1", [key]):
            what = words.format(one_line(found[0]["what"], 80))
            break
    raise DataError(
        f"the encoder gave numbers that are not finite for {what}; try another encoder, or fetch "
        "its weights again",
        where=store.place,
    )
