"""Evaluations that are stopped, torn, resumed, repeated, refused; and the wrong-picture control."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ffr.data.dataset import FirstExamples, data_fingerprint
from ffr.data.forms.predictions import read_predictions
from ffr.errors import DataError, UsageError
from ffr.evaluation.controls import WrongPictures
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate


def outcome(folder):
    results = json.loads((folder / "results.json").read_text())
    for name in ("provenance", "date", "total_evaluation_time_seconds"):
        results.pop(name)
    return (folder / "predictions.jsonl").read_bytes(), results


@pytest.fixture
def whole(examples, fake_retriever, tmp_path):
    evaluate(examples, fake_retriever(), tmp_path / "whole", dataset="made")
    return outcome(tmp_path / "whole")


def test_files_of_a_run(examples, fake_retriever, tmp_path):
    seen = []
    results = evaluate(
        examples,
        fake_retriever(),
        tmp_path / "out",
        dataset="made",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]
    predictions = read_predictions(tmp_path / "out" / "predictions.jsonl")
    assert [line.dialogue_id for line in predictions] == [
        example.dialogue.id for example in examples
    ]
    first = predictions[0]
    assert (
        first.labels
        == first.response
        == "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[0]<|img_ids_end|>"
    )
    assert first.logprobs == (-0.5, -0.25)
    assert [message["role"] for message in first.messages] == ["system", "user", "assistant"]
    assert first.images == ("0-3.png",)
    loaded = Results.load(tmp_path / "out")
    assert loaded == results
    assert loaded.data["fingerprint"] == data_fingerprint(examples)
    assert loaded.summary["answers"]["num_malformed"] == 5
    assert set(loaded.baselines) == {
        f"baseline:{name}" for name in ("everything", "nothing", "random-third", "overlap", "bm25")
    }
    assert {
        "command",
        "started_at",
        "finished_at",
        "seconds",
        "versions",
    } <= loaded.provenance.keys()
    assert loaded.provenance["versions"]["torch"]


def test_answers_that_were_cut_off_are_counted_and_told(examples, fake_retriever, tmp_path):
    """Every query on the first two dialogues is cut off; a later call counts what it finds on disk."""

    class Wordy(fake_retriever):
        def answer(self, examples):
            return [
                dataclasses.replace(answer, is_cut_off=example.dialogue.id in ("d0", "d1"))
                for example, answer in zip(examples, super().answer(examples), strict=True)
            ]

    for _ in range(2):
        results = evaluate(examples, Wordy(), tmp_path / "out", dataset="made")
        assert results.summary["answers"]["num_cut_off"] == 4
        assert results.notes[-1] == (
            "4 answers were cut off at the longest length; raise --max-new-tokens, or see "
            "--constrained."
        )
    results = evaluate(examples, fake_retriever(), tmp_path / "whole", dataset="made")
    assert results.summary["answers"]["num_cut_off"] == 0
    assert not any("cut off" in note for note in results.notes)


def test_twice_is_the_same(examples, fake_retriever, tmp_path, whole):
    evaluate(examples, fake_retriever(), tmp_path / "again", dataset="made")
    assert outcome(tmp_path / "again") == whole
    retriever = fake_retriever()
    evaluate(examples, retriever, tmp_path / "again", dataset="made")
    assert retriever.num_asked == 0
    assert outcome(tmp_path / "again") == whole


@pytest.mark.parametrize("num_batches", [0, 1, 2, 3])
def test_stopped_and_taken_up(examples, fake_retriever, tmp_path, whole, num_batches):
    with pytest.raises(KeyboardInterrupt):
        evaluate(examples, fake_retriever(stop_after=num_batches), tmp_path / "out", dataset="made")
    assert not (tmp_path / "out" / "results.json").exists()
    retriever = fake_retriever()
    results = evaluate(examples, retriever, tmp_path / "out", dataset="made")
    assert retriever.num_asked == 10 - 3 * num_batches
    assert results.provenance["num_answers_resumed"] == 3 * num_batches
    assert outcome(tmp_path / "out") == whole


def test_torn_at_any_byte(examples, fake_retriever, tmp_path, whole):
    """However the file was cut by a crash, the same command ends with the same files."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(examples, fake_retriever(stop_after=2), tmp_path / "out", dataset="made")
    written = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    for cut in sorted({0, 1, len(written) - 1, *range(0, len(written), 2003)}):
        (tmp_path / "out" / "predictions.jsonl").write_bytes(written[:cut])
        (tmp_path / "out" / "SHA256SUMS").unlink(missing_ok=True)  # none while it is written
        evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
        assert outcome(tmp_path / "out") == whole


