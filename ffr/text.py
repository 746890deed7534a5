"""Words from outside, fit to be shown: printable, on one line, cut.

And which of them are addresses.
"""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# what turns the direction of a line round, or hides in it, beyond the control and format characters
_UNSEEN = {*range(0x200B, 0x2010), 0x2028, 0x2029}
# what a build server's log takes for a command at the beginning of a line
_BUILD_COMMAND = re.compile(r"^([ \t]*)::", re.MULTILINE)
# a `Path` of an address has lost one of its slashes; one letter is a drive
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:|file:", re.IGNORECASE)


def visible(text: str) -> str:
    r"""A text that cannot steer a terminal or a build log.

    Control characters stand there as signs, direction marks and the like by their numbers, and a
    `::` at the beginning of a line in brackets. Line breaks and tabs stay.

    >>> visible("a\x1b[31mb\u202ec\n")
    'a␛[31mb⟨U+202E⟩c\n'
    """
    if _BUILD_COMMAND.search(text):
        text = _BUILD_COMMAND.sub(r"\1⟨::⟩", text)
    # almost all texts have nothing of the kind
    return text if text.isprintable() else "".join(map(_visible_char, text))


def _visible_char(char: str) -> str:
    code = ord(char)
    if char in "\n\t" or (32 <= code < 127):
        return char
    if code < 32:
        return chr(0x2400 + code)
    if code in _UNSEEN or unicodedata.category(char) in ("Cc", "Cf", "Cs"):
        return f"⟨U+{code:04X}⟩"
    return char


def one_line(said: object, limit: int = 200) -> str:
    r"""What an error or a text says, printable, on one line and cut.

    An error's kind where it says nothing.

    Args:
        said: The error or text.
        limit: Characters that are kept at most.

    >>> one_line(ValueError("two\nlines.")), one_line(KeyError()), one_line("long, too long", 6)
    ('two lines', 'KeyError', 'long,…')
    """
    # what a library or a server says may have megabytes
    text = visible(" ".join(str(said)[: 100 * limit].split()))
    if isinstance(said, BaseException):
        text = text.rstrip(".:") or type(said).__name__
    return cut(text, limit)


def described(value: object, limit: int = 80) -> str:
    """A value as Python writes it, for an error that says what was given: on one line and cut.

    Of a long list, or of a picture of a million numbers, only the beginning is ever written.

    >>> described([1.5, "a"]), described("long " * 99, 30)
    ("[1.5, 'a']", "'long long lo...ng long long '")
    """
    shortened = reprlib.Repr()
    # whole words of a text are worth more to a reader than its end
    shortened.maxstring, shortened.maxother = limit, 4 * limit
    text = visible(" ".join(shortened.repr(value).split()))
    return cut_middle(text, limit)


def gap(before: str, after: str) -> str:
    """What goes between two pieces of a line: a blank where neither brings one.

    >>> gap("look", "[image 0]"), gap("look ", "[image 0]"), gap("", "[image 0]")
    (' ', '', '')
    """
    has_one = not before or not after or before[-1].isspace() or after[0].isspace()
    return "" if has_one else " "


def spaced(pieces: Iterable[str]) -> str:
    """The pieces of a line, a blank between any two that do not bring one.

    >>> spaced(["look", "[image 0]", "nice"])
    'look [image 0] nice'
    """
    line = ""
    for piece in pieces:
        line += gap(line, piece) + piece
    return line


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things in words, which agree with it.

    Args:
        number: How many there are.
        one: What one is called, with what is said of it if need be.
        many: What several are called; None = `one` with the ending of a regular plural.

    >>> counted(1, "query"), counted(0, "query"), counted(2500, "box")
    ('1 query', '0 queries', '2,500 boxes')
    >>> counted(1, "picture lies", "pictures lie"), counted(2, "picture lies", "pictures lie")
    ('1 picture lies', '2 pictures lie')
    """
    if number == 1:
        return f"1 {one}"
    if many is None:
        if re.search("[^aeiou]y$", one):
            many = f"{one[:-1]}ies"
        else:
            many = one + ("es" if one.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{number:,} {many}"


def cut(text: str, limit: int) -> str:
    """The beginning of a text longer than so many characters, with a sign that it goes on."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_middle(text: str, limit: int) -> str:
    """Both ends of a text longer than so many characters, with a sign for what stands between.

    >>> cut_middle("/a/long/way/to/picture.jpg", 16)
    '/a/long…ture.jpg'
    """
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def json_text(value: Any, *, indent: int | None = 2) -> str:
    r"""A value as JSON that cannot steer a terminal.

    What is not to be seen stands there by its number, as JSON has it.

    >>> json_text(["é\u202e\x9b"], indent=None)
    '["é\\u202e\\u009b"]'
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(char if _visible_char(char) == char else json.dumps(char)[1:-1] for char in text)


def address_hint(path: str | Path) -> str:
    """What to say of a file that is not there, where its name is an address; else nothing.

    >>> address_hint(Path("https://example.org/a.jsonl")), address_hint("a.jsonl")
    (' (it is an address: fetch it, and name the file)', '')
    """
    return " (it is an address: fetch it, and name the file)" if is_url(path) else ""


def is_url(location: str | Path) -> bool:
    """Whether a location is an address rather than a path.

    Addresses are those of the web, `file:`, and a picture in itself, `data:`.

    >>> locations = ("https://example.org/a.png", "data:image/png;base64,aa", "a/b.png", "C:/a.png")
    >>> [is_url(text) for text in locations]
    [True, True, False, False]
    """
    return _ADDRESS.match(str(location)) is not None
