"""LoCoMo by hand, as a published list and as a file a conversation, and the set where it is."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.locomo import read_locomo
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Fragment, Utterance
from ffr.errors import DataError


def conversation() -> dict[str, Any]:
    """An invented talk of two sessions, the second of which comes first in the file."""
    return {
        "speaker_a": "Ann",
        "speaker_b": "Bob",
        "session_10": [{"speaker": "Bob", "dia_id": "D10:1", "text": "It sank."}],
        "session_10_date_time": "9:00 am on 2 May, 2021",
        "session_1_date_time": "8:00 am on 1 May, 2021",
        "session_1": [
            {"speaker": "Ann", "dia_id": "D1:1", "text": "I bought a boat."},
            {
                "speaker": "Ann",
                "dia_id": "D1:2",
                "text": "Look!",
                "img_url": ["https://example.org/boat.jpg"],
                "blip_caption": "a red boat",
            },
        ],
        "session_2_date_time": "never held",
    }


def questions() -> list[dict[str, Any]]:
    return [
        {"question": "What did Ann buy?", "answer": "a boat", "evidence": ["D1:1"], "category": 4},
        {
            "question": "When did it sink?",
            "answer": 2021,
            "evidence": ["D10:1 D1:2"],
            "category": 2,
        },
        {
            "question": "What did Bob buy?",
            "adversarial_answer": "a boat",
            "evidence": ["D1:1", "D9:9"],
            "category": 5,
        },
        {"question": "Who is rich?", "answer": "Ann", "evidence": [], "category": 3},
    ]


@pytest.mark.parametrize("is_list", [False, True])
def test_turns_and_questions(tmp_path: Path, is_list: bool) -> None:
    one: Any = {**conversation(), "qa": questions()}
    if is_list:
        one = [{"sample_id": "conv-1", "conversation": conversation(), "qa": questions()}]
    path = tmp_path / "26.json"
    path.write_text(json.dumps(one, indent=2))
    examples, account = read_locomo([path])
    dialogue = examples[0].dialogue
    assert dialogue.id == ("conv-1" if is_list else "26")
    assert dialogue.utterances == (
        Utterance("Ann", ("I bought a boat.",)),
        Utterance("Ann", ("Look! [picture: a red boat]",)),
        Utterance("Bob", ("It sank.",)),
    )
    assert examples[0].meta[EXTRA_LINE_KEYS][2] == {
        "name": "D10:1",
        "session": 10,
        "time": "9:00 am on 2 May, 2021",
    }
    assert [(example.fragment, example.meta["category"]) for example in examples] == [
        (Fragment((0,), ()), "single-hop"),
        (Fragment((1, 2), ()), "temporal"),
        (Fragment((0,), ()), "adversarial"),
    ]
    assert [example.meta["answer"] for example in examples] == ["a boat", 2021, "a boat"]
    assert account.left_out == {"without a turn as evidence": 1}
    assert len(account.dropped) == 1
    assert (account.num_pictures, account.num_missing_pictures) == (1, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"qa": None}, 'the record has no "qa"'),
        (
            {"qa": [{"question": "q", "category": 9, "evidence": []}]},
            r"qa\[0\]\.category is 9; LoC",
        ),
        (
            {"qa": [{"question": "q", "category": True, "evidence": []}]},
            r"category is true; LoCoMo",
        ),
        ({"session_1": "hi"}, "session_1 is a text, not a list"),
        ({"session_1": [{"dia_id": "D1:1"}]}, r'session_1\[0\] has no "speaker"'),
        (
            {"session_1": [{"dia_id": "D10:1", "speaker": "A", "text": ""}]},
            r'session_10\[0\]\.dia_id is "D10:1" a second time; give each turn its own',
        ),
    ],
)
def test_faults(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**conversation(), "qa": questions(), **change}))
    with pytest.raises(DataError, match=f"^a.json:1: {sentence}|{sentence}"):
        read_locomo([path])


def test_the_published_set(shared_dir: Path, tmp_path: Path) -> None:
    packed = shared_dir / "memory" / "locomo10.zip"
    if not packed.is_file():
        pytest.skip("LoCoMo is not here; put memory/locomo10.zip into the folder of FFR_SHARED")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    examples, account = read_locomo([*tmp_path.rglob("*.json")])
    assert (account.num_talks, account.num_lines, account.num_asked) == (10, 5882, 1986)
    assert account.kept == {
        "single-hop": 830,
        "multi-hop": 282,
        "temporal": 320,
        "open-domain": 92,
        "adversarial": 445,
    }
    assert account.left_out == {
        "without a turn as evidence": 5,
        "asked before of the same dialogue in the same words": 12,
    }
    assert (len(account.dropped), account.num_missing_pictures) == (5, 1226)
    halves = Counter(
        example.meta["half"] for example in examples if example.meta["category"] != "adversarial"
    )
    assert halves == {"odd": 786, "even": 738}
