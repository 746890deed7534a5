"""Mem-Gallery: talks with an assistant over months, with pictures, and questions to them.

A file is one talk. A round, what is said and what is replied, is the unit that its labels name.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from ffr.data.findings import shown
from ffr.data.forms.benchmark import Account, Line, Part, Question, Talk, read_talks
from ffr.dialogue import Example, Image


def read_mem_gallery(
    paths: Sequence[Path], *, image_root: Path | None = None
) -> tuple[list[Example], Account]:
    """Reads talks of Mem-Gallery: a round a line, a question an example.

    A question without `clue` is answered by nothing. One that is asked with a picture is left out:
    a query is of words.

    Args:
        paths: The files.
        image_root: Folder that the paths of pictures in the files are relative to.

    Raises:
        DataError: with the place of the first fault.
    """

    def talk(record: Part, account: Account) -> Talk:
        return _talk(record, account, image_root)

    return read_talks(paths, talk, unit="round", image_root=image_root)


def _talk(record: Part, account: Account, root: Path | None) -> Talk:
    speaker = record["character_profile"]["name"].words
    lines: list[Line] = []
    positions: dict[str, int] = {}
    for session in record["multi_session_dialogues"].items:
        about = {"session": session["session_id"].text, "time": session["date"].text}
        for item in session["dialogues"].items:
            name = item["round"]
            if name.text in positions:
                name.fail(f"is {shown(name.text)} a second time; give each round its own")
            positions[name.text] = len(lines)
            lines.append(
                Line(speaker, _segments(item, account, root), {"name": name.text, **about})
            )
    questions = [
        _question(item, positions, account) for item in record["human-annotated QAs"].items
    ]
    return Talk("", lines, questions)


def _segments(item: Part, account: Account, root: Path | None) -> list[str | Image]:
    """What the person says, the pictures shown, and the reply, in this order."""
    segments: list[str | Image] = []
    text = item["user"].text
    paths, captions = item.texts("input_image"), item.texts("image_caption")
    for path, caption in itertools.zip_longest(paths, captions):
        picture = account.picture(path, caption or "", root)
        if isinstance(picture, str):
            text += f" {picture}"
        else:
            segments += [text, picture] if text else [picture]
            text = ""
    return [*segments, f"{text}\nassistant: {item['assistant'].text}"]


def _question(item: Part, positions: dict[str, int], account: Account) -> Question:
    clue = item["clue"]
    with_picture = item.find("question_image") is not None
    return Question(
        item["question"].words,
        account.place(clue, positions),
        {"category": item["point"].words, "answer": item["answer"].value},
        is_unanswered=not clue.items,
        left_out="asked with a picture, and a query is of words" if with_picture else "",
    )
