"""What a graph's file says of itself, from bytes written by hand in the form of protocol buffers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffr.errors import ModelError
from ffr.exports.graph_file import GraphFile, check_weight_files, read_graph_file


def field(number: int, content: bytes | int) -> bytes:
    """A field of a message: a plain number, or bytes with their length (below 128)."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    assert len(content) < 128
    # numbers from 16 on take a second byte
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return head + bytes([len(content)]) + content


def opset(version: int, domain: bytes = b"") -> bytes:
    return field(8, (field(1, domain) if domain else b"") + field(2, version))


def weights_in(*names: bytes) -> bytes:
    """A graph (field 7) with a tensor (5) for each name, whose entry (13) says `location`."""
    tensors = (field(13, field(1, b"location") + field(2, name)) for name in names)
    return field(7, b"".join(field(5, tensor) for tensor in tensors))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_operator_sets_and_weight_files(tmp_path: Path) -> None:
    content = opset(20) + opset(1, b"com.microsoft") + weights_in(b"a.data", b"b.data", b"a.data")
    assert read_graph_file(write(tmp_path / "m.onnx", content)) == GraphFile(
        {"": 20, "com.microsoft": 1}, {"a.data", "b.data"}
    )


def test_weights_in_a_branch_are_found_too(tmp_path: Path) -> None:
    # graph (7) > node (1) > attribute (5) > graph (6) > tensor (5) > entry (13)
    entry = field(13, field(1, b"location") + field(2, b"deep"))
    inner = field(1, field(5, field(6, field(5, entry))))
    found = read_graph_file(write(tmp_path / "m.onnx", opset(18) + field(7, inner)))
    assert found.weight_files == {"deep"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no whole ONNX graph"),
        (weights_in(b"a"), "it names no operator set"),
        (opset(20)[:-1], "it is cut off"),
        (opset(20) + b"\xff" * 12, "it is cut off or damaged"),
        (opset(20) + b"\x0f", "it is damaged"),  # a kind of field that there is none of
        (field(8, field(1, b"\xff") + field(2, 1)), "can't decode byte 0xff"),
    ],
)
def test_what_is_no_whole_graph_is_a_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: is no whole ONNX graph \(.*\); export it") as e:
        read_graph_file(write(tmp_path / "m.onnx", content))
    assert reason in str(e.value)


def test_nesting_is_bounded(tmp_path: Path) -> None:
    inner = b""
    for _ in range(9):  # graph > node > attribute, nine times over
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ModelError, match="it is nested too deeply"):
        read_graph_file(write(tmp_path / "m.onnx", opset(18) + field(7, inner)))


@pytest.mark.parametrize("name", ["../w", "/etc/passwd", "a/b", "a\\b", "C:w", "..", ""])
def test_weights_lie_in_a_plain_file_beside_the_graph(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="outside its folder; do not use this graph"):
        check_weight_files(GraphFile({"": 1}, {name}), tmp_path / "m.onnx")


def test_weights_that_are_missing_or_a_link_away(tmp_path: Path) -> None:
    graph, path = GraphFile({"": 1}, {"w"}), tmp_path / "in" / "m.onnx"
    path.parent.mkdir()
    with pytest.raises(ModelError, match="its weights 'w' are missing; fetch the folder again"):
        check_weight_files(graph, path)
    (tmp_path / "w").touch()
    (path.parent / "w").symlink_to(tmp_path / "w")
    with pytest.raises(ModelError, match="outside its folder"):
        check_weight_files(graph, path)
    (path.parent / "w").unlink()
    (path.parent / "w").touch()
    check_weight_files(graph, path)
