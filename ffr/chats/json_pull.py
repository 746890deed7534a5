"""JSON read piece by piece: an export of a gigabyte is never in memory whole.

The standard library's decoder reads one value at a time out of a window of the text; who pulls says
where to go in and what to take whole.
"""

from __future__ import annotations

import codecs
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from ffr.chats.account import Account
from ffr.errors import DataError
from ffr.text import one_line

_CHUNK = 1 << 18
_MAX_VALUE_CHARS = 256 << 20
_NEAR_END = 64
_MAX_DIGITS = 100
_MAX_DEPTH = 6
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SPACE = " \t\r\n"
# what may go on a number; "" is the end of the window
_NUMBER = ("", *"0123456789.eE+-")


class JsonPull:
    """A JSON text that is pulled through once, from its beginning to its end.

        for key in pull.members():
            if key == "messages":
                for number in pull.elements():
                    message = pull.value()
            else:
                head[key] = pull.value()

    Every member and element must be taken: by `value`, `skip`, `members` or `elements`.

    Args:
        file: Bytes in UTF-8, with or without a mark, or in UTF-16 with one.
        where: What the file is called in errors.
        account: Counts bytes that are no text.

    `is_broken` is for who goes on after an error: from where it stands, nothing more can be read.

    Raises:
        DataError: where the text is no JSON, with line and what stands there; one that ends too
            early says so.

    >>> import io
    >>> pull = JsonPull(io.BytesIO(b'{"a": 1, "list": [{"x": 2}, {"x": 3}]}'), "f", Account())
    >>> [pull.value() if key == "a" else [pull.value()["x"] for _ in pull.elements()]
    ...  for key in pull.members()]
    [1, [2, 3]]
    """

    def __init__(self, file: IO[bytes], where: str, account: Account) -> None:
        self._file = file
        self._where = where
        self._account = account
        self._encoding = ""
        self._decoder: codecs.IncrementalDecoder | None = None
        # raw line breaks in texts are no JSON, and some exports have them
        self._json = json.JSONDecoder(parse_constant=_null, strict=False)
        self._text = ""
        self._at = 0
        self._lines_before = 0
        self._is_whole = False
        self._is_bounded = False
        self.is_broken = False

    @property
    def line(self) -> int:
        """The line that is read now, from 1."""
        return self._lines_before + self._text.count("\n", 0, self._at) + 1

    def kind(self) -> str:
        """What comes: `{`, `[`, `"`, or another first character; "" at the end."""
        self._skip_space()
        return self._text[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """The keys of the object that comes; after each, its value is to be taken."""
        self._take("{")
        if self._took("}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise self._fault("a key of an object")
            self._take(":")
            yield key
            if self._took("}"):
                return
            self._take(",")

    def elements(self) -> Iterator[int]:
        """The numbers of the elements of the list that comes; after each, it is to be taken."""
        self._take("[")
        if self._took("]"):
            return
        number = 0
        while True:
            yield number
            number += 1
            if self._took("]"):
                return
            self._take(",")

    def value(self) -> Any:
        """The value that comes, whole. Numbers that are none are None."""
        self._skip_space()
        while True:
            try:
                found, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # a text that nothing closes goes on to the end; what is wrong far from the end of
                # the window is wrong, whatever may follow
                is_open = error.msg.startswith("Unterminated string")
                is_near = is_open or len(self._text) - error.pos < _NEAR_END
                if self._is_whole or not is_near:
                    place = len(self._text) if is_open else error.pos
                    raise self._fault("a value", place) from None
            except ValueError:
                if self._is_bounded:
                    raise self._fault("a value") from None
                self._is_bounded = True
                # Python refuses numbers of thousands of digits; nothing means so many
                self._json = json.JSONDecoder(
                    parse_constant=_null, strict=False, parse_int=_bounded_int
                )
                continue
            except RecursionError:
                raise DataError(
                    f"line {self.line} nests deeper than any chat; export it again",
                    where=self._where,
                ) from None
            else:
                # a number may go on where the window ends: 1 is the beginning of 1.5e3
                is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
                if self._is_whole or not is_number or self._text[end : end + 1] not in _NUMBER:
                    self._at = end
                    return found
            self._more(at_least=len(self._text) - self._at)

    def skip(self) -> None:
        """Lets go of the value that comes."""
        self.value()

    def is_at_end(self) -> bool:
        """Whether nothing more comes."""
        self._skip_space()
        return self._at == len(self._text)

    def _took(self, char: str) -> bool:
        self._skip_space()
        if self._text.startswith(char, self._at):
            self._at += 1
            return True
        return False

    def _take(self, char: str) -> None:
        if not self._took(char):
            raise self._fault(f"`{char}`")

    def _skip_space(self) -> None:
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text) or self._is_whole:
                return
            self._more()

    def _more(self, at_least: int = 0) -> None:
        """Reads on; what lies behind is let go. Twice as far where a value did not fit."""
        if len(self._text) - self._at > _MAX_VALUE_CHARS:
            raise DataError(
                f"line {self.line} holds one value of over {_MAX_VALUE_CHARS >> 20} MB; export it "
                "again",
                where=self._where,
            )
        try:
            data = self._file.read(max(_CHUNK, at_least))
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            # whoever opened the file may be far away from who reads on
            raise DataError(
                f"cannot be read beyond line {self.line} ({one_line(error)}); export it again",
                where=self._where,
            ) from error
        self._is_whole = not data
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + self._decoded(data)
        self._at = 0

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            self._encoding = "utf-16" if data[:2] in _WIDE_MARKS else "utf-8-sig"
            self._decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        before = self._decoder.getstate()
        try:
            return self._decoder.decode(data, final=self._is_whole)
        except UnicodeDecodeError:
            self._account.num_undecodable += 1
            self._decoder = codecs.getincrementaldecoder(self._encoding)("replace")
            self._decoder.setstate(before)
            return self._decoder.decode(data, final=self._is_whole)

    def _fault(self, wanted: str, at: int | None = None) -> DataError:
        place = self._at if at is None else at
        found = self._text[place : place + 40]
        line = self._lines_before + self._text.count("\n", 0, place) + 1
        if not found.strip():
            return DataError(
                f"ends in the middle, at line {line}; export it again", where=self._where
            )
        return DataError(
            f"is no JSON at line {line}: {one_line(found, 40)} stands where {wanted} should; "
            "export it again",
            where=self._where,
        )


def outline(head: bytes) -> dict[str, Any] | None:
    """The first object of a JSON text, as far as its beginning shows it.

    Lists are cut to their first element. Of a text that is a list, it is the first element; of
    lines of JSON, the first line.

    Args:
        head: The beginning of a file.

    >>> outline(b'{"name": "Trip", "messages": [{"id": 1}, {"id":')
    {'name': 'Trip', 'messages': [{'id': 1}]}
    """
    import io

    start = head[2:8].replace(b"\0", b"") if head[:2] in _WIDE_MARKS else head
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        return None
    pull = JsonPull(io.BytesIO(head), "", Account())
    found: dict[str, Any] = {}
    with suppress(DataError):
        if pull.kind() == "[":
            for _ in pull.elements():
                break
            if pull.kind() != "{":
                return None
        _fill(pull, found)
    return found


def first_of(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The first object of a list in an outline; an empty one where there is none.

    >>> first_of({"messages": [{"id": 1}]}, "messages"), first_of({"messages": 3}, "messages")
    ({'id': 1}, {})
    """
    values = record.get(name)
    first = values[0] if isinstance(values, list) and values else None
    return first if isinstance(first, dict) else {}


def _fill(pull: JsonPull, found: dict[str, Any], depth: int = 0) -> None:
    """Takes an object's members into `found`, as far as they come."""
    for key in pull.members():
        kind = pull.kind() if depth < _MAX_DEPTH else ""
        if kind == "{":
            found[key] = {}
            _fill(pull, found[key], depth + 1)
        elif kind == "[":
            found[key] = []
            _fill_list(pull, found[key], depth)
        else:
            found[key] = pull.value()


def _fill_list(pull: JsonPull, found: list[Any], depth: int) -> None:
    for number in pull.elements():
        if number == 0 and pull.kind() == "{":
            element: dict[str, Any] = {}
            found.append(element)
            _fill(pull, element, depth + 1)
        elif number == 0:
            found.append(pull.value())
        else:
            pull.skip()


def _bounded_int(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None


def _null(_: str) -> None:
    """NaN and Infinity, which are no JSON, count as nothing."""
    return None
