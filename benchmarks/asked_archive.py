"""The queries of data that mean one dialogue, by which the archive of benchmarks is searched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from ffr.corpus.haystack import HaystackData
from ffr.dialogue import Example
from ffr.evaluation.corpus import ONE, Meant, meant_by

SPECIFIC = ("human_*", "crosswoz_goal_zh")
"""Kinds of queries that mean one dialogue."""


def specific_queries(data: HaystackData) -> list[tuple[Example, Meant]]:
    """Those of the asked data, with what each means in the archive."""
    examples = list(data.asked)
    meant = meant_by(examples, data.known, SPECIFIC)
    return [
        (example, own)
        for example, own in zip(examples, meant, strict=True)
        if own.group == ONE and any(fnmatchcase(own.kind, pattern) for pattern in SPECIFIC)
    ]


@contextlib.contextmanager
def no_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Shows nothing."""
    yield lambda *done: None
