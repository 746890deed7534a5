"""A store on a server: its address, what may go wrong there, and its index of vectors."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psycopg
import pytest
import torch
from chat_builds import TRIP, Letters, add, no_bar, said, stored_encoder
from click.testing import CliRunner, Result
from servers import ended_by_server, kill_server, running_server, start_again

from ffr.cli.main import ffr
from ffr.corpus.archive import Archive
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.indexing import index_store
from ffr.corpus.postgres import closest, database, graphs
from ffr.corpus.postgres import vectors as server_vectors
from ffr.corpus.postgres.address import read_address
from ffr.corpus.postgres.database import ServerDatabase
from ffr.corpus.postgres.vectors import ServerVectors, server_of
from ffr.corpus.store import Store
from ffr.errors import DataError, FfrError, UsageError
from ffr.retrieval.lexical import BaselineRetriever


@pytest.fixture
def store(remote: str) -> Iterator[Store]:
    with Store(remote, is_new_allowed=True) as opened:
        add(opened)
        yield opened


def _admin(url: str) -> psycopg.Connection[tuple[object, ...]]:
    address = read_address(url)
    connection = psycopg.connect(address.url, autocommit=True)
    connection.execute(f"SET search_path TO {address.schema}, public")  # type: ignore[arg-type]
    return connection


@pytest.mark.parametrize(
    ("url", "said_of_it"),
    [
        ("postgresql://ann:hunter2@db/chats", "has a password in its URL"),
        ("postgresql://db/chats?password=hunter2", "has a password in its URL"),
        ("postgres://db/chats?sslpassword=hunter2", "has a password in its URL"),
        ("postgresql://db/chats?schema=public", "schema public cannot be a store's own"),
        ("postgresql://db/chats?schema=pg_x", "schema pg_x cannot be a store's own"),
        ("postgresql://db/chats?schema=A;--", "schema A;-- cannot be a store's own"),
        ("postgresql://[db/chats", "is no URL of a server"),
        ("postgresql://db/chats?schema", "is no URL of a server"),
    ],
)
def test_an_address_that_is_refused(url: str, said_of_it: str) -> None:
    with pytest.raises(UsageError, match=said_of_it) as refused:
        Store(url)
    assert "hunter2" not in str(refused.value)


def test_two_stores_of_a_server_have_folders_and_locks_of_their_own() -> None:
    one, other = (read_address(f"postgresql://db/chats?schema={name}") for name in "ab")
    assert one.url == other.url == "postgresql://db/chats"
    assert one.folder != other.folder
    assert one.lock != other.lock


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://ann@127.0.0.1:{closed.getsockname()[1]}/chats"
        done = CliRunner().invoke(ffr, ["index", "list", "--index", url])
    assert done.exit_code == 1
    assert "cannot be reached" in done.output
    assert done.output.count("\n") == 1
    assert "hunter2" not in done.output


def test_a_schema_of_others_is_left_alone(remote: str) -> None:
    name = read_address(remote).schema
    with _admin(remote) as admin:
        admin.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        admin.execute("CREATE TABLE theirs(x INT)")
    with pytest.raises(DataError, match=f"schema {name} holds other tables"):
        Store(remote, is_new_allowed=True)


def test_another_version_is_refused(remote: str, store: Store) -> None:
    with _admin(remote) as admin:
        admin.execute("UPDATE meta SET version = 1")
    with pytest.raises(DataError, match="is a store of version 1, and this ffr keeps version"):
        Store(remote)


def test_a_server_that_ends_in_the_middle_leaves_what_was_there(
    store: Store, server: str, remote: str
) -> None:
    later = [*TRIP, *(said("Zoe", f"new {number}", 9000 + number) for number in range(3000))]

    def come():  # type: ignore[no-untyped-def]
        for number, message in enumerate(later):
            if number == 2500:
                ended_by_server(store, server)
            yield message

    with pytest.raises(DataError, match=r"the server ended the connection .* do the same again"):
        add(store, come())
    with Store(remote) as other:
        assert other.chats()[0].num_messages == 6
    assert add(store, later).num_new == 3000
    assert store.chats()[0].num_messages == 3006


def test_a_connection_that_ended_is_made_anew_between_two_questions(
    store: Store, server: str
) -> None:
    ended_by_server(store, server)
    assert store.chats()[0].num_messages == 6
    ended_by_server(store, server)
    with store.snapshot():
        assert store.numbers() == [1]
    # not where others may have written since
    with store.writing():
        ended_by_server(store, server)
        with pytest.raises(DataError, match="the server ended the connection"):
            store.chats()
    assert store.numbers() == [1]
    with store.snapshot():
        ended_by_server(store, server)
        with pytest.raises(DataError, match="the server ended the connection"):
            store.chats()


def test_a_full_disk_is_said_and_leaves_what_was_there(store: Store, remote: str) -> None:
    with _admin(remote) as admin:
        admin.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
            "EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = "
            "'disk_full'; END $$"
        )
        admin.execute("CREATE TRIGGER no_room BEFORE INSERT ON words EXECUTE FUNCTION full_disk()")
        with pytest.raises(DataError, match=r"No space left on device.*see to the server's room"):
            add(store, (*TRIP, said("Ann", "new", 9999)))
        assert store.chats()[0].num_messages == 6
        admin.execute("DROP TRIGGER no_room ON words")
    assert add(store, (*TRIP, said("Ann", "new", 9999))).num_new == 1


def test_who_waits_too_long_says_so(store: Store, remote: str) -> None:
    store.database.execute("SET lock_timeout = '50ms'")
    with _admin(remote) as admin, admin.transaction():
        admin.execute("UPDATE meta SET changes = changes + 1")
        with pytest.raises(DataError, match="lock timeout"):
            add(store, (said("Ann", "new", 9999),))
    assert add(store, (*TRIP, said("Ann", "new", 9999))).num_new == 1


def test_a_role_that_may_only_read_searches(store: Store, remote: str) -> None:
    name = read_address(remote).schema
    with _admin(remote) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN")  # type: ignore[arg-type]
        try:
            as_reader = remote.replace("postgres@", f"{name}@")
            with pytest.raises(DataError, match="permission denied"):
                Store(as_reader)
            admin.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")  # type: ignore[arg-type]
            admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {name}")  # type: ignore[arg-type]
            with Store(as_reader) as reading:
                archive = Archive(reading, BaselineRetriever("nothing"), None, None)
                assert len(archive.ask("Alfama").hits) == 1
                with pytest.raises(DataError, match=r"permission denied.*your rights"):
                    add(reading)
        finally:
            admin.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
            admin.execute(f"DROP ROLE {name}")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forks no process")
@pytest.mark.parametrize("number", [2, 9, 14, 999])
def test_whoever_is_killed_leaves_the_old_state_or_the_new(
    store: Store, remote: str, number: int
) -> None:
    later = (*TRIP[:5], said("Bob", "no!", 60 * 24 + 1), said("Ann", "new", 9999))
    child = os.fork()
    if not child:
        left = [number]

        def counted(method):  # type: ignore[no-untyped-def]
            def call(*arguments):  # type: ignore[no-untyped-def]
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(*arguments)

            return call

        code = 1
        try:
            for name in ("execute", "executemany", "tuples", "rows", "copy"):
                setattr(ServerDatabase, name, counted(getattr(ServerDatabase, name)))
            with Store(remote) as own, own.writing():
                add(own, later)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (0 if number == 999 else -signal.SIGKILL)
    num_there = store.chats()[0].num_messages
    assert num_there == (8 if number == 999 else 6)
    # nobody holds the lock of who is dead
    with store.writing():
        assert add(store, later).num_new == 8 - num_there
    matched, values = store.database.matched("words", ["new"], is_every=True)
    assert len(store.database.tuples(f"SELECT id FROM {matched} AS m", values)) == 1


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_lost_nothing(tmp_path: Path) -> None:
    with running_server() as url:
        folder = Path(url.partition("host=")[2])
        with Store(url, is_new_allowed=True) as store:
            add(store)
            encoder = stored_encoder(store)
            index_store(store, [1], encoder, None, say=print, bar=no_bar)
            later = [*TRIP, *(said("Zoe", f"new {n}", 9000 + n) for n in range(3000))]

            def come():  # type: ignore[no-untyped-def]
                for number, message in enumerate(later):
                    if number == 2500:
                        kill_server(folder)
                    yield message

            with pytest.raises(DataError, match="the server ended the connection"):
                add(store, come())
            with pytest.raises(DataError, match="cannot be reached"):
                store.chats()
            start_again(folder)
            assert store.chats()[0].num_messages == 6
            assert add(store, later).num_new == 3000
            fresh = stored_encoder(store)
            assert torch.equal(
                fresh.embed_texts(["p: no dentist today"]),
                Letters().embed_texts(["p: no dentist today"]),
            )


def _random_vectors(store: Store, num: int, width: int) -> tuple[ServerVectors, torch.Tensor]:
    made = torch.nn.functional.normalize(
        torch.randn(num, width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    kept = ServerVectors(store, "ab" * 16, width)
    kept.add([number.to_bytes(16, "big") for number in range(num)], made)
    return kept, made


def test_the_index_finds_what_comparing_all_finds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, made = _random_vectors(store, 1500, 24)
    rows = np.arange(1500)
    half = rows[::2]
    query = made[7].numpy()
    places, cosines = kept.closest(query, rows, 20)
    expected = (made @ made[7]).numpy()
    assert places.tolist() == np.argsort(-expected, kind="stable")[:20].tolist()
    assert cosines == pytest.approx(expected[places], abs=1e-6)
    assert np.array_equal(kept.vectors_of(places), made.numpy()[places])
    assert kept.vectors_of(places[:0]).shape == (0, 24)
    even = kept.closest(query, half, 20)[0]
    assert even.tolist() == half[np.argsort(-expected[half], kind="stable")[:20]].tolist()
    monkeypatch.setattr(server_vectors, "EXACT_ROWS", 500)
    assert kept.lacks_lists()
    kept.make_lists(lambda done, total: None)
    assert kept.is_indexed
    assert not kept.lacks_lists()
    by_index, its = kept.closest(query, rows, 20)
    assert len(set(by_index) & set(places)) >= 19
    assert its == pytest.approx(expected[by_index], abs=1e-6)
    # some came with what the index named, and some did not
    mixed = np.array([*by_index[::-1], *half[:9]])
    assert np.array_equal(kept.vectors_of(mixed), made.numpy()[mixed])
    assert set(kept.closest(query, half, 20)[0]) <= set(half)
    store.database.execute("SET enable_seqscan = off")
    plan = "\n".join(
        row[0]
        for row in server_of(store).tuples(
            "EXPLAIN SELECT place FROM vectors WHERE encoder = '" + "ab" * 16 + "' "
            "ORDER BY vector::halfvec(24) <=> (SELECT vector::halfvec(24) FROM vectors LIMIT 1) "
            "LIMIT 20"
        )
    )
    assert "Index Scan using vectors_0_vector_idx" in plan


def _indexed(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[ServerVectors, torch.Tensor]:
    kept, made = _random_vectors(store, 3000, 24)
    monkeypatch.setattr(server_vectors, "EXACT_ROWS", 100)
    monkeypatch.setattr(server_vectors, "_LEAST_CHOICE", 1)
    # so that a partition's first walk names a small part of its rows
    monkeypatch.setattr(closest, "_LEAST_WIDTH", 10)
    monkeypatch.setattr(closest, "_MOST_WIDTH", 40)
    kept.make_lists(lambda done, total: None)
    return kept, made


@pytest.mark.parametrize("number", [1, 20, 900])
@pytest.mark.parametrize(
    "rows",
    [
        np.arange(0),
        np.arange(7, 8),
        np.arange(3, 3000, 100),
        np.arange(7, 2100, 9),
        np.arange(1500, 2600),
        np.arange(1, 3000),
        np.arange(3000),
    ],
    ids=["none", "one", "sparse", "some", "a run", "most", "all"],
)
def test_whatever_may_be_found_so_many_rows_are(
    store: Store, monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, number: int
) -> None:
    kept, made = _indexed(store, monkeypatch)
    query = made[5]
    cosines = (made @ query).numpy()
    expected = rows[np.argsort(-cosines[rows], kind="stable")[:number]]
    places, its = kept.closest(query.numpy(), rows, number)
    assert len(places) == len(expected)
    assert set(places) <= set(rows)
    assert len(set(places) & set(expected)) >= 0.97 * len(expected)
    assert its == pytest.approx(cosines[places], abs=1e-6)
    assert (np.diff(its) <= 0).all()
    monkeypatch.setattr(server_vectors, "EXACT_ROWS", 10_000)
    assert kept.closest(query.numpy(), rows, number)[0].tolist() == expected.tolist()


def test_a_walk_goes_on_for_as_long_as_too_few_are_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, made = _indexed(store, monkeypatch)
    server = server_of(store)
    rows = closest.ServerRows(server, "ab" * 16, 24, 3000)
    assert len(rows.by_index(made[5].numpy(), np.arange(3000), 900)) == 900
    # what is set for a walk is set for nothing else
    with store.snapshot():
        rows.by_index(made[5].numpy(), np.arange(3000), 900)
        shown = "current_setting('enable_seqscan'), current_setting('hnsw.iterative_scan')"
        assert server.tuples(f"SELECT {shown}") == [("on", "off")]
    # one that ends early has all compared
    monkeypatch.setitem(closest._WALKS, "hnsw.iterative_scan", "off")
    assert len(rows.by_index(made[5].numpy(), np.arange(3000), 900)) < 900
    places, _ = kept.closest(made[5].numpy(), np.arange(3000), 900)
    expected = (made @ made[5]).numpy()
    assert places.tolist() == np.argsort(-expected, kind="stable")[:900].tolist()


def test_rows_that_came_since_are_not_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, made = _indexed(store, monkeypatch)
    later = ServerVectors(store, "ab" * 16)
    later.add([bytes([number]) * 16 for number in range(1, 200)], made[:199])
    for most in (100, 10_000):
        monkeypatch.setattr(server_vectors, "EXACT_ROWS", most)
        places, _ = kept.closest(made[5].numpy(), np.arange(2, 3000), 20)
        assert places.max() < 3000
        assert places[0] == 5


def test_graphs_are_made_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = _random_vectors(store, 3000, 24)
    monkeypatch.setattr(server_vectors, "EXACT_ROWS", 100)
    server, notices, seen = server_of(store), list[str](), list[tuple[int, int | None]]()
    server._connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    server.execute("SET maintenance_work_mem = '64kB'")
    kept.make_lists(lambda done, total: seen.append((done, total)))
    assert notices == []
    assert [total for _, total in seen] == [3000] * 8
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (3000, 3000)
    assert server.tuples("SHOW maintenance_work_mem") == [("64kB",)]
    assert server.tuples(
        "SELECT indisvalid, (SELECT count(*) FROM pg_inherits WHERE inhparent = indexrelid) "
        "FROM pg_index WHERE indexrelid = to_regclass(?)",
        [kept._index],
    ) == [(True, 8)]
    # else nothing would have been tested
    server.execute(f"DROP INDEX {kept._index}")
    monkeypatch.setattr(graphs, "_MOST_MEMORY_KB", 64)
    kept.make_lists(lambda done, total: None)
    assert any("no longer fits into maintenance_work_mem" in notice for notice in notices)


def test_graphs_are_made_where_processes_can_share_no_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = _random_vectors(store, 300, 24)
    monkeypatch.setattr(server_vectors, "EXACT_ROWS", 100)
    server, workers = server_of(store), list[str]()
    execute = server.execute

    def shared(sql: str, values: object = ()) -> object:
        if sql.startswith("CREATE INDEX"):
            ((number,),) = server.tuples("SHOW max_parallel_maintenance_workers")
            workers.append(number)
            if number != "0":
                sql = (
                    "DO $$ BEGIN RAISE EXCEPTION 'could not resize shared memory segment' "
                    "USING ERRCODE = 'disk_full'; END $$"
                )
        return execute(sql, values)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "execute", shared)
    kept.make_lists(lambda done, total: None)
    assert (workers[0] != "0", set(workers[1:])) == (True, {"0"})
    assert kept.is_indexed


@pytest.mark.parametrize("many", [1, 1000], ids=["many", "few"])
def test_messages_of_a_chat_are_renumbered(
    store: Store, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(database, "_MANY_ROWS", many)
    other = add(store, TRIP, "other", id_="other").chat

    def numbers(chat: int) -> list[tuple[int, ...]]:
        return store.tuples(
            "SELECT id, place, dialogue, segment FROM messages WHERE chat = ? ORDER BY id", [chat]
        )

    before, others = numbers(1), numbers(other)
    told: list[list[int | None]] = [[before[4][0], 44, 4, None], [before[0][0], 40, 5, 6]]
    # that of another chat stays
    told.append([others[0][0], 9, 9, 9])
    with store.database.whole():
        store.database.renumber(1, ["place", "dialogue", "segment"], told)
        store.database.renumber(1, ["place"], [])
    assert numbers(1) == [
        (before[0][0], 40, 5, 6),
        *before[1:4],
        (before[4][0], 44, 4, None),
        before[5],
    ]
    assert numbers(other) == others


def test_vectors_of_another_width_are_refused(store: Store) -> None:
    _random_vectors(store, 3, 8)
    with pytest.raises(FfrError, match="makes vectors of 9 numbers, and the store has 8"):
        ServerVectors(store, "ab" * 16, 9)
    with pytest.raises(DataError, match="has no vectors of this encoder"):
        ServerVectors(store, "cd" * 16)
    with pytest.raises(ValueError, match="no key of an encoder"):
        ServerVectors(store, "'; DROP TABLE vectors; --", 8)


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(ffr, [str(item) for item in arguments])


def test_the_commands_take_a_url(remote: str, tmp_path: Path) -> None:
    chat = tmp_path / "WhatsApp Chat with Trip.txt"
    chat.write_text(
        "12/05/2023, 18:02 - Ann: shall we fly to Lisbon?\n13/05/2023, 18:05 - Bob: 公园 in Alfama\n"
    )
    where = ["--index", remote]
    asking = [*where, "--model", "baseline:overlap"]
    none = _run("index", "list", *where)
    assert (none.exit_code, "holds no chat yet" in none.output) == (1, True)
    added = _run("index", "add", chat, *asking)
    assert added.exit_code == 0, added.output
    assert f"1 chat in {remote}" in added.output
    assert "公园 in Alfama" in _run("retrieve", "公园", *asking).output
    assert "1 chat," in _run("index", "list", *where).output
    with Store(remote) as busy, busy.writing():
        refused = _run("index", "forget", "Trip", *where)
        assert (refused.exit_code, "is in use by process" in refused.output) == (2, True)
    assert _run("index", "forget", "Trip", *where).exit_code == 0
    assert "0 chats," in _run("index", "list", *where).output
    gone = _run("index", "forget", "--all", *where)
    assert (gone.exit_code, "forgotten" in gone.output) == (0, True)
    assert _run("index", "list", *where).exit_code == 1


def _moved(first: str, second: str, schema: str, name: str) -> None:
    """Has a partition lie on a second server, as docs/archive-server.md says."""
    table, _, remainder = name.rpartition("_")
    with _admin(f"{first}&schema={schema}") as here, _admin(f"{second}&schema={schema}") as there:
        here.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")  # type: ignore[arg-type]
        made = here.execute(
            "SELECT string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ') "
            "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            [name],
        ).fetchone()
        there.execute(f"CREATE TABLE {name}({made[0]})")  # type: ignore
        with (
            here.cursor().copy(f"COPY {name} TO STDOUT") as reading,  # type: ignore[arg-type]
            there.cursor().copy(f"COPY {name} FROM STDIN") as writing,  # type: ignore[arg-type]
        ):
            for data in reading:
                writing.write(data)
        here.execute(f"DROP TABLE {name}")  # type: ignore[arg-type]
        here.execute(
            f"CREATE FOREIGN TABLE {name} PARTITION OF {table} FOR VALUES WITH (MODULUS 8, "  # type: ignore[arg-type]
            f"REMAINDER {remainder}) SERVER b OPTIONS (schema_name '{schema}', table_name '{name}')"
        )


@pytest.mark.slow
def test_partitions_may_lie_on_two_servers(server: str, remote: str, tmp_path: Path) -> None:
    schema = read_address(remote).schema
    letters = Letters()
    with running_server() as second, Store(remote, is_new_allowed=True) as store:
        folder = second.partition("host=")[2]
        for number in range(12):
            add(store, TRIP, f"chat {number}", id_=str(number))
        index_store(
            store, store.numbers(), stored_encoder(store, letters), None, say=print, bar=no_bar
        )
        before = [line.message for line in store.lines(1, 0, 9)]
        with _admin(server) as here, psycopg.connect(second, autocommit=True) as there:
            there.execute("CREATE EXTENSION vector")
            there.execute(f"CREATE SCHEMA {schema}")  # type: ignore[arg-type]
            here.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
            here.execute(
                "CREATE SERVER b FOREIGN DATA WRAPPER postgres_fdw OPTIONS "  # type: ignore[arg-type]
                f"(host '{folder}', dbname 'postgres', extensions 'vector', batch_size '1000')"
            )
            here.execute("CREATE USER MAPPING FOR postgres SERVER b OPTIONS (user 'postgres')")
        try:
            for table in ("messages", "words", "vectors"):
                for remainder in range(0, 8, 2):
                    _moved(server, second, schema, f"{table}_{remainder}")
            with _admin(f"{second}&schema={schema}") as there:
                (num_there,) = there.execute(
                    "SELECT sum(n) FROM (SELECT count(*) AS n FROM messages_0 UNION ALL SELECT "
                    "count(*) FROM messages_2 UNION ALL SELECT count(*) FROM messages_4 UNION ALL "
                    "SELECT count(*) FROM messages_6) AS counts"
                ).fetchone()  # type: ignore[misc]
            assert 0 < num_there < 72
            assert [line.message for line in store.lines(1, 0, 9)] == before
            for number in range(12):
                later = (*TRIP, said("Zoe", f"a zebra {number}", 9999))
                assert add(store, later, f"chat {number}", id_=str(number)).num_new == 1
            index_store(
                store, store.numbers(), stored_encoder(store, letters), None, say=print, bar=no_bar
            )
            archive = Archive(
                store, BaselineRetriever("nothing"), stored_encoder(store), letters.embed_texts
            )
            found = archive.ask("zebra", top=20)
            assert len(found.hits) == 12
            assert found.num_searched == 84
            forget_chats(store, store.numbers()[::2])
            assert len(archive.ask("zebra", top=20).hits) == 6
        finally:
            with _admin(server) as here:
                here.execute("DROP SERVER b CASCADE")


def test_words_are_counted_once_for_each_state(remote: str) -> None:
    def scores(store: Store) -> list[tuple[int, float]]:
        matched, values = store.database.matched("words", ["tram", "bus"], is_every=False)
        return store.database.tuples(f"SELECT id, score FROM {matched} AS m ORDER BY id", values)

    with Store(remote, is_new_allowed=True) as store, Store(remote) as other:
        add(store, [said("Ann", "tram and bus"), said("Ann", "a tram", 1), said("Ann", "x", 2)])
        before = scores(store)
        counted = store.database._counted["words"]  # type: ignore[attr-defined]
        assert counted[1] == {"tram": 2, "bus": 1}
        assert scores(store) == before
        assert store.database._counted["words"] is counted  # type: ignore[attr-defined]
        # whoever writes
        add(other, [said("Bob", "a tram, a bus"), said("Bob", "y", 1)], "second")
        assert scores(store) == scores(other) != before
        with Store(remote) as fresh:
            assert scores(store) == scores(fresh)


def test_words_are_found_by_their_index_and_nothing_waits_to_get_into_it(remote: str) -> None:
    with Store(remote, is_new_allowed=True) as store:
        add(store, [said("Ann", f"the tram {number} and the bus", number) for number in range(300)])
        server = store.database
        # a page of the list of what waits, where anything does
        assert server.tuples(
            "SELECT count(*) FROM generate_series(0, 7) AS number, gin_clean_pending_list("
            "('words_' || number || '_terms_idx')::regclass) AS pages WHERE pages > 0"
        ) == [(0,)]
        plans = []
        for how in (server.by_index(), nullcontext()):
            with server.snapshot(), how:
                matched, values = server.matched("words", ["the", "and", "bus"], is_every=False)
                plan = server.tuples(f"EXPLAIN SELECT id FROM {matched} AS m", values)
                plans.append("\n".join(line for (line,) in plan))
        assert "Bitmap Index Scan on words_0_terms_idx" in plans[0]
        assert "Seq Scan" not in plans[0]
        # else nothing would have been tested
        assert "Seq Scan on words_0" in plans[1]
        assert server.tuples("SELECT current_setting('enable_seqscan')") == [("on",)]
