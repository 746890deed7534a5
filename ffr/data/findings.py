"""What is wrong with a record: the findings that readers collect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ffr.data.index import kind_of
from ffr.data.keys import meant_key, other_name
from ffr.text import cut, visible

_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a record should not have: an error makes it unusable, a warning does not.

    Args:
        kind: A short word to count by, such as `unknown-key`.
        message: What was found and what to do.
        is_error: False for a warning.
        query: The number of the record's query whose fault it is; None where it is the whole
            record's.
    """

    kind: str
    message: str
    is_error: bool = True
    query: int | None = None


class FaultyError(Exception):
    """Raised inside the readers once a part cannot be read any further.

    What was wrong is among the findings.
    """


class Findings(list[Finding]):
    """What readers collect while they read a record."""

    def error(self, kind: str, message: str) -> None:
        self.append(Finding(kind, message))

    def warning(self, kind: str, message: str) -> None:
        self.append(Finding(kind, message, is_error=False))

    def require_key(
        self, record: Mapping[str, Any], key: str, kind: type, remedy: str, owner: str = ""
    ) -> Any:
        """The value of a key that a record, or the part of it that `owner` names, must have."""
        if key not in record:
            self.missing(record, key, remedy, owner)
        name = f"the {key} of {owner}" if owner else f'"{key}"'
        return self.require(record[key], kind, name, remedy)

    def missing(
        self, record: Mapping[str, Any], key: str, remedy: str, owner: str = ""
    ) -> NoReturn:
        """Adds that a key is missing, with the one that may stand for it, and ends the reading."""
        other = other_name(key, record)
        hint = f'did you mean {shown(other)}? rename it to "{key}"' if other else remedy
        self.error("missing-key", f'{owner or "the record"} has no "{key}"; {hint}')
        raise FaultyError

    def unknown(self, key: str, known: Sequence[str], owner: str = "") -> None:
        """Warns of a key that means nothing here, with the one it may stand for."""
        meant = meant_key(key, known)
        hint = f'did you mean "{meant}"?' if meant else "it is kept but not used"
        self.warning("unknown-key", f"{owner}unknown key {shown(key)}; {hint}")

    def require(self, value: Any, kind: type, name: str, remedy: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            self.error("wrong-type", f"{name} is {kind_of(value)}; {remedy}")
            raise FaultyError
        return value


def all_texts(values: list[Any]) -> bool:
    """Whether every value is a text."""
    return all(isinstance(value, str) for value in values)


def shown(value: Any) -> str:
    """A value as JSON for an error, cut to 80 characters."""
    return cut(visible(json.dumps(value, ensure_ascii=False, default=str)), _MAX_SHOWN)
