"""A reader by its folder, wherever a model is named: eval, its run taken up, Python, and what means nothing for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from encoder_builds import build_sentence_encoder
from reader_builds import build_reader

import ffr
from ffr.answer import parse
from ffr.cli.main import ffr as command
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.runs import RunRecord


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["eval", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    return build_reader(folder / "small", build_sentence_encoder("bert", folder / "bert"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))
    chat = Dialogue.of([("a", f"line {number}") for number in range(6)])
    path = tmp_path / "val.jsonl"
    write_examples(path, [Example(chat, f"line {n}", Fragment((n,))) for n in range(3)])
    return path


def test_a_readers_folder_is_measured_and_taken_up(data: Path, reader: Path) -> None:
    words = ["--model", reader, "--dataset", data, "--no-baselines", "--out", "one"]
    code, text = run(*words, "--encoder-cache", "cache")
    assert code == 0, text
    results = json.loads(Path("one/results.json").read_text(encoding="utf-8"))
    assert results["model"]["kind"] == "reader"
    assert len(results["model"]["encoder_weights"]) == 64
    lines = Path("one/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(0 < json.loads(line)["decision_entropy"] < 0.7 for line in lines)
    assert list(Path("cache").glob("??/*.vector"))
    assert run(*words)[0] == 0
    again = json.loads(Path("one/results.json").read_text(encoding="utf-8"))
    assert again["provenance"]["num_answers_resumed"] == 3


def test_from_where_on_nothing_is_answered_may_be_said(data: Path, reader: Path) -> None:
    words = ["--dataset", data, "--no-baselines", "--encoder-cache", "cache", "--model", reader]
    known = {}
    for share, num_empty in ((0, 3), (1, 0)):
        code, text = run(*words, "--nothing-from", share, "--out", f"from-{share}")
        assert code == 0, text
        lines = Path(f"from-{share}/predictions.jsonl").read_text(encoding="utf-8").splitlines()
        answers = [json.loads(line)["response"] for line in lines]
        assert sum(parse(answer).is_empty for answer in answers) == num_empty
        results = json.loads(Path(f"from-{share}/results.json").read_text(encoding="utf-8"))
        known[share] = results["model"]["fingerprint"]
    assert known[0] != known[1]
    baseline = ["--dataset", data, "--model", "baseline:overlap", "--nothing-from", 0.5]
    for wrong, said in (
        ([*words, "--nothing-from", 1.5], "1.5 is not in the range"),
        (baseline, "--nothing-from has no meaning beside"),
    ):
        code, text = run(*wrong)
        assert code == 2
        assert said in text


def test_the_newest_run_may_be_a_readers(data: Path, reader: Path) -> None:
    record = RunRecord("reader", "finished", "2026-01-01", 0, "scratch", "d", finished_at="2026")
    folder = Path("runs/reader-scratch-001")
    shutil.copytree(reader, folder / "reader")
    record.save(folder)
    code, text = run("--dataset", data, "--no-baselines")
    assert code == 0, text
    assert (folder / "eval" / "val" / "results.json").is_file()
    code, text = run("--dataset", data, "--constrained")
    assert code == 2
    assert "--constrained has no meaning beside a reader" in text


def test_data_is_checked_for_it(data: Path, reader: Path) -> None:
    words = ["data", "check", str(data), "--model", str(reader)]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_from_python(data: Path, reader: Path) -> None:
    model = ffr.load_model(reader)
    found = model.retrieve([("Ann", "the bus is late"), ("Bob", "too bad")], ["bus", "tram"])
    assert [type(item.score) for item in found] == [float, float]
    assert model.identity["kind"] == "reader"
    with pytest.raises(ffr.errors.UsageError, match="setting constrained has no meaning for"):
        ffr.load_model(reader, constrained=True)


def test_a_damaged_install_is_one_sentence(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ffr.shipped.reader.READER_FOLDER", tmp_path / "none")
    code, text = run("--model", "reader", "--dataset", data)
    assert code == 1
    assert text.endswith("holds no reader.json; name the folder of a reader")


def test_doctor_knows_the_reader(
    data: Path, reader: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(folder: Path) -> list[tuple[str, str]]:
        monkeypatch.setattr("ffr.shipped.reader.READER_FOLDER", folder)
        lines = json.loads(CliRunner().invoke(command, ["doctor", "--json"]).output)
        return [
            (line["status"], line["text"].partition(str(reader.parent))[0])
            for line in lines
            if line["text"].startswith("reader:")
        ]

    assert found(reader) == [("ok", "reader: embedded; encoder ")]
    assert found(tmp_path) == [("note", "reader: its weights do not come with this version")]
    damaged = shutil.copytree(reader, tmp_path / "damaged")
    (damaged / "reader.json").write_text("{}", encoding="utf-8")
    ((status, _),) = found(damaged)
    assert status == "missing"
