"""`ffr compare` by exit code and text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Results of three baselines on four dialogues, and of one on a part of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    found = []
    for number in range(4):
        lines = (f"line {index} of talk [bold]{number}" for index in range(5))
        chat = Dialogue(f"d{number}", tuple(Utterance("a", (line,)) for line in lines))
        found += [
            Example(chat, f"talk {number}", Fragment((0, 1))),
            Example(chat, "no\x1b[31msuch [red]thing", Fragment()),
        ]
    write_examples("data.jsonl", found)
    for name in ("everything", "nothing", "overlap"):
        evaluated = run(
            "eval",
            "--dataset",
            "data.jsonl",
            "--model",
            f"baseline:{name}",
            "--out",
            name,
            "--no-baselines",
        )
        assert evaluated[0] == 0, evaluated
    run(
        "eval",
        "--dataset",
        "data.jsonl",
        "--model",
        "baseline:nothing",
        "--out",
        "part",
        "--limit",
        3,
    )
    return tmp_path


def test_two(folders):
    code, text = run("compare", "everything", "nothing/results.json", "--changed", 1)
    assert code == 0, text
    assert text.startswith(
        "A: baseline:everything (everything)\nB: baseline:nothing (nothing/results.json)\n"
    )
    assert "B against A, in percent" in text
    row = next(line for line in text.splitlines() if line.split()[:1] == ["utterance_recall"])
    assert row.split() == [
        "utterance_recall",
        "100.00",
        "0.00",
        "-100.00",
        "-100.00",
        "to",
        "-100.00",
        "0.0002",
    ]
    assert "truth empty" in text
    assert "Joint F1 by query: B better on 4, worse on 4, the same on 0" in text
    # the greatest changes: the empty truths, of which everything has none right
    assert "d0 · no␛[31msuch [red]thing" in text
    assert "  truth  nothing\n" in text
    assert "  A      utterances 0 1 2 3 4  (F1 50)" in text
    assert "\x1b" not in text
    assert "10,000 resamples of whole dialogues" in text


def test_three_and_json(folders):
    code, text = run("compare", "everything", "nothing", "overlap", "--changed", 0)
    assert code == 0, text
    assert "C: baseline:overlap (overlap)" in text
    assert "C against A, in percent" in text
    assert "each p stands for its own comparison alone" in text
    code, text = run("compare", "everything", "nothing", "overlap", "--json", "--seed", 3)
    assert code == 0, text
    content = json.loads(text)
    assert content["method"]["seed"] == 3
    assert [item["second"] for item in content["comparisons"]] == ["nothing", "overlap"]
    assert content["comparisons"][0]["figures"]["utterance_recall"]["difference"] == -1
    assert len(content["comparisons"][0]["changed"]) == 8


def test_wrong_calls(folders):
    assert run("compare", "everything") == (
        2,
        "Error: one result cannot be compared; name two or more\n",
    )
    code, text = run("compare", "everything", "part")
    assert code == 2
    assert "everything and part were measured on different data" in text
    code, text = run("compare", "everything", "nowhere")
    assert code == 1
    assert "not found; `ffr eval` writes it" in text
    Path("nothing/predictions.jsonl").unlink()
    code, text = run("compare", "everything", "nothing")
    assert code == 1
    assert "nothing: has no predictions.jsonl" in text
    Path("overlap/results.json").write_text("[]")
    code, text = run("compare", "everything", "overlap")
    assert code == 1
    assert "is not a results file of ffr" in text


def test_a_file_of_predictions_alone_beside_answers_joined_with_our_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for form in ("raw", "predictions"):
        assert run("data", "example", "--to", form, "--out", form)[0] == 0
    answers = [
        {"dialogue_id": "trip", "query": query, "utterance_ids": [0], "image_ids": []}
        for query in ("planning the trip", "the cat's dinner", "buying a car")
    ]
    Path("third.jsonl").write_text("".join(json.dumps(line) + "\n" for line in answers))
    words = ("eval", "--no-baselines", "--predictions")
    joined = run(*words, "third.jsonl", "--dataset", "raw/raw.jsonl", "--out", "joined")
    assert joined[0] == 0, joined
    Path("predictions/pictures/alfama.png").unlink()
    alone = run(*words, "predictions/predictions.jsonl", "--out", "alone")
    assert alone[0] == 0, alone
    code, text = run("compare", "joined", "alone", "--json")
    assert code == 0, text
    found = json.loads(text)["comparisons"][0]["figures"]["sample_utterance_f1"]
    # of [0] the first has F1 1/2, the second 0, the third 0; the file has all three right
    assert [round(found[key], 4) for key in ("first", "second")] == [0.1667, 1.0]
