"""Exports that are damaged or made to harm: a sentence or a count, never a traceback."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from chat_samples import (
    CHATLAB,
    DISCORD,
    MEMOTRACE,
    MESSENGER,
    SLACK_DAY,
    TELEGRAM,
    WEFLOW,
    broken,
    chatlab_lines,
    write_slack,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ffr.chats.chat import KINDS, Chat
from ffr.chats.reading import FORMATS, read_chats
from ffr.errors import DataError

OBJECTS: dict[str, dict[str, Any]] = {
    "telegram": TELEGRAM,
    "telegram, account": {
        "personal_information": {"user_id": 11},
        "chats": {"list": [TELEGRAM, TELEGRAM]},
    },
    "discord": DISCORD,
    "messenger": MESSENGER,
    "weflow": WEFLOW,
    "chatlab": CHATLAB,
}
TEXTS = {name: json.dumps(value, ensure_ascii=False, indent=1) for name, value in OBJECTS.items()}
TEXTS |= {
    "slack": json.dumps(SLACK_DAY),
    "messenger, broken": broken(MESSENGER),
    "chatlab, lines": chatlab_lines(),
    "memotrace": MEMOTRACE,
}
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 7.5, float("nan"), float("inf"), -1e308, 10**18, 10**400, -(10**30),
    "", " ", "x", "\0", "\ud800", "\udc00\ud800", "\u202egnp.exe", "../../etc/passwd", "/etc/passwd", "C:\\x",
    "99999999999999999999", "1714550400", "2024-02-30T00:00:00", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00", "<msg>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "y" * 3000, "a/" * 300,
    [], {}, [[]], [None], ["x", 1], {"text": {"text": 1}}, [{"text": None}], {"a": [{"b": {}}]},
]  # fmt: skip


def _check(chat: Chat) -> None:
    """What holds of every chat, whatever it was read from."""
    chat.summary.encode()
    "\n".join(chat.account.lines()).encode()
    assert chat.title.encode() is not None
    for message in chat.messages:
        assert message.kind in KINDS
        assert message.sender is None or chat.people[message.sender].name
        message.text.encode()
        assert message.time is None or message.time.year >= 1970
        assert len(message.key) == 32
        for item in message.media:
            item.name.encode()
            assert item.file is None or ".." not in item.file
        for reaction in message.reactions:
            assert reaction.count >= 0
            assert set(reaction.people) <= chat.people.keys()


def _read(path: Path) -> list[Chat]:
    try:
        chats = read_chats(path)
    except DataError:
        return []
    for chat in chats:
        _check(chat)
    return chats


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a value: what it stands in, and its key there."""
    found: list[tuple[Any, Any]] = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(inner, (dict, list)):
            found += _places(inner)
    return found


def _changed(value: Any, places: list[int], junk: list[int]) -> Any:
    changed = copy.deepcopy(value)
    for place, number in zip(places, junk, strict=True):
        found = _places(changed)
        if found:
            inside, key = found[place % len(found)]
            inside[key] = copy.deepcopy(JUNK[number % len(JUNK)])
    return changed


def _try_objects(tmp_path: Path, name: str, places: list[int], junk: list[int]) -> None:
    value = _changed(OBJECTS[name], places, junk[: len(places)])
    path = tmp_path / "export.json"
    path.write_text(json.dumps(value))
    chats = _read(path)
    listed = value.get("messages")
    if len(chats) == 1 and isinstance(listed, list):
        assert chats[0].account.num_lines == len(listed)


def _try_bytes(tmp_path: Path, name: str, cut: int, at: int, new: bytes) -> None:
    data = bytearray(TEXTS[name].encode())
    data[at % len(data) : at % len(data)] = new
    path = tmp_path / "export"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)]))
    _read(path)


CHANGES = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)
FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MANY = settings(FEW, max_examples=3000)
MORE = [pytest.mark.slow, pytest.mark.exhaustive]


def _marked(test: Callable[..., None]) -> Callable[..., None]:
    for mark in MORE:
        test = mark(test)
    return test


