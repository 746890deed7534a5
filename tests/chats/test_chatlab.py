"""ChatLab's format, as one object and as lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chat_samples import CHATLAB, chatlab_lines

from ffr.chats.chat import Media, Message
from ffr.chats.reading import read_chat


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "chat.dat"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [json.dumps(CHATLAB, indent=2), "# made\n\n" + chatlab_lines()])
def test_a_group(tmp_path: Path, text: str) -> None:
    chat = read_chat(_write(tmp_path, text))
    assert (chat.app, chat.title, chat.id) == ("chatlab", "Choir", "g1")
    first = 1 if text.startswith("{") else 6
    assert chat.messages == (
        Message("1", "practice at 7", datetime(2024, 5, 1, 8, 0, tzinfo=UTC), id="m1", line=first),
        Message(
            "2",
            "ok",
            datetime(2024, 5, 1, 8, 1, tzinfo=UTC),
            id="m2",
            reply_to="m1",
            line=first + 1,
        ),
        Message(
            "1",
            "",
            datetime(2024, 5, 1, 8, 1, 1, tzinfo=UTC),
            "picture",
            (Media("picture"),),
            line=first + 2,
        ),
        Message(
            None, "Cy joined", datetime(2024, 5, 1, 8, 1, 2, tzinfo=UTC), "system", line=first + 3
        ),
    )
    assert [(person.name, person.is_me) for person in chat.people.values()] == [
        ("Ann", False),
        ("Bo", True),
    ]
    assert chat.people["1"].other_names == ("ann_77", "Annie")
    assert chat.account.num_lines == (4 if first == 1 else 9)


def test_lines_that_fit_nothing_are_counted(tmp_path: Path) -> None:
    text = chatlab_lines() + 'stray words\n{"_type": "other"}\n[1]\n{"_type": "message"}\n'
    chat = read_chat(_write(tmp_path, text))
    assert chat.account.num_not_understood == 4
    assert chat.account.lines() == [
        "4 lines are not understood, the first is chat.dat:8: stray words"
    ]
    assert chat.account.num_lines == 11


def test_every_type(tmp_path: Path) -> None:
    types = [2, 3, 4, 5, 7, 8, 20, 21, 22, 23, 24, 26, 27, 81, 99, 1234, "text", "1"]
    messages = [
        {"sender": "1", "timestamp": 1714550400, "type": number, "content": f"{number}"}
        for number in types
    ]
    chat = read_chat(_write(tmp_path, json.dumps({**CHATLAB, "messages": messages})))
    assert [message.kind for message in chat.messages] == [
        "voice", "video", "file", "sticker", "link", "place", "text", "text", "text", "call",
        "link", "text", "contact", "text", "text", "text", "text", "picture",
    ]  # fmt: skip
    assert [message.text for message in chat.messages if message.is_deleted] == ["81"]
    assert chat.account.lines() == [
        "2 messages have a part that is not what it should be, the first is chat.dat:16: type is 1234"
    ]


def test_members_that_come_last_and_pictures_beside(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a b.jpg").write_bytes(b"x")
    message = {**CHATLAB["messages"][0], "type": 1, "content": "pics/a b.jpg"}
    chat = read_chat(_write(tmp_path, json.dumps({**CHATLAB, "messages": [message]})))
    assert chat.messages[0].media == (Media("picture", "a b.jpg", "pics/a b.jpg"),)
