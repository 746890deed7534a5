"""Messages as lines of a dialogue."""

from __future__ import annotations

from ffr.chats.chat import Media, Message
from ffr.chats.dialogues import dialogue_of
from ffr.dialogue import Image


def test_each_message_is_a_line_and_the_app_is_none() -> None:
    here, gone = Media("picture", "a.jpg", "media/a.jpg"), Media("picture", "b.jpg")
    messages = [
        Message(None, "Ann joined", kind="system"),
        Message("1", "two", kind="picture", media=(here, gone)),
        Message("2", kind="file", media=(Media("file", "plan.pdf"),)),
        Message("2", kind="picture", media=(Media("picture"),)),
        Message("1", ""),
    ]
    names = {"1": "Ann", "2": "Bob"}
    chat = dialogue_of(
        messages, lambda message: names[message.sender or ""], lambda media: media.file, id="d"
    )
    assert [line.speaker for line in chat.utterances] == ["Ann", "Bob", "Bob", "Ann"]
    assert [line.segments for line in chat.utterances] == [
        (Image("media/a.jpg"), "[picture b.jpg is missing]", "two"),
        ("[file plan.pdf]",),
        ("[picture is missing]",),
        (),
    ]
