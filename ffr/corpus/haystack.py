"""An archive made of data files, of which queries of data are asked: which dialogue, and what of it.

An answer names lines of the query's own dialogue. A line of another one is wrong whichever it is, so it
is given an id behind the dialogue's end; under `archive` it stands as it was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffr.answer import format_answer
from ffr.chats.cutting import Cutting
from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.found import Hit
from ffr.corpus.indexing import Bar
from ffr.corpus.inside import hits_inside
from ffr.corpus.opening import open_archive, read_export
from ffr.corpus.recall import Recalled
from ffr.corpus.store import Store
from ffr.corpus.ways import MOST_DIALOGUES, WAYS, WORDS
from ffr.data.catalog import load_dataset
from ffr.data.dataset import ExampleDataset
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment
from ffr.errors import DataError, UsageError
from ffr.progress import Say
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer, Retriever
from ffr.settings import AnswerConfig
from ffr.text import counted


@dataclass(frozen=True, eq=False)
class Haystack:
    """The dialogues of data files, in a store.

    Args:
        archive: The store with its model.
        chats: The number of the chat that each dialogue became, by its fingerprint.
        dialogues: The dialogues, likewise.
    """

    archive: Archive
    chats: Mapping[str, int]
    dialogues: Mapping[str, Dialogue]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the dialogues' fingerprints, in no order."""
        return hashlib.sha256("\n".join(sorted(self.chats)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class HaystackData:
    """The queries that are asked, and the data whose dialogues are the archive.

    Args:
        asked: The data of the queries.
        archive: All data of the archive, each once; that of the queries is among them.
    """

    asked: ExampleDataset
    archive: tuple[ExampleDataset, ...]

    @property
    def known(self) -> list[Example]:
        """All that is known of the archive's dialogues, the queries on them included."""
        return [example for examples in self.archive for example in examples]


def load_haystack_data(dataset: str, corpus: str, split: str, *, say: Say) -> HaystackData:
    """Reads the queries and the archive's data; what both name is read once.

    Args:
        dataset: A named set or a file, whose queries are asked.
        corpus: Likewise, whose dialogues are the archive beside those of the queries.
        split: Part of a named set.
        say: Gets a line where something is to be known.

    Raises:
        FfrError: where data is not there, or cannot be read.
    """
    # pictures that cannot be read are found by the words around them, as in a chat
    found = {
        name: load_dataset(name, split=split, require_images=False, echo=say)
        for name in dict.fromkeys([corpus, dataset])
    }
    return HaystackData(found[dataset], tuple(found.values()))


def open_haystack(
    store: Store,
    data: HaystackData,
    model: str,
    settings: AnswerConfig,
    *,
    ways: Sequence[str] = WAYS,
    say: Say,
    bar: Bar,
) -> Haystack:
    """Reads data files into a store, where they are not there, and opens it with a model.

    Args:
        store: Holds nothing else, or nothing yet.
        data: What is to be in it.
        model: What answers inside a dialogue; `none` gives what was recalled.
        settings: How it is asked.
        ways: Those that are going to be asked for: without vectors none are made.
        say: Gets a line where something is to be known.
        bar: Shows how far it is.

    Raises:
        UsageError: where the store holds something else.
        DataError: where a dialogue of the data is not in the store as it is.
    """
    for examples in data.archive:
        read_export(store, examples.path, Cutting(0, 0), say=_nobody, bar=bar)
    dialogues = {example.dialogue.fingerprint: example.dialogue for example in data.known}
    kept = {row["app_id"]: row["id"] for row in store.rows("SELECT id, app_id FROM chats")}
    if strangers := kept.keys() - dialogues.keys():
        what = counted(len(strangers), "chat that is", "chats that are")
        raise UsageError(
            f"{store.folder} holds {what} not of the data; name another folder with --index"
        )
    if missing := [dialogues[name].id for name in dialogues if name not in kept]:
        raise DataError(
            f"lacks {counted(len(missing), 'dialogue')} of the data, the first {missing[0]!r}; "
            "delete the folder to read them anew",
            where=str(store.folder),
        )
    archive = open_archive(store, model, settings, ways=ways, say=say, bar=bar)
    return Haystack(archive, kept, dialogues)


def _nobody(line: str) -> None:
    """Hears the summary of each of very many chats."""


def _ways_of(archive: Archive, name: str, ways: Sequence[str] | None) -> tuple[str, ...]:
    """The ways by which dialogues are recalled."""
    if archive.encoder is not None:
        return WAYS if ways is None else tuple(ways)
    idle = [way for way in ways or () if way in WAYS and way != WORDS]
    if idle:
        raise UsageError(
            f"{name} needs no vectors, so none are made and the way {idle[0]} finds nothing; ask by "
            f"{WORDS} alone, or another model"
        )
    return (WORDS,) if ways is None else tuple(ways)


class HaystackRetriever:
    """Answers a query with the best hit of a search of the whole archive.

    Args:
        haystack: The archive.
        name: What answers inside a dialogue.
        ways: By which dialogues are recalled; None for all, which without vectors are words alone.
        num_dialogues: How many are recalled, and asked.

    Raises:
        UsageError: where ways are named that need vectors, and the archive has none.
    """

    def __init__(
        self,
        haystack: Haystack,
        *,
        name: str,
        ways: Sequence[str] | None = None,
        num_dialogues: int = MOST_DIALOGUES,
    ) -> None:
        self._haystack = haystack
        self._name = name
        self._ways = _ways_of(haystack.archive, name, ways)
        self._num_dialogues = num_dialogues
        self._stored = {chat.id: chat for chat in haystack.archive.store.chats()}
        self._names = {chat: name for name, chat in haystack.chats.items()}

    @property
    def name(self) -> str:
        return f"{self._name} in an archive" if self._inside is not None else "recall of an archive"

    @property
    def _inside(self) -> Retriever | None:
        return self._haystack.archive.retriever

    @property
    def identity(self) -> dict[str, Any]:
        encoder = self._haystack.archive.encoder
        return {
            "kind": "archive",
            "name": self._name,
            "ways": list(self._ways),
            "num_recalled": self._num_dialogues,
            "num_dialogues": len(self._names),
            "fingerprint": self._haystack.fingerprint,
            "vectors": None if encoder is None else encoder.key,
            "inside": None if self._inside is None else self._inside.identity,
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[number] for number in range(len(examples))]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        return [self._answer(example) for example in examples]

    def _answer(self, example: Example) -> Answer:
        archive, query, k = self._haystack.archive, example.query, self._num_dialogues
        recalled = archive.recall(query, k=k, ways=self._ways)
        found = archive.search(query, k=k, ways=self._ways)
        if found.failures:
            raise DataError(found.failures[0])
        best = next(iter(found.cut(1, has_weak=False).hits), None)
        own = example.dialogue.fingerprint
        if own not in self._haystack.chats:
            raise DataError(f"dialogue {example.dialogue.id!r} is not in the archive")
        said = {
            "recalled": [self._names[item.where[0]] for item in recalled],
            "hits": list(dict.fromkeys(self._names[hit.chat.id] for hit in found.hits)),
            "best": None if best is None else self._said(best),
            "known": self._known(query, self._haystack.chats[own]),
        }
        fragment = Fragment() if best is None else self._fragment(best, example.dialogue)
        score = None if best is None else best.score
        return Answer(format_answer(fragment), score=score, extra={"archive": said})

    def _known(self, query: str, chat: int) -> dict[str, Any]:
        """What the same model finds where it is told the dialogue, or the same recall within it."""
        archive = self._haystack.archive
        failures: Sequence[str] = ()
        hits: Sequence[Hit]
        if self._inside is None:
            hits = archive.search(query, Filters(chats=(chat,)), k=1, ways=self._ways).hits
        else:
            asked = [Recalled((chat, 0), {})]
            hits, failures = hits_inside(archive.store, self._inside, query, asked, self._stored)
        if failures:
            raise DataError(failures[0])
        return self._said(hits[0]) if hits else {"utterance_ids": [], "image_ids": []}

    def _said(self, hit: Hit) -> dict[str, Any]:
        """A hit by the ids of its own dialogue."""
        name = self._names[hit.chat.id]
        hosts = self._haystack.dialogues[name].image_utterance_ids
        lines = {line.id: line.message.line - 1 for line in hit.lines}
        images = {hosts.index(lines[line]) + number for line, number in hit.pictures}
        return {
            "dialogue": name,
            "utterance_ids": sorted(lines.values()),
            "image_ids": sorted(images),
            "score": hit.score,
        }

    def _fragment(self, hit: Hit, own: Dialogue) -> Fragment:
        """A hit as an answer to a query on one dialogue."""
        said = self._said(hit)
        utterances, images = said["utterance_ids"], said["image_ids"]
        if said["dialogue"] != own.fingerprint:
            utterances = [len(own.utterances) + number for number in utterances]
            images = [len(own.images) + number for number in images]
        return Fragment(tuple(utterances), tuple(images))
