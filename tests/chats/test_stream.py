"""A chat while it is read."""

from __future__ import annotations

from datetime import datetime

from ffr.chats.chat import Media, Message
from ffr.chats.stream import ChatStream


def test_messages_are_put_in_the_order_of_their_times() -> None:
    stream = ChatStream("x", "t")
    stream.person("a", "Ann")
    stream.messages = iter(
        [
            Message("a", "late", datetime(2024, 1, 2)),
            Message("a", "behind late"),
            Message("a", "early", datetime(2024, 1, 1)),
        ]
    )
    assert [message.text for message in stream.collect().messages] == [
        "early",
        "late",
        "behind late",
    ]


def test_people_are_noted_under_every_name() -> None:
    stream = ChatStream("x", "t")
    for name in ("Ann", "Ann", "Annie", ""):
        stream.person("7", name)
    stream.person("7", "Ann", is_me=True)
    person = stream.people["7"]
    assert (person.name, person.other_names, person.is_me) == ("Ann", ("Annie",), True)
    stream.person("8", "")
    assert stream.people["8"].name == "8"


def test_the_key_of_a_message_is_its_content() -> None:
    first = Message("a", "hi", datetime(2024, 1, 1), line=3)
    assert first.key == Message("a", "hi", datetime(2024, 1, 1), line=9, is_edited=True).key
    others = [
        Message("b", "hi", datetime(2024, 1, 1)),
        Message("a", "ho", datetime(2024, 1, 1)),
        Message("a", "hi", datetime(2024, 1, 2)),
        Message("a", "hi", datetime(2024, 1, 1), media=(Media("picture", "x"),)),
        Message("a", "hi", datetime(2024, 1, 1), id="1"),
    ]
    assert len({first.key, *(other.key for other in others)}) == 6
    # what its app calls it does not change when its words do
    assert Message("a", "hi", id="1").key == Message("a", "hi!", id="1", is_edited=True).key
