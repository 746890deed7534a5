"""What a name on a command line stands for: a chat export, a data file, a folder of such, a data set."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ffr.chats.chat import Media, Message
from ffr.chats.export_files import ExportFiles
from ffr.chats.reading import chat_streams, format_of, is_one_export
from ffr.chats.stream import ChatStream, ReadChoices
from ffr.errors import DataError
from ffr.progress import Say
from ffr.text import counted, one_line

DATA = "data"
"""In the place of an app: a dialogue of a data file, which is cut no further."""

_PACKED = b"\x1f\x8b"
_HEAD_BYTES = 65_536
_MOST_NAMED = 6


def sources_of(path: Path, form: str | None, say: Say) -> list[Path]:
    """The exports and data files that a path stands for, each to be read by itself.

    A folder that is no export itself stands for all chats and data files in it and in its folders.

    Args:
        path: A file, a folder, or the name of a data set.
        form: What was said of the exports' form; None for nothing.
        say: Gets a line about files of a folder that are neither.

    Raises:
        DataError: where a folder holds none.
        UsageError: where a data set is not here.
    """
    from ffr.data.catalog import NAMED_SETS, locate

    if not path.exists():
        entry = NAMED_SETS.get(str(path))
        if entry is None:
            return [path]  # whoever reads it says what is wrong
        return [locate(entry.name, split=split, echo=say)[0] for split in entry.splits]
    if not path.is_dir() or _is_export(path, form):
        return [path]
    left: Counter[str] = Counter()
    found = list(_inside(path, form, left))
    if not found:
        # as one export, which says what is known and what to do
        return [path]
    if left:
        kinds = ", ".join(f"{kind} ({number:,})" for kind, number in left.most_common(_MOST_NAMED))
        say(f"{one_line(path)}: {counted(left.total(), 'file')} of no chat are left out: {kinds}")
    return found


def _inside(folder: Path, form: str | None, left: Counter[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            if _is_export(path, form):
                yield path
            else:
                yield from _inside(path, form, left)
        elif _is_export(path, form) or (is_data_file(path) and _has_records(path)):
            yield path
        else:
            left[path.suffix.lower() or "without an ending"] += 1


def _is_export(path: Path, form: str | None) -> bool:
    try:
        return is_one_export(path, form)
    except DataError:
        return False


def is_data_file(path: Path) -> bool:
    """Whether a file begins as a data file does, and is no chat of an app."""
    export = ExportFiles(path)
    if export.is_archive:
        return False
    begins = export.head(path.name)[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    return begins.startswith((b"{", b"[", _PACKED)) and format_of(export) is None


def _has_records(path: Path) -> bool:
    """Whether a file that nobody named begins with a record: any other file is of no chat."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_PACKED):
        packed, head = head, b""
        with suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(packed, _HEAD_BYTES)
    return b'"dialogue"' in head or b'"messages"' in head


def streams_of(path: Path, form: str | None, choices: ReadChoices | None) -> Iterator[ChatStream]:
    """The chats of an export, or the dialogues of a data file as such.

    Args:
        path: The export or file.
        form: As in `chat_streams`.
        choices: Likewise.

    Raises:
        DataError: where there is no chat in it, or two dialogues of a data file have one id.
    """
    if form is None and path.is_file() and is_data_file(path):
        yield from _dialogues(path)
    else:
        yield from chat_streams(path, form=form, choices=choices)


def _dialogues(path: Path) -> Iterator[ChatStream]:
    """The dialogues of a data file, each content once."""
    from ffr.data.catalog import load_dataset

    data = load_dataset(path, require_images=False)
    seen: set[str] = set()
    by_id: dict[str, tuple[str, int]] = {}
    for number, example in enumerate(data):
        dialogue = example.dialogue
        content, first = by_id.setdefault(dialogue.id, (dialogue.fingerprint, number))
        if content != dialogue.fingerprint:
            raise DataError(
                f"the dialogue {one_line(dialogue.id, 60)} is another one than that of this id in "
                f"{data.where(first)}; give each its own id",
                where=data.where(number),
            )
        if dialogue.fingerprint in seen:
            continue
        seen.add(dialogue.fingerprint)
        stream = ChatStream(DATA, dialogue.id, id=dialogue.fingerprint)
        # an export's pictures are looked for beside it, wherever one stands
        locations = iter([Path(str(place)).absolute() for place in example.image_locations()])
        messages = []
        for line_number, line in enumerate(dialogue.utterances, 1):
            places = [next(locations) for _ in line.images]
            media = tuple(Media("picture", place.name, str(place)) for place in places)
            messages.append(
                Message(
                    stream.person(line.speaker, line.speaker),
                    line.text,
                    kind="picture" if media else "text",
                    media=media,
                    id=str(line_number),
                    line=line_number,
                )
            )
        stream.messages = iter(messages)
        yield stream
