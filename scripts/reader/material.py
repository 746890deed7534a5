"""What the shipped reader is trained on: pieces of dialogues under open licences, with queries.

A piece is one coherent stretch. `dialogues.jsonl.gz` and `fragments.jsonl.gz` of the folder hold
them (MultiWOZ, CrossWOZ, KdConv, QMSum, IRC threads); `everyday.txt` beside this file holds some
that were written for this purpose, in English and Chinese.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

OTHER_LANGUAGE = {
    "multiwoz": "multiwoz_zh",
    "multiwoz_zh": "multiwoz",
    "crosswoz": "crosswoz_en",
    "crosswoz_en": "crosswoz",
}
"""Sources whose dialogues are translations of each other, under like ids."""

# one name for what several sources call otherwise: two pieces of one subject never stand in one
# dialogue, where either would answer a query for it
_SUBJECTS = {
    "旅馆": "hotel",
    "酒店": "hotel",
    "餐厅": "restaurant",
    "餐馆": "restaurant",
    "景点": "attraction",
    "列车": "train",
    "火车": "train",
    "出租": "taxi",
    "出租车": "taxi",
    "地铁": "metro",
    "警察机关": "police",
}
# turns that only confirm a booking belong to no domain of their own
_LEFT_OUT = {"预定", "预订"}

HELD_OUT_TENTHS = 1
"""Of ten pieces, those that are kept from training to choose by."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One coherent stretch of a dialogue.

    Args:
        source: Where it comes from.
        language: en or zh.
        lines: Speaker and text of each line.
        queries: By kind: goal, topic, slot, keyword, quote, cross (in the other language), and of
            `everyday.txt` human.
        subject: What it is about, where that is one of few; pieces of one are not put together.
    """

    source: str
    language: str
    lines: tuple[tuple[int, str], ...]
    queries: dict[str, list[str]] = field(hash=False)
    subject: str = ""

    @property
    def is_held_out(self) -> bool:
        digest = hashlib.sha256(self.lines[0][1].encode()).digest()
        return digest[0] % 10 < HELD_OUT_TENTHS


def read_pieces(folder: Path) -> list[Piece]:
    """All pieces: the fragments, those cut out of whole parallel dialogues, and our own."""
    pieces = [
        _piece(record["source"], record["language"], record["lines"], record["queries"])
        for record in _records(folder / "fragments.jsonl.gz")
    ]
    pieces += _parallel_pieces(list(_records(folder / "dialogues.jsonl.gz")))
    pieces += read_everyday(HERE / "everyday.txt")
    return [
        piece
        for piece in pieces
        if 3 <= len(piece.lines) <= 16 and piece.queries and piece.subject not in _LEFT_OUT
    ]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _piece(
    source: str, language: str, lines: list[dict[str, Any]], queries: list[dict[str, str]]
) -> Piece:
    by_kind: dict[str, list[str]] = {}
    for query in queries:
        by_kind.setdefault(query["kind"], []).append(query["text"])
    numbers: dict[Any, int] = {}
    said = tuple(
        (numbers.setdefault(line["speaker"], len(numbers)), line["text"]) for line in lines
    )
    topics = by_kind.get("topic", [])
    subject = min(topics, key=len, default="") if source != "irc" else ""
    if source == "kdconv" and any(topic.startswith("景点") for topic in topics):
        subject = "attraction"
    return Piece(source, language, said, by_kind, _SUBJECTS.get(subject, subject))


def _parallel_pieces(dialogues: list[dict[str, Any]]) -> list[Piece]:
    """Pieces with the queries of their translation, where both name nearly the same lines."""
    by_id = {record["id"]: record for record in dialogues}
    pieces = []
    for record in dialogues:
        source = record["source"]
        if source not in OTHER_LANGUAGE:
            continue
        other = by_id.get(OTHER_LANGUAGE[source] + record["id"][len(source) :])
        for fragment in record["fragments"] if other else []:
            lines = set(fragment["utterances"])
            twin = max(other["fragments"], key=lambda one: _overlap(lines, one["utterances"]))
            if _overlap(lines, twin["utterances"]) < 0.6:
                continue
            cross = [
                {"kind": "cross", "text": query["text"]}
                for query in twin["queries"]
                if query["kind"] in ("goal", "topic", "slot")
            ]
            said = [record["lines"][number] for number in fragment["utterances"]]
            queries = [*fragment["queries"], *cross]
            pieces.append(_piece(source, record["language"], said, queries))
    return pieces


def _overlap(one: set[int], other: list[int]) -> float:
    return len(one & set(other)) / len(one | set(other))


def read_everyday(path: Path) -> list[Piece]:
    """Our own pieces, each in both languages, with the queries of either.

    A block begins with `# subject`; lines `? English | Chinese` are queries, the others are said by
    the two speakers in turn, `English | Chinese`; a line that begins with `+` goes on for the last
    speaker.
    """
    pieces = []
    for block in path.read_text(encoding="utf-8").split("\n# ")[1:]:
        subject, *rows = [row for row in block.split("\n") if row.strip()]
        said: list[tuple[int, list[str]]] = []
        asked: list[list[str]] = []
        for row in rows:
            both = [half.strip() for half in row.lstrip("?+ ").split(" | ")]
            if len(both) != 2:
                raise ValueError(f"{path}: {row!r} is not in both languages; write EN | ZH")
            if row.startswith("?"):
                asked.append(both)
            else:
                last = said[-1][0] if said else 1
                said.append((last if row.startswith("+") else 1 - last, both))
        for place, language in enumerate(("en", "zh")):
            lines = tuple((speaker, both[place]) for speaker, both in said)
            queries = {
                "human": [both[place] for both in asked],
                "cross": [both[1 - place] for both in asked],
            }
            pieces.append(Piece("everyday", language, lines, queries, subject))
    return pieces
