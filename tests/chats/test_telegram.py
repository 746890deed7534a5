"""Telegram's export, one chat and a whole account, read to the last field."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from chat_samples import TELEGRAM

from ffr.chats.chat import Chat, Media, Message, Reaction
from ffr.chats.reading import chat_streams, read_chat, read_chats
from ffr.errors import DataError

ZONE = timezone(timedelta(hours=2))


def _write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def _of(tmp_path: Path, *messages: Any) -> Chat:
    """A chat with these messages, each with what every message has."""
    common = {"type": "message", "date": "2024-05-01T10:00:00", "from": "Ann", "from_id": "user1"}
    value = {**TELEGRAM, "messages": [{**common, **message} for message in messages]}
    return read_chat(_write(tmp_path / "result.json", value))


def test_a_group(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo_1@01-05-2024.jpg").write_bytes(b"x")
    chat = read_chat(_write(tmp_path / "result.json", TELEGRAM))
    assert (chat.app, chat.title, chat.id) == ("telegram", "Ausflug 🚲", "4021")
    assert {key: person.name for key, person in chat.people.items()} == {
        "user12": "Bo",
        "user11": "Ann",
    }
    assert chat.messages == (
        Message(
            None,
            "Ann: create group: Ausflug: Ann, Bo",
            datetime(2024, 5, 1, 9, 58, tzinfo=ZONE),
            "system",
            id="1",
            line=1,
        ),
        Message(
            "user11",
            "Fahren wir an den See? 去不去",
            datetime(2024, 5, 1, 10, 0, tzinfo=ZONE),
            id="2",
            reactions=(Reaction("👍", ("user12",), 3),),
            line=2,
        ),
        Message(
            "user12",
            "Der hier",
            datetime(2024, 5, 1, 10, 2, tzinfo=ZONE),
            "picture",
            (Media("picture", "photo_1@01-05-2024.jpg", "photos/photo_1@01-05-2024.jpg"),),
            "3",
            "2",
            is_edited=True,
            line=3,
        ),
    )
    assert chat.account.lines() == []
    assert chat.summary == "2 messages, 1 picture, 2 people, 1 May 2024"


def test_a_whole_account(tmp_path: Path) -> None:
    other = {**TELEGRAM, "name": "Mum", "id": 5, "messages": TELEGRAM["messages"][:2]}
    value = {
        "about": "x",
        "personal_information": {"user_id": 12, "first_name": "Bo"},
        "contacts": {"list": [{"first_name": "Ann"}]},
        "chats": {"about": "y", "list": [TELEGRAM, other]},
        "left_chats": {"list": [{**TELEGRAM, "name": None, "id": 6}]},
    }
    path = _write(tmp_path / "result.json", value)
    chats = read_chats(path)
    assert [(chat.title, chat.id, len(chat)) for chat in chats] == [
        ("Ausflug 🚲", "4021", 3),
        ("Mum", "5", 2),
        ("", "6", 3),
    ]
    assert [person.name for person in chats[0].people.values() if person.is_me] == ["Bo"]
    # a chat that nobody reads is passed over
    assert [stream.title for stream in chat_streams(path)] == ["Ausflug 🚲", "Mum", ""]
    assert len(read_chat(path, "Mum")) == 2
    with pytest.raises(DataError, match="holds 3 chats, and none of them is named"):
        read_chat(path)


def test_every_kind(tmp_path: Path) -> None:
    missing = "(File not included. Change data exporting settings to download.)"
    chat = _of(
        tmp_path,
        {"file": "stickers/s.webp", "media_type": "sticker", "sticker_emoji": "🐈", "text": ""},
        {"file": missing, "media_type": "voice_message", "mime_type": "audio/ogg", "text": ""},
        {"file": "round/r.mp4", "media_type": "video_message", "text": ""},
        {"file": missing, "file_name": "a.gif.mp4", "media_type": "animation", "text": ""},
        {"file": "files/song.mp3", "media_type": "audio_file", "text": ""},
        {"file": "files/x.bin", "file_name": "scan.png", "mime_type": "image/png", "text": "scan"},
        {"file": "files/y.pdf", "text": ""},
        {"photo": missing, "text": "look"},
        {"poll": {"question": "When?", "answers": [{"text": "now", "voters": 2}]}, "text": ""},
        {
            "contact_information": {"first_name": "Cy", "last_name": "", "phone_number": "+1 2"},
            "text": "",
        },
        {
            "location_information": {"latitude": 52.5, "longitude": 13.4},
            "place_name": "Café",
            "text": "",
        },
        {"type": "service", "action": "phone_call", "actor": "Ann", "actor_id": "user1",
         "duration_seconds": 35, "discard_reason": "hangup"},
        {"text": {"type": "bold", "text": "alone"}},
        {"forwarded_from": "Dee", "text": [{"type": "text_link", "text": "here", "href": "http://x.org"}]},
    )  # fmt: skip
    assert [(message.kind, message.text, message.media) for message in chat.messages] == [
        ("sticker", "🐈", (Media("sticker", "s.webp"),)),
        ("voice", "", (Media("voice", ""),)),
        ("video", "", (Media("video", "r.mp4"),)),
        ("video", "", (Media("video", "a.gif.mp4"),)),
        ("file", "", (Media("file", "song.mp3"),)),
        ("picture", "scan", (Media("picture", "scan.png"),)),
        ("file", "", (Media("file", "y.pdf"),)),
        ("picture", "look", (Media("picture", ""),)),
        ("poll", "When?\n- now (2)", ()),
        ("contact", "Cy +1 2", ()),
        ("place", "Café\n52.5, 13.4", ()),
        ("call", "phone call, 35 s, hangup", ()),
        ("text", "alone", ()),
        ("text", "here (http://x.org)", ()),
    ]
    assert chat.messages[-1].forwarded_from == "Dee"
    assert chat.messages[0].time == datetime(2024, 5, 1, 10, 0)  # no zone where none is told
    assert chat.summary.startswith("14 messages, 2 pictures (2 missing), 1 person")


def test_times_and_people_as_told(tmp_path: Path) -> None:
    chat = _of(
        tmp_path,
        {"date_unixtime": "1714550400", "text": "a"},  # 08:00 in UTC
        {"date": "2024-05-01T13:30:00", "date_unixtime": "1714550400", "text": "India"},
        {"date": "2024-05-01T10:07:00", "date_unixtime": "1714550400", "text": "no zone"},
        {"date": "soon", "text": "b"},
        {"from": None, "from_id": "user99", "text": "c"},
        {"from": None, "from_id": None, "text": "d"},
        {"from": "Annie", "edited": "1970-01-01T01:00:00", "text": "e"},
    )
    times = {message.text: message.time for message in chat.messages}
    zones = {text: time and time.utcoffset() for text, time in times.items()}
    assert zones["a"] == timedelta(hours=2)
    assert zones["India"] == timedelta(hours=5, minutes=30)
    assert zones["no zone"] == timedelta(0)
    assert times["b"] is None
    assert chat.account.lines() == [
        "1 message has a part that is not what it should be, the first is result.json:4: date is "
        "'soon'"
    ]
    names = {chat.name_of(message): message.text for message in chat.messages}
    assert names == {"Ann": "e", "user99": "c", "?": "d"}
    assert chat.people["user1"].other_names == ("Annie",)
    assert not any(message.is_edited for message in chat.messages)


def test_an_export_cut_in_its_middle(tmp_path: Path) -> None:
    text = json.dumps(TELEGRAM, indent=1)
    path = tmp_path / "result.json"
    path.write_text(text[: text.index('"photo":')])  # which stands in line 61
    chat = read_chat(path)
    assert len(chat) == 2
    assert chat.account.lines() == ["result.json ends in the middle, at line 61; export it again"]


def test_an_account_cut_in_its_second_chat(tmp_path: Path) -> None:
    text = json.dumps({"chats": {"list": [TELEGRAM, TELEGRAM]}})
    (tmp_path / "r.json").write_text(text[:-200])
    one, two = read_chats(tmp_path / "r.json")
    assert (len(one), len(two)) == (3, 2)
    assert one.account.lines() == []
    assert two.account.lines() == ["r.json ends in the middle, at line 1; export it again"]


def test_what_is_no_chat_among_chats_is_counted(tmp_path: Path) -> None:
    value = {"chats": {"list": [7, TELEGRAM, None]}, "left_chats": {"list": "x"}}
    (chat,) = read_chats(_write(tmp_path / "r.json", value))
    assert chat.account.lines() == ["r.json: 2 entries are no chat, among its chats"]


def test_what_is_no_message_is_counted(tmp_path: Path) -> None:
    value = {**TELEGRAM, "messages": [*TELEGRAM["messages"], 7, None, {"type": "unsupported"}, {}]}
    chat = read_chat(_write(tmp_path / "r.json", value))
    assert (chat.account.num_lines, chat.account.num_not_understood) == (7, 3)
    assert chat.account.lines() == ["3 lines are not understood, the first is r.json:4: 7"]


def test_the_example_at_hand(shared_dir: Path) -> None:
    chat = read_chat(shared_dir / "chat-exports" / "langchain-community" / "telegram")
    assert chat.summary == "4 messages, 0 pictures, 2 people, 23 Aug 2023"
    assert [message.text for message in chat.messages][::3] == [
        "i refuse to converse with you",
        "you will not trick me this time",
    ]
    assert chat.messages[0].time == datetime(
        2023, 8, 23, 13, 11, 23, tzinfo=timezone(timedelta(hours=-7))
    )


def test_older_and_newer_versions(tmp_path: Path) -> None:
    value = {
        "personal_information": {"user_id": 12},
        "chats": {"list": [{**TELEGRAM, "messages": [
            {"id": 1, "type": "message", "date": "2019-05-01T10:00:00",
             "edited": "1970-01-01T01:00:00", "from": "Bo", "from_id": 12, "text": "old"},
            {"id": 2, "type": "message", "date": "2024-05-01T10:00:00", "from": "Ann",
             "from_id": "user11", "text": "", "text_entities": [{"type": "plain", "text": "new"}],
             "reply_to_message_id": 1, "reply_to_peer_id": "channel9"},
        ]}]},
    }  # fmt: skip
    chat = read_chat(_write(tmp_path / "result.json", value))
    assert [
        (chat.name_of(one), one.text, one.reply_to, one.is_edited) for one in chat.messages
    ] == [
        ("Bo", "old", "", False),
        ("Ann", "new", "", False),  # the number is one of another chat
    ]
    assert [person.name for person in chat.people.values() if person.is_me] == ["Bo"]


def test_keys_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(TELEGRAM, sort_keys=True))
    chat = read_chat(path)
    assert (chat.title, chat.id, len(chat)) == ("Ausflug 🚲", "4021", 3)
