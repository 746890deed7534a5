"""Where the records of a .json list or .jsonl file (plain or .gz) lie.

An index of offsets, so that files of any size can be read.

Beyond the index (20 bytes a record) and one record at a time nothing is held in memory. A .gz file
is unpacked once into a temporary file, which goes when the last reader does.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ffr.data.kinds import HEAD_BYTES, Kind, kind_of_head, kind_of_object
from ffr.data.offsets import BOM, CHUNK_BYTES, MAX_RECORD_BYTES, WHITE, Offsets
from ffr.errors import DataError, UsageError
from ffr.files import Scratch, open_from
from ffr.text import address_hint, counted, cut, visible

MAX_NESTING = 50
"""Lists and objects inside each other that a record may have."""

MAX_UNPACKED_BYTES = 8 << 30
"""What a .gz file may unpack to; the environment variable FFR_MAX_UNPACKED_BYTES raises it."""

MAX_UNPACKED_RATIO = 200
"""How many times its own size a .gz file may unpack to, where the variable is not set: dialogues
pack to a tenth."""

_FREE_UNPACKED_BYTES = 64 << 20
"""What a .gz file may unpack to whatever its own size."""


_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")


class RecordFile:
    r"""The records of a file, by number.

    Args:
        path: A .json file with a list, or a .jsonl file with one object a line; either may be
            packed with gzip.
        may_be_one: Take one object over several lines as the file's only record; data files of
            ours never are one, files of others are.

    Attributes:
        path: The file as it was named.
        layout: `list` or `lines`.
        tail_fault: What is wrong after the last record that could be told apart (a list that is not
            closed, …), or None.

    Raises:
        DataError: where the file is missing, empty, damaged, or in another encoding than UTF-8 as a
            whole.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.json")
    ...     _ = path.write_text('[{"a": 1},\n {"a": 2}]')
    ...     records = RecordFile(path)
    ...     len(records), records.read(1), records.where(1)
    (2, b'{"a": 2}', 'a.json:2 (record 2)')
    """

    def __init__(self, path: str | Path, *, may_be_one: bool = False) -> None:
        self.path = Path(path)
        self._unpacked: _UnpackedFile | None = None
        self._offsets = Offsets(self.path.name)
        name = self.path.name
        try:
            if not self.path.is_file():
                kind = (
                    "is a folder; name the file in it"
                    if self.path.is_dir()
                    else f"not found{address_hint(self.path)}; correct the path"
                )
                raise DataError(kind, where=str(self.path))
            with self.path.open("rb") as file:
                head = file.read(2)
            if head == b"\x1f\x8b" or self.path.suffix == ".gz":
                self._unpacked = _UnpackedFile(self.path)
            with self._open() as file:
                status = os.fstat(file.fileno())
                self._state = (status.st_size, status.st_mtime_ns)
                head = file.read(HEAD_BYTES)
                self._refuse(kind_of_head(head, None if self._unpacked else self.path))
                _refuse_other_text(head, name)
                file.seek(0)
                self._offsets.read(file)
                self._judge_one_object(file, may_be_one)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"cannot be read ({reason}); check the path and its rights", where=str(self.path)
            ) from error
        if not self._offsets.begins and self.tail_fault is None:
            raise DataError(
                "holds no records; an empty file is most often a failed copy", where=name
            )

    def _refuse(self, kind: Kind | None) -> None:
        if kind is not None:
            raise DataError(f"is {kind.words}; {kind.remedy}", where=self.path.name)

    def _judge_one_object(self, file: BinaryIO, may_be_one: bool) -> None:
        """Takes one object over several lines, as exports are, as the only record.

        Raises DataError where that may not be.
        """
        if self.layout == "list" or not self._offsets.begins or 0 in self._offsets.oversized:
            return
        if self._read(file, 0).rstrip(WHITE).endswith(b"}"):
            return
        begin = self._offsets.begins[0]
        file.seek(begin)
        text = file.read(MAX_RECORD_BYTES).decode("utf-8", "replace")
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return  # a damaged line, which is told when it is read
        if isinstance(value, dict) and "\n" in text[:end]:
            length = os.fstat(file.fileno()).st_size - begin
            if may_be_one and length <= MAX_RECORD_BYTES:
                self._offsets.keep_one(length)
                return
            self._refuse(kind_of_object(value))
            raise DataError(
                "begins with a record over several lines; write each in one line (.jsonl), or all "
                "in a list, [{…}, {…}] (.json)",
                where=self.path.name,
            )

    def refuse_foreign(self) -> None:
        """Raises DataError where the first record tells that the file is a chat or a table.

        For those who read dialogues; the rows of a table are records too.
        """
        if not len(self) or 0 in self._offsets.oversized:
            return
        try:
            first = parse_record(self.read(0), self.where(0))
        except DataError:
            return  # told when it is read
        self._refuse(kind_of_object(first))

    @property
    def layout(self) -> Literal["list", "lines"]:
        return self._offsets.layout

    @property
    def tail_fault(self) -> DataError | None:
        return self._offsets.tail_fault

    def __len__(self) -> int:
        return len(self._offsets.begins)

    def where(self, index: int) -> str:
        """File and line of a record, for people.

        `dev.jsonl:17`, or `dev.json:2201 (record 17)` in a list.
        """
        suffix = f" (record {index + 1})" if self.layout == "list" else ""
        return f"{self.path.name}:{self._offsets.lines[index]}{suffix}"

    def line(self, index: int) -> int:
        """Number of the line a record begins on, from 1."""
        return self._offsets.lines[index]

    def read(self, index: int) -> bytes:
        """The bytes of a record.

        Raises:
            DataError: where the record is too long, or the file has been changed since it was
                opened.
        """
        with self._reopen() as file:
            return self._read(file, index)

    def __iter__(self) -> Iterator[bytes | DataError]:
        """The records in order, a DataError in place of one that is too long."""
        with self._reopen() as file:
            for index in range(len(self)):
                try:
                    data: bytes | DataError = self._read(file, index)
                except DataError as error:
                    data = error
                yield data

    def _read(self, file: BinaryIO, index: int) -> bytes:
        if index in self._offsets.oversized:
            raise DataError(
                f"the record is longer than {MAX_RECORD_BYTES >> 20} MiB; is a line break, comma "
                "or quote missing?",
                where=self.where(index),
            )
        file.seek(self._offsets.begins[index])
        return file.read(self._offsets.lengths[index])

    def _open(self) -> BufferedReader:
        return (self._unpacked.location() if self._unpacked else self.path).open("rb")

    def _reopen(self) -> BinaryIO:
        # a handle of its own for every reader: none is shared between threads or inherited by
        # forked workers
        try:
            file = (self._unpacked.location() if self._unpacked else self.path).open("rb")
            status = os.fstat(file.fileno())
        except OSError as error:
            raise DataError(
                f"can no longer be read ({error.strerror}); was it moved?", where=str(self.path)
            ) from error
        if status.st_size != self._state[0] or (
            self._unpacked is None and status.st_mtime_ns != self._state[1]
        ):
            file.close()
            raise DataError("was changed after it was opened; start again", where=str(self.path))
        return file


class _UnpackedFile:
    """The contents of a .gz file in a temporary file of this process.

    Pickled, it is shared while it lasts, or unpacked anew.
    """

    def __init__(self, packed: Path) -> None:
        self.packed = packed
        self._location = self._unpack()

    def location(self) -> Path:
        if not self._location.exists():
            self._location = self._unpack()
        return self._location

    def _unpack(self) -> Path:
        limit = max_unpacked_bytes(self.packed)
        scratch = Scratch()
        weakref.finalize(self, scratch.remove)
        unpacked = scratch.folder / "unpacked.json"
        total = 0
        try:
            with open_from(unpacked, 0) as target, gzip.open(self.packed, "rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    total += len(chunk)
                    if total > limit:
                        raise DataError(
                            f"unpacks to more than {counted(limit, 'byte')}; if that is right, set "
                            "FFR_MAX_UNPACKED_BYTES higher",
                            where=str(self.packed),
                        )
                    target.write(chunk)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"cannot be unpacked ({reason}); copy it again, and see that there is room in "
                f"{tempfile.gettempdir()}",
                where=str(self.packed),
            ) from error
        return unpacked


def _refuse_other_text(head: bytes, name: str) -> None:
    """Raises DataError where no line of a file's beginning can be a record's."""
    lines = [line for line in head.removeprefix(BOM).split(b"\n") if line.strip(WHITE)]
    if (
        not lines
        or b"\0" in head
        or lines[0].lstrip(WHITE)[:1] == b"["
        or any(line.lstrip(WHITE)[:1] == b"{" for line in lines)
    ):
        return
    shown = cut(visible(lines[0].decode("utf-8", "replace").strip()), 40)
    raise DataError(
        f"is no file of records: it begins with {json.dumps(shown, ensure_ascii=False)}; write "
        "one record a line in .jsonl, or a list of records in .json",
        where=name,
    )


def max_unpacked_bytes(packed: Path) -> int:
    """What a .gz file may unpack to, in bytes."""
    setting = os.environ.get("FFR_MAX_UNPACKED_BYTES", "")
    if not setting:
        by_ratio = MAX_UNPACKED_RATIO * packed.stat().st_size
        return min(MAX_UNPACKED_BYTES, max(by_ratio, _FREE_UNPACKED_BYTES))
    if not (setting.isascii() and setting.isdigit() and 0 < len(setting) < 19):
        raise UsageError(f"FFR_MAX_UNPACKED_BYTES is {setting!r}; set it to a number of bytes")
    return int(setting)


class _RefusedError(ValueError):
    """Raised inside the JSON decoder for what JSON allows and we do not."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {twice[:80]!r} stands twice in one object; remove one")
    return result


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedError(f"the number {text[:40]} is too large; write it as a text")
    return value


