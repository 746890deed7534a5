"""Small invented exports of each form, as the value that their JSON holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TELEGRAM: dict[str, Any] = {
    "name": "Ausflug 🚲",
    "type": "private_group",
    "id": 4021,
    "messages": [
        {
            "id": 1,
            "type": "service",
            "date": "2024-05-01T09:58:00",
            "date_unixtime": "1714550280",
            "actor": "Ann",
            "actor_id": "user11",
            "action": "create_group",
            "title": "Ausflug",
            "members": ["Ann", "Bo"],
            "text": "",
        },
        {
            "id": 2,
            "type": "message",
            "date": "2024-05-01T10:00:00",
            "date_unixtime": "1714550400",
            "from": "Ann",
            "from_id": "user11",
            "text": ["Fahren wir an den ", {"type": "bold", "text": "See"}, "? 去不去"],
            "reactions": [
                {
                    "type": "emoji",
                    "count": 3,
                    "emoji": "👍",
                    "recent": [{"from": "Bo", "from_id": "user12", "date": "2024-05-01T10:01:00"}],
                }
            ],
        },
        {
            "id": 3,
            "type": "message",
            "date": "2024-05-01T10:02:00",
            "date_unixtime": "1714550520",
            "edited": "2024-05-01T10:05:00",
            "edited_unixtime": "1714550700",
            "from": "Bo",
            "from_id": "user12",
            "reply_to_message_id": 2,
            "photo": "photos/photo_1@01-05-2024.jpg",
            "width": 800,
            "height": 600,
            "text": "Der hier",
        },
    ],
}

SLACK_DAY: list[dict[str, Any]] = [
    {"type": "message", "user": "U1", "text": "hi &amp; welcome <@U2>", "ts": "1714550400.000100"},
    {"type": "message", "user": "U2", "text": "thanks", "ts": "1714550460.000200",
     "thread_ts": "1714550400.000100"},
]  # fmt: skip

DISCORD: dict[str, Any] = {
    "guild": {"id": "1", "name": "Kitchen"},
    "channel": {"id": "77", "type": "GuildTextChat", "category": "Food", "name": "bread"},
    "dateRange": {"after": None, "before": None},
    "exportedAt": "2024-05-02T00:00:00+02:00",
    "messages": [
        {
            "id": "900",
            "type": "Default",
            "timestamp": "2024-05-01T10:00:00.1234567+02:00",
            "timestampEdited": None,
            "isPinned": False,
            "content": "Rye or wheat, <@5>? <:loaf:123456>",
            "author": {"id": "4", "name": "ann", "nickname": "Ann", "isBot": False},
            "attachments": [],
            "embeds": [],
            "stickers": [],
            "reactions": [],
            "mentions": [{"id": "5", "name": "bo", "nickname": "Bo"}],
        },
        {
            "id": "901",
            "type": "Reply",
            "timestamp": "2024-05-01T10:01:00+02:00",
            "timestampEdited": "2024-05-01T10:02:00+02:00",
            "content": "",
            "author": {"id": "5", "name": "bo", "nickname": "Bo", "isBot": False},
            "attachments": [
                {"id": "1", "url": "bread.json_Files/loaf-A1.jpg", "fileName": "loaf.jpg"}
            ],
            "reactions": [
                {
                    "emoji": {"id": "", "name": "👍"},
                    "count": 1,
                    "users": [{"id": "4", "name": "ann"}],
                },
                {"emoji": {"id": "9", "name": "loaf"}, "count": 2},
            ],
            "reference": {"messageId": "900", "channelId": "77", "guildId": "1"},
        },
        {
            "id": "902",
            "type": "ChannelPinnedMessage",
            "timestamp": "2024-05-01T10:03:00+02:00",
            "content": "Pinned a message.",
            "author": {"id": "4", "name": "ann", "nickname": "Ann"},
        },
    ],
    "messageCount": 3,
}

MESSENGER: dict[str, Any] = {
    "participants": [{"name": "Zoë"}, {"name": "Bo"}],
    "messages": [
        {"sender_name": "Bo", "timestamp_ms": 1714550520000, "photos": [
            {"uri": "messages/inbox/zoe_1/photos/7.jpg", "creation_timestamp": 1714550520}],
         "is_unsent": False},
        {"sender_name": "Zoë", "timestamp_ms": 1714550400000, "content": "Grüße 😀 你好",
         "reactions": [{"reaction": "❤", "actor": "Bo"}]},
    ],
    "title": "Zoë & Bo",
    "thread_path": "inbox/zoe_1",
}  # fmt: skip

WEFLOW: dict[str, Any] = {
    "weflow": {"version": "1.0.3", "exportedAt": 1714600000},
    "session": {"wxid": "88@chatroom", "nickname": "周末去哪", "type": "群聊",
                "avatar": "data:image/png;base64,iVBORw0KGgo="},
    "messages": [
        {"localId": 1, "createTime": 1714550400, "formattedTime": "2024-05-01 16:00:00",
         "type": "文本消息", "localType": 1, "content": "去湖边吗？", "isSend": 1,
         "senderUsername": "wxid_ann", "senderDisplayName": "安", "platformMessageId": "501"},
        {"localId": 2, "createTime": 1714550460, "formattedTime": "2024-05-01 16:01:00",
         "type": "图片消息", "localType": 3, "content": "media/images/a.jpg", "isSend": 0,
         "senderUsername": "wxid_bo", "senderDisplayName": "小波", "platformMessageId": "502"},
        {"localId": 3, "createTime": 1714550470, "formattedTime": "2024-05-01 16:01:10",
         "type": "系统消息", "localType": 10000, "content": "小波 撤回了一条消息", "isSend": None,
         "senderUsername": None, "senderDisplayName": None, "platformMessageId": "503"},
    ],
}  # fmt: skip

CHATLAB: dict[str, Any] = {
    "chatlab": {"version": "0.0.2", "exportedAt": 1714600000, "generator": "x"},
    "meta": {"name": "Choir", "platform": "qq", "type": "group", "groupId": "g1", "ownerId": "2"},
    "members": [
        {"platformId": "1", "accountName": "ann_77", "groupNickname": "Ann", "aliases": ["Annie"]},
        {"platformId": "2", "accountName": "Bo"},
    ],
    "messages": [
        {"sender": "1", "accountName": "ann_77", "timestamp": 1714550400, "type": 0,
         "content": "practice at 7", "platformMessageId": "m1"},
        {"sender": "2", "accountName": "Bo", "timestamp": 1714550460, "type": 25,
         "content": "ok", "platformMessageId": "m2", "replyToMessageId": "m1"},
        {"sender": "1", "accountName": "ann_77", "timestamp": 1714550461, "type": 1,
         "content": "[图片]"},
        {"sender": "system", "accountName": "", "timestamp": 1714550462, "type": 80,
         "content": "Cy joined"},
    ],
}  # fmt: skip

MEMOTRACE = """\
localId,TalkerId,Type,SubType,IsSender,CreateTime,Status,StrContent,StrTime,Remark,NickName,Sender
1,9,1,0,1,1714550400,2,"去湖边吗？
带上""相机"", 好",2024-05-01 16:00:00,,安,wxid_ann
2,9,3,0,0,1714550460,2,"<msg><img md5=""0123456789abcdef0123456789abcdef"" length=""9""/></msg>",\
2024-05-01 16:01:00,小波,波,wxid_bo
3,9,10000,0,0,1714550470,2,小波 撤回了一条消息,2024-05-01 16:01:10,,,
"""


def broken(value: Any) -> str:
    """JSON as Messenger writes it: each byte of a character beyond ASCII as one of its own."""
    said = json.dumps(value, ensure_ascii=False).encode().decode("latin-1")
    return "".join(char if ord(char) < 128 else f"\\u{ord(char):04x}" for char in said)


def chatlab_lines() -> str:
    """The same chat as JSON lines."""
    lines = [{"_type": "header", "chatlab": CHATLAB["chatlab"], "meta": CHATLAB["meta"]}]
    lines += [{"_type": "member", **member} for member in CHATLAB["members"]]
    lines += [{"_type": "message", **message} for message in CHATLAB["messages"]]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_slack(folder: Path, day: Any = None) -> Path:
    """A workspace with one channel, a talk of two, and two people."""
    (folder / "general").mkdir(parents=True)
    (folder / "D7").mkdir()
    (folder / "users.json").write_text(json.dumps([
        {"id": "U1", "name": "ann", "profile": {"display_name": "Ann", "real_name": "Ann A."}},
        {"id": "U2", "name": "bo", "real_name": "Bo B.", "profile": {"display_name": ""}},
    ]))  # fmt: skip
    (folder / "channels.json").write_text(json.dumps([{"id": "C1", "name": "general"}]))
    (folder / "dms.json").write_text(json.dumps([{"id": "D7", "members": ["U1", "U2"]}]))
    written = SLACK_DAY if day is None else day
    (folder / "general" / "2024-05-01.json").write_text(json.dumps(written))
    (folder / "D7" / "2024-05-01.json").write_text(json.dumps(SLACK_DAY[:1]))
    return folder
