"""WeChat by WeFlow: kinds by their Chinese words, pictures beside the file, lines of the app."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from chat_samples import WEFLOW

from ffr.chats.chat import Media, Message
from ffr.chats.reading import read_chat

ZONE = timezone(timedelta(hours=8))


def _write(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("has_head", [True, False])
def test_a_group(tmp_path: Path, has_head: bool) -> None:
    (tmp_path / "media" / "images").mkdir(parents=True)
    (tmp_path / "media" / "images" / "a.jpg").write_bytes(b"x")
    value = {key: part for key, part in WEFLOW.items() if has_head or key != "weflow"}
    chat = read_chat(_write(tmp_path, value))
    assert (chat.app, chat.title, chat.id) == ("weflow", "周末去哪", "88@chatroom")
    assert chat.messages == (
        Message("wxid_ann", "去湖边吗？", datetime(2024, 5, 1, 16, tzinfo=ZONE), id="501", line=1),
        Message(
            "wxid_bo",
            "",
            datetime(2024, 5, 1, 16, 1, tzinfo=ZONE),
            "picture",
            (Media("picture", "a.jpg", "media/images/a.jpg"),),
            "502",
            line=2,
        ),
        Message(
            None,
            "小波 撤回了一条消息",
            datetime(2024, 5, 1, 16, 1, 10, tzinfo=ZONE),
            "system",
            id="503",
            line=3,
        ),
    )
    assert [(person.name, person.is_me) for person in chat.people.values()] == [
        ("安", True),
        ("小波", False),
    ]


def test_every_kind_by_its_word_and_not_by_its_number(tmp_path: Path) -> None:
    common = {"createTime": 1714550400, "localType": 1, "isSend": 0, "senderUsername": "wxid_bo"}
    card = "<appmsg><title>菜谱</title><des>汤</des><type>5</type><url>http://x.cn</url></appmsg>"
    quote = ("<appmsg><title>好的</title><type>57</type><refermsg><svrid>501</svrid>"
             "<content>去湖边吗？</content></refermsg></appmsg>")  # fmt: skip
    said: list[tuple[str, str | None]] = [
        ("图片消息", "[图片]"),
        ("动画表情", "[动画表情]"),
        ("语音消息", "[语音消息] 我到了"),
        ("视频消息", "media/videos/v.mp4"),
        ("文件消息", "[文件] 合同.pdf"),
        ("位置消息", "西湖"),
        ("名片消息", "小陈"),
        ("语音通话", "通话时长 01:02"),
        ("转账消息", "[转账] ¥5"),
        ("链接消息", f"<msg>{card}</msg>"),
        ("引用消息", f"<?xml version='1.0'?><msg>{quote}</msg>"),
        ("文本消息", "1 < 2"),
        ("别的消息", None),
    ]
    messages = [{**common, "type": word, "content": content} for word, content in said]
    chat = read_chat(_write(tmp_path, {**WEFLOW, "messages": messages}))
    assert [(message.kind, message.text, message.media) for message in chat.messages] == [
        ("picture", "", (Media("picture"),)),
        ("sticker", "", (Media("sticker"),)),
        ("voice", "我到了", (Media("voice"),)),
        ("video", "", (Media("video", "v.mp4"),)),
        ("file", "", (Media("file", "合同.pdf"),)),
        ("place", "西湖", ()),
        ("contact", "小陈", ()),
        ("call", "通话时长 01:02", ()),
        ("text", "[转账] ¥5", ()),
        ("link", "菜谱\n汤\nhttp://x.cn", ()),
        ("text", "好的", ()),
        ("text", "1 < 2", ()),
        ("text", "", ()),
    ]
    assert chat.messages[10].reply_to == "501"
    assert chat.account.lines() == []


def test_hostile_xml_is_words(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><msg><appmsg>&c;</appmsg></msg>'
    message = {**WEFLOW["messages"][0], "type": "链接消息", "content": bomb}
    (found,) = read_chat(_write(tmp_path, {**WEFLOW, "messages": [message]})).messages
    assert (found.kind, found.text) == ("link", bomb)  # as it stands there, nothing expanded
