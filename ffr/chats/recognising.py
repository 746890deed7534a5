"""Which form of chat something is that is no export yet: the beginning of a file, a record, an archive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ffr.chats.export_files import ExportFiles
from ffr.chats.reading import format_of
from ffr.chats.stream import ChatFormat
from ffr.errors import DataError

_NAME = "chat"


class _Beginning(ExportFiles):
    """An export of one file, of which only the beginning is at hand.

    Args:
        head: Its first bytes.
        record: Its one object, or the first of its list, where that was read.
    """

    def __init__(self, head: bytes, record: dict[str, Any] | None = None) -> None:
        self.path = Path(_NAME)
        self.refused = []
        self.names = (_NAME,)
        self._archive = None
        self._members = {}
        self._heads = {_NAME: head}
        self._outlines = {} if record is None else {_NAME: record}

    @contextmanager
    def open(self, name: str, remedy: str = "") -> Iterator[IO[bytes]]:
        """The beginning, to be read."""
        yield io.BytesIO(self._heads[name])


def form_of_head(head: bytes) -> ChatFormat | None:
    r"""The form of a file by its first bytes; None where it is no chat that is known.

    >>> form_of_head(b"localId,TalkerId,Type\n1,2,1\n").name, form_of_head(b"speaker,text\n")
    ('memotrace', None)
    """
    return _form(_Beginning(head))


def form_of_record(record: dict[str, Any]) -> ChatFormat | None:
    """The form of a file by its one object, or by the first of its list.

    >>> form_of_record({"type": "message", "user": "U1", "text": "hi", "ts": "1.0"}).name
    'slack'
    """
    return _form(_Beginning(b"{", record))


def form_of_archive(path: Path) -> ChatFormat | None:
    """The form of a zip archive by what is in it."""
    with suppress(DataError):
        return _form(ExportFiles(path))
    return None


def _form(export: ExportFiles) -> ChatFormat | None:
    found = format_of(export)
    return None if found is None else found[0]
