"""Changes that a file or a record may suffer, drawn by chance."""

from __future__ import annotations

import copy
import random
from typing import Any

Record = dict[str, Any]
_ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "0",
    "\0",
    "<image>",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    ["x"],
]
_ODD += [
    "<|utt_ids_start|>[0]<|utt_ids_end|>",
    {"url": {"url": 1}},
    {"content": [1]},
    "a" * 10_000,
    "/",
    "..",
    "http://x/y",
]


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [at, *(path for key, item in items for path in _paths(item, (*at, key)))]


def mutated(record: Record, chance: random.Random) -> Record:
    """A copy with a few parts deleted, replaced, doubled or swapped."""
    record = copy.deepcopy(record)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(_paths(record)[1:] or [("x",)])
        target: Any = record
        for key in path[:-1]:
            target = target[key]
        last = path[-1]
        action = chance.randrange(5)
        if action == 0:
            target.pop(last, None) if isinstance(target, dict) else target.pop(last)
        elif action == 1 and isinstance(target, dict) and last in target:
            target[str(last) + chance.choice("sx_ ")] = target.pop(last)
        elif action == 2 and isinstance(target, list):
            target.insert(last, copy.deepcopy(chance.choice(target)))
        elif action == 3 and isinstance(
            target.get(last) if isinstance(target, dict) else target[last], str
        ):
            text = target[last]
            start = chance.randrange(len(text) + 1)
            piece = chance.choice(
                ["", "<|", "|>", "\n", "9", "<image>", ": ", "\u2028", "\x85", "\ud800", "]", ","]
            )
            target[last] = text[:start] + piece + text[start + chance.choice((0, 1, 5, 50)) :]
        else:
            target[last] = copy.deepcopy(chance.choice(_ODD))
    return record


def corrupted(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a few of them changed, cut out, put in, or all behind a place gone."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(damaged)) if damaged else 0
        action = chance.randrange(4)
        if action == 0 and damaged:
            damaged[at] = chance.randrange(256)
        elif action == 1:
            del damaged[at : at + chance.choice((1, 10, 1000))]
        elif action == 2:
            damaged[at:at] = chance.choice(
                [
                    b'"',
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b",",
                    b"\\",
                    b"\n",
                    b"\xff\xfe",
                    b"\0",
                    b"NaN",
                    b"\\ud800",
                ]
            )
        else:
            damaged = damaged[: at + 1]
    return bytes(damaged)


_GROWTHS = (b"[", b"{", b"(", b"9", b"-", b" ", b"\n", b"<|", b"\x00", b"\xff")


def grown(data: bytes, chance: random.Random) -> bytes:
    """Bytes with one thing many times in them: nesting, long numbers, a piece of their own."""
    at = chance.randrange(len(data) + 1)
    piece = chance.choice((*_GROWTHS, data[at : at + chance.choice((2, 9, 40))]))
    return data[:at] + piece * chance.choice((50, 400, 3_000)) + data[at:]


def spliced(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """The beginning of one and the end of another."""
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]
