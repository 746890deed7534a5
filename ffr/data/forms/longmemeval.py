"""LongMemEval: for each question a history of talks with an assistant, its turns marked.

A file is the published list; each of its entries is a dialogue of its own with one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ffr.data.forms.benchmark import Account, Line, Part, Question, Talk, read_talks
from ffr.dialogue import Example


def read_longmemeval(
    paths: Sequence[Path], *, image_root: Path | None = None
) -> tuple[list[Example], Account]:
    """Reads entries of LongMemEval: a turn a line, `has_answer` names the true ones.

    A question whose id ends in `_abs` is answered by nothing.

    Args:
        paths: The files.
        image_root: Goes into the examples; there are no pictures.

    Raises:
        DataError: with the place of the first fault.
    """
    return read_talks(paths, _talk, unit="turn", image_root=image_root)


def _talk(record: Part, _: Account) -> Talk:
    question_id = record["question_id"].words
    sessions, dates = record["haystack_sessions"], record.texts("haystack_dates")
    names = record.texts("haystack_session_ids")
    lines: list[Line] = []
    evidence: list[int] = []
    for key, given in (("haystack_dates", dates), ("haystack_session_ids", names)):
        if len(given) != len(sessions.items):
            sessions.fail(
                f"has {len(sessions.items)} members and {key} {len(given)}; take the file as it "
                "was published"
            )
    for session, name, date in zip(sessions.items, names, dates, strict=True):
        for turn in session.items:
            label = turn.find("has_answer")
            if label is not None and not isinstance(label.value, bool):
                label.fail("is not true or false; take the file as it was published")
            if label is not None and label.value:
                evidence.append(len(lines))
            text = turn["content"].text
            about = {"session": name, "time": date}
            lines.append(Line(turn["role"].words, [text] if text else [], about))
    is_unanswered = question_id.endswith("_abs")
    kind = record["question_type"].words
    asked = record.find("question_date")
    meta = {
        "category": "abstention" if is_unanswered else kind,
        "answer": record["answer"].value,
        "asked": asked.text if asked else "",
    }
    question = Question(
        record["question"].words, [] if is_unanswered else evidence, meta, is_unanswered
    )
    return Talk(question_id, lines, [question])
