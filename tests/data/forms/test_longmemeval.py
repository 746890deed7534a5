"""LongMemEval after its published schema, on invented entries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.longmemeval import read_longmemeval
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Fragment, Utterance
from ffr.errors import DataError


def _entry(question_id: str = "q1", **changes: Any) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "question_type": "multi-session",
        "question": "Which tea do I like?",
        "answer": "green",
        "question_date": "2023/06/01 (Thu) 10:00",
        "haystack_dates": ["2023/05/01 (Mon) 09:00", "2023/05/02 (Tue) 09:00"],
        "haystack_session_ids": ["s1", "s2"],
        "answer_session_ids": ["s2"],
        "haystack_sessions": [
            [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}],
            [{"role": "user", "content": "I like green tea", "has_answer": True}],
        ],
        **changes,
    }


def _write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps(entries))
    return path


def test_turns_and_the_question(tmp_path: Path) -> None:
    unmarked = {"haystack_sessions": [[{"role": "user", "content": "hi", "has_answer": False}], []]}
    entries = (_entry(), _entry("q2_abs"), _entry("q3", **unmarked))
    (first, absent), account = read_longmemeval([_write(tmp_path / "a.json", *entries)])
    assert first.dialogue.id == "q1"
    assert first.dialogue.utterances == (
        Utterance("user", ("hi",)),
        Utterance("assistant", ()),
        Utterance("user", ("I like green tea",)),
    )
    assert first.fragment == Fragment((2,), ())
    assert first.meta[EXTRA_LINE_KEYS][2] == {"session": "s2", "time": "2023/05/02 (Tue) 09:00"}
    kept = {key: first.meta[key] for key in ("category", "answer", "asked", "half", "truth")}
    assert kept == {
        "category": "multi-session",
        "answer": "green",
        "asked": "2023/06/01 (Thu) 10:00",
        "half": "odd",
        "truth": "evidence",
    }
    assert absent.fragment == Fragment()
    assert (absent.meta["category"], absent.meta["truth"]) == ("abstention", "nothing")
    assert account.left_out == {"without a turn as evidence": 1}
    assert (account.num_talks, account.num_lines, account.num_asked) == (3, 7, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"haystack_dates": []}, "haystack_sessions has 2 members and haystack_dates 0; take"),
        ({"haystack_session_ids": ["s"]}, "members and haystack_session_ids 1; take"),
        ({"haystack_sessions": [{}, []]}, r"haystack_sessions\[0\] is an object, not a list"),
        (
            {"haystack_sessions": [[{"role": "user", "content": "x", "has_answer": "no"}], []]},
            r"haystack_sessions\[0\]\[0\]\.has_answer is not true or false; take",
        ),
        ({"question_id": 7}, "question_id is a number, not a text"),
    ],
)
def test_faults(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = _write(tmp_path / "a.json", _entry(), _entry("q2") | change)
    with pytest.raises(DataError, match=rf"a\.json:1 \(record 2\): .*{sentence}"):
        read_longmemeval([path])
