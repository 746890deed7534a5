"""Channels of Discord: replies, emotes, attachments, parts of one channel."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from chat_samples import DISCORD

from ffr.chats.chat import Media, Message, Reaction
from ffr.chats.reading import read_chat, read_chats

ZONE = timezone(timedelta(hours=2))


def _write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_channel(tmp_path: Path) -> None:
    path = _write(tmp_path / "bread.json", DISCORD)
    (tmp_path / "bread.json_Files").mkdir()
    (tmp_path / "bread.json_Files" / "loaf-A1.jpg").write_bytes(b"x")
    chat = read_chat(path)
    assert (chat.app, chat.title, chat.id) == ("discord", "bread", "77")
    assert chat.messages == (
        Message(
            "4",
            "Rye or wheat, @Bo? :loaf:",
            datetime(2024, 5, 1, 10, 0, 0, 123456, tzinfo=ZONE),
            id="900",
            line=1,
        ),
        Message(
            "5",
            "",
            datetime(2024, 5, 1, 10, 1, tzinfo=ZONE),
            "picture",
            (Media("picture", "loaf.jpg", "bread.json_Files/loaf-A1.jpg"),),
            "901",
            "900",
            (Reaction("👍", ("4",), 1), Reaction(":loaf:", (), 2)),
            is_edited=True,
            line=2,
        ),
        Message(
            None,
            "Ann: Pinned a message.",
            datetime(2024, 5, 1, 10, 3, tzinfo=ZONE),
            "system",
            id="902",
            line=3,
        ),
    )
    assert {person.name for person in chat.people.values()} == {"Ann", "Bo"}
    assert chat.summary == "2 messages, 1 picture, 2 people, 1 May 2024"


def test_parts_of_a_channel_are_one_chat_and_others_are_others(tmp_path: Path) -> None:
    first, *others = DISCORD["messages"]
    _write(tmp_path / "bread [part 10].json", {**DISCORD, "messages": others[1:]})
    _write(tmp_path / "bread [part 2].json", {**DISCORD, "messages": others[:1]})
    _write(tmp_path / "bread.json", {**DISCORD, "messages": [first]})
    other = {**DISCORD, "channel": {"id": "78", "name": "soup"}, "messages": []}
    _write(tmp_path / "soup.json", other)
    bread, soup = sorted(read_chats(tmp_path), key=len, reverse=True)
    assert [message.id for message in bread.messages] == ["900", "901", "902"]
    assert (soup.title, len(soup)) == ("soup", 0)


def test_cards_stickers_calls_and_forwards(tmp_path: Path) -> None:
    common = {"type": "Default", "timestamp": "2024-05-01T10:00:00+00:00", "content": "",
              "author": {"id": "4", "name": "ann"}}  # fmt: skip
    messages = [
        {**common, "embeds": [{"title": "Build", "description": "passed", "url": "http://x"}]},
        {**common, "stickers": [{"id": "1", "name": "Wave", "sourceUrl": "https://x/1.png"}]},
        {**common, "type": "Call", "content": "Started a call that lasted 5 minutes."},
        {**common, "attachments": [{"url": "https://cdn/x/voice-message.ogg?ex=1",
                                    "fileName": "voice-message.ogg"}]},
        {**common, "forwardedMessage": {"content": "as he said", "attachments": []},
         "reference": {"messageId": "3", "channelId": "66"}},
        {**common, "type": "20", "content": "an answer of a bot"},
    ]  # fmt: skip
    chat = read_chat(_write(tmp_path / "x.json", {**DISCORD, "messages": messages}))
    assert [(message.kind, message.text, message.media) for message in chat.messages] == [
        ("text", "Build\npassed", ()),
        ("sticker", "", (Media("sticker", "Wave"),)),
        ("call", "Started a call that lasted 5 minutes.", ()),
        ("voice", "", (Media("voice", "voice-message.ogg"),)),
        ("text", "as he said", ()),
        ("text", "an answer of a bot", ()),
    ]
    assert (chat.messages[4].reply_to, chat.messages[4].forwarded_from) == ("", "66")


def test_fields_of_wrong_types(tmp_path: Path) -> None:
    odd = {"id": 5, "type": [], "timestamp": 7, "author": "ann", "content": {}, "reactions": 3}
    chat = read_chat(
        _write(tmp_path / "x.json", {**DISCORD, "messages": [odd, DISCORD["messages"][0]]})
    )
    assert chat.account.num_lines == 2
    assert len(chat.account.lines()) == 2  # one line not understood, and why


def test_exports_of_one_channel_that_overlap_bring_a_message_once(tmp_path: Path) -> None:
    _write(tmp_path / "bread (1).json", DISCORD | {"messages": DISCORD["messages"][:2]})
    again = deepcopy(DISCORD)
    again["messages"][1]["content"] = "edited since"
    _write(tmp_path / "bread (2).json", again)
    (chat,) = read_chats(tmp_path)
    assert [message.id for message in chat.messages] == ["900", "901", "902"]
    account = chat.account
    assert (account.num_messages, account.num_system, account.num_repeated) == (2, 1, 2)
    assert account.num_lines == 5
    assert "2 messages stand in several files, and count once, as the first file has them" in (
        account.lines()
    )


def test_one_number_for_two_messages_leaves_both(tmp_path: Path) -> None:
    other = deepcopy(DISCORD)
    other["messages"][0]["timestamp"] = "2024-05-03T10:00:00+02:00"
    _write(tmp_path / "bread (1).json", DISCORD)
    _write(tmp_path / "bread (2).json", other)
    (chat,) = read_chats(tmp_path)
    assert [message.id for message in chat.messages] == ["900", "901", "902", "900"]
