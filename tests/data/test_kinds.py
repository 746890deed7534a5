"""What is no data file is named by its content, once, with what to do."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ffr.chats.reading import FORMATS
from ffr.data.check import check_file
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import read_record
from ffr.data.index import RecordFile
from ffr.data.kinds import KINDS, kind_of_object
from ffr.errors import DataError

TELEGRAM = {
    "name": "Ann",
    "type": "personal_chat",
    "id": 7,
    "messages": [
        {"id": 1, "type": "message", "date": "2024-05-01T10:00:00", "from": "Ann", "text": "hi"},
        {"id": 2, "type": "message", "date": "2024-05-01T10:01:00", "from": "Bob", "text": "yes"},
    ],
}
MESSENGER = {
    "participants": [{"name": "Ann"}],
    "messages": [{"sender_name": "Ann", "timestamp_ms": 1, "content": "hi"}],
}
SLACK = [{"type": "message", "user": "U1", "text": "hi", "ts": "1.0"}]


def _zip(*names: str, **contents: object) -> bytes:
    """An archive of files with nothing to read in them, and of some of text or JSON."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
        for name, content in contents.items():
            archive.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return packed.getvalue()


def _parquet() -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi"]}), written)
    return written.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "Telegram, indented": (json.dumps(TELEGRAM, indent=1).encode(), "telegram"),
    "Telegram, in one line": (json.dumps(TELEGRAM).encode(), "telegram"),
    "Telegram, all chats": (
        json.dumps({"about": "x", "chats": {"list": [TELEGRAM]}}, indent=2).encode(),
        "telegram",
    ),
    "Messenger": (json.dumps(MESSENGER, indent=1).encode(), "messenger"),
    "Slack": (json.dumps(SLACK, indent=4).encode(), "slack"),
    "Discord": (
        json.dumps({"guild": {}, "channel": {}, "messages": []}, indent=1).encode(),
        "discord",
    ),
    "WeFlow": (
        json.dumps({"session": {}, "messages": [{"senderUsername": "a"}]}, indent=1).encode(),
        "weflow",
    ),
    "MemoTrace": (b"localId,TalkerId,Type\n1,2,1\n", "memotrace"),
    "WhatsApp, Android": (b"12/31/23, 8:03 PM - Ann: hi\n", "whatsapp"),
    "WhatsApp, iOS": ("\u200e[14/02/2024, 09:15:03] Ann: hi\n".encode(), "whatsapp"),
    "WhatsApp, Japan": ("[2023/12/31 23:55:40] 母: hi\n".encode(), "whatsapp"),
    "LINE": (
        b"[LINE] Chat history with Ann\nSaved on: 2024/01/15 10:30\n\n2024/01/15(Mon)\n"
        b"10:00\tAnn\thi\n",
        "line",
    ),
    "zip of WhatsApp": (
        _zip("IMG-1.jpg", **{"WhatsApp Chat with Ann.txt": "12/31/23, 8:03 PM - Ann: hi\n"}),
        "whatsapp",
    ),
    "zip of Slack": (
        _zip("photo.jpg", **{"channels.json": [], "users.json": [], "home/2024-05-01.json": SLACK}),
        "slack",
    ),
    "zip of Telegram": (_zip("photos/1.jpg", **{"result.json": TELEGRAM}), "telegram"),
    "zip with a folder of Messenger": (
        _zip(**{"messages/inbox/ann_1/message_1.json": MESSENGER}),
        "messenger",
    ),
    "ChatLab": (json.dumps({"chatlab": {}, "messages": []}, indent=1).encode(), "chatlab"),
    "ChatLab, in lines": (b'{"_type": "header", "meta": {}}\n{"_type": "message"}\n', "chatlab"),
    "workbook": (_zip("xl/workbook.xml"), "excel"),
    "zip": (_zip("a.jsonl"), "zip"),
    "damaged zip": (b"PK\x03\x04" + bytes(range(128, 250)), "zip"),
    "Parquet": (_parquet(), "parquet"),
    "Arrow, as datasets caches it": (b"\xff\xff\xff\xff\x10\0\0\0", "arrow"),
    "database": (b"SQLite format 3\0" + bytes(100), "sqlite"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(9), "picture"),
    "web page": (b"\n<!DOCTYPE html><html>", "html"),
    "CSV": (b"dialogue_id,speaker,text\nd1,ann,hi\n", "csv"),
    "CSV with a mark": (b'\xef\xbb\xbf"Speaker";"Text"\n', "csv"),
    "CSV in UTF-16": ("speaker\ttext\nann\thi\n".encode("utf-16"), "csv"),
    "LoCoMo, published": (
        b'[{"qa": [], "conversation": {"speaker_a": "x", "session_1": []}}]',
        "locomo",
    ),
    "LoCoMo, one conversation": (
        b'{\n"speaker_a": "x",\n"session_1": [],\n"qa": []}\n',
        "locomo",
    ),
    "Mem-Gallery": (
        b'{\n"multi_session_dialogues": [],\n"human-annotated QAs": []}\n',
        "mem-gallery",
    ),
    "LongMemEval": (b'[{"question_id": "q", "haystack_sessions": []}]', "longmemeval"),
    "QMSum": (b'{"meeting_transcripts": [], "specific_query_list": []}\n', "qmsum"),
    "rows": (b'{"dialogue_id": "d1", "speaker": "ann", "text": "hi"}\n', "rows"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_file_is_named_once(tmp_path: Path, name: str) -> None:
    data, kind = FILES[name]
    wanted = next(entry for entry in KINDS if entry.name == kind)
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    for open_it in (check_file, open_dataset):
        with pytest.raises(DataError) as caught:
            open_it(path)
        assert str(caught.value) == f"a.jsonl: is {wanted.words}; {wanted.remedy}"


def test_a_chat_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(TELEGRAM), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        check_file(path)
    assert str(caught.value) == (
        "result.json: is a chat export of Telegram; bring it in with `ffr data import FILE --out "
        'DATA.jsonl`, or ask it with `ffr retrieve "…" FILE`'
    )


def test_every_form_of_chat_is_a_kind() -> None:
    words = {kind.name: kind.words for kind in KINDS}
    assert {form.name: form.words for form in FORMATS}.items() <= words.items()


def test_what_is_packed_with_gzip_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(TELEGRAM, indent=1).encode()))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: is a chat export of Telegram"):
        check_file(path)


