"""A form is known by a beginning, by a record and by an archive, as it is by the whole export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from chat_samples import (
    CHATLAB,
    DISCORD,
    MEMOTRACE,
    MESSENGER,
    SLACK_DAY,
    TELEGRAM,
    WEFLOW,
    chatlab_lines,
)

from ffr.chats.reading import FORMATS
from ffr.chats.recognising import form_of_archive, form_of_head, form_of_record

RECORDS: dict[str, Any] = {
    "telegram": TELEGRAM,
    "slack": SLACK_DAY[0],
    "discord": DISCORD,
    "messenger": MESSENGER,
    "weflow": WEFLOW,
    "chatlab": CHATLAB,
}
TEXTS = {name: json.dumps(record, indent=1) for name, record in RECORDS.items()} | {
    "slack": json.dumps(SLACK_DAY),
    "memotrace": MEMOTRACE,
}
APPS_OF_TEXT = {"whatsapp", "line"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_form_is_known(tmp_path: Path, name: str) -> None:
    found = form_of_head(TEXTS[name].encode())
    assert found is not None
    assert found.name == name
    if name in RECORDS:
        found = form_of_record(RECORDS[name])
        assert found is not None
        assert found.name == name
    path = tmp_path / "x.zip"
    inside = {"slack": "home/2024-05-01.json", "memotrace": "x.csv"}.get(name, "x.json")
    with ZipFile(path, "w") as archive:
        archive.writestr(inside, TEXTS[name])
        archive.writestr("x/photo.jpg", "x")
    found = form_of_archive(path)
    assert found is not None
    assert found.name == name


def test_every_form_is_tried_here_or_with_its_app() -> None:
    assert {form.name for form in FORMATS} - APPS_OF_TEXT == TEXTS.keys()
    found = form_of_head(chatlab_lines().encode())
    assert found is not None
    assert found.name == "chatlab"


@pytest.mark.parametrize(
    "record",
    [
        {"dialogue_id": "d", "speaker": "a", "text": "t", "ts": 3},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": [1]},
        {"participants": 3, "messages": [{"sender_name": "a"}]},
        {"guild": 1, "channel": 2, "messages": []},
        {"session": 1, "messages": [{"senderUsername": "a"}]},
        {"chats": {"list": 3}},
        {"chatlab": [], "messages": []},
        {},
    ],
)
def test_what_is_no_chat(record: dict[str, Any], tmp_path: Path) -> None:
    assert form_of_record(record) is None
    assert form_of_head(json.dumps(record).encode()) is None
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 damaged")
    assert form_of_archive(tmp_path / "x.zip") is None
