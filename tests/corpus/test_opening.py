"""Exports that are read again, otherwise than before, or not to their end."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from chat_builds import killed_at, no_bar

from ffr.chats.cutting import Cutting
from ffr.chats.stream import ReadChoices
from ffr.corpus import opening
from ffr.corpus.indexing import index_store
from ffr.corpus.opening import ReadExport, read_export
from ffr.corpus.store import Store
from ffr.errors import DataError

_LINES = (
    "05/06/2023, 18:02 - Ann: shall we fly?\n"
    "05/06/2023, 18:05 - Bob: yes\n"
    "07/06/2023, 18:06 - Bob: a flat\n"
)


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(tmp_path / "s", is_new_allowed=True) as opened:
        yield opened


def _read(store: Store, path: Path, **choices: str) -> ReadExport:
    return read_export(
        store,
        path,
        Cutting(),
        choices=ReadChoices(choices.get("order"), choices.get("me")),
        say=lambda words: None,
        bar=no_bar,
    )


def _days(store: Store) -> list[str]:
    return [f"{line.message.time:%d.%m.}" for line in store.lines(1, 0, 9) if line.message.time]


def test_what_is_said_of_an_export_later_counts(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "WhatsApp Chat with Trip.txt"
    path.write_text(_LINES)
    _read(store, path, order="dmy")
    assert _days(store) == ["05.06.", "05.06.", "07.06."]
    assert _read(store, path, me="Ann").added != ()
    assert [line.is_me for line in store.lines(1, 0, 9)] == [True, False, False]
    # the other order takes the place of the first, and holds until something else is said
    assert _read(store, path, order="mdy").chats == (1,)
    assert _days(store) == ["06.05.", "06.05.", "06.07."]
    assert [line.is_me for line in store.lines(1, 0, 9)] == [True, False, False]
    assert _read(store, path) == ReadExport(path, (), (1,))
    path.write_text(_LINES + "08/06/2023, 18:06 - Bob: later\n")
    _read(store, path)
    assert _days(store) == ["06.05.", "06.05.", "06.07.", "06.08."]
    (words,) = store.rows("SELECT count(*) AS n FROM words WHERE words MATCH 'flat'")
    assert words["n"] == 1


def _account(path: Path, names: str, text: str = "hi") -> None:
    chats = [
        {
            "name": name, "type": "personal_chat", "id": ord(name),
            "messages": [{"id": 1, "type": "message", "date": "2023-05-12T18:02:00",
                          "from": "Ann", "from_id": "user1", "text": f"{text} {name}"}],
        }
        for name in names
    ]  # fmt: skip
    path.write_text(json.dumps({"chats": {"list": chats}}))


def test_an_export_that_was_broken_off_is_read_to_its_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    _account(path, "ABC")
    add, done = opening.add_chat, list[object]()

    def stopped(*given, **named):  # type: ignore[no-untyped-def]
        if done:
            raise KeyboardInterrupt
        done.append(add(*given, **named))
        return done[0]

    with monkeypatch.context() as patch:
        patch.setattr(opening, "add_chat", stopped)
        with pytest.raises(KeyboardInterrupt):
            _read(store, path)
    assert [chat.title for chat in store.chats()] == ["A"]
    assert _read(store, path).chats == (1, 2, 3)
    assert _read(store, path) == ReadExport(path, (), (1, 2, 3))


def test_a_chat_that_an_export_has_no_longer_does_not_have_it_read_for_ever(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    _account(path, "ABC")
    _read(store, path)
    _account(path, "AC", "changed")
    assert _read(store, path).chats == (1, 3)
    assert _read(store, path) == ReadExport(path, (), (1, 3))
    assert len(store.chats()) == 3


def _pictured(folder: Path, colour: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "WhatsApp Chat with Trip.txt").write_text(
        "05/06/2023, 18:02 - Ann: IMG-1.png (file attached)\n"
    )
    PIL.Image.new("RGB", (8, 6), colour).save(folder / "IMG-1.png")


def _indexed(store: Store) -> str | None:
    index_store(store, [1], None, None, say=print, bar=no_bar)
    return store.lines(1, 0, 1)[0].pictures[0]


def test_pictures_follow_an_export_that_is_moved(store: Store, tmp_path: Path) -> None:
    _pictured(tmp_path / "a", "red")
    _read(store, tmp_path / "a")
    assert _indexed(store) == str(tmp_path / "a" / "IMG-1.png")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert _read(store, tmp_path / "b").added[0].num_known == 1
    assert _indexed(store) == str(tmp_path / "b" / "IMG-1.png")


def test_an_export_is_one_from_whichever_folder_it_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pictured(tmp_path / "a", "red")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    _read(store, Path("../a"))
    assert _indexed(store) == str(tmp_path / "a" / "IMG-1.png")
    monkeypatch.chdir(tmp_path)
    assert _read(store, Path("a")).added == ()


def test_a_picture_that_changed_is_looked_at_anew(store: Store, tmp_path: Path) -> None:
    digests = []
    for colour in ("red", "blue"):
        _pictured(tmp_path / "a", colour)
        _read(store, tmp_path / "a")
        _indexed(store)
        digests += [row["digest"] for row in store.rows("SELECT digest FROM files")]
    assert len(set(digests)) == 2


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "no", "is not there"),
        (lambda folder: folder / ("x" * 300), "is not there"),
        (lambda folder: folder / "nul\0l", "is not there"),
        (lambda folder: _fifo(folder / "pipe"), "is neither a file nor a folder"),
    ],
)
def test_what_is_no_export_is_said(
    store: Store, tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        _read(store, make(tmp_path))


def test_a_name_that_is_no_text_is_said(store: Store, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_text(_LINES)
    with pytest.raises(DataError, match="has a name that is no UTF-8"):
        _read(store, path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows forks no process")
def test_whoever_is_killed_while_reading_is_made_good_by_the_next(tmp_path: Path) -> None:
    path, folder = tmp_path / "result.json", tmp_path / "s"
    _account(path, "AB")
    with Store(folder, is_new_allowed=True) as store:
        _read(store, path)
    _account(path, "ABC", "changed")
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    num_killed = 0
    for number in range(1, 999):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        if not killed_at(folder, number, lambda store: _read(store, path)):
            break
        num_killed += 1
        with Store(folder) as store:
            for chat in store.chats():
                assert [line.place for line in store.lines(chat.id, 0, 9)] == [0]
            assert _read(store, path).chats == (1, 2, 3)
            texts = [store.lines(chat, 0, 9)[0].message.text for chat in (1, 2, 3)]
            assert texts == ["changed A", "changed B", "changed C"]
            (words,) = store.rows("SELECT count(*) AS n FROM words WHERE words MATCH 'changed'")
            assert words["n"] == 3
    assert num_killed > 20
