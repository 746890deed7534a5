"""`ffr eval --segmentation` by exit code, text and file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    examples = []
    for number in range(2):
        lines = [Utterance("a", (f"line {line} of {number}",)) for line in range(12)]
        chat = Dialogue(f"d{number}", tuple(lines))
        examples.append(Example(chat, "the beginning", Fragment(tuple(range(10)))))
    write_examples(tmp_path / "data.jsonl", examples)
    return tmp_path / "data.jsonl"


def _run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, ["eval", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_figures_are_printed_and_written(data: Path) -> None:
    code, output = _run("--segmentation", "every-10", "--dataset", data, "--seed", 3)
    assert code == 0, output
    assert "Segments by every-10. True segments: fragments of queries (2 dialogues)" in output
    assert "pk                0.000  [0.000, 0.000]" in output
    assert "4 segments of 24 lines; true: 4" in output
    (path,) = data.parent.glob("eval/*/segmentation.json")
    written = json.loads(path.read_text())
    assert written["figures"]["segment_f1"] == 1
    assert len(written["data"]["fingerprint"]) >= 16
    assert written["provenance"]["command"][0]
    code, output = _run("--segmentation", "whole", "--dataset", data, "--json", "--out", "out")
    assert code == 0
    assert (
        json.loads(output[output.index("{") : output.rindex("}") + 1])["figures"]["boundary_f1"]
        == 0
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["whole", "--model", "tiny"], "--model has no meaning beside --segmentation whole"),
        (["vectors", "--limit", "3"], "--limit has no meaning beside --segmentation vectors"),
        (["model", "--coherence"], "--coherence has no meaning beside --segmentation model"),
        (["model", "--model", "baseline:bm25"], "asks a model that reads prompts"),
        (["model", "--model", "tiny"], "tiny reads prompts of its own template alone"),
    ],
)
def test_what_has_no_meaning_is_refused(data: Path, words: list[str], said: str) -> None:
    code, output = _run("--segmentation", *words, "--dataset", data)
    assert code == 2
    assert said in output
