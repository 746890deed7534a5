"""Prediction files of anyone: scored where they can be, counted where not, and never a traceback."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Utterance
from ffr.errors import DataError, FfrError
from ffr.evaluation.predictions import score_predictions
from ffr.evaluation.run import evaluate
from ffr.prompt import render

ANSWER = "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
OTHER = "<|utt_ids_start|>[1, 2]<|utt_ids_end|>;<|img_ids_start|>[0]<|img_ids_end|>"
PROMPT = render(Dialogue("d", tuple(Utterance("a", (f"line {i}",)) for i in range(8))), "what").user


def line(response=ANSWER, labels=ANSWER, **more):
    record = {"response": response, "labels": labels, "dialogue_id": "d", "images": []}
    return {**record, "messages": [{"role": "user", "content": PROMPT}], **more}


def score(tmp_path, lines, name="p.jsonl"):
    path = tmp_path / name
    path.write_text(
        "\n".join(item if isinstance(item, str) else json.dumps(item) for item in lines) + "\n"
    )
    return score_predictions(path)


def test_our_own_predictions_score_the_same(examples, fake_retriever, tmp_path):
    results = evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
    again = score_predictions(tmp_path / "out" / "predictions.jsonl")
    assert again.summary["scores"] == results.summary["scores"]
    assert again.summary["by_length"] == results.summary["by_length"]
    # random-third draws by dialogue and query, which the prompt gives back
    assert {name: table["scores"] for name, table in again.baselines.items()} == {
        name: table["scores"] for name, table in results.baselines.items()
    }
    assert again.notes == []


def test_faults_are_counted_and_named(tmp_path):
    results = score(
        tmp_path,
        [
            line(),
            "not json",
            line(response=None),
            line(response=["a"]),
            line(labels=None),
            line(labels="no markers"),
            line(
                response=OTHER,
                messages=[{"role": "user", "content": "no markers at all"}],
                images=["a", "b"],
            ),
            line(messages="what?", images=None),
        ],
    )
    assert results.data == {
        "dataset": "p.jsonl",
        "split": None,
        "num_examples": 8,
        "num_sized_by_answers": 2,
        "num_unreadable_lines": 1,
        "num_without_labels": 2,
        "num_without_response": 2,
    }
    assert results.summary["answers"]["num_scored"] == 5
    assert results.summary["answers"]["num_malformed"] == 2
    assert results.baselines == {}
    text = "\n".join(results.notes)
    assert "1 line could not be read: left out" in text
    assert "p.jsonl:2: not JSON" in text
    assert (
        "2 lines without a dialogue with markers: its size (for true negatives, so for MCC) is the largest id"
        in text
    )
    assert "No baselines: not every scored line holds its dialogue." in text


def test_true_negatives_by_markers_and_by_answers(tmp_path):
    # a prompt with markers that is no whole dialogue: largest id 9, so 10 utterances: TP 1 FP 1 FN 1 TN 7
    marked = "<|utt_id_start|>3<|utt_id_end|> …cut… <|utt_id_start|>9<|utt_id_end|> b: bye"
    by_markers = score(
        tmp_path, [line(OTHER, ANSWER, messages=[{"role": "user", "content": marked}])]
    )
    assert by_markers.data["num_sized_by_markers"] == 1
    assert by_markers.summary["scores"]["utterance_mcc"] == pytest.approx(
        (1 * 7 - 1) / (2 * 2 * 8 * 8) ** 0.5
    )
    # without markers the largest true id is 1, so 2 utterances: TN 0
    by_answers = score(tmp_path, [line(OTHER, ANSWER, messages=[])])
    assert by_answers.data["num_sized_by_answers"] == 1
    assert by_answers.summary["scores"]["utterance_mcc"] == pytest.approx(
        (0 - 1) / (2 * 2 * 1 * 1) ** 0.5
    )


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (ANSWER.replace("0, 1", "3-7"), "not in the answer format"),
        (ANSWER.replace("0, 1", "3.5, 4.5, -6, 10000000000, 3"), "not in the answer format"),
        ("perhaps <|utt_ids_start|>3 or 4 <|img_ids_start|>", "not in the answer format"),
        ("<think>hm</think>" + ANSWER, "not in the answer format"),
        (ANSWER.replace("0, 1", "3, 5000"), "utterance 5000 is none of the dialogue's 8"),
        (OTHER, "image 0 is none of the dialogue's 0"),
        ([0, 1], "not in the answer format"),
        ("", "not in the answer format"),
    ],
)
def test_a_truth_is_read_strictly(tmp_path, labels, reason):
    results = score(tmp_path, [line(), line(labels=labels), line(labels=None, solution=labels)])
    assert results.data["num_without_labels"] == 2
    assert "fingerprint" not in results.data  # so no gate takes it
    answers = results.summary["answers"]
    assert (answers["num_scored"], answers["num_without_truth"]) == (1, 2)
    assert f'p.jsonl:2: no readable answer under "labels" ({reason}); not scored' in "\n".join(
        results.notes
    )
    assert f'p.jsonl:3: no readable answer under "solution" ({reason}); not scored' in "\n".join(
        results.notes
    )


def test_a_truth_is_checked_against_the_markers_of_a_prompt(tmp_path):
    marked = [{"role": "user", "content": "<|utt_id_start|>0<|utt_id_end|> …cut…"}]
    results = score(tmp_path, [line(messages=marked)])
    assert results.summary["answers"]["num_scored"] == 0
    assert "utterance 1 is none of the dialogue's 1" in "\n".join(results.notes)
    # nothing tells the size of this one
    assert score(tmp_path, [line(messages=[])]).summary["answers"]["num_scored"] == 1


def test_two_truths_that_differ_are_none(tmp_path):
    empty = ANSWER.replace("0, 1", "")
    results = score(
        tmp_path, [line(), line(solution=empty), line(solution=ANSWER.replace("0, 1", "1,0,1"))]
    )
    assert results.data["num_without_labels"] == 1
    assert 'p.jsonl:2: no readable answer under "labels" ("solution" says another)' in "\n".join(
        results.notes
    )
    assert results.summary["answers"]["num_scored"] == 2


def test_an_invented_id_is_a_false_positive_and_no_size(tmp_path):
    for body in ("3, 10000000000", "3, -1, 1.5", "3, 999999999"):
        labels = ANSWER.replace("0, 1", "3")
        results = score(tmp_path, [line(ANSWER.replace("0, 1", body), labels, messages=[])])
        scores = results.summary["scores"]
        assert scores["exact_match"] == 0
        assert scores["utterance_precision"] == pytest.approx(1 / len(body.split(",")))
        # ids 0 to 3: TP 1, TN 3
        num_wrong = len(body.split(",")) - 1
        assert scores["utterance_mcc"] == pytest.approx(
            3 / ((1 + num_wrong) * (3 + num_wrong) * 3) ** 0.5
        )
    answers = score(tmp_path, [line(ANSWER.replace("0, 1", "3-7"))]).summary["answers"]
    assert answers["num_malformed"] == 1
    assert answers["problems"]["utterance ids that are no ids"] == 1


def test_layouts(tmp_path):
    lines = [json.dumps(line(response=OTHER)), json.dumps(line())]
    expected = score(tmp_path, lines).summary
    (tmp_path / "p.json").write_text(f"[{','.join(lines)}]")
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    for name in ("p.json", "p.jsonl.gz"):
        assert score_predictions(tmp_path / name).summary == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no records"),
        (
            "{garbage\n{more\n",
            "none of its 2 lines can be read; the first fault: p.jsonl:1: not JSON",
        ),
    ],
)
def test_nothing_to_read(tmp_path, content, sentence):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(DataError, match=sentence):
        score_predictions(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match="not found"):
        score_predictions(tmp_path / "none.jsonl")


def test_answers_without_truth_are_read_and_not_scored(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"response": "x"}\n')
    results = score_predictions(tmp_path / "p.jsonl")
    answers = results.summary["answers"]
    assert (answers["num_answers"], answers["num_scored"], answers["malformed_share"]) == (
        1,
        0,
        None,
    )
    assert set(results.summary["scores"].values()) == {None}
    assert results.intervals["scores"] is None
    assert results.baselines == {}
    assert "1 line without readable labels: not scored." in results.notes


def attempt(path):
    """Scores a file; anything but a result or an error with a sentence is a failure of the test."""
    try:
        results = score_predictions(path)
    except FfrError:
        return
    results.to_json().encode("utf-8", "backslashreplace")
    for value in results.summary["scores"].values():
        assert value is None if not results.num_scored else -1 <= value <= 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
pieces = st.sampled_from(
    ["<|utt_ids_start|>", "<|utt_ids_end|>", "<|img_ids_start|>", "<|img_ids_end|>", "[", "]", ", ", ";", "1", "999999999", "-1",
     "\ud800", "\0", "０", "1e5", PROMPT[:150], "<image>", "<|utt_id_start|>5<|utt_id_end|> a: b\n", ANSWER]
)  # fmt: skip
answers = st.lists(pieces, max_size=10).map("".join)
records = st.fixed_dictionaries(
    {},
    optional={
        "response": answers | values,
        "labels": answers | values,
        "dialogue_id": values,
        "images": values | st.lists(st.just("a.png"), max_size=3),
        "messages": values
        | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": answers | values})),
        "logprobs": values,
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(records | values, max_size=5))
def test_any_json_is_survived(tmp_path, content):
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in content), encoding="utf-8")
    attempt(path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300))
def test_any_bytes_are_survived(tmp_path, content):
    for name in ("p.jsonl", "p.json", "p.jsonl.gz"):
        (tmp_path / name).write_bytes(content)
        attempt(tmp_path / name)


@pytest.mark.parametrize("num_copies", [50, pytest.param(400, marks=pytest.mark.slow)])
def test_corrupted_copies_are_survived(examples, fake_retriever, tmp_path, num_copies):
    evaluate(examples[:4], fake_retriever(), tmp_path / "out", dataset="made", baselines=())
    whole = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    draw = random.Random(num_copies)
    path = tmp_path / "p.jsonl"
    for _ in range(num_copies):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3, 20))):
            place = draw.randrange(len(content))
            action = draw.randrange(4)
            if action == 0:
                content[place] = draw.randrange(256)
            elif action == 1:
                del content[place : place + draw.randrange(1, 200)]
            elif action == 2:
                content[place:place] = draw.choice(
                    (b'"', b"[", b"}", b"\n", b"\xff", b"<|utt_ids_start|>", b"999999999999")
                )
            else:
                content[place:] = content[place:][: draw.randrange(1, 400)]
            if not content:
                break
        path.write_bytes(content)
        attempt(path)
