"""QMSum after its published schema, on invented meetings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.qmsum import read_qmsum
from ffr.dialogue import Fragment, Utterance
from ffr.errors import DataError


def _meeting(*spans: Any) -> dict[str, Any]:
    return {
        "topic_list": [{"topic": "Tea", "relevant_text_span": [["0", "1"]]}],
        "general_query_list": [{"query": "Summarize the meeting.", "answer": "Tea."}],
        "specific_query_list": [
            {"query": f"question {number}", "answer": "x", "relevant_text_span": span}
            for number, span in enumerate(spans)
        ],
        "meeting_transcripts": [
            {"speaker": f"User {number}", "content": text} for number, text in enumerate("abcd")
        ],
    }


def test_spans_have_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "Bed1.json"
    path.write_text(
        json.dumps(_meeting([["0", "1"], [3, 3]], [["2", "900000000"]], [[9, 9]]), indent=1)
    )
    examples, account = read_qmsum([path])
    assert examples[0].dialogue.id == "Bed1"
    assert examples[0].dialogue.utterances[3] == Utterance("User 3", ("d",))
    assert [example.fragment for example in examples] == [
        Fragment((0, 1, 3), ()),
        Fragment((2, 3), ()),
    ]
    assert [example.meta["category"] for example in examples] == ["specific", "specific"]
    assert account.left_out == {"about the whole meeting": 1, "without a turn as evidence": 1}
    assert [label.partition(" at ")[0] for label in account.dropped] == [
        '["2", "900000000"]',
        "[9, 9]",
    ]


def test_a_meeting_a_line(tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text("".join(json.dumps(_meeting([["0", "0"]])) + "\n" for _ in range(2)))
    examples, account = read_qmsum([path])
    assert [(example.dialogue.id, example.meta["half"]) for example in examples] == [
        ("val-1", "odd"),
        ("val-2", "even"),
    ]
    assert account.num_asked == 4


@pytest.mark.parametrize(
    "span",
    [[], ["1"], ["1", "2", "3"], ["a", "b"], ["-1", "2"], [True, 2], ["9" * 5000, "1"], [1.0, 2]],
)
def test_a_span_is_a_pair_of_numbers(tmp_path: Path, span: list[Any]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_meeting([span])))
    with pytest.raises(DataError, match=r"list\[0\]\.relevant_text_span\[0\] is no pair of turn"):
        read_qmsum([path])
