"""Chats that are kept and asked from Python: `ffr.Index`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ffr.chats.cutting import DEFAULT_MAX_MESSAGES, DEFAULT_PAUSE_HOURS, Cutting
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.store import Store, StoredChat
from ffr.errors import UsageError
from ffr.progress import Progress
from ffr.settings import AnswerConfig
from ffr.text import described

if TYPE_CHECKING:
    from ffr.corpus.archive import Archive
    from ffr.corpus.found import Found

_log = logging.getLogger(__name__)


class Index:
    """Chats in a folder, to be asked.

    Args:
        folder: Keeps what was read, for its owner alone; None for the one of `ffr retrieve`.
        model: What answers, by the names that `ffr.load_model` takes.

    Raises:
        DataError: where the folder is no store that this ffr keeps.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder, "chat.jsonl")
    ...     _ = table.write_text('{"dialogue": [{"speaker": "Ann", "utterance": "a flat in Alfama"}'
    ...                          ', {"speaker": "Bob", "utterance": "good"}], "query_text": "x"}')
    ...     with Index(Path(folder, "kept"), model="baseline:overlap") as index:
    ...         _ = index.add(table)
    ...         [line.message.text for line in index.retrieve("Alfama").hits[0].lines]
    ['a flat in Alfama']
    """

    def __init__(self, folder: str | Path | None = None, *, model: str = "reader") -> None:
        self.store = Store(folder, is_new_allowed=True)
        self._model = model
        self._archive: Archive | None = None
        # one connection cannot be in two questions at once
        self._lock = threading.RLock()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder."""
        self.store.close()

    def __repr__(self) -> str:
        return f"<ffr index of {len(self.chats)} chats in {self.store.folder}>"

    @property
    def chats(self) -> list[StoredChat]:
        """What it holds."""
        return self.store.chats()

    def add(
        self,
        *paths: str | Path,
        pause_hours: float = DEFAULT_PAUSE_HOURS,
        max_messages: int = DEFAULT_MAX_MESSAGES,
    ) -> list[StoredChat]:
        """Reads chat exports or data files; what is there already as it is, is not read again.

        Args:
            paths: Files, folders or zip archives.
            pause_hours: A dialogue ends where nobody wrote for so long; 0: nowhere.
            max_messages: The longest dialogue; 0: no bound.

        Returns:
            Their chats.

        Raises:
            DataError: where there is no chat in one.
            UsageError: where another process writes.
        """
        from ffr.corpus.opening import read_export

        cutting = Cutting(pause_hours, max_messages)
        for path in paths:
            if not isinstance(path, str | Path):
                raise ValueError(f"{described(path)} is no path; give that of a chat's export")
        numbers: list[int] = []
        with self._lock:
            self._archive = None
            for path in paths:
                read = read_export(self.store, path, cutting, say=_log.info, bar=_no_bar)
                numbers += read.chats
            return self.store.chats(numbers)

    def retrieve(
        self,
        query: str,
        *,
        top: int = 3,
        chats: Sequence[str | int] = (),
        by: Sequence[str] = (),
        since: date | None = None,
        until: date | None = None,
        has: str = "",
    ) -> Found:
        """Finds the fragments that a query means; the first question makes what is missing.

        Args:
            query: What is looked for.
            top: How many hits at most.
            chats: Titles or numbers of the chats that are meant; none for all.
            by: Names of people, one of whom speaks in it.
            since: Its first day.
            until: Its last day, which counts.
            has: What it carries: photo, video, voice, file, link or sticker.

        Raises:
            UsageError: where the query is empty, nothing was added yet, or nobody has a name.
            ModelError: where the model cannot be loaded.
        """
        from ffr.corpus.opening import open_archive

        if not isinstance(query, str):
            raise ValueError(f"the query is {described(query)}; give a text")
        for name, given in (("chats", chats), ("by", by)):
            if isinstance(given, str):
                raise ValueError(f"{name} is a text; give a list of names, [{described(given)}]")
        if not all(isinstance(name, str) for name in by):
            raise ValueError(f"by is {described(list(by))}; give a list of names")
        for name, day in (("since", since), ("until", until)):
            # a `datetime` is a `date`, and cannot be compared with one
            if day is not None and type(day) is not date:
                raise ValueError(f"{name} is {described(day)}; give a `datetime.date`")
        if not isinstance(top, int):
            raise ValueError(f"top is {described(top)}; give a whole number from 1")
        with self._lock:
            if not self.chats:
                raise UsageError(f"{self.store.folder} holds no chat yet; add one")
            numbers = tuple(self.store.named(str(name)).id for name in chats)
            filters = Filters(numbers, tuple(by), since, until, has)
            if self._archive is None:
                self._archive = open_archive(
                    self.store, self._model, AnswerConfig(), say=_log.info, bar=_no_bar
                )
            return self._archive.ask(query, filters, top=top)

    def forget(self, *chats: str | int) -> None:
        """Takes chats off the disk, by their titles or numbers.

        Raises:
            UsageError: where there is no such chat, or another process writes.
        """
        with self._lock:
            self._archive = None
            forget_chats(self.store, [self.store.named(str(name)).id for name in chats])


@contextmanager
def _no_bar(what: str, total: int) -> Iterator[Progress]:
    yield lambda num_done, num_total: None
