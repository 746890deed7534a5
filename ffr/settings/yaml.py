"""YAML as people write settings and suites: plain values with the lines they stand on, bounded.

Scalars are read as YAML 1.2's core schema reads them (null, true and false, decimal numbers, else
text): no dates, no base 60, no octal, no `yes`. Aliases, anchors, tags and keys given twice are not
taken. pyyaml finds the parts; every fault is one sentence with file and line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ffr.errors import UsageError
from ffr.text import one_line

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_VALUES = 100_000
MAX_DIGITS = 40

Place = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Document:
    """What a YAML text holds.

    Args:
        where: The file, as errors name it.
        text: The YAML.
        value: None, bool, int, float, str, list, or dict with texts as keys.
        lines: Path to a value → the lines of its key and of itself, from 1.
    """

    where: str
    text: str
    value: Any
    lines: dict[Place, tuple[int, int]]

    def line(self, *path: str | int, of_key: bool = False) -> int:
        """The line of the value at a path; steps that the file does not have are passed over."""
        found: Place = ()
        for step in path:
            if (*found, step) in self.lines:
                found = (*found, step)
        return self.lines.get(found, (1, 1))[0 if of_key else 1]

    def fail(self, message: str, *path: str | int, of_key: bool = False) -> NoReturn:
        """Ends with a sentence about the value at a path.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.where}:{self.line(*path, of_key=of_key)}: {message}")


def read_yaml_file(path: str | Path) -> Document:
    """Reads a file.

    Raises:
        UsageError: where it cannot be read, is too large, or `read_yaml` refuses it.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; name another file")
    return read_yaml(text, str(path))


def read_yaml(text: str, where: str) -> Document:
    """Reads a text of one document.

    Args:
        text: The YAML.
        where: What stands before the line in errors.

    Raises:
        UsageError: where it is not YAML, or holds what is not taken.

    >>> read_yaml("a: [1, 1e3, yes, 010, 1:30, ~]", "x.yaml").value
    {'a': [1, 1000.0, 'yes', 10, '1:30', None]}
    """
    lines: dict[Place, tuple[int, int]] = {}
    try:
        value = _Builder(text, where, lines).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark is not None else where
        reason = one_line(error.problem or error.context or "damaged")
        raise UsageError(f"{place}: not YAML ({reason})") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{where}:{line}: not YAML ({one_line(error.reason)})") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: not YAML ({one_line(str(error))})") from None
    return Document(where, text, value, lines)


class _Builder:
    """Builds plain values from pyyaml's events, which come one by one: no bound is met too late.

    Args:
        text: The YAML.
        where: What stands before the line in errors.
        lines: Gets the lines of the values.
    """

    def __init__(self, text: str, where: str, lines: dict[Place, tuple[int, int]]) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self._where = where
        self._lines = lines
        self._num_values = 0

    def document(self) -> Any:
        """The value of the only document; None where there is none."""
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)  # the document ends
        behind = next(self._events)
        if not isinstance(behind, yaml.StreamEndEvent):
            self._fail(behind, "a second document begins here; keep one")
        return value

    def _fail(self, event: Any, message: str) -> NoReturn:
        raise UsageError(f"{self._where}:{event.start_mark.line + 1}: {message}")

    def _value(self, event: Any, path: Place, key_line: int | None = None) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self._fail(
                event, f"an alias (*{one_line(str(event.anchor))}) is not taken; write it out"
            )
        if event.anchor is not None:
            self._fail(event, f"an anchor (&{one_line(event.anchor)}) is not taken; take it out")
        if event.tag is not None:
            self._fail(event, f"a tag ({one_line(event.tag)}) is not taken; take it out")
        if len(path) > MAX_DEPTH:
            self._fail(event, f"is nested more than {MAX_DEPTH} deep; write it flatter")
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            self._fail(event, f"here begins value {MAX_VALUES + 1:,}; split the file")
        line = event.start_mark.line + 1
        self._lines[path] = key_line or line, line
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(path)
        return self._entries(path)

    def _items(self, path: Place) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, len(found))))
        return found

    def _entries(self, path: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            self._value_of_key(event)
            key = event.value
            if key in found:
                self._fail(event, f"`{one_line(key)}` is given twice; give it once")
            key_line = event.start_mark.line + 1
            found[key] = self._value(next(self._events), (*path, key), key_line)
        return found

    def _value_of_key(self, event: Any) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._fail(event, "a key is no text; write `key: value`")
        if event.anchor is not None or event.tag is not None:
            self._fail(event, "a key has an anchor or a tag; take it out")

    def _scalar(self, event: Any) -> Any:
        """A value by YAML 1.2's core schema; quoted ones are texts."""
        text: str = event.value
        if not event.implicit[0]:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text[0] in "tT"
        if _INT.fullmatch(text):
            if len(text) > MAX_DIGITS:
                self._fail(event, f"a number of more than {MAX_DIGITS} digits; write a smaller one")
            return int(text)
        if _NOT_FINITE.fullmatch(text):
            self._fail(event, f"{text} is not a finite number")
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
        if not math.isfinite(number):
            self._fail(event, f"{one_line(text)} is not a finite number")
        return number


class _Dumper(yaml.SafeDumper):
    """Quotes what this module would not read back as a text."""


_Dumper.yaml_implicit_resolvers = dict(yaml.SafeDumper.yaml_implicit_resolvers)
_NUMBER = re.compile(rf"^(?:{_INT.pattern}|{_FLOAT.pattern})$")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # only double quotes have escapes; in others some line breaks of Unicode come back as others
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _dump_text)


def write_yaml(values: dict[str, Any]) -> str:
    r"""`key: value` lines that `read_yaml` reads back.

    >>> write_yaml({"seed": 1, "rate": 1e-5, "model": "1e5"})
    "seed: 1\nrate: 1.0e-05\nmodel: '1e5'\n"
    """
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
