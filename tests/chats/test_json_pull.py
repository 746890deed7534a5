"""JSON read piece by piece gives what the standard library gives whole."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.chats.account import Account
from ffr.chats.json_pull import JsonPull, outline
from ffr.errors import DataError


class _Drops(io.RawIOBase):
    """Gives a few bytes at a time, so that every value meets the end of the window."""

    def __init__(self, data: bytes, size: int) -> None:
        self._inner = io.BytesIO(data)
        self._size = size

    def read(self, _: int = -1) -> bytes:
        return self._inner.read(self._size)


def _taken(pull: JsonPull) -> Any:
    """The value that comes, by going into every object and list."""
    if pull.kind() == "{":
        return {key: _taken(pull) for key in pull.members()}
    if pull.kind() == "[":
        return [_taken(pull) for _ in pull.elements()]
    return pull.value()


def _all(pull: JsonPull) -> None:
    for _ in pull.members() if pull.kind() != "[" else pull.elements():
        pull.value()


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_VALUES, st.integers(1, 7), st.sampled_from([None, 2]))
def test_every_value_is_what_json_loads(value: Any, size: int, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")
    if b"\xed\xa0" in data or b"\xed\xb0" in data:
        data = json.dumps(value, indent=indent).encode()
    pull = JsonPull(_Drops(b"\xef\xbb\xbf" + data, size), "f", Account())  # type: ignore[arg-type]
    assert _taken(pull) == value
    assert pull.is_at_end()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [1, 2', "f: ends in the middle, at line 1"),
        ('{"a":\n "x', "f: ends in the middle, at line 2"),
        ("", "f: ends in the middle, at line 1"),
        ("{1: 2}", "f: is no JSON at line 1"),
        ('{"a" 1}', "stands where `:` should"),
        ("[" * 100_000, "nests deeper than any chat"),
    ],
)
def test_a_broken_text_is_named(text: str, words: str) -> None:
    pull = JsonPull(io.BytesIO(text.encode()), "f", Account())
    with pytest.raises(DataError) as raised:
        _all(pull)
    assert words in str(raised.value)


def test_numbers_that_are_none_are_null_and_bytes_that_are_no_text_are_counted() -> None:
    account = Account()
    pull = JsonPull(io.BytesIO(b'{"a": NaN, "b": "\xff"}'), "f", account)
    assert {key: pull.value() for key in pull.members()} == {"a": None, "b": "\ufffd"}
    assert account.num_undecodable == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("size", [2, 3, 1000])
def test_text_with_a_mark_of_its_encoding(encoding: str, size: int) -> None:
    value = {"a": "é 你 😀", "b": [1]}
    data = json.dumps(value, ensure_ascii=False).encode(encoding)
    data = b"\xfe\xff" + data if encoding == "utf-16-be" else data
    account = Account()
    assert _taken(JsonPull(_Drops(data, size), "f", account)) == value  # type: ignore[arg-type]
    assert (account.num_undecodable, outline(data)) == (0, value)


def test_broken_bytes_cost_themselves_alone() -> None:
    account = Account()
    data = b'{"a": "\xc3\xa9\xff\xe4\xbd\xa0", "b": "\xc3\xa9"}'
    for size in (1, 4, 100):
        pull = JsonPull(_Drops(data, size), "f", account)  # type: ignore[arg-type]
        assert _taken(pull) == {"a": "é\ufffd你", "b": "é"}
    assert account.num_undecodable == 3


def test_what_is_wrong_early_is_told_before_the_rest_is_read() -> None:
    data = io.BytesIO(b'[{"a": 1}, {"a": x}, ' + b'{"a": 1}, ' * 1_000_000 + b"{}]")
    with pytest.raises(DataError, match="is no JSON at line 1: x}, "):
        _all(JsonPull(data, "f", Account()))
    assert data.tell() < 1 << 20


def test_numbers_that_are_too_long_are_null_and_the_rest_is_read() -> None:
    data = b'{"a": ' + b"9" * 5000 + b', "b": 7, "c": "raw\nbreak"}'
    assert _taken(JsonPull(io.BytesIO(data), "f", Account())) == {
        "a": None, "b": 7, "c": "raw\nbreak",
    }  # fmt: skip


def test_the_outline_shows_what_the_beginning_holds() -> None:
    assert outline(b'[{"a": {"b": [1, 2]}}, {"a": 3}]') == {"a": {"b": [1]}}
    assert outline(b'{"k": "v"}\n{"k": "w"}') == {"k": "v"}
    assert outline(b"[1, 2]") is None
    assert outline(b"[12/31/23] hello") is None
    assert outline(b'{"head": 1, "long": "' + b"x" * 100) == {"head": 1}
