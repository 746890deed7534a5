"""The parts of a line by hand, and what is seen of them for a question."""

from __future__ import annotations

import numpy as np
import pytest

from ffr.dialogue import Dialogue
from ffr.retrieval.line_features import lines_of
from ffr.retrieval.line_parts import line_parts, part_features, parts_of
from ffr.retrieval.line_words import wanted

OWN, CAPTION, REPLY = 0, 4, 8
"""Where BM25 of each part stands."""


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("tea", ("tea", "", "")),
        ("[picture]", ("", "", "")),
        ("[picture: a [red] cat] and [picture: a dog]", ("and", "a [red] cat a dog", "")),
        ("Look\nassistant: At [picture: a cat]", ("Look", "a cat", "At")),
    ],
)
def test_parts_of_a_line(line: str, parts: tuple[str, str, str]) -> None:
    assert parts_of(line) == parts


def test_a_word_counts_in_the_part_that_has_it() -> None:
    chat = lines_of(
        Dialogue.of(
            [
                ("Ann", "A kettle?"),
                ("Ann", "Here [picture: a kettle]"),
                ("Ann", "Here\nassistant: a kettle"),
                ("Ann", "Bread"),
            ]
        ),
        ["x", "x", "x", "y"],
    )
    parts = line_parts(chat)
    seen = part_features(chat, parts, "kettle")
    assert (seen[:, [OWN, CAPTION, REPLY]] > 0).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [False, False, False],
    ]
    # lines of the sitting from each on, and in all
    assert parts.of_line[:, 3:].tolist() == [[3, 3], [2, 3], [1, 3], [1, 1]]
    assert parts.asks.tolist() == [1, 0, 0, 0]
    after_a_question, asks_it, before_a_question, sitting, alone = seen[:, 17:22].T
    assert (after_a_question > 0).tolist() == [False, True, False, False]
    assert (asks_it > 0).tolist() == [True, False, False, False]
    assert not before_a_question.any()
    assert sitting.tolist() == [1, 1, 1, 0]
    assert alone == pytest.approx(np.array([1 / 3, 1 / 3, 1 / 3, 0]))
    assert np.isfinite(part_features(chat, parts, "")).all()


def test_what_a_question_wants() -> None:
    names = ["pictures", "picture", "all", "plural", "how many", "early", "late", "contradiction"]
    names += ["yes or no", "two things", "a guess"]

    def said(query: str) -> tuple[float, set[str]]:
        number, _, *flags = wanted(query)
        return number, {name for name, flag in zip(names, flags, strict=True) if flag}

    assert said("Which two images show a cat?") == (2, {"pictures", "plural"})
    assert said("What activities does Ann enjoy?") == (0, {"all", "plural"})
    assert said("How many times did Ann and Bob meet in 2023?") == (
        0,
        {"all", "how many", "two things"},
    )
    assert said("Is there a contradiction with the latest picture?") == (
        0,
        {"picture", "late", "contradiction", "yes or no"},
    )
    assert said("第一次见面可能是什么时候") == (0, {"early", "a guess"})
    assert said("哪三张图片") == (3, set())
    assert said("the 12 jars") == (12, set())
