"""A server of Postgres as the engine of a store, as `ffr.corpus.database.Database` says.

One process writes at a time, known by an advisory lock that ends with its connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from ffr.corpus.database import Condition
from ffr.corpus.postgres.address import Address
from ffr.corpus.postgres.session import Session, translated
from ffr.corpus.postgres.words import ServerTexts, scored, stored_term
from ffr.corpus.postings import Postings
from ffr.errors import UsageError
from ffr.text import one_line

# of a chat's messages
_MANY_ROWS = 1000


class ServerDatabase(Session):
    """The tables of a store on a server, as `Session`."""

    def __init__(self, address: Address, *, version: int, is_new_allowed: bool) -> None:
        # by table: the number of changes of the state that was counted, and how many texts have a term
        self._counted: dict[str, tuple[int, dict[str, int]]] = {}
        self._has_new_words = False
        super().__init__(address, version=version, is_new_allowed=is_new_allowed)

    @contextmanager
    def whole(self) -> Iterator[None]:
        self._has_new_words = False
        with super().whole():
            yield
        if self._has_new_words:
            # what came waits in a list that every question would read from end to end
            self.tuples(
                "SELECT gin_clean_pending_list(pg_class.oid) FROM pg_class JOIN pg_am "
                "ON pg_am.oid = relam WHERE amname = 'gin' AND relkind = 'i' "
                "AND relnamespace = current_schema()::regnamespace "
                "AND pg_has_role(relowner, 'USAGE')"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        lock = self.address.lock
        with self.in_words():
            ((is_taken,),) = self._run("SELECT pg_try_advisory_lock(?)", [lock]).fetchall()
        if not is_taken:
            raise UsageError(
                f"{self.place} is in use by {self._writer(lock)}; wait until it has ended"
            )
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock(%s)", [lock])

    def _writer(self, lock: int) -> str:
        bits = lock & (2**64 - 1)
        found = self.tuples(
            "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE "
            "locktype = 'advisory' AND objsubid = 1 AND classid = ?::bigint::oid AND "
            "objid = ?::bigint::oid AND granted AND pg_locks.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())",
            [bits >> 32, bits & 0xFFFFFFFF],
        )
        return one_line(found[0][0], 80) if found and found[0][0] else "another process"

    def held(self) -> AbstractContextManager[None]:
        return self.writing()

    def settled_files(self) -> list[Path]:
        return []

    def faults(self) -> list[str]:
        found = self.tuples(
            "SELECT name FROM texts WHERE (num_rows, num_terms) != (SELECT count(*), "
            "coalesce(sum(words.num_terms), 0) FROM (SELECT 'words' AS name, num_terms FROM words "
            "UNION ALL SELECT 'shown_words', num_terms FROM shown_words) AS words "
            "WHERE words.name = texts.name)"
        )
        faults = [f"the counts of {table} are not those of its rows" for (table,) in found]
        found = self.tuples(
            "SELECT encoder FROM matrices WHERE (num_rows, num_rows, TRUE) != (SELECT count(*), "
            "coalesce(max(place) + 1, 0), coalesce(bool_and(vector_norm(vector) < 1.001), TRUE) "
            "FROM vectors WHERE vectors.encoder = matrices.encoder)"
        )
        return faults + [f"vectors of {encoder} are not as they were made" for (encoder,) in found]

    def among(self, column: str, values: Sequence[object]) -> Condition:
        return f"{column} = ANY(?)", [list(values)]

    def pairs_among(self, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]) -> Condition:
        return (
            f"({', '.join(columns)}) IN (SELECT * FROM unnest(?::bigint[], ?::text[]))",
            [[number for number, _ in pairs], [key for _, key in pairs]],
        )

    def renumber(
        self, chat: int, columns: Sequence[str], rows: Sequence[Sequence[int | None]]
    ) -> None:
        if not rows:
            return
        # by the chat it is known in which partition they lie; but a planner that has not yet counted
        # its messages would rather look through all of them than look a few up
        of_chat = "chat = ?" if len(rows) >= _MANY_ROWS else "chat + 0 = ?"
        self.execute(
            f"UPDATE messages SET {', '.join(f'{name} = told.{name}' for name in columns)} "
            f"FROM unnest({', '.join(['?::bigint[]'] * (1 + len(columns)))}) "
            f"AS told(id, {', '.join(columns)}) WHERE messages.id = told.id AND {of_chat}",
            [*map(list, zip(*rows, strict=True)), chat],
        )

    def day(self, seconds: str) -> str:
        # the calendar of SQLite ends with the year 9999, and begins with the year 0
        return (
            f"CASE WHEN {seconds} >= -62135596800 AND {seconds} < 253402300800 THEN "
            f"to_char(timestamp '1970-01-01' + ({seconds}) * interval '1 second', 'YYYY-MM-DD') END"
        )

    def add_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        stored = [(id_, [stored_term(term) for term in words.split(" ")]) for id_, words in rows]
        if not stored:
            return
        columns = {"id": "int8", "terms": "text[]", "num_terms": "int4"}
        self.copy(table, columns, ((id_, terms, len(terms)) for id_, terms in stored))
        self._has_new_words = True
        num_terms = sum(len(terms) for _, terms in stored)
        self._count(table, len(stored), num_terms)

    def forget_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        gone = self._connection.execute(
            translated(f"DELETE FROM {table} WHERE id = ANY(?) RETURNING num_terms"),
            [[id_ for id_, _ in rows]],
        ).fetchall()
        self._count(table, -len(gone), -sum(num_terms for (num_terms,) in gone))

    def _count(self, table: str, num_rows: int, num_terms: int) -> None:
        self.execute(
            "UPDATE texts SET num_rows = num_rows + ?, num_terms = num_terms + ? WHERE name = ?",
            [num_rows, num_terms, table],
        )

    def matched(self, table: str, terms: Sequence[str], *, is_every: bool) -> Condition:
        stored = list(dict.fromkeys(map(stored_term, terms)))
        ((num_texts, num_terms, num_changes),) = self.tuples(
            "SELECT num_rows, num_terms, changes FROM texts CROSS JOIN meta WHERE name = ?", [table]
        )
        counts = self._counts(table, stored, num_changes)
        mean = num_terms / max(num_texts, 1)
        return scored(table, stored, counts, num_texts, mean, is_every=is_every)

    def by_index(self) -> AbstractContextManager[None]:
        # a planner takes two arrays for as cheap to compare as two numbers, and reads the whole table
        return self.adjusted({"enable_seqscan": "off"})

    def _counts(self, table: str, terms: Sequence[str], num_changes: int) -> list[int]:
        """How many texts have each term; counted once for as long as nobody writes.

        To count those of a frequent word takes as long as to find them.
        """
        known = self._counted.get(table)
        if known is None or known[0] != num_changes:
            known = self._counted[table] = (num_changes, {})
        if missing := [term for term in terms if term not in known[1]]:
            ((counts,),) = self.tuples(
                f"SELECT ARRAY(SELECT (SELECT count(*) FROM {table} WHERE terms @> ARRAY[asked.term]) "
                "FROM unnest(?::text[]) WITH ORDINALITY AS asked(term, place) ORDER BY place)",
                [missing],
            )
            known[1].update(zip(missing, counts, strict=True))
        return [known[1][term] for term in terms]

    def postings(self, table: str) -> Postings:
        return Postings(ServerTexts(self.tuples, self.by_index, table))

    def mark_unfinished(self) -> None:
        self.execute("UPDATE meta SET is_unfinished = TRUE")

    def is_unfinished(self) -> bool:
        return bool(self.rows("SELECT is_unfinished FROM meta")[0][0])

    def take_off_disk(self) -> None:
        with self.in_words():
            for (table,) in self._connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
                "AND relkind = 'r'"
            ).fetchall():
                self._connection.execute(
                    sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table))
                )
        with self.whole():
            self.execute("UPDATE meta SET is_unfinished = FALSE")

    def num_bytes(self) -> int:
        """What the tables take on the server's disk, with their indices."""
        ((size,),) = self.tuples(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
            "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        return int(size)

    def drop(self) -> None:
        """Takes the whole schema off the server."""
        with self.in_words():
            name = sql.Identifier(self.address.schema)
            self._connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))
