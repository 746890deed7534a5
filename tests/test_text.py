"""Words from outside: printable, on one line, cut; and what an address is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import DataError
from ffr.evaluation.controls import WrongPictures
from ffr.images import find_image
from ffr.text import counted, described, is_url, json_text, one_line, visible

STEERING = {
    "\x1b[31m": "␛[31m",
    "\x1b]0;title\x07": "␛]0;title␇",
    "a\rb": "a␍b",
    "\x9b2J": "⟨U+009B⟩2J",
    "\x7f": "⟨U+007F⟩",
    "\u202eabc\u2066": "⟨U+202E⟩abc⟨U+2066⟩",
    "\u061c\ufeff\u200b\xad": "⟨U+061C⟩⟨U+FEFF⟩⟨U+200B⟩⟨U+00AD⟩",
    "a\u2028b\u2029c": "a⟨U+2028⟩b⟨U+2029⟩c",
    "\ud800": "⟨U+D800⟩",
    "\U000e0041": "⟨U+E0041⟩",
    "你好 é 👩 \u3000": "你好 é 👩 \u3000",
    "a\tb\n": "a\tb\n",
    "a::b\n  ::error file=x::y\n::set-output::": "a::b\n  ⟨::⟩error file=x::y\n⟨::⟩set-output::",
}


@pytest.mark.parametrize(("text", "shown"), STEERING.items())
def test_what_steers_a_terminal_is_shown_as_signs(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@given(st.text(st.characters()))
def test_json_says_the_same_and_steers_nothing(text: str) -> None:
    written = json_text({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert visible(written) == written


def test_json_has_no_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text([float("nan")])


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (ValueError("two\n\n  lines."), "two lines"),
        (KeyError(), "KeyError"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        ("a text.\x1b[2J\r\n::error::b", "a text.␛[2J ::error::b"),
        ("x" * 300, "x" * 199 + "…"),
        ("x " * 10**6, "x " * 99 + "x…"),
        (None, "None"),
    ],
)
def test_one_line(said: object, line: str) -> None:
    assert one_line(said) == line


ADDRESSES = [
    "http://x.org/a.png", "HTTPS://x.org/a.png", "ftp://x.org/a.png", "s3://bucket/a.png", "data:image/png;base64,iVBO", "DATA:,a",
    "file:///tmp/a.png", "file:a.png",
]  # fmt: skip
PATHS = [
    "a.png",
    "/tmp/a.png",
    "../a.png",
    "C:/a.png",
    "c:\\a.png",
    "a b/ü:c.png",
    "12:30/a.png",
    "http",
    "",
    "a:b",
]


@pytest.mark.parametrize("location", ADDRESSES)
def test_an_address_is_one_wherever_it_is_met(location: str) -> None:
    assert is_url(location)
    chat = Dialogue("d", (Utterance("a", (Image(location),)),))
    example = Example(chat, "q", image_root=Path("/data"))
    assert list(example.image_locations()) == [location]
    other = Example(
        Dialogue("e", (Utterance("a", (Image("b.png"),)),)), "q", image_root=Path("/data")
    )
    assert [
        image.source for image in WrongPictures([example, other], seed=0)[1].dialogue.images
    ] == [location]
    # as encoders are given it
    for form in (location, Path(location)):
        with pytest.raises(
            DataError, match=r"is (a web address|a file: address|a picture written into the data)"
        ):
            find_image(form)


@pytest.mark.parametrize("location", PATHS)
def test_a_path_is_no_address(location: str) -> None:
    assert not is_url(location)
    assert not is_url(Path(location))


class _Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "beginning"),
    [
        (torch.zeros(3, 4), "tensor([[0., 0., 0., 0.], [0., 0., 0., 0.], "),
        (np.zeros((40, 50)), "array([[0., 0., 0., ..., 0., 0., 0.], "),
        ("a\x1b[31mb\n" * 999, r"'a\x1b[31mb\na\x1b[31mb\na"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, ...]"),
        (_Broken(), "<_Broken instance at 0x"),
    ],
)
def test_whatever_was_given_is_described_on_one_line(value: object, beginning: str) -> None:
    said = described(value)
    assert said.startswith(beginning)
    assert len(said) <= 80
    assert said.isprintable()


@pytest.mark.parametrize(
    ("number", "one", "many", "words"),
    [
        (1, "dialogue", None, "1 dialogue"),
        (0, "picture", None, "0 pictures"),
        (2, "query", None, "2 queries"),
        (3, "essay", None, "3 essays"),
        (4, "pass", None, "4 passes"),
        (1_234_567, "batch", None, "1,234,567 batches"),
        (1, "query has", "queries have", "1 query has"),
        (2, "query has", "queries have", "2 queries have"),
    ],
)
def test_a_number_agrees_with_its_words(
    number: int, one: str, many: str | None, words: str
) -> None:
    assert counted(number, one, many) == words
