"""The published reading against its rules written a second time, and by hand where they part from ours."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from published_reference import published_scores

from ffr.evaluation.published import published_summary, read_published


def _answer(utterances: str, images: str = "[]") -> str:
    return f"<|utt_ids_start|>{utterances}<|utt_ids_end|>;<|img_ids_start|>{images}<|img_ids_end|>"


def _mark(short: str, number: int) -> str:
    return f"<|{short}_id_start|>{number}<|{short}_id_end|>"


def _record(
    response: str | None, labels: str | None = _answer("[1]"), prompt: str = ""
) -> dict[str, Any]:
    return {
        "response": response,
        "labels": labels,
        "messages": [{"role": "user", "content": prompt}],
    }


def _write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    ("text", "utterances", "images"),
    [
        (_answer("[0, 3]", "[1]"), {0, 3}, {1}),
        (_answer("[0]") + _answer("[1]"), {0}, set()),  # the first, not the last
        (f"<think>{_answer('[0]')}</think>{_answer('[1]')}", {0}, set()),
        (_answer("[0 1]"), set(), set()),
        (_answer("[0,]", "[2]"), set(), {2}),
        (_answer("[0,\n1]"), set(), set()),
        (_answer("[00]"), set(), set()),
        (_answer("[0.0]"), {0}, set()),
        (_answer('["1"]'), {"1"}, set()),
        (_answer("[3, -1, 1.5, 10000000000]"), {3, -1, 1.5, 10**10}, set()),
        (_answer("null", "7"), set(), set()),
        (_answer("[[0]]"), set(), set()),
        ("[0];[1]", set(), set()),
        ("<|utt_ids_start|>[0]", set(), set()),
    ],
)
def test_reading(text: str, utterances: set[Any], images: set[Any]) -> None:
    assert read_published(text) == (utterances, images)


def test_what_is_skipped_and_what_size_is_taken(tmp_path: Path) -> None:
    marked = _mark("utt", 3) + _mark("utt", 7)
    records = [
        _record(_answer("[1, 2]"), prompt=marked),
        _record(_answer("[1]")),
        _record(None),
        _record(_answer("[1]"), None),
        {**_record(_answer("[1]"), None), "solution": _answer("[1]")},
    ]
    summary = published_summary(_write(tmp_path / "p.jsonl", records))
    assert {key: summary[key] for key in ("num_scored", "num_skipped", "num_unmarked")} == {
        "num_scored": 2, "num_skipped": 3, "num_unmarked": 1,
    }  # fmt: skip
    # utterances: TP 2, FP 1, FN 0; of ids 0 to 7 six, of ids 0 to 20 twenty are in neither list
    assert summary["scores"]["utterance_mcc"] == pytest.approx(2 * 26 / (3 * 2 * 27 * 26) ** 0.5)
    # a truth that is no JSON is an empty one
    empty = published_summary(_write(tmp_path / "e.jsonl", [_record(_answer("[]"), "prose")]))
    assert empty["scores"]["sample_utterance_f1"] == 1.0
    assert published_summary(_write(tmp_path / "n.jsonl", [_record(None)]))["scores"] is None


_BODIES = [
    "[]", "[0]", "[1, 2]", "[2,1,1]", "[0 1]", "[0,]", "[3-7]", "[0.0]", "[1e0, 5]", "[true]", "[-1]", "[10000000000]", "[NaN, 1]",
    '["1"]', "[[0]]", "null", "0", "", "[0,\n1]", "[00]", "{}", "[19, 20, 21]", "[<|utt_id_start|>0]", "[1] <|utt_ids_start|>[2]",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_an_independent_evaluator(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    records = []
    for _ in range(120):
        prompt = "".join(_mark("utt", number) for number in range(draw.choice([0, 5, 30])))
        prompt += "".join(_mark("img", number) for number in range(draw.choice([0, 1, 4])))
        texts = []
        for _ in range(2):
            parts = [
                _answer(draw.choice(_BODIES), draw.choice(_BODIES))
                for _ in range(draw.choice([1, 1, 1, 2]))
            ]
            texts.append(
                draw.choice(["", "<think>", "so\n"]).join(["", *parts])[
                    : draw.choice([500, 500, 60])
                ]
            )
        records.append(_record(*texts, prompt))
        if draw.random() < 0.1:
            del records[-1][draw.choice(["labels", "response", "messages"])]
            records[-1].setdefault("messages", [])
    found = published_summary(_write(tmp_path / "p.jsonl", records))["scores"]
    expected = published_scores(records)
    assert len(expected) == 24
    for name, value in expected.items():
        # ratios to the last bit; the root of MCC's product of four in halves, and sums in 2^-40
        exact = not name.endswith("mcc") and not name.startswith("sample_")
        assert found[name] == (value if exact else pytest.approx(value, abs=1e-11)), name