@pytest.mark.parametrize("name", OBJECTS)
@FEW
@given(CHANGES, st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_wrong_types_in_any_field(
    tmp_path: Path, name: str, places: list[int], junk: list[int]
) -> None:
    _try_objects(tmp_path, name, places, junk)


@_marked
@pytest.mark.parametrize("name", OBJECTS)
@MANY
@given(CHANGES, st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_wrong_types_in_any_field_at_length(
    tmp_path: Path, name: str, places: list[int], junk: list[int]
) -> None:
    _try_objects(tmp_path, name, places, junk)


@pytest.mark.parametrize("name", TEXTS)
@FEW
@given(st.integers(0, 4000), st.integers(0, 4000), st.binary(max_size=6))
def test_files_that_are_cut_and_damaged(
    tmp_path: Path, name: str, cut: int, at: int, new: bytes
) -> None:
    _try_bytes(tmp_path, name, cut, at, new)


@_marked
@pytest.mark.parametrize("name", TEXTS)
@MANY
@given(st.integers(0, 4000), st.integers(0, 4000), st.binary(max_size=6))
def test_files_that_are_cut_and_damaged_at_length(
    tmp_path: Path, name: str, cut: int, at: int, new: bytes
) -> None:
    _try_bytes(tmp_path, name, cut, at, new)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_field_by_every_junk(tmp_path: Path, name: str) -> None:
    """Each place of each form once, with junk in turn."""
    for place in range(len(_places(OBJECTS[name]))):
        for number in range(place % 9, len(JUNK), 9):
            _try_objects(tmp_path, name, [place], [number])


def test_every_cell_by_junk(tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(MEMOTRACE)))
    path = tmp_path / "x.csv"
    for number in range(len(rows[0])):
        for junk in JUNK:
            if isinstance(junk, str):
                changed = copy.deepcopy(rows)
                for row in changed[1:]:
                    row[number] = junk
                written = io.StringIO()
                csv.writer(written).writerows(changed)
                path.write_bytes(written.getvalue().encode("utf-8", "surrogatepass"))
                _read(path)


def test_a_workspace_with_damage_everywhere(tmp_path: Path) -> None:
    folder = write_slack(tmp_path / "export")
    for name in ("users.json", "channels.json", "dms.json", "general/2024-05-01.json"):
        for junk in JUNK:
            whole = (folder / name).read_bytes()
            for damage in (junk, [junk], [dict.fromkeys(("id", "name", "ts", "files"), junk)]):
                (folder / name).write_text(json.dumps(damage))
                _read(folder)
            (folder / name).write_bytes(whole)


def _times(path: Path, name: str, value: Any) -> float:
    path.write_text(json.dumps(value))
    begun = time.process_time()
    chats = read_chats(path)
    assert chats, name
    for chat in chats:
        _check(chat)
    return time.process_time() - begun


@pytest.mark.parametrize("name", ["telegram", "discord", "messenger", "weflow", "chatlab"])
def test_a_message_of_ten_megabytes(tmp_path: Path, name: str) -> None:
    value = copy.deepcopy(OBJECTS[name])
    for message in value["messages"]:
        message["text" if name == "telegram" else "content"] = "<@" * (5 << 20)
    assert _times(tmp_path / "x.json", name, value) < 10


def test_many_names_of_one_person_and_many_people(tmp_path: Path) -> None:
    common = {"type": "message", "date": "2024-05-01T10:00:00", "text": "x"}
    messages = [{**common, "from": f"name {n}", "from_id": "user1"} for n in range(10_000)]
    messages += [{**common, "from": f"name {n}", "from_id": f"user{n}"} for n in range(10_000)]
    assert _times(tmp_path / "x.json", "telegram", {**TELEGRAM, "messages": messages}) < 10


def test_names_and_texts_keep_their_marks(tmp_path: Path) -> None:
    name = "\u202eevil\u202c </script><b> \x1b[31m"
    message = {**TELEGRAM["messages"][1], "from": name, "text": name}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**TELEGRAM, "messages": [message]}))
    (chat,) = read_chats(path)
    assert (chat.name_of(chat.messages[0]), chat.messages[0].text) == (name, name)


def test_a_bomb_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    content = json.dumps(TELEGRAM).encode() + b" " * (100 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("result.json", content)
    with pytest.raises(DataError, match="as no chat does; export it again"):
        read_chats(path)


def test_nothing_outside_is_found(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    paths = ["../secret.jpg", str(tmp_path / "secret.jpg"), "a/../../secret.jpg", "link.jpg", "\0"]
    messages = [{**TELEGRAM["messages"][2], "photo": path} for path in paths]
    (folder / "result.json").write_text(json.dumps({**TELEGRAM, "messages": messages}))
    for path in (folder, folder / "result.json"):
        (chat,) = read_chats(path)
        assert [message.media[0].file for message in chat.messages] == [None] * 5


def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    sum_of = "0123456789abcdef0123456789abcdef"
    image = tmp_path / "image"
    image.mkdir()
    (tmp_path / os.fsdecode(b"\xff.csv")).write_text(MEMOTRACE, encoding="utf-8")
    (image / os.fsdecode(b"\xfe_" + sum_of.encode() + b".jpg")).write_bytes(b"x")
    (chat,) = _read(tmp_path)
    assert chat.title == "\ufffd"
    assert chat.messages[1].media[0].name == f"\ufffd_{sum_of}.jpg"


def test_absurd_dates_are_counted(tmp_path: Path) -> None:
    times: list[Any] = [-1, 0, 1e300, 10**30, "soon", True, [], 1714550400123456, 1714550400]
    messages = [{**CHATLAB["messages"][0], "timestamp": value} for value in times]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**CHATLAB, "messages": messages}))
    (chat,) = read_chats(path)
    found = [message.time for message in chat.messages]
    assert found[:7] == [None] * 7
    assert all(isinstance(one, datetime) and one.year == 2024 for one in found[7:])
    assert chat.account.num_damaged == 7


def test_every_form_is_tried() -> None:
    tried = {name.partition(",")[0] for name in TEXTS}
    assert tried == {form.name for form in FORMATS} - {"whatsapp", "line"}
