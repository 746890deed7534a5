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
from collections.abc import Sequence

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
