"""Messages as a dialogue that any model takes: lines with their speakers, pictures by their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ffr.chats.chat import Chat, Media, Message
from ffr.dialogue import Dialogue, Image, Utterance

_KIND_WORDS = {
    "sticker": "sticker",
    "voice": "voice message",
    "video": "video",
    "file": "file",
    "picture": "picture",
    "link": "link",
    "place": "place",
    "contact": "contact",
    "poll": "poll",
    "call": "call",
}


def is_line(message: Message) -> bool:
    """Whether a message is a line of a dialogue: what the app itself says is not."""
    return message.kind != "system" and message.sender is not None


def utterance_of(message: Message, speaker: str, pictures: Sequence[str | None]) -> Utterance:
    """A message as one line: its words and pictures; what else it carries stands in brackets.

    Args:
        message: The message.
        speaker: What its sender is called.
        pictures: For each of its media, where the file of a picture lies; None where it is not
            there, or is no picture.

    >>> photo = Message("a", "look", kind="picture", media=(Media("picture", "x.jpg", "x.jpg"),))
    >>> utterance_of(photo, "Ann", ["x.jpg"]).segments
    (Image(source='x.jpg', caption=''), 'look')
    >>> utterance_of(Message("a", kind="voice"), "Ann", []).text
    '[voice message]'
    """
    segments: list[str | Image] = []
    for media, path in zip(message.media, pictures, strict=True):
        if media.kind == "picture" and path is not None:
            segments.append(Image(path))
        else:
            missing = " is missing" if media.kind == "picture" else ""
            name = f" {media.name}" if media.name else ""
            segments.append(f"[{_KIND_WORDS[media.kind]}{name}{missing}]")
    if not message.media and not message.text and message.kind in _KIND_WORDS:
        segments.append(f"[{_KIND_WORDS[message.kind]}]")
    if message.text:
        segments.append(message.text)
    return Utterance(speaker, tuple(segments))


def dialogue_of(
    messages: Iterable[Message],
    name: Callable[[Message], str],
    picture: Callable[[Media], str | None],
    *,
    id: str,  # noqa: A002 - the field
) -> Dialogue:
    """The lines of messages as a dialogue; those that are no lines are left out.

    Args:
        messages: In order.
        name: What the sender of a message is called.
        picture: Where the file of a picture lies; None where it is not there.
        id: Of the dialogue.
    """
    lines = [
        utterance_of(message, name(message), [picture(media) for media in message.media])
        for message in messages
        if is_line(message)
    ]
    return Dialogue(id, tuple(lines))


def dialogue_of_chat(chat: Chat) -> Dialogue:
    """A whole chat as one dialogue, uncut; pictures that lie in an archive are named as missing.

    >>> from ffr.chats.chat import Person
    >>> chat = Chat("line", "Trip", {"a": Person("a", "Ann")}, (Message("a", "hi"),))
    >>> dialogue_of_chat(chat).utterances[0]
    Utterance(speaker='Ann', segments=('hi',))
    """

    def picture(media: Media) -> str | None:
        if media.file is None or chat.folder is None:
            return None
        return str((chat.folder / media.file).absolute())

    return dialogue_of(chat.messages, chat.name_of, picture, id=chat.title or chat.id or "chat")
