"""Messenger and Instagram: broken encoding, newest first, several files a thread, the newer form."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from chat_samples import MESSENGER, broken

from ffr.chats.chat import Media, Message, Reaction
from ffr.chats.messenger import repaired
from ffr.chats.reading import read_chat, read_chats


def _thread(folder: Path, name: str = "message_1.json", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(broken({**MESSENGER, **changes}), encoding="ascii")
    return folder / name


@pytest.mark.parametrize(
    ("folder", "app"),
    [
        ("your_instagram_activity/messages/inbox/zoe_1", "instagram"),
        ("instagram-zoe-2026-11-02/messages/inbox/zoe_1", "instagram"),
        ("your_facebook_activity/messages/inbox/zoe_1", "messenger"),
        ("instagram and facebook/your_facebook_activity/messages/inbox/zoe_1", "messenger"),
        ("downloads/messages/inbox/instagramuser_1", "messenger"),
    ],
)
def test_the_folders_say_of_which_app_a_thread_is(tmp_path: Path, folder: str, app: str) -> None:
    path = _thread(tmp_path / folder)
    archive = tmp_path / "all.zip"
    with ZipFile(archive, "w") as packed:
        packed.write(path, f"{folder}/{path.name}")
    for root in (tmp_path / folder.partition("/")[0], path.parent, path, archive):
        assert read_chat(root).app == app


def test_a_thread(tmp_path: Path) -> None:
    path = _thread(tmp_path / "messages" / "inbox" / "zoe_1")
    (path.parent / "photos").mkdir()
    (path.parent / "photos" / "7.jpg").write_bytes(b"x")
    inside = "messages/inbox/zoe_1/photos/7.jpg"
    # the download, a part of it, the thread's folder, the file alone
    for root, file in (
        (tmp_path, inside),
        (tmp_path / "messages", "inbox/zoe_1/photos/7.jpg"),
        (path.parent, "photos/7.jpg"),
        (path, "photos/7.jpg"),
    ):
        chat = read_chat(root)
        assert (chat.app, chat.title, chat.id) == ("messenger", "Zoë & Bo", "inbox/zoe_1")
        assert list(chat.people) == ["Bo", "Zoë"]  # Bo is the first to react
        assert chat.messages == (
            Message(
                "Zoë",
                "Grüße 😀 你好",
                datetime(2024, 5, 1, 8, 0, tzinfo=UTC),
                reactions=(Reaction("❤", ("Bo",)),),
                line=2,
            ),
            Message(
                "Bo",
                "",
                datetime(2024, 5, 1, 8, 2, tzinfo=UTC),
                "picture",
                (Media("picture", "7.jpg", file),),
                line=1,
            ),
        )


def test_a_text_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "message_1.json"
    path.write_text(json.dumps(MESSENGER), encoding="utf-8")
    assert read_chat(path).messages[0].text == "Grüße 😀 你好"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("caf\xc3\xa9", "café"),
        ("café", "café"),  # é alone is no UTF-8
        ("\xe4\xbd\xa0\xe5\xa5\xbd", "你好"),
        ("你 caf\xc3\xa9", "你 caf\xc3\xa9"),  # never broken: 你 is no byte
        ("\xc3\xa9 \xf0\x9f\x98", "é \xf0\x9f\x98"),  # cut within a character
        ("\xc3\xa9 é", "é é"),
        ("", ""),
    ],
)
def test_repair(text: str, whole: str) -> None:
    assert repaired(text) == whole


def test_files_of_a_thread_and_many_threads(tmp_path: Path) -> None:
    def said(number: int) -> list[dict[str, Any]]:
        times = range(number + 1, number - 1, -1)
        return [
            {"sender_name": "Bo", "timestamp_ms": 1714550400000 + time, "content": str(time)}
            for time in times
        ]

    inbox = tmp_path / "your_activity" / "messages" / "inbox"
    for file, start in ((1, 100), (2, 50), (10, 10)):
        _thread(inbox / "zoe_1", f"message_{file}.json", messages=said(start))
    _thread(inbox / "cy_2", title="Cy")
    _thread(tmp_path / "your_activity" / "messages" / "archived_threads" / "dee_3", title="Dee")
    (tmp_path / "your_activity" / "other.json").write_text('{"participants": 3}')
    chats = {chat.title: chat for chat in read_chats(tmp_path)}
    assert sorted(chats) == ["Cy", "Dee", "Zoë & Bo"]
    assert [message.text for message in chats["Zoë & Bo"].messages] == [
        "10", "11", "50", "51", "100", "101",
    ]  # fmt: skip


def test_every_kind(tmp_path: Path) -> None:
    common = {"sender_name": "Bo", "timestamp_ms": 1714550400000}
    path = _thread(
        tmp_path,
        messages=[
            {
                **common,
                "content": "a",
                "share": {
                    "link": "http://x.org",
                    "share_text": "b",
                    "original_content_owner": "zoë",
                },
            },
            {**common, "share": {"link": "http://x.org"}, "content": "see http://x.org"},
            {**common, "sticker": {"uri": "messages/stickers_used/1.png", "ai_stickers": []}},
            {**common, "audio_files": [{"uri": "x/a.mp4"}]},
            {**common, "videos": [{"uri": "x/v.mp4"}], "content": "film"},
            {**common, "gifs": [{"uri": "x/g.gif"}, {"uri": "x/g.mp4"}]},
            {**common, "files": [{"uri": "x/f.pdf"}]},
            {**common, "content": "Bo called you.", "call_duration": 61, "type": "Call"},
            {**common, "content": "Bo added Cy.", "type": "Subscribe", "users": [{"name": "Cy"}]},
            {**common, "is_unsent": True},
        ][::-1],
    )
    messages = read_chat(path).messages
    assert [(message.kind, message.text, message.media) for message in messages] == [
        ("link", "a\nb\nhttp://x.org", ()),
        ("link", "see http://x.org", ()),
        ("sticker", "", (Media("sticker", "1.png"),)),
        ("voice", "", (Media("voice", "a.mp4"),)),
        ("video", "film", (Media("video", "v.mp4"),)),
        ("picture", "", (Media("picture", "g.gif"), Media("video", "g.mp4"))),
        ("file", "", (Media("file", "f.pdf"),)),
        ("call", "Bo called you.", ()),
        ("system", "Bo added Cy.", ()),
        ("text", "", ()),
    ]
    assert [message.is_deleted for message in messages] == [False] * 9 + [True]
    assert messages[8].sender is None
    assert [message.forwarded_from for message in messages[:2]] == ["zoë", ""]


def test_the_form_of_encrypted_chats(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "p.jpeg").write_bytes(b"x")
    value = {
        "participants": ["Zoë", "Bo"],
        "threadName": "Zoë_12",
        "messages": [
            {"isUnsent": False, "media": [], "reactions": [{"actor": "Bo", "reaction": "😂"}],
             "senderName": "Zoë", "text": "schön", "timestamp": 1714550400000, "type": "text"},
            {"isUnsent": True, "media": [], "reactions": [], "senderName": "Bo", "text": "",
             "timestamp": 1714550401000, "type": "placeholder"},
            {"isUnsent": False, "media": [{"uri": "./media/p.jpeg"}], "reactions": [],
             "senderName": "Bo", "text": "", "timestamp": 1714550402000, "type": "media"},
        ],
    }  # fmt: skip
    (tmp_path / "Zoe_12.json").write_text(json.dumps(value, ensure_ascii=False), "utf-8")
    (tmp_path / "Bo_13.json").write_text(json.dumps({**value, "threadName": "Bo_13"}), "utf-8")
    chats = {chat.title: chat for chat in read_chats(tmp_path)}
    assert sorted(chats) == ["Bo_13", "Zoë_12"]
    one, two, three = chats["Zoë_12"].messages
    assert (one.sender, one.text, one.reactions) == ("Zoë", "schön", (Reaction("😂", ("Bo",)),))
    assert two.is_deleted
    assert three.media == (Media("picture", "p.jpeg", "media/p.jpeg"),)
    assert three.time == datetime(2024, 5, 1, 8, 0, 2, tzinfo=UTC)


def test_the_example_at_hand(shared_dir: Path) -> None:
    path = shared_dir / "chat-exports" / "langchain-community" / "facebook_chat.json"
    chat = read_chat(path)
    assert chat.summary == ("11 messages, 1 picture (1 missing), 2 people, 4 Feb 2023 – 5 Feb 2023")
    assert (chat.messages[0].sender, chat.messages[-1].text) == ("User 1", "Bye!")
