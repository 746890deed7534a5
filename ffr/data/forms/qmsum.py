"""QMSum: transcripts of meetings, with questions and the spans of turns that a summary needs.

A file is one meeting, or a meeting a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ffr.data.forms.benchmark import Account, Line, Part, Question, Talk, read_talks
from ffr.dialogue import Example


def read_qmsum(
    paths: Sequence[Path], *, image_root: Path | None = None
) -> tuple[list[Example], Account]:
    """Reads meetings of QMSum: a turn a line, a specific query an example.

    General queries are about the whole meeting, and left out.

    Args:
        paths: The files.
        image_root: Goes into the examples; there are no pictures.

    Raises:
        DataError: with the place of the first fault.
    """
    return read_talks(paths, _talk, unit="turn", image_root=image_root)


def _talk(record: Part, account: Account) -> Talk:
    lines = [
        Line(turn["speaker"].words, [text] if (text := turn["content"].text) else [], {})
        for turn in record["meeting_transcripts"].items
    ]
    general = record.find("general_query_list")
    questions = [
        _question(item, "general", [], "about the whole meeting")
        for item in (general.items if general else [])
    ]
    for item in record["specific_query_list"].items:
        evidence: set[int] = set()
        for span in item["relevant_text_span"].items:
            evidence.update(_turns(span, len(lines), account))
        questions.append(_question(item, "specific", sorted(evidence)))
    return Talk("", lines, questions)


def _question(item: Part, category: str, evidence: Sequence[int], left_out: str = "") -> Question:
    answer = item.find("answer")
    meta = {"category": category, **({"answer": answer.value} if answer else {})}
    return Question(item["query"].words, evidence, meta, left_out=left_out)


def _turns(span: Part, num_lines: int, account: Account) -> range:
    """The turns of a span, both ends counted; none, which is told, where the meeting has none."""
    numbers = [str(end.value) for end in span.items if type(end.value) in (int, str)]
    is_number = [text.isascii() and text.isdecimal() and len(text) < 10 for text in numbers]
    if is_number != [True, True] or len(span.items) != 2:
        span.fail("is no pair of turn numbers; take the file as it was published")
    first, last = map(int, numbers)
    if not first <= last < num_lines:
        account.drop(span, span.value)
    return range(first, min(last + 1, num_lines))
