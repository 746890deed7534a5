"""Chats → dialogues of a data file, or a table of their lines to which one adds queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffr.chats.account import Account
from ffr.chats.chat import Chat, Media, Message, summary_of
from ffr.chats.cutting import Cutting, cut_messages
from ffr.chats.dialogues import is_line, utterance_of
from ffr.chats.export_files import ExportFiles
from ffr.chats.reading import format_of, read_chats
from ffr.chats.redaction import redacted
from ffr.chats.stream import ReadChoices
from ffr.chats.unpacking import picture_file
from ffr.dialogue import Dialogue, Example, Utterance
from ffr.errors import DataError, UsageError
from ffr.text import one_line


@dataclass(frozen=True)
class ChatChoices:
    """What may be said about chats that are brought in.

    Args:
        form: As in `chat_streams`.
        reading: Likewise.
        cutting: How chats are cut into dialogues.
        title: The one chat that is meant, by its title or id; None for all.
        is_redacted: Whether people and numbers get other names.
        media_folder: Where pictures out of archives go.
    """

    form: str | None = None
    reading: ReadChoices = field(default_factory=ReadChoices)
    cutting: Cutting = field(default_factory=Cutting)
    title: str | None = None
    is_redacted: bool = False
    media_folder: Path = Path("media")


@dataclass(frozen=True)
class CutChat:
    """A chat as dialogues.

    Args:
        dialogues: In order; ids are the chat's title and a number.
        messages: For each, those that its utterances are.
        notes: What there is to say about the chat, a line each; its summary first.
    """

    dialogues: Sequence[Dialogue]
    messages: Sequence[Sequence[Message]]
    notes: Sequence[str]


def is_chat(path: Path, form: str | None = None) -> bool:
    """Whether a path is a chat export, by what is in it.

    Raises:
        DataError: where it cannot be read.
    """
    return format_of(ExportFiles(path), form) is not None


def cut_chats(path: Path, choices: ChatChoices) -> Iterator[CutChat]:
    """The chats of an export as dialogues; pictures out of an archive are unpacked.

    Args:
        path: The export.
        choices: What is said about it.

    Raises:
        DataError: where there is no chat in it.
        UsageError: where none has the title that is asked for.
    """
    export = ExportFiles(path)
    chats = read_chats(path, form=choices.form, choices=choices.reading)
    wanted = [chat for chat in chats if choices.title in (None, chat.title, chat.id)]
    if not wanted:
        titles = ", ".join(one_line(chat.title, 40) for chat in chats[:12])
        raise UsageError(
            f"{path} has no chat called {one_line(choices.title, 60)}; there are {titles}"
        )
    for chat in wanted:
        yield _cut(redacted(chat) if choices.is_redacted else chat, export, path, choices)


def _cut(chat: Chat, export: ExportFiles, path: Path, choices: ChatChoices) -> CutChat:
    title = chat.title or chat.id or path.stem
    pictures = _Pictures(export, choices.media_folder)
    dialogues, messages = [], []
    for number, part in enumerate(cut_messages(chat.messages, choices.cutting)):
        lines = [message for message in part if is_line(message)]
        if not lines:
            continue
        said = [
            utterance_of(message, chat.name_of(message), [pictures.path(m) for m in message.media])
            for message in lines
        ]
        # a line without anything would be lost in most forms
        kept = [index for index, utterance in enumerate(said) if utterance.segments]
        if kept:
            utterances: tuple[Utterance, ...] = tuple(said[index] for index in kept)
            dialogues.append(Dialogue(f"{title}/{number}", utterances))
            messages.append([lines[index] for index in kept])
    summary = summary_of(chat.messages, len(chat.people), chat.account)
    notes = [f"{one_line(title, 60)}: {summary}; {choices.cutting.words}", *_notes(chat.account)]
    return CutChat(dialogues, messages, [*notes, *pictures.faults])


def _notes(account: Account) -> list[str]:
    return [f"  {line}" for line in account.lines()]


class _Pictures:
    """Where the pictures of an export lie, unpacked where they lie in an archive."""

    def __init__(self, export: ExportFiles, folder: Path) -> None:
        self._export = export
        self._folder = folder
        self.faults: list[str] = []

    def path(self, media: Media) -> str | None:
        """The absolute path of a picture; None where it is none, or is not there."""
        if media.kind != "picture" or media.file is None:
            return None
        try:
            return str(picture_file(self._export, media.file, self._folder)[0])
        except DataError as error:
            self.faults.append(f"  {error}")
            return None


def line_rows(cut: CutChat) -> Iterator[Mapping[str, Any]]:
    """The lines of a chat as rows of a table, to be joined with one of queries.

    A picture's path is absolute; `time` is what the export tells.
    """
    for dialogue, messages in zip(cut.dialogues, cut.messages, strict=True):
        for number, (utterance, message) in enumerate(
            zip(dialogue.utterances, messages, strict=True)
        ):
            row: dict[str, Any] = {
                "dialogue_id": dialogue.id,
                "utterance_id": number,
                "speaker": utterance.speaker,
                "text": utterance.text,
            }
            if utterance.images:
                row["picture"] = [image.source for image in utterance.images]
            if message.time is not None:
                row["time"] = message.time.isoformat()
            yield row | ({"kind": message.kind} if message.kind != "text" else {})


def asked_examples(cut: CutChat, queries: Sequence[str]) -> Iterator[Example]:
    """Each query put to each dialogue of a chat, without an answer."""
    for dialogue in cut.dialogues:
        for query in queries:
            yield Example(dialogue, query)
