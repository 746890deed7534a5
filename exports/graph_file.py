"""What a graph's file says of itself, read without a library: operator sets and weight files.

A graph may come from anybody, and may name any path for its weights; so it is looked through before
ONNX Runtime opens it. The wire format is protocol buffers; field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ffr.errors import ModelError
from ffr.text import one_line

_BYTES = 2
_WIDTHS = {1: 8, 5: 4}
_MAX_DEPTH = 24

# messages that may hold tensors or operator sets, by kind: field number → kind of what lies there
_INSIDE = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute", 9: "opset"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "entry"},
    "opset": {},
    "entry": {},
}


@dataclass(slots=True)
class GraphFile:
    """What a graph's file says of itself.

    Args:
        opsets: Version of each domain; the standard one is the empty name.
        weight_files: What the file names as places of weights, as it names them.
    """

    opsets: dict[str, int] = field(default_factory=dict)
    weight_files: set[str] = field(default_factory=set)


def read_graph_file(path: Path) -> GraphFile:
    """Looks through a graph's file.

    Raises:
        ModelError: where it is no ONNX graph, or one that is cut off.
    """
    found = GraphFile()
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            _look(content, 0, len(content), "model", found, 0)
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise ModelError(
            f"is no whole ONNX graph ({one_line(error)}); export it again", str(path)
        ) from None
    if not found.opsets:
        raise ModelError(
            "is no whole ONNX graph (it names no operator set); export it again", str(path)
        )
    return found


def check_weight_files(graph: GraphFile, path: Path) -> None:
    """Refuses a graph whose weights lie anywhere but in a plain file beside it.

    Raises:
        ModelError: naming the path.
    """
    folder = path.parent.resolve()
    for name in sorted(graph.weight_files):
        is_plain = name and name not in (".", "..") and not set(name) & set("/\\:\0")
        if not is_plain or (folder / name).resolve().parent != folder:
            raise ModelError(
                f"wants weights from {name!r}, outside its folder; do not use this graph", str(path)
            )
        if not (folder / name).is_file():
            raise ModelError(f"its weights {name!r} are missing; fetch the folder again", str(path))


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise ValueError("it is cut off or damaged")
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, plain value, start and end of each field."""
    while at < end:
        tag, at = _number(content, at, end)
        kind = tag & 7
        if kind == 0:
            value, at = _number(content, at, end)
            yield tag >> 3, value, at, at
            continue
        if kind == _BYTES:
            length, at = _number(content, at, end)
        elif kind in _WIDTHS:
            length = _WIDTHS[kind]
        else:
            raise ValueError("it is damaged")
        if at + length > end:
            raise ValueError("it is cut off")
        yield tag >> 3, 0, at, at + length
        at += length


def _look(content: mmap.mmap, at: int, end: int, kind: str, found: GraphFile, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    name, value, key = "", 0, ""
    for number, plain, start, stop in _fields(content, at, end):
        inside = _INSIDE[kind].get(number)
        if inside is not None:
            _look(content, start, stop, inside, found, depth + 1)
        elif kind == "opset" and number == 1:
            name = content[start:stop].decode()
        elif kind == "opset" and number == 2:
            value = plain
        elif kind == "entry" and number == 1:
            key = content[start:stop].decode()
        elif kind == "entry" and number == 2 and key == "location":
            found.weight_files.add(content[start:stop].decode())
    if kind == "opset":
        found.opsets[name] = value
