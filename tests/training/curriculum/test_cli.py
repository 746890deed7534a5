"""`ffr curriculum score` by exit code and text."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.curriculum import curriculum
from ffr.data.catalog import load_dataset
from ffr.data.dataset import FirstExamples
from ffr.errors import FfrError
from ffr.training.curriculum.difficulty import load_difficulties


def run(*words: object) -> tuple[int, str]:
    """Exit code, and what was printed or the sentence of the error."""
    done = CliRunner().invoke(curriculum, ["score", *map(str, words)])
    if isinstance(done.exception, FfrError):
        # what `ffr.cli.main` makes of it
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout or done.output


@pytest.fixture
def in_folder(sample_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_score_from_start_to_finish(in_folder, monkeypatch):
    words = ("--dataset", "sample", "--limit", 5, "--max-new-tokens", 16, "--out", "scores")
    code, text = run(*words)
    assert code == 0, text
    lines = text.splitlines()
    assert lines[0] == "Scoring tiny (no finished SFT run under ./runs) on sample (train)"
    assert "5 queries" in lines
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert {"easy", "medium", "confusing", "hard", "all"} <= rows.keys()
    assert rows["all"][0] == "5"
    assert sum(int(rows[level][0]) for level in ("easy", "medium", "confusing", "hard")) == 5
    difficulties = load_difficulties(
        Path("scores"), FirstExamples(load_dataset("sample", split="train"), 5)
    )
    assert rows["all"][2] == f"{sum(item.f1 for item in difficulties) / 5:.3f}"
    assert rows["all"][3] == f"{sum(item.entropy for item in difficulties) / 5:.3f}"
    assert Path("scores/scatter.png").read_bytes().startswith(b"\x89PNG")
    assert lines[-2] == "Table: scores/difficulty.csv  ·  picture: scores/scatter.png"
    assert "ffr train grpo takes one of the whole data" in lines[-1]

    from ffr.retrieval.vlm import VlmRetriever

    def answer(self, examples):
        raise AssertionError("the model is asked again")

    monkeypatch.setattr(VlmRetriever, "answer", answer)
    code, again = run(*words)
    assert code == 0
    assert again == text


def test_interrupted(in_folder, monkeypatch):
    from ffr.retrieval.vlm import VlmRetriever

    def answer(self, examples):
        raise KeyboardInterrupt

    monkeypatch.setattr(VlmRetriever, "answer", answer)
    code, text = run("--limit", 2, "--out", "scores")
    assert code == 130
    assert "Stopped; the same command goes on from here." in text


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--model", "baseline:overlap"], 2, "a baseline's answers have no probabilities"),
        (["--model", "./nowhere"], 2, "no such model folder or run"),
        (["--split", "test"], 2, "has no part 'test'"),
        (["--limit", "0"], 2, "0 is not in the range"),
        (["--device", "warp"], 2, "--device warp cannot be used here"),
    ],
)
def test_wrong_calls(in_folder, words, code, sentence):
    found, text = run(*words)
    assert (found, sentence in text) == (code, True), text


@pytest.mark.slow
def test_the_last_line_is_the_command_that_goes_on(in_folder, sample_home, monkeypatch):
    from ffr.cli.main import ffr
    from ffr.data.catalog import load_dataset
    from ffr.data.forms.formats import write_examples

    write_examples(Path("my data.jsonl"), list(load_dataset("sample", split="grpo"))[:4])
    monkeypatch.setenv("FFR_DATA_HOME", str(in_folder / "data"))
    more = ("--image-root", sample_home / "sample", "--skip-bad")
    code, text = run("--dataset", "my data.jsonl", "--max-new-tokens", 64, *more)
    assert code == 0, text
    line = text.splitlines()[-1]
    assert line.startswith(
        "next: ffr train grpo --from tiny --dataset 'my data.jsonl' --image-root "
        f"{sample_home / 'sample'} --skip-bad --curriculum --difficulty "
    )
    words = shlex.split(line.removeprefix("next: ffr "))
    done = CliRunner().invoke(ffr, [*words, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "curriculum paper:" in done.output
    # nothing is asked again where the training has another bound
    found = [word for word in words if word not in words[-2:]]
    again = CliRunner().invoke(ffr, [*found, "--dry-run", "--max-new-tokens", "100"])
    assert "curriculum paper:" in again.output
    assert "would first answer" not in again.output
