"""`ffr report` by exit code and text."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """Results of a baseline on one dialogue with two queries; the working folder is a fresh one."""
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (28, 28), (80, 10, 10)).save(tmp_path / "0.png")
    lines = tuple(Utterance("a", (f"line {index}",)) for index in range(4))
    chat = Dialogue("d0", (*lines, Utterance("b", (Image("0.png"),))))
    write_examples(
        "data.jsonl",
        [Example(chat, "lines", Fragment((0, 1), (0,))), Example(chat, "no such", Fragment())],
    )
    code, text = run(
        "eval", "--dataset", "data.jsonl", "--model", "baseline:everything", "--out", "out"
    )
    assert code == 0, text
    return Path("out")


def test_report(evaluated):
    code, text = run("report", evaluated)
    assert code == 0, text
    assert "2 queries on 1 dialogue, 1 picture\nPage: out/report.html (" in text
    assert Path("out/report.html").read_text().startswith("<!doctype html>")
    code, text = run("report", evaluated / "results.json", "--out", "a/b.html")
    assert code == 0, text
    assert Path("a/b.html").read_bytes() == Path("out/report.html").read_bytes()


def test_report_of_a_prediction_file_alone(evaluated):
    code, text = run(
        "report", evaluated / "predictions.jsonl", "--out", "p.html", "--image-root", "."
    )
    assert code == 0, text
    assert "2 queries on 1 dialogue, 1 picture\n" in text


def test_pictures_that_are_missing_are_said(evaluated):
    Path("0.png").unlink()
    code, text = run("report", evaluated)
    assert code == 0, text
    assert "! 1 picture could not be opened, with a placeholder instead" in text
    assert "0 pictures, 1 that could not be opened" in text


def test_faults_are_sentences(evaluated):
    assert run("report", "nowhere")[0] == 1
    Path("evaluated.html").mkdir()
    code, text = run("report", evaluated, "--out", "evaluated.html")
    assert (code, text) == (
        1,
        "Error: evaluated.html: cannot be written (Is a directory); check the folder and its room\n",
    )
    write_examples(
        "other.jsonl", [Example(Dialogue("d", (Utterance("a", ("hi",)),)), "q", Fragment((0,)))]
    )
    code, text = run("report", evaluated, "--dataset", "other.jsonl")
    assert code == 2
    assert "other.jsonl is not the data that was measured" in text
    (evaluated / "predictions.jsonl").unlink()
    code, text = run("report", evaluated)
    assert (code, text) == (
        1,
        "Error: out/predictions.jsonl: not found; it lies beside results.json; evaluate again\n",
    )
    (evaluated / "results.json").write_text(json.dumps({"what": 1}))
    code, text = run("report", evaluated)
    assert code == 1
    assert "is not a results file of ffr" in text
