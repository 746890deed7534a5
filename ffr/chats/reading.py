"""An export → its chats: which form it is of is found by what is in it."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

from ffr.chats import (
    chatlab,
    discord,
    line,
    memotrace,
    messenger,
    slack,
    telegram,
    weflow,
    whatsapp,
)
from ffr.chats.chat import Chat
from ffr.chats.export_files import ExportFiles
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.errors import DataError, UsageError
from ffr.text import counted, one_line

FORMATS: tuple[ChatFormat, ...] = (
    slack.FORMAT,
    telegram.FORMAT,
    messenger.FORMAT,
    discord.FORMAT,
    weflow.FORMAT,
    memotrace.FORMAT,
    chatlab.FORMAT,
    whatsapp.FORMAT,
    line.FORMAT,
)
"""All forms; the first that finds a chat in an export is taken."""

MAX_NAMED = 12
# of a folder with more files than this, those that are left are not looked into
_MAX_LEFT = 300


def format_of(
    export: ExportFiles, form: str | None = None
) -> tuple[ChatFormat, list[tuple[str, ...]]] | None:
    """The form of an export, and the files of each of its chats; None where it is of none.

    Args:
        export: The export.
        form: Its form, where it was told.

    Raises:
        UsageError: where there is no such form.
    """
    known = {item.name: item for item in FORMATS}
    if form is not None and form not in known:
        raise UsageError(f"there is no form of chats called {form}; there are {', '.join(known)}")
    for item in FORMATS if form is None else [known[form]]:
        found = item.find(export)
        if found:
            return item, found
    return None


def chat_streams(
    path: str | Path, *, form: str | None = None, choices: ReadChoices | None = None
) -> Iterator[ChatStream]:
    """The chats of an export, each to be read before the next.

    Args:
        path: A file, a folder or a zip archive.
        form: One of the names of `FORMATS`; None to find it by what is there.
        choices: What the export does not say itself.

    Raises:
        DataError: where there is no chat in it.
        UsageError: where there is no such form.
    """
    export = ExportFiles(path)
    found = format_of(export, form)
    if found is None:
        what = "no chat" if form is None else f"no chat of the form {form}"
        known = ", ".join(item.name for item in FORMATS)
        pages = any(name.lower().endswith((".html", ".htm")) for name in export.names)
        hint = "; export it again as JSON or text, not as web pages" if pages else ""
        archives = sum(name.lower().endswith(".zip") for name in export.names)
        if archives and not export.is_archive and len(export.names) > 1:
            hint = f"; it holds {counted(archives, 'zip archive')}: name each by itself"
        raise DataError(
            f"holds {what} that can be read; known are the exports of {known} (docs/chats.md){hint}",
            where=str(path),
        )
    item, parts = found
    faults = [*export.faults, *_others(export, item, parts)]
    for names in parts:
        for stream in item.read(export, names, choices or ReadChoices()):
            stream.folder = export.media_folder
            for fault in faults:
                stream.account.fault(fault)
            yield stream


def is_one_export(path: str | Path, form: str | None = None) -> bool:
    """Whether a path is an export by itself, and no folder in which other chats lie as well.

    Args:
        path: A file, a folder or a zip archive.
        form: As in `chat_streams`.

    Raises:
        DataError: where it cannot be read.
        UsageError: where there is no such form.
    """
    export = ExportFiles(path)
    found = format_of(export, form)
    if found is None or not Path(path).is_dir():
        return found is not None
    item, parts = found
    taken = {name for names in parts for name in names}
    left = (name.lower() for name in export.names if name not in taken)
    # a chat export has neither, and the first may hold a chat, the second is a data file
    if any(name.endswith((".zip", ".jsonl", ".jsonl.gz")) for name in left):
        return False
    return not any(_others(export, item, parts))


def _others(
    export: ExportFiles, form: ChatFormat, parts: Sequence[tuple[str, ...]]
) -> Iterator[str]:
    """A sentence where the files that are left hold chats of another form."""
    taken = {name for names in parts for name in names}
    left = tuple(name for name in export.text_names if name not in taken)
    if not left or len(left) > _MAX_LEFT:
        return
    found = format_of(export.only(left))
    if found is not None and found[0] is not form:
        name = found[1][0][0]
        yield f"{one_line(name, 80)} is {found[0].words}, and is left out; name it to read it"


def read_chats(
    path: str | Path, *, form: str | None = None, choices: ReadChoices | None = None
) -> list[Chat]:
    """All chats of an export.

    Args:
        path: As in `chat_streams`.
        form: Likewise.
        choices: Likewise.

    Raises:
        DataError: where there is no chat in it.
    """
    return [stream.collect() for stream in chat_streams(path, form=form, choices=choices)]


def read_chat(
    path: str | Path,
    chat: str | None = None,
    *,
    form: str | None = None,
    choices: ReadChoices | None = None,
) -> Chat:
    """The chat of an export.

    Args:
        path: As in `chat_streams`.
        chat: Which one, where the export holds several: its title or id.
        form: As in `chat_streams`.
        choices: Likewise.

    Raises:
        DataError: where there is no chat in it, or several and none is named.

    >>> import json, tempfile
    >>> said = [{"id": 7, "type": "message", "date": "2023-05-12T18:02:00", "from": "Ann",
    ...          "from_id": "user1", "text": "shall we fly to Lisbon?"}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "result.json")
    ...     _ = path.write_text(json.dumps({"name": "Trip", "type": "personal_chat", "id": 1,
    ...                                     "messages": said}))
    ...     chat = read_chat(path)
    >>> chat.summary, chat.messages[0].text
    ('1 message, 0 pictures, 1 person, 12 May 2023', 'shall we fly to Lisbon?')
    """
    titles: list[str] = []
    found: Chat | None = None
    for stream in chat_streams(path, form=form, choices=choices):
        titles.append(stream.title or stream.id)
        is_meant = len(titles) == 1 if chat is None else chat in (stream.title, stream.id)
        if not is_meant:
            # a stream is read to its end before the next one begins
            collections.deque(stream.messages, maxlen=0)
        else:
            if chat is not None and found is not None:
                raise DataError(
                    f"holds more than one chat called {one_line(chat, 60)}; name its id",
                    where=str(path),
                )
            found = stream.collect()
    if found is None or (chat is None and len(titles) > 1):
        shown = ", ".join(one_line(title, 40) for title in titles[:MAX_NAMED])
        more = ", …" if len(titles) > MAX_NAMED else ""
        what = "none of them is named" if chat is None else f"none is called {one_line(chat, 60)}"
        raise DataError(
            f"holds {counted(len(titles), 'chat')}, and {what}; name one of {shown}{more}",
            where=str(path),
        )
    return found
