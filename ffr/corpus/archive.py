"""A store that is asked: recall in several ways, a retriever inside each dialogue, one answer.

query ─► recall: dialogues ─► retriever: a fragment of each, or nothing ─► hits, the best first
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ffr.corpus.candidates import Candidates, candidates
from ffr.corpus.filters import Filters, carries
from ffr.corpus.found import Found, in_order, told_apart
from ffr.corpus.inside import hits_inside, passages
from ffr.corpus.recall import Recalled, all_of, as_vector, recall
from ffr.corpus.store import Line, Store, StoredChat
from ffr.corpus.vectors import StoredEncoder
from ffr.corpus.ways import MOST_DIALOGUES, WAYS, check_ways
from ffr.errors import DataError, UsageError
from ffr.retrieval.interface import Retriever

_KEPT_FILTERS = 4
# how often others may pack the vectors anew between two looks at the store
_MAX_PACKED = 9
_FEW_DIALOGUES = 20
"""Where a search has no more dialogues than this, each is asked."""

_Made = TypeVar("_Made")


class Archive:
    """A store with what answers on it.

    Args:
        store: The store, indexed.
        retriever: Answers inside a dialogue; None gives what recall found as it is.
        encoder: Whose vectors recall dialogues; None recalls them by words alone.
        query_vectors: Makes the vectors by which queries are compared to lines; None where there is
            no encoder.
        looker: Whose words for pictures count, by `StoredTagger.digest`; None for none.
        usual_queries: (n, D) vectors of any queries, as `query_vectors` makes them: what lies close
            to these counts less; None where none are known.
    """

    def __init__(
        self,
        store: Store,
        retriever: Retriever | None,
        encoder: StoredEncoder | None,
        query_vectors: Callable[[Sequence[str]], torch.Tensor] | None,
        looker: str | None = None,
        usual_queries: torch.Tensor | None = None,
    ) -> None:
        self.store = store
        self.retriever = retriever
        self.encoder = encoder
        self._query_vectors = query_vectors
        self._looker = looker
        self._usual_queries = None if usual_queries is None else usual_queries.numpy()
        self._postings = store.database.postings("words")
        self._candidates: OrderedDict[Filters, Candidates] = OrderedDict()
        self._chats: dict[int, StoredChat] = {}
        self._version: int | None = None

    def refresh(self) -> None:
        """Looks anew at what the store holds."""
        self._postings = self.store.database.postings("words")
        self._candidates.clear()
        self._chats.clear()
        if self.encoder is not None:
            self.encoder.refresh()

    def forget_questions(self) -> None:
        """Lets go of the vectors of questions that were asked: each is computed anew."""
        if self.encoder is not None:
            self.encoder.forget_questions()

    def ask(self, query: str, filters: Filters | None = None, *, top: int = 3) -> Found:
        """Finds the fragments that a query means: the best few, none that is weak beside them.

        Args:
            query: What is looked for.
            filters: What narrows it down.
            top: How many hits at most.

        Raises:
            UsageError: where the query is empty, or nobody has a name that is asked for.
            DataError: where the retriever cannot answer.
        """
        if top < 1:
            raise UsageError(f"--top {top} asks for nothing; give a number from 1")
        found = self._searched(query, filters, WAYS, MOST_DIALOGUES)
        return found.cut(top, has_weak=False)

    def search(
        self,
        query: str,
        filters: Filters | None = None,
        *,
        k: int = MOST_DIALOGUES,
        ways: Sequence[str] = WAYS,
    ) -> Found:
        """Finds what a query may mean, the best first: up to so many hits, weak ones last.

        Args:
            query: What is looked for.
            filters: What narrows it down.
            k: How many hits at most; so many dialogues are asked, 20 at least.
            ways: By which dialogues are recalled, some of `WAYS`.

        Raises:
            UsageError: where the query is empty, a way is unknown, or nobody has a name.
            DataError: where the retriever cannot answer.
        """
        check_ways(ways, k)
        found = self._searched(query, filters, ways, max(k, MOST_DIALOGUES))
        return found.cut(k, has_weak=True)

    def recall(
        self,
        query: str,
        filters: Filters | None = None,
        *,
        k: int = MOST_DIALOGUES,
        ways: Sequence[str] = WAYS,
    ) -> list[Recalled]:
        """The dialogues that a query may mean, the likeliest first; nothing is asked inside them.

        Args:
            query: What is looked for.
            filters: What narrows it down.
            k: How many at most.
            ways: Some of `WAYS`.

        Raises:
            UsageError: where the query is empty, a way is unknown, or nobody has a name.
        """
        said, chosen = _clean(query), filters or Filters()
        return self._steadily(lambda: self._recalled(said, chosen, ways, k))

    def _searched(self, query: str, filters: Filters | None, ways: Sequence[str], k: int) -> Found:
        said, chosen = _clean(query), filters or Filters()
        return self._steadily(lambda: self._asked(said, chosen, ways, k))

    def _steadily(self, work: Callable[[], _Made]) -> _Made:
        """Works on one state of the store, whoever reads or forgets chats meanwhile."""
        num_packed = 0
        while True:
            with self.store.snapshot() as version:
                if version != self._version:
                    self.refresh()
                    self._version = version
                try:
                    if self.encoder is not None:
                        self.encoder.hold()
                except DataError:
                    if num_packed == _MAX_PACKED:
                        raise
                    num_packed += 1
                    self._version = None
                else:
                    return work()

    def _recalled(self, query: str, chosen: Filters, ways: Sequence[str], k: int) -> list[Recalled]:
        vector = None if self._query_vectors is None else as_vector(self._query_vectors([query]))
        asked = self.store, query, self._lines(chosen), chosen, self._postings, self.encoder, vector
        return recall(*asked, self._usual_queries, ways=ways, k=k)

    def _asked(self, query: str, chosen: Filters, ways: Sequence[str], k: int) -> Found:
        recalled = self._recalled(query, chosen, ways, k)
        lines = self._lines(chosen)
        if self.retriever is not None and len(lines.wheres) <= _FEW_DIALOGUES:
            recalled = all_of(lines, recalled)
        if not self._chats:
            self._chats = {chat.id: chat for chat in self.store.chats()}
        chats = {
            number: chat
            for number, chat in self._chats.items()
            if not chosen.chats or number in chosen.chats
        }
        if self.retriever is None:
            hits, failures = passages(self.store, query, recalled, chats), list[str]()
        else:
            hits, failures = hits_inside(self.store, self.retriever, query, recalled, chats)
        is_allowed = self._allowing(chosen)
        hits = [hit for hit in hits if is_allowed(hit.lines)]
        return Found(
            query,
            tuple(hits if self.retriever is None else in_order(told_apart(hits))),
            lines.num_messages,
            sum(chat.num_messages for chat in chats.values()),
            _num_not_understood(self.store, list(chats)),
            0,
            tuple(failures),
        )

    def _lines(self, filters: Filters) -> Candidates:
        if filters not in self._candidates:
            key = None if self.encoder is None else self.encoder.key
            self._candidates[filters] = candidates(self.store, filters, key, self._looker)
            if len(self._candidates) > _KEPT_FILTERS:
                self._candidates.popitem(last=False)
        self._candidates.move_to_end(filters)
        return self._candidates[filters]

    def _allowing(self, filters: Filters) -> Callable[[Sequence[Line]], bool]:
        """Tells whether a fragment is what filters ask for: by whom, when, and what it carries."""
        is_row_asked = bool(filters.by or filters.since or filters.until)
        condition, values = filters.condition(self.store) if is_row_asked else ("", [])

        def is_allowed(lines: Sequence[Line]) -> bool:
            if filters.has and not any(carries(line.message, filters.has) for line in lines):
                return False
            if not is_row_asked:
                return True
            among, ids = self.store.database.among("id", [line.id for line in lines])
            return bool(
                self.store.rows(
                    f"SELECT 1 FROM messages WHERE {among} AND {condition} LIMIT 1",
                    [*ids, *values],
                )
            )

        return is_allowed


def _num_not_understood(store: Store, chats: Sequence[int]) -> int:
    condition, values = store.database.among("id", chats)
    (row,) = store.rows(
        f"SELECT coalesce(sum(num_not_understood), 0) AS n FROM chats WHERE {condition}",
        values,
    )
    return int(row["n"])


def _clean(query: str) -> str:
    """A query that can be asked.

    Raises:
        UsageError: where it is empty.
    """
    # half a surrogate pair, as the bytes of a command line may give, is no character
    query = query.encode("utf-8", "replace").decode("utf-8")
    if not query.strip():
        raise UsageError("the query is empty; say what is looked for")
    return query
