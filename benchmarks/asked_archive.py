"""The queries of data that mean one dialogue, by which the archive of benchmarks is searched."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase

from ffr.corpus.haystack import HaystackData
from ffr.dialogue import Example, Fragment
from ffr.evaluation.corpus import ONE, Meant, meant_by

SPECIFIC = ("human_*", "crosswoz_goal_zh")
"""Kinds of queries that mean one dialogue."""

CAPTIONS = "human_caption_*"
"""Kinds of queries that mean one picture."""


def specific_queries(data: HaystackData) -> list[tuple[Example, Meant]]:
    """Those of the asked data, with what each means in the archive."""
    examples = list(data.asked)
    meant = meant_by(examples, data.known, SPECIFIC)
    return [
        (example, own)
        for example, own in zip(examples, meant, strict=True)
        if own.group == ONE and any(fnmatchcase(own.kind, pattern) for pattern in SPECIFIC)
    ]


class Conversations:
    """Where each conversation stands: it may be part of several dialogues, and is an answer in each.

    Args:
        known: Queries of the archive; `source_dialogue` in their `meta` names the conversation that
            is their answer.
    """

    def __init__(self, known: Iterable[Example]) -> None:
        self._answers: dict[str, dict[str, Example]] = defaultdict(dict)
        for example in known:
            source = example.meta.get("source_dialogue")
            if (
                source is not None
                and example.fragment is not None
                and not example.fragment.is_empty
            ):
                self._answers[str(source)].setdefault(example.dialogue.fingerprint, example)

    def truths(self, example: Example) -> dict[str, Fragment]:
        """What answers a query, by the fingerprints of the dialogues, its own among them.

        A caption means a picture: only a conversation with the same one answers it.

        Raises:
            ValueError: where the query has no true answer.
        """
        if example.fragment is None:
            raise ValueError(f"the query {example.query!r} has no true answer")
        shown = set(example.parts(Fragment((), example.fragment.image_ids)))
        is_caption = fnmatchcase(str(example.meta.get("query_kind")), CAPTIONS)
        found = {
            name: other.fragment
            for name, other in self._answers[str(example.meta.get("source_dialogue"))].items()
            if other.fragment is not None
            and (not is_caption or shown & set(other.parts(Fragment((), other.fragment.image_ids))))
        }
        return {**found, example.dialogue.fingerprint: example.fragment}


@contextlib.contextmanager
def no_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Shows nothing."""
    yield lambda *done: None
