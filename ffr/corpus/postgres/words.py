"""Full text on a server: each text as an array of its terms, and BM25 computed where it lies.

Postgres ranks by `ts_rank`, which knows neither how rare a term is nor how long the texts are, and
a `tsvector` counts no more than 256 places of a term and holds none of more than 2 kB. An array with
a GIN index has every term as often as it stands there, so the score is SQLite's own:

    Σ idf(t) · f(t) · (k1 + 1) / (f(t) + k1 · (1 - b + b · length / mean length))
    idf(t) = log((N - n(t) + ½) / (n(t) + ½)), never below 10⁻⁶
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.corpus.database import Condition

_K1, _B = 1.2, 0.75
_LEAST_IDF = 1e-6
# a page of an index holds no more of one term
_MAX_BYTES = 512


def stored_term(term: str) -> str:
    """A term as the arrays have it: Latin letters without their accents, long ones by a digest.

    SQLite's tokenizer takes the accents off too.

    >>> stored_term("café"), stored_term("公交"), len(stored_term("x" * 9999))
    ('cafe', '公交', 64)
    """
    plain = "".join(map(_unaccented, term))
    data = plain.encode("utf-8", "surrogatepass")
    return plain if len(data) <= _MAX_BYTES else hashlib.sha256(data).hexdigest()


class ServerTexts:
    """A full text of a store on a server, as `ffr.corpus.postings.Texts` says.

    Args:
        ask: Gives the rows of a question to the server.
        by_index: Has it use its index within.
        table: `words` or `shown_words`.
    """

    def __init__(
        self,
        ask: Callable[[str, Sequence[object]], list[tuple[Any, ...]]],
        by_index: Callable[[], AbstractContextManager[None]],
        table: str,
    ) -> None:
        self._ask = ask
        self._by_index = by_index
        self._table = table

    def tokens(self, terms: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(map(stored_term, terms)))

    def having(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        with self._by_index():
            rows = self._ask(
                "SELECT id, cardinality(array_positions(terms, ?::text)) "
                f"FROM {self._table} WHERE terms @> ARRAY[?::text] ORDER BY id",
                [token, token],
            )
        table = np.array(rows, np.int64).reshape(-1, 2)
        return np.ascontiguousarray(table[:, 0]), table[:, 1].astype(np.int32)

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = self._ask(f"SELECT id, num_terms FROM {self._table}", [])
        ids, lengths = np.ascontiguousarray(np.array(rows, np.int64).reshape(-1, 2).T)
        return ids, lengths


def _unaccented(char: str) -> str:
    base = unicodedata.normalize("NFD", char)[:1]
    return base if base.isascii() and base.isalpha() else char


def scored(
    table: str,
    terms: Sequence[str],
    counts: Sequence[int],
    num_texts: int,
    mean_length: float,
    *,
    is_every: bool,
) -> Condition:
    """A table of `id` and `score` of the texts that have every term, or any; the least is the best.

    Args:
        table: `words` or `shown_words`.
        terms: As `stored_term` gives them.
        counts: n(t) for each.
        num_texts: N.
        mean_length: In terms.
        is_every: Whether a text must have all.
    """
    weights = [
        max(math.log((num_texts - count + 0.5) / (count + 0.5)), _LEAST_IDF) * (_K1 + 1)
        for count in counts
    ]
    norm = f"{_K1 * (1 - _B)!r} + {_K1 * _B / max(mean_length, 1.0)!r} * num_terms"
    how = "@>" if is_every else "&&"
    return (
        "(SELECT id, (SELECT -sum(weight * often / (often + norm)) FROM (SELECT weight, "
        "cardinality(array_positions(terms, asked.term)) AS often "
        "FROM unnest(?::text[], ?::float8[]) AS asked(term, weight)) AS counted) AS score "
        f"FROM (SELECT id, terms, {norm} AS norm FROM {table} WHERE terms {how} ?::text[]) AS found)",
        [list(terms), weights, list(terms)],
    )