def test_every_kind_but_one_of_bytes_alone_is_tried() -> None:
    tried = {kind for _, kind in FILES.values()}
    assert {kind.name for kind in KINDS} - tried == {"tar", "archive", "pdf"}


def test_a_record_over_several_lines(write: Callable[..., Path], record: dict[str, Any]) -> None:
    path = write("a.jsonl")
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    with pytest.raises(DataError, match=r"begins with a record over several lines; write each in"):
        RecordFile(path)


def test_words_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ann: hi\nBob: yes\n")
    with pytest.raises(DataError, match='is no file of records: it begins with "Ann: hi"; write'):
        RecordFile(path)


def test_one_bad_line_does_not_make_a_file_foreign(
    write: Callable[..., Path], record: dict[str, Any]
) -> None:
    path = write("a.jsonl", record)
    good = path.read_text(encoding="utf-8")
    for bad in ("stray words\n", '{"a": 1\n', '{"dialogue_id": "cut o\n'):
        path.write_text(bad + good, encoding="utf-8")
        report = check_file(path)
        assert [(fault.line, fault.kind) for fault in report.errors] == [(1, "json")]
        assert report.num_good == 1


def test_records_of_ours_are_never_taken_for_others(
    record: dict[str, Any], raw_record: dict[str, Any]
) -> None:
    foreign = {"session": 1, "participants": [], "speaker": "a", "text": "b", "date": 3, "ts": 1}
    for own in (record, raw_record, {**record, "response": "x"}):
        assert kind_of_object({**foreign, "guild": 1, "channel": 2, "user": 1, **own}) is None
    assert kind_of_object({"dialogue_id": "d", "query": "q", "response": "x"}) is None


def test_the_exports_at_hand_are_named(shared_dir: Path) -> None:
    folder = shared_dir / "chat-exports"
    files = [*folder.glob("whatsapp-*/*.txt"), *folder.glob("langchain-*/*.*")]
    for path in [*files, *folder.glob("*/telegram/*.json")]:
        with pytest.raises(DataError, match="is a chat export of"):
            check_file(path)
    assert len(files) >= 11


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"text": "hi"}, 'line 0 of the dialogue has no "utterance"; did you mean "text"? rename'),
        ({}, 'line 0 of the dialogue has no "utterance"; write a text or a list of'),
    ],
)
def test_the_key_that_is_wanted_is_named(change: dict[str, str], sentence: str) -> None:
    record = {"dialogue_id": "d", "dialogue": [{"speaker": "a", **change}], "query_text": "q"}
    assert sentence in read_record(record)[1][-1].message


def test_other_names_of_keys_are_known(record: dict[str, Any], raw_record: dict[str, Any]) -> None:
    def said(**changes: Any) -> list[str]:
        return [finding.message for finding in read_record({**raw_record, **changes})[1]]

    queries = raw_record.pop("query_text")
    assert 'no "query_text"; did you mean "query"? rename it to "query_text"' in said(query="q")[-1]
    raw_record["query_text"] = queries
    turns = raw_record.pop("gt_turns")
    assert said(answers=turns) == ['unknown key "answers"; did you mean "gt_turns"?']
    del raw_record["dialogue"][0]["speaker"]
    raw_record["dialogue"][0]["Author"] = "a"
    assert 'has no "speaker"; did you mean "Author"?' in said(gt_turns=turns)[-1]
    record["messages"][1] = {"from": "user", "value": record["messages"][1]["content"]}
    assert 'message 1 has no "role"; did you mean "from"?' in read_record(record)[1][-1].message
    talk = {"conversation": raw_record["dialogue"]}
    assert 'did you mean "conversation"? rename it to "dialogue"' in read_record(talk)[1][0].message
