"""Where the records of an open file begin and end: found once from its first byte to its last."""

from __future__ import annotations

import re
from array import array
from io import BufferedReader
from typing import BinaryIO, Literal

from ffr.errors import DataError

MAX_RECORD_BYTES = 64 << 20
"""A longer record is refused: with a missing line break or quote a whole file becomes one
record."""
CHUNK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
WHITE = b" \t\r\n"

# a whole string, the beginning of one that goes on behind the window, or a character that makes the
# structure
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)


class Offsets:
    """Where the records of an open file begin and end, found once from its first byte to its last.

    Args:
        name: What errors call the file.

    Attributes:
        begins: Offset of each record, in bytes.
        lengths: Its length, in bytes.
        lines: Number of the line it begins on, from 1.
        oversized: Numbers of the records that are too long to be read.
        layout: `list` or `lines`.
        tail_fault: What is wrong after the last record that could be told apart, or None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.begins, self.lengths, self.lines = array("Q"), array("Q"), array("Q")
        self.oversized: set[int] = set()
        self.layout: Literal["list", "lines"] = "lines"
        self.tail_fault: DataError | None = None

    def read(self, file: BufferedReader) -> None:
        """Finds the records.

        Raises:
            DataError: where the file is not UTF-8 as a whole.
        """
        start = self._first_byte(file)
        file.seek(start)
        if file.read(1) == b"[":
            self.layout = "list"
            self._index_list(file, start)
        else:
            self._index_lines(file, 3 if start >= 3 and self._has_bom else 0)

    def keep_one(self, length: int) -> None:
        """Makes one record of all from the first on.

        Args:
            length: Of that record, in bytes.
        """
        del self.begins[1:], self.lengths[1:], self.lines[1:]
        self.lengths[0] = length
        self.oversized.clear()

    def _first_byte(self, file: BinaryIO) -> int:
        """Offset of the first byte that is not white space (or of the end)."""
        head = file.read(4)
        for bom, encoding in _WIDE_BOMS.items():
            if head.startswith(bom):
                raise DataError(
                    f"is in {encoding}, not UTF-8; convert it: iconv -f {encoding} -t UTF-8 IN > "
                    "OUT",
                    where=self.name,
                )
        if len(head) == 4 and head.count(0) >= 2:
            raise DataError(
                "is binary or in UTF-16/32, not UTF-8; convert it to UTF-8 text", where=self.name
            )
        self._has_bom = head.startswith(BOM)
        offset = 3 if self._has_bom else 0
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            rest = chunk.lstrip(WHITE)
            if rest:
                return offset + len(chunk) - len(rest)
            offset += len(chunk)
        return offset

    def _add(self, offset: int, length: int, line: int) -> None:
        if length > MAX_RECORD_BYTES:
            self.oversized.add(len(self.begins))
        self.begins.append(offset)
        self.lengths.append(length)
        self.lines.append(line)

    def _index_lines(self, file: BufferedReader, offset: int) -> None:
        file.seek(offset)
        number = 1
        while line := file.readline(MAX_RECORD_BYTES + 2):
            length = len(line)
            while not line.endswith(b"\n") and (more := file.readline(MAX_RECORD_BYTES)):
                length += len(more)
                line = more
            offset += length
            number += 1
            if length > len(line) or not line.isspace():
                self._add(offset - length, length, number - 1)
                continue
            # a file of empty lines has far more of them than bytes packed: they go by the buffer
            while (blank := _blank_lines(file.peek())) and file.read(len(blank)):
                offset += len(blank)
                number += blank.count(b"\n")

    def _index_list(self, file: BinaryIO, start: int) -> None:
        """Finds the elements of a list by brackets and commas outside strings.

        What is in them is judged later, one by one.
        """
        file.seek(0)
        line = file.read(start).count(b"\n") + 1
        window, base = b"", start  # `base`: offset of the window's first byte in the file
        position = 0  # in the window: how far the structure is known
        begin: int | None = None  # offset in the file where the element begins that is being read
        depth = 0
        done = False
        while not done:
            if begin is not None and base + len(window) - begin > MAX_RECORD_BYTES:
                self.tail_fault = self._tail(
                    line,
                    f"the record after this line does not end within {MAX_RECORD_BYTES >> 20} MiB; "
                    "is a quote missing?",
                )
                return
            chunk = file.read(max(CHUNK_BYTES, len(window)))
            window += chunk
            stop = len(window)
            for token in _TOKEN.finditer(window, position):
                char = token[0]
                if char == b'"' and token.end() - token.start() == 1:
                    stop = token.start()
                    break
                if depth == 1 and char in (b",", b"]"):
                    assert begin is not None
                    line = self._add_element(window, base, begin, base + token.start(), line)
                    begin = base + token.end()
                    position = token.end()
                    if char == b"]":
                        done = True
                        break
                elif char in (b"[", b"{"):
                    depth += 1
                    if depth == 1:
                        begin = base + token.end()
                elif char in (b"]", b"}"):
                    depth -= 1
                    if depth == 0:
                        # a closing brace where the list's bracket is due
                        self.tail_fault = self._tail(
                            line, "a } stands where the list goes on; the file is damaged here"
                        )
                        return
                position = token.end()
            if done:
                rest = window[position:]
                if rest.strip(WHITE) or self._has_more(file):
                    self.tail_fault = self._tail(
                        line, "text stands after the end of the list; remove it"
                    )
                return
            position = stop
            if not chunk:
                if begin is not None and window[begin - base :].strip(WHITE):
                    line = self._add_element(window, base, begin, base + len(window), line)
                self.tail_fault = self._tail(
                    line, "the list is not closed; the file is cut off or damaged"
                )
                return
            keep = min(position, begin - base) if begin is not None else position
            window, base, position = window[keep:], base + keep, position - keep

    def _add_element(self, window: bytes, base: int, begin: int, end: int, line: int) -> int:
        """Adds the element between two offsets and tells the number of the line it ends on."""
        raw = window[begin - base : end - base]
        stripped = raw.lstrip(WHITE)
        lead = len(raw) - len(stripped)
        if not stripped and not self.begins and window[end - base : end - base + 1] == b"]":
            return line  # an empty list
        self._add(begin + lead, len(stripped.rstrip(WHITE)), line + raw.count(b"\n", 0, lead))
        return line + raw.count(b"\n")

    def _tail(self, line: int, message: str) -> DataError:
        return DataError(message, where=f"{self.name}:{line}")

    @staticmethod
    def _has_more(file: BinaryIO) -> bool:
        while chunk := file.read(CHUNK_BYTES):
            if chunk.strip(WHITE):
                return True
        return False


def _blank_lines(data: bytes) -> bytes:
    """The whole lines at the beginning of some bytes that hold nothing but white space."""
    num_white = len(data) - len(data.lstrip(WHITE))
    return data[: data.rfind(b"\n", 0, num_white) + 1]
