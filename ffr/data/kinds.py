"""What a file is by its content, where it is no data file: an archive, a chat, a table, a picture.

One table, `KINDS`, which `ffr data check` names files by and `ffr data import` finds readers by. A
kind is known by the first bytes of the file, by the names in a zip archive, or by the keys of a
JSON object; the first that fits is taken. Chats are those of `ffr/chats`, and known as they are there.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.chats.reading import FORMATS
from ffr.chats.recognising import form_of_archive, form_of_head, form_of_record
from ffr.chats.stream import ChatFormat
from ffr.data.keys import COLUMNS

HEAD_BYTES = 1 << 16
"""How much of a file's beginning is looked at."""
_MAX_CELLS = 1000
_RECORDS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*[{\]])")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Args:
        name: A short word for it.
        words: What it is, as it follows "is".
        remedy: What to do with it.
        form: The reader of `ffr/data/importing.py` that takes it; None where there is none.
        by_head: Whether a file that begins with these bytes is one.
        by_names: Whether a zip archive with these names in it is one.
        by_object: Whether a file whose one object, or first record, has these keys is one.
    """

    name: str
    words: str
    remedy: str
    form: str | None = None
    by_head: Callable[[bytes], bool] = lambda _: False
    by_names: Callable[[Set[str]], bool] = lambda _: False
    by_object: Callable[[Mapping[str, Any]], bool] = lambda _: False


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: record.keys() >= set(keys)


def _first_message(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first of an export's messages; nothing where it has none."""
    messages = record.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return first if isinstance(first, dict) else {}


def _is_web_page(head: bytes) -> bool:
    return head.lstrip(_BOM + b" \t\r\n")[:15].lower().startswith((b"<!doctype html", b"<html"))


def _is_table_of_text(head: bytes) -> bool:
    """Whether the first line names a column of a table, between commas, semicolons or tabs."""
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    first = head.decode(encoding, "replace").lstrip().partition("\n")[0]
    cells = re.split("[,;\t]", first, maxsplit=_MAX_CELLS)
    names = {cell.strip().strip('"').lower() for cell in cells}
    return len(cells) > 1 and not first.startswith(("{", "[")) and bool(names.intersection(COLUMNS))


def _is_row(record: Mapping[str, Any]) -> bool:
    """Whether a record is a row of a table of lines or of queries."""
    return not record.keys() & {"messages", "dialogue", "response"} and (
        record.keys() >= {"speaker", "text"}
        or record.keys() >= {"dialogue_id", "text"}
        or record.keys() >= {"dialogue_id", "query"}
    )


def _is_locomo(record: Mapping[str, Any]) -> bool:
    talk = record.get("conversation", record)
    return "qa" in record and isinstance(talk, dict) and talk.keys() >= {"speaker_a", "session_1"}


_CHAT = (
    "bring it in with `ffr data import FILE --out DATA.jsonl`, or ask it with "
    '`ffr retrieve "…" FILE`'
)
_UNPACK = "unpack it and name the data file in it"
_IMPORT = "bring it in with `ffr data import FILE… --out DATA.jsonl`"
# chats are known by `ffr/chats` alone, all others by what stands beside them here
KINDS: tuple[Kind, ...] = (
    *(Kind(form.name, form.words, _CHAT) for form in FORMATS),
    Kind(
        "excel",
        "an Excel workbook",
        f"save its sheet as CSV in UTF-8 and {_IMPORT}",
        by_names=lambda names: "xl/workbook.xml" in names,
    ),
    Kind("zip", "a zip archive", _UNPACK, by_names=lambda _: True),
    Kind(
        "tar",
        "a tar archive",
        f"{_UNPACK}, or install a published set with `ffr data download NAME --archive FILE`",
        by_head=lambda head: head[257:262] == b"ustar",
    ),
    Kind(
        "archive",
        "an archive",
        _UNPACK,
        by_head=_begins(
            b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
        ),
    ),
    Kind("parquet", "a table (Parquet)", _IMPORT, "table", by_head=_begins(b"PAR1")),
    Kind(
        "arrow",
        "a table (Arrow)",
        _IMPORT,
        "table",
        by_head=_begins(b"ARROW1", b"\xff\xff\xff\xff"),
    ),
    Kind(
        "sqlite",
        "a database (SQLite)",
        "export its tables as CSV and bring these in with `ffr data import`",
        by_head=_begins(b"SQLite format 3\0"),
    ),
    Kind(
        "picture",
        "a picture",
        "name the file of the records that show it",
        by_head=_begins(b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF"),
    ),
    Kind("pdf", "a PDF", "name a file of records", by_head=_begins(b"%PDF-")),
    Kind(
        "html",
        "a web page",
        "if it is a chat export, export again as JSON or text; if it was downloaded, look at it: "
        "it may be the server's refusal",
        by_head=_is_web_page,
    ),
    Kind("csv", "a table (CSV)", _IMPORT, "table", by_head=_is_table_of_text),
    Kind("locomo", "LoCoMo", _IMPORT, "locomo", by_object=_is_locomo),
    Kind(
        "mem-gallery",
        "Mem-Gallery",
        _IMPORT,
        "mem-gallery",
        by_object=_has("multi_session_dialogues", "human-annotated QAs"),
    ),
    Kind(
        "longmemeval",
        "LongMemEval",
        _IMPORT,
        "longmemeval",
        by_object=_has("question_id", "haystack_sessions"),
    ),
    Kind(
        "qmsum",
        "QMSum",
        _IMPORT,
        "qmsum",
        by_object=_has("meeting_transcripts", "specific_query_list"),
    ),
    Kind("rows", "a table (one row a record)", _IMPORT, "table", by_object=_is_row),
)


def kind_of_head(head: bytes, path: Path | None = None) -> Kind | None:
    r"""The kind of a file by its first bytes; None where they may be a data file's.

    Args:
        head: The first `HEAD_BYTES` of the file, or all where it has fewer.
        path: The file itself where it lies on the disk as it is: the names in an archive are read.

    >>> kind_of_head(b"PAR1\x15\x04").name, kind_of_head(b'{"dialogue_id": "d1"}')
    ('parquet', None)
    """
    if head.startswith(b"PK\x03\x04"):
        names: Set[str] = frozenset()
        if path is not None:
            chat = _of_chat(form_of_archive(path))
            if chat is not None:
                return chat
            faults = (OSError, zipfile.BadZipFile, ValueError, NotImplementedError)
            with suppress(*faults), zipfile.ZipFile(path) as archive:
                names = frozenset(archive.namelist())
        return next(kind for kind in KINDS if kind.by_names(names))
    of_bytes = next((kind for kind in KINDS if kind.by_head(head)), None)
    # records are told apart by their keys, once one is read whole
    if _RECORDS.match(head) or (of_bytes is not None and of_bytes.name != "csv"):
        return of_bytes
    return _of_chat(form_of_head(head)) or of_bytes


def _of_chat(form: ChatFormat | None) -> Kind | None:
    return None if form is None else next(kind for kind in KINDS if kind.name == form.name)


def kind_of_object(record: Mapping[str, Any]) -> Kind | None:
    """The kind of a file by its one object, or by its first record; None where it may be ours.

    >>> kind_of_object({"dialogue_id": "d1", "speaker": "ann", "text": "hi"}).name
    'rows'
    """
    if {"dialogue", "response"} & record.keys() or "role" in _first_message(record):
        return None
    chat = _of_chat(form_of_record(dict(record)))
    return chat or next((kind for kind in KINDS if kind.by_object(record)), None)
