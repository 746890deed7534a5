"""One export, many chats, several forms, none: what is read and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_samples import CHATLAB, DISCORD, MESSENGER, TELEGRAM, WEFLOW

from ffr.chats.reading import read_chat, read_chats
from ffr.chats.stream import ReadChoices
from ffr.errors import DataError, UsageError


def _write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def test_chats_of_another_form_are_not_left_out_in_silence(tmp_path: Path) -> None:
    _write(tmp_path / "tg" / "result.json", TELEGRAM)
    _write(tmp_path / "dc" / "bread.json", DISCORD)
    (tmp_path / "notes.txt").write_text("nothing of a chat")
    (chat,) = read_chats(tmp_path)
    assert chat.app == "telegram"
    assert chat.account.lines() == [
        "dc/bread.json is a chat export of Discord, and is left out; name it to read it"
    ]
    assert read_chat(tmp_path, form="discord").title == "bread"


def test_a_form_that_is_told_is_taken_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.json", WEFLOW)
    assert read_chat(path, form="weflow").app == "weflow"
    with pytest.raises(DataError, match="holds no chat of the form slack that can be read"):
        read_chat(path, form="slack")
    with pytest.raises(UsageError, match="there is no form of chats called icq; there are slack"):
        read_chat(path, form="icq")


def test_web_pages_are_told_from_chats(tmp_path: Path) -> None:
    (tmp_path / "messages.html").write_text("<html>")
    (tmp_path / "css.txt").write_text("x")
    with pytest.raises(DataError, match="export it again as JSON or text, not as web pages"):
        read_chats(tmp_path)


@pytest.mark.parametrize("value", [TELEGRAM, DISCORD, MESSENGER, WEFLOW, CHATLAB])
def test_text_in_utf_16_is_the_same_chat(tmp_path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    (tmp_path / "b.json").write_text(text, encoding="utf-16")
    one, two = read_chat(tmp_path / "a.json"), read_chat(tmp_path / "b.json")
    assert one.messages == two.messages
    assert one.people == two.people


@pytest.mark.parametrize("value", [TELEGRAM, DISCORD, MESSENGER, WEFLOW])
@pytest.mark.parametrize("junk", [None, 7, "x", []])
def test_a_head_without_any_sense_hides_no_messages(tmp_path: Path, value: Any, junk: Any) -> None:
    whole = read_chat(_write(tmp_path / "x.json", value))
    changed = {key: part if key == "messages" else junk for key, part in value.items()}
    chat = read_chat(_write(tmp_path / "y.json", changed))
    assert chat.messages == whole.messages


@pytest.mark.parametrize(
    ("value", "me", "key"),
    [
        (TELEGRAM, "Bo", "user12"),
        (DISCORD, "ann", "4"),  # the account's name, where another is shown
        (DISCORD, "Ann", "4"),
        (MESSENGER, "Zoë", "Zoë"),
        (WEFLOW, "wxid_bo", "wxid_bo"),
        (CHATLAB, "Annie", "1"),
    ],
)
def test_the_owner_is_who_is_told(tmp_path: Path, value: Any, me: str, key: str) -> None:
    chat = read_chat(_write(tmp_path / "x.json", value), choices=ReadChoices(me=me))
    assert chat.people[key].is_me


@pytest.mark.parametrize(
    ("value", "list_of"),
    [
        ({**CHATLAB, "members": [{"platformId": "1", "avatar": "A" * (2 << 20)}]}, "messages"),
        ({**WEFLOW, "session": {"wxid": "1", "avatar": "A" * (2 << 20)}}, "messages"),
        (
            {
                "about": "x",
                "personal_information": {"user_id": 1},
                "contacts": {"list": [{"first_name": "A" * (2 << 20)}]},
                "chats": {"list": [TELEGRAM]},
            },
            "chats",
        ),
    ],
)
def test_what_fills_the_beginning_hides_no_chat(
    tmp_path: Path, value: dict[str, Any], list_of: str
) -> None:
    ordered = {**{key: part for key, part in value.items() if key != list_of}}
    ordered[list_of] = value[list_of]
    chat = read_chat(_write(tmp_path / "x.json", ordered))
    assert len(chat) >= 3
    assert chat.account.lines() == []