def test_refuses_what_differs(examples, fake_retriever, tmp_path):
    out = tmp_path / "out"
    evaluate(examples, fake_retriever(), out, dataset="made")
    with pytest.raises(
        UsageError, match="holds an evaluation that differs in model flavour; pass another --out"
    ):
        evaluate(examples, fake_retriever(flavour="other"), out, dataset="made")
    with pytest.raises(UsageError, match="differs in data_fingerprint"):
        evaluate(FirstExamples(examples, 3), fake_retriever(), out, dataset="made")
    with pytest.raises(UsageError, match="differs in settings seed"):
        evaluate(examples, fake_retriever(), out, dataset="made", seed=7)


def test_refuses_files_of_others(examples, fake_retriever, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"holds a predictions\.jsonl of something else"):
        evaluate(examples, fake_retriever(), out, dataset="made")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be used as output folder"):
        evaluate(examples, fake_retriever(), tmp_path / "file", dataset="made")


@pytest.mark.parametrize(
    "damage", [b"garbage\n", b'{"index": 99}\n', b'{"index": "0"}\n', b"[]\n", b"\xff\xfe\n"]
)
def test_damaged_lines_are_named(examples, fake_retriever, tmp_path, damage):
    out = tmp_path / "out"
    evaluate(examples, fake_retriever(), out, dataset="made")
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join([*lines[:4], damage, *lines[5:]]))
    (out / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match=r"predictions\.jsonl:5: is not a line of this evaluation"):
        evaluate(examples, fake_retriever(), out, dataset="made")


def test_damaged_identity_and_swapped_answers(examples, fake_retriever, tmp_path):
    out = tmp_path / "out"
    evaluate(examples, fake_retriever(), out, dataset="made")
    content = (out / "predictions.jsonl").read_text()
    (out / "SHA256SUMS").unlink()
    (out / "predictions.jsonl").write_text(content.replace(examples[3].key, examples[4].key))
    with pytest.raises(DataError, match="the answer of index 3 is not one to this data"):
        evaluate(examples, fake_retriever(), out, dataset="made")
    for bad in ("{", "[]", "[" * 100_000):
        (out / "evaluation.json").write_text(bad)
        with pytest.raises((DataError, UsageError), match="delete the folder"):
            evaluate(examples, fake_retriever(), out, dataset="made")


def test_first_examples(examples):
    few = FirstExamples(examples, 3)
    assert [few[0], few[1], few[-1]] == list(few) == few[:] == examples[:3]
    assert len(FirstExamples(examples, 99)) == 10
    with pytest.raises(IndexError):
        few[3]


def test_wrong_pictures_come_from_other_dialogues(examples, fake_retriever, tmp_path):
    shown = WrongPictures(examples, seed=3)
    for right, wrong in zip(examples, shown, strict=True):
        assert [line.text for line in wrong.dialogue.utterances] == [
            line.text for line in right.dialogue.utterances
        ]
        assert wrong.dialogue.image_utterance_ids == right.dialogue.image_utterance_ids
        assert (wrong.query, wrong.fragment) == (right.query, right.fragment)
        own = {str(location) for location in right.image_locations()}
        assert own.isdisjoint(map(str, wrong.image_locations()))
        assert all(location.exists() for location in wrong.image_locations())
    assert shown[0].dialogue == shown[1].dialogue, "queries on one dialogue see the same"
    assert list(WrongPictures(examples, seed=3)) == list(shown)
    assert list(WrongPictures(examples, seed=4)) != list(shown)
    results = evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made", shown=shown)
    assert results.notes[0].startswith("CONTROL WITH WRONG PICTURES")
    assert results.settings["wrong_pictures"] is True
    line = read_predictions(tmp_path / "out" / "predictions.jsonl")[0]
    assert line.images == ("0-3.png",)
    assert line.extra["shown_images"] == [str(location) for location in shown[0].image_locations()]


def test_wrong_pictures_need_other_dialogues(examples):
    with pytest.raises(UsageError, match="only 1 dialogue has any"):
        WrongPictures(examples[:2], seed=0)


def test_results_refuse_other_files(tmp_path):
    (tmp_path / "results.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="is not a results file"):
        Results.load(tmp_path)
    (tmp_path / "results.json").write_text(
        '{"model":{},"data":{},"settings":{},"summary":{},"schema":99}'
    )
    with pytest.raises(DataError, match="has form 99"):
        Results.load(tmp_path)
    with pytest.raises(DataError, match="not found"):
        Results.load(tmp_path / "none.json")
