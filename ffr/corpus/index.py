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
from ffr.corpus.people import KnownPerson, everyone, join_people, part_people
from ffr.corpus.store import Store, StoredChat
from ffr.corpus.ways import WAYS
from ffr.errors import UsageError
from ffr.progress import Progress
from ffr.settings import AnswerConfig
from ffr.text import described

if TYPE_CHECKING:
    from ffr.corpus.archive import Archive
    from ffr.corpus.found import Found

_log = logging.getLogger(__name__)


class KeptChats:
    """What a folder keeps: chats, and who speaks in them.

    Args:
        folder: As in `Index`.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.store = Store(folder, is_new_allowed=True)
        self._archives: dict[tuple[str, str], Archive] = {}
        # one connection cannot be in two questions at once
        self._lock = threading.RLock()

    def close(self) -> None:
        """Lets go of the folder."""
        self.store.close()

    @property
    def chats(self) -> list[StoredChat]:
        """What it holds."""
        return self.store.chats()

    @property
    def people(self) -> list[KnownPerson]:
        """Who speaks in its chats, those who wrote most first."""
        with self._lock:
            return everyone(self.store)

    def same(self, *names: str) -> KnownPerson:
        """Has those who go by these names be one person, called by the first.

        Args:
            names: Whole names; `2/Ann` is the Ann of chat 2.

        Raises:
            UsageError: where nobody, or two people of one chat, go by one of them, or another process
                writes.
        """
        _check_names(names)
        with self._lock:
            self._archives.clear()
            return join_people(self.store, names)

    def apart(self, *names: str) -> None:
        """Has those who go by these names be people of their own again.

        Raises:
            UsageError: where nobody goes by one of them, or nobody of them was joined, or another
                process writes.
        """
        _check_names(names)
        with self._lock:
            self._archives.clear()
            part_people(self.store, names)

    def forget(self, *chats: str | int) -> None:
        """Takes chats off the disk, by their titles or numbers.

        Raises:
            UsageError: where there is no such chat, or another process writes.
        """
        with self._lock:
            self._archives.clear()
            forget_chats(self.store, [self.store.named(str(name)).id for name in chats])


class Index(KeptChats):
    """Chats in a folder, to be asked.

    Args:
        folder: Keeps what was read, for its owner alone; None for the one of `ffr retrieve`. Or
            the URL of a server: `postgresql://HOST/DATABASE` (extra `postgres`).
        model: What answers, by the names that `ffr.load_model` takes.
        encoder: Whose vectors recall dialogues, by the names that `--encoder` takes; None for the
            reader's.

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

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        model: str = "reader",
        encoder: str | None = None,
    ) -> None:
        super().__init__(folder)
        self._model = model
        self._encoder = encoder

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ffr index of {len(self.chats)} chats in {self.store.place}>"

    def add(
        self,
        *paths: str | Path,
        pause_hours: float = DEFAULT_PAUSE_HOURS,
        max_messages: int = DEFAULT_MAX_MESSAGES,
    ) -> list[StoredChat]:
        """Reads chat exports, data files, folders of such, or data sets by their names; what is there already as it is, is not read again.

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
        from ffr.corpus.sources import sources_of

        cutting = Cutting(pause_hours, max_messages)
        for path in paths:
            if not isinstance(path, str | Path):
                raise ValueError(f"{described(path)} is no path; give that of a chat's export")
        numbers: list[int] = []
        with self._lock:
            self._archives.clear()
            for path in [
                source for name in paths for source in sources_of(Path(name), None, _log.info)
            ]:
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
        _check_query(query)
        if not isinstance(top, int):
            raise ValueError(f"top is {described(top)}; give a whole number from 1")
        with self._lock:
            filters = _filters(self.store, chats, by, since, until, has)
            return self._opened(self._model).ask(query, filters, top=top)

    def search(
        self,
        queries: str | Sequence[str],
        *,
        k: int = 20,
        rerank: str | None = None,
        ways: Sequence[str] = WAYS,
        chats: Sequence[str | int] = (),
        by: Sequence[str] = (),
        since: date | None = None,
        until: date | None = None,
        has: str = "",
    ) -> Found | list[Found]:
        """Finds what queries may mean in all that is kept, the best first, weak hits last.

        Args:
            queries: What is looked for: a text, or several.
            k: How many hits at most, each.
            rerank: What is asked inside the dialogues that were recalled, as the index's `model`;
                `none` gives what was recalled as it is. None for the index's model.
            ways: How dialogues are recalled, some of `ffr.corpus.recall.WAYS`.
            chats: As in `retrieve`, and so are the others.
            by: Likewise.
            since: Likewise.
            until: Likewise.
            has: Likewise.

        Returns:
            What was found: of a text one, of several a list in their order.

        Raises:
            UsageError: where a query is empty, nothing was added yet, or nobody has a name.
            ModelError: where the model cannot be loaded.
        """
        several = [queries] if isinstance(queries, str) else list(queries)
        for query in several:
            _check_query(query)
        with self._lock:
            filters = _filters(self.store, chats, by, since, until, has)
            archive = self._opened(self._model if rerank is None else rerank, ways)
            found = [archive.search(query, filters, k=k, ways=ways) for query in several]
        return found[0] if isinstance(queries, str) else found

    def _opened(self, model: str, ways: Sequence[str] = WAYS) -> Archive:
        from ffr.corpus.opening import open_archive

        needed = (model, "words" if set(ways) == {"words"} else "")
        if needed not in self._archives:
            self._archives[needed] = open_archive(
                self.store,
                model,
                AnswerConfig(),
                encoder=self._encoder,
                ways=ways,
                say=_log.info,
                bar=_no_bar,
            )
        return self._archives[needed]


def _check_names(names: Sequence[str]) -> None:
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the names are {described(list(names))}; give texts, one at least")


def _filters(
    store: Store,
    chats: Sequence[str | int],
    by: Sequence[str],
    since: date | None,
    until: date | None,
    has: str,
) -> Filters:
    for name, given in (("chats", chats), ("by", by)):
        if isinstance(given, str):
            raise ValueError(f"{name} is a text; give a list of names, [{described(given)}]")
    if not all(isinstance(name, str) for name in by):
        raise ValueError(f"by is {described(list(by))}; give a list of names")
    for name, day in (("since", since), ("until", until)):
        # a `datetime` is a `date`, and cannot be compared with one
        if day is not None and type(day) is not date:
            raise ValueError(f"{name} is {described(day)}; give a `datetime.date`")
    if not store.numbers():
        raise UsageError(f"{store.place} holds no chat yet; add one")
    numbers = tuple(store.named(str(name)).id for name in chats)
    return Filters(numbers, tuple(by), since, until, has)


def _check_query(query: object) -> None:
    if not isinstance(query, str):
        raise ValueError(f"the query is {described(query)}; give a text")


@contextmanager
def _no_bar(what: str, total: int) -> Iterator[Progress]:
    yield lambda num_done, num_total: None