def _no_constant(name: str) -> Any:
    raise _RefusedError(f"{name} is not JSON; write null or a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_finite_float,
    parse_constant=_no_constant,
    strict=True,
)


def parse_record(data: bytes, where: str) -> dict[str, Any]:
    """Reads one JSON object strictly.

    UTF-8, no key twice, no NaN, no lone surrogates, bounded nesting.

    Args:
        data: The bytes of one record.
        where: Its place, for the error.

    Raises:
        DataError: with what is wrong and what to do.

    >>> parse_record(b'{"a": [1, 2]}', "x.jsonl:1")
    {'a': [1, 2]}
    >>> parse_record(b'{"a": 1, "a": 2}', "x.jsonl:1")
    Traceback (most recent call last):
        ...
    ffr.errors.DataError: x.jsonl:1: the key 'a' stands twice in one object; remove one
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start + 1}); "
            "if the file is in GBK, convert it: iconv -f GB18030 -t UTF-8 IN > OUT",
            where=where,
        ) from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = (
            f"line {error.lineno} of the record, column {error.colno}"
            if error.lineno > 1
            else f"column {error.colno}"
        )
        hint = "one record a line in .jsonl, a list of records in .json"
        said = error.msg.removesuffix(" at")  # some of Python's sentences end so
        raise DataError(f"not JSON ({said} at {place}); {hint}", where=where) from error
    except _RefusedError as error:
        raise DataError(str(error), where=where) from error
    except ValueError as error:
        raise DataError(
            "a number has too many digits; write it as a string", where=where
        ) from error
    except RecursionError as error:
        raise DataError(_DEEP, where=where) from error
    if not isinstance(value, dict):
        raise DataError(
            f"a record is an object {{…}}, not {kind_of(value)}; write one a record", where=where
        )
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _is_deep(value):
        raise DataError(_DEEP, where=where)
    if _SURROGATE_ESCAPE.search(data):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                "a text holds half a surrogate pair (such as \\ud83d alone); write the whole "
                "character",
                where=where,
            ) from error
    return value


_DEEP = f"lists and objects are nested more than {MAX_NESTING} deep; a record needs few levels"


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_NESTING):
        inner: list[Any] = []
        for item in level:
            inner.extend(item.values() if isinstance(item, dict) else item)
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for an error.

    >>> kind_of(None), kind_of([1]), kind_of(True), kind_of("a")
    ('null', 'a list', 'true/false', 'a text')
    """
    if value is None:
        return "null"
    kinds: dict[type, str] = {
        bool: "true/false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
    }
    return kinds.get(type(value), "an object")
