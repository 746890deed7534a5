"""A store is looked through: each bit that is not as it was is noticed, and vectors are made good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_builds import TRIP, add, no_bar, said, stored_encoder

from ffr.corpus.indexing import index_store
from ffr.corpus.schema import DATABASE
from ffr.corpus.seal import SEAL_FILE, Sealed, differing_bytes, make_seal, read_seal
from ffr.corpus.sealing import seal_if_broken
from ffr.corpus.store import Store
from ffr.corpus.verifying import compact_store, verify
from ffr.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        with store.writing():
            (tmp_path / "export.txt").write_text("as an app wrote it")
            add(store, TRIP, source=tmp_path / "export.txt")
        index_store(store, [1], stored_encoder(store), None, say=print, bar=no_bar)
        seal_if_broken(store)
    return tmp_path / "s"


def _faults(folder: Path) -> list[str]:
    with Store(folder) as store:
        return verify(store).faults


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_store_that_is_as_it_was(folder: Path) -> None:
    with Store(folder) as store:
        verdict = verify(store)
        assert verdict.was_sealed
        assert verdict.faults == verdict.notes == []
        assert verdict.num_checked["messages"] == 6
        # five lines with words, and the segments that are more than one of them
        assert verdict.num_checked["vectors"] == 5 + len(
            store.rows(
                "SELECT DISTINCT key FROM segments WHERE key NOT IN (SELECT text_key FROM messages)"
            )
        )


def test_a_bit_anywhere_in_the_vectors_or_the_database(folder: Path) -> None:
    (vectors,) = folder.glob("vectors-*.f32")
    for path in (vectors, folder / DATABASE):
        whole = path.read_bytes()
        for place in np.random.default_rng(0).choice(len(whole), 12, replace=False):
            _flip(path, int(place))
            assert _faults_or_error(folder), (path, place)
            path.write_bytes(whole)
    assert _faults(folder) == []


def _faults_or_error(folder: Path) -> list[str]:
    try:
        return _faults(folder)
    except DataError as error:  # a database whose head is torn is not even opened
        return [str(error)]


def test_vectors_that_are_damaged_are_made_anew(folder: Path) -> None:
    (vectors,) = folder.glob("vectors-*.f32")
    before = vectors.read_bytes()
    _flip(vectors, 100)
    (fault,) = _faults(folder)
    assert fault.startswith(f"{vectors}: bytes 0 to {len(before):,} are not as they were written")
    assert "`ffr index compact` takes out what is damaged" in fault
    with Store(folder) as store:
        compact_store(store)
        index_store(store, [1], stored_encoder(store), None, say=print, bar=no_bar)
        seal_if_broken(store)
        assert verify(store).faults == []
        (again,) = folder.glob("vectors-*.f32")
        rows = [np.frombuffer(data, "<f4").reshape(-1, 64) for data in (before, again.read_bytes())]
        assert {row.tobytes() for row in rows[0]} == {row.tobytes() for row in rows[1]}


def test_what_is_wrong_where_nothing_is_sealed(folder: Path) -> None:
    (folder / SEAL_FILE).unlink()
    with Store(folder) as store:
        store.database.execute("UPDATE messages SET text = 'another' WHERE id = 2")
        store.database.execute("UPDATE segments SET key = x'00' WHERE number = 0 AND dialogue = 1")
        (vectors,) = folder.glob("vectors-*.f32")
        rows = np.memmap(vectors, "<f4", mode="r+").reshape(-1, 64)
        rows[3, 5] = np.nan
        rows.flush()
        verdict = verify(store)
        assert not verdict.was_sealed
        assert [fault.partition(": ")[2][:45] for fault in verdict.faults] == [
            "message 2 is not as it was read; forget its c",
            "segment 0 of dialogue 1 of chat 1 is not of i",
            "vectors 3 to 4 hold numbers that no vector ha",
        ]
        assert read_seal(folder) is None


def test_who_writes_breaks_the_seal(folder: Path) -> None:
    with Store(folder) as store:
        with store.writing():
            seal = read_seal(folder)
            assert seal is not None
            assert not seal.is_whole
            add(store, (said("Zoe", "a zebra"),), "Zoo")
        # what was written since cannot be told from damage: but all else still is
        verdict = verify(store)
        assert (verdict.was_sealed, verdict.faults) == (False, [])
        found = read_seal(folder)
        assert found is not None
        assert found.is_whole


def test_a_picture_that_changed_and_one_that_is_away(folder: Path, tmp_path: Path) -> None:
    import PIL.Image

    from ffr.corpus.pictures import lay_out_pictures

    PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "flat.png")
    with Store(folder) as store:
        with store.writing():
            store.database.execute("DELETE FROM files")
            lay_out_pictures(store)
        assert verify(store).faults == []
        PIL.Image.new("RGB", (8, 6), "blue").save(tmp_path / "flat.png")
        (fault,) = verify(store).faults
        assert "is not the picture that was read; put it back from" in fault
        (tmp_path / "flat.png").unlink()
        verdict = verify(store)
        assert verdict.faults == []
        assert verdict.notes[0].startswith("1 picture of exports that lie elsewhere now")


def test_blocks_of_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.f32"
    path.write_bytes(b"a" * (3 << 20))
    make_seal(tmp_path, {}, {path: 3 << 20})
    _flip(path, 5)
    with path.open("ab") as file:
        file.write(b"b" * 10)
    # a new seal of a file that grew does not take damage for what was written
    make_seal(tmp_path, {}, {path: (3 << 20) + 10})
    seal = read_seal(tmp_path)
    assert seal is not None
    assert differing_bytes(path, seal.files["a.f32"]) == [(0, 1 << 20)]
    assert differing_bytes(path, Sealed(4 << 20, ("",) * 4))[-1] == (3 << 20, 4 << 20)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"form": 1}',
        b'{"form":1,"block":1048576,"files":{"a":1},"is_whole":true}',
        b"[" * 99999,
    ],
)
def test_a_seal_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SEAL_FILE).write_bytes(content)
    assert read_seal(tmp_path) is None


def test_who_reads_is_not_waited_for(folder: Path) -> None:
    with Store(folder) as store, Store(folder) as reading:
        with reading.snapshot():
            with store.writing():
                add(store, (said("Zoe", "a zebra"),), "Zoo")
            # the one who reads sees the old state, which the database itself must keep meanwhile
            seal_if_broken(store)
            seal = read_seal(folder)
            assert seal is not None
            assert not seal.is_whole
        seal_if_broken(store)
        found = read_seal(folder)
        assert found is not None
        assert found.is_whole
        assert verify(store).faults == []
    with Store(folder) as store:
        assert verify(store).was_sealed
        assert verify(store).faults == []
