"""The one reader of YAML: values as YAML 1.2 has them, their lines, and what is written."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.errors import UsageError
from ffr.settings.yaml import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("nULL", "nULL"), ("''", ""),
        ("true", True), ("False", False), ("TRUE", True), ("yes", "yes"), ("on", "on"), ("n", "n"),
        ("1", 1), ("-7", -7), ("+7", 7), ("010", 10), ("0o17", "0o17"), ("0x1F", "0x1F"),
        ("1_000", "1_000"), ("9" * 40, int("9" * 40)), ("1:30", "1:30"), ("'1'", "1"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-3", -0.0025),
        ("1e-400", 0.0), ("1.2.3", "1.2.3"), ("e3", "e3"), ("2020-01-01", "2020-01-01"),
        ("2020-01-01 10:00:00", "2020-01-01 10:00:00"), ("=", "="), ("<<", "<<"),
        ("|\n  a\n  b\n", "a\nb\n"), ("\"a\\nb\"", "a\nb"), ("[a, [1]]", ["a", [1]]),
        ("{1: 2, true: x}", {"1": 2, "true": "x"}), ("{<<: 1}", {"<<": 1}),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read_yaml(text, "x").value
    assert (found, type(found)) == (value, type(value))


TEXT = """\
# a comment
seed: 1
models:
  - label: a
    settings:
      window: 3
  - {label: b,
     model: tiny}
"""


def test_lines_of_keys_and_values() -> None:
    document = read_yaml(TEXT, "x.yaml")
    assert document.line("seed") == 2
    assert (document.line("models", of_key=True), document.line("models")) == (3, 4)
    assert document.line("models", 0, "settings", of_key=True) == 5
    assert document.line("models", 0, "settings", "window") == 6
    assert document.line("models", 1, "model") == 8
    # steps that the file does not have are passed over: what a part lacks is said of the part
    assert document.line("models", 1, "missing") == 7
    assert document.line("models", 0, "inner", "settings", "window") == 6
    with pytest.raises(UsageError, match=r"^x\.yaml:8: no$"):
        document.fail("no", "models", 1, "model")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(alphabet="0123456789eE+-._:~xo", max_size=8),
    st.sampled_from(
        [
            "\x85",
            "a\u2028b",
            "a\n\nb",
            " a ",
            "yes",
            "no",
            "null",
            "1e5",
            "0o7",
            "2020-01-01",
            "1:30",
            "=",
            "<<",
            "-",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(alphabet="abc_", min_size=1, max_size=5), SCALARS))
def test_what_is_written_reads_back(values: dict[str, Any]) -> None:
    found = read_yaml(write_yaml(values), "x").value
    assert found == values if values else found == {}
    for name, value in values.items():
        assert type(found[name]) is type(value)
        if isinstance(value, float):
            assert math.copysign(1, found[name]) == math.copysign(1, value)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab:-[]{}*&!?|>%@'\"#,\n 1.~\\\tuUx0\x00\ud800<", max_size=60))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    with contextlib.suppress(UsageError):
        read_yaml(text, "x")
