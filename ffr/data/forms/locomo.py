"""LoCoMo: ten very long talks of two people, with questions and the turns that answer them.

A file is the published list, or one conversation of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ffr.data.findings import shown
from ffr.data.forms.benchmark import Account, Line, Part, Question, Talk, read_talks
from ffr.dialogue import Example

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
"""What its numbers of categories stand for; the talk does not say what an adversarial one asks."""
_SESSION = re.compile(r"session_([0-9]{1,6})")


def read_locomo(
    paths: Sequence[Path], *, image_root: Path | None = None
) -> tuple[list[Example], Account]:
    """Reads conversations of LoCoMo: a turn a line, a question an example.

    Its pictures are addresses, and never fetched: their captions stand as words in the lines.

    Args:
        paths: The files.
        image_root: Goes into the examples.

    Raises:
        DataError: with the place of the first fault.
    """
    return read_talks(paths, _talk, unit="turn", image_root=image_root)


def _talk(record: Part, account: Account) -> Talk:
    conversation = record.find("conversation") or record
    named = record.find("sample_id")
    numbers = sorted(
        int(found[1])
        for key in conversation.find_keys()
        if (found := _SESSION.fullmatch(key)) and conversation.find(key)
    )
    lines: list[Line] = []
    positions: dict[str, int] = {}
    for number in numbers:
        date = conversation.find(f"session_{number}_date_time")
        about = {"session": number, "time": date.text if date else ""}
        for turn in conversation[f"session_{number}"].items:
            line_name = turn["dia_id"]
            if line_name.text in positions:
                line_name.fail(f"is {shown(line_name.text)} a second time; give each turn its own")
            positions[line_name.text] = len(lines)
            lines.append(
                Line(
                    turn["speaker"].words,
                    _segments(turn, account),
                    {"name": line_name.text, **about},
                )
            )
    return Talk(
        named.words if named else "",
        lines,
        [_question(item, positions, account) for item in record["qa"].items],
    )


def _segments(turn: Part, account: Account) -> list[str]:
    text, caption = turn["text"].text, turn.find("blip_caption")
    words = [text] if text else []
    if caption or turn.texts("img_url"):
        # an address in place of a path: never here
        picture = account.picture(None, caption.text if caption else "", None)
        words.append(f"{' ' if words else ''}{picture}")
    return ["".join(words)] if words else []


def _question(item: Part, positions: dict[str, int], account: Account) -> Question:
    category = item["category"]
    name = CATEGORIES.get(category.value) if type(category.value) is int else None
    if name is None:
        category.fail(f"is {shown(category.value)}; LoCoMo has the categories 1 to 5")
    answer = item.find("answer") or item.find("adversarial_answer")
    return Question(
        item["question"].words,
        account.place(item["evidence"], positions),
        {"category": name, **({"answer": answer.value} if answer else {})},
    )
