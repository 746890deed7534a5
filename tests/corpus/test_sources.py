"""What a name stands for, and where the dialogues of data files come from."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from chat_builds import no_bar

from ffr.chats.cutting import Cutting
from ffr.corpus.opening import read_export
from ffr.corpus.sources import sources_of
from ffr.corpus.store import Store
from ffr.errors import DataError

_CHAT = "05/06/2023, 18:02 - Ann: shall we fly?\n"


def _record(id_: str, *lines: str) -> dict[str, Any]:
    said = [{"speaker": "Ann", "utterance": line} for line in lines]
    return {"dialogue_id": id_, "dialogue": said, "query_text": "x", "gt_turns": [0]}


def _write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def _read(store: Store, path: Path) -> None:
    read_export(store, path, Cutting(), say=print, bar=no_bar)


def test_a_folder_stands_for_all_that_is_in_it(tmp_path: Path) -> None:
    said: list[str] = []
    chat = tmp_path / "a" / "WhatsApp Chat with Trip.txt"
    chat.parent.mkdir()
    chat.write_text(_CHAT)
    data = _write(tmp_path / "a" / "b.jsonl", _record("d", "hello"))
    other = tmp_path / "c" / "WhatsApp Chat with Zoo.txt"
    other.parent.mkdir()
    other.write_text(_CHAT)
    (tmp_path / "c" / "note.pdf").write_bytes(b"%PDF-1.7 and so on")
    assert sources_of(chat, None, said.append) == [chat]
    # a folder that is an export itself is read as one
    assert sources_of(other.parent, None, said.append) == [other.parent]
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.7")
    found = sources_of(tmp_path / "a", None, said.append)
    assert found == [chat, data]
    # chats of several apps, whichever of them is known first, in folders and archives
    telegram = tmp_path / "a" / "d" / "result.json"
    telegram.parent.mkdir()
    message = {"id": 1, "type": "message", "date": "2024-05-01T10:00:00", "from": "Ann"}
    exported = {"name": "Lake", "type": "personal_chat", "id": 5}
    telegram.write_text(json.dumps({**exported, "messages": [{**message, "text": "hi"}]}))
    # what nobody named and is no record is of no chat
    (tmp_path / "a" / "settings.json").write_text('{"theme": "dark"}')
    (tmp_path / "a" / "torn.jsonl.gz").write_bytes(b"\x1f\x8b and no more")
    small = tmp_path / "a" / "small.jsonl.gz"
    small.write_bytes(gzip.compress(data.read_bytes()))
    packed = tmp_path / "a" / "e.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("WhatsApp Chat with Sea.txt", _CHAT)
    found = sources_of(tmp_path / "a", None, said.append)
    assert found == [chat, data, telegram.parent, packed, small]
    assert said[-1].endswith("2 files of no chat are left out: .json (1), .gz (1)")
    assert sources_of(tmp_path / "none", None, said.append) == [tmp_path / "none"]


def test_a_data_set_stands_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFR_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = sources_of(Path("wechat-sample"), None, print)
    assert [path.stem for path in files] == ["val"]
    assert files[0].is_file()


def test_a_dialogue_that_two_files_bring_is_kept_once(tmp_path: Path) -> None:
    one = _write(tmp_path / "one.jsonl", _record("d1", "hello", "there"), _record("d2", "bye"))
    two = _write(tmp_path / "two.jsonl", _record("other", "hello", "there"))
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for path in (one, two):
            _read(store, path)
        assert [(chat.num_messages, chat.sources) for chat in store.chats()] == [
            (2, (str(one), str(two))),
            (1, (str(one),)),
        ]


def test_one_id_of_two_contents_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.jsonl", _record("d1", "hello"), _record("d1", "good bye"))
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        with pytest.raises(DataError) as caught:
            _read(store, path)
        assert str(caught.value) == (
            "one.jsonl:2: the dialogue d1 is another one than that of this id in one.jsonl:1; give "
            "each its own id"
        )
