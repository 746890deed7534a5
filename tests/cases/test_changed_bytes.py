"""A bit that turns over in what a command left is noticed by whatever reads it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError, ModelError
from ffr.evaluation.compare import load_run
from ffr.evaluation.run import evaluate
from ffr.files import differing_files, write_checksums
from ffr.model_files import check_model_folder
from ffr.report.answered import open_evaluation
from ffr.retrieval.lexical import BaselineRetriever
from ffr.shipped.tiny import TINY_FOLDER
from ffr.training.curriculum.difficulty import (
    DIFFICULTY_FILE,
    Difficulty,
    load_difficulties,
    write_difficulties,
)


def examples(folder: Path) -> list[Example]:
    found = [
        Example(
            Dialogue(f"d{number}", tuple(Utterance("a", (f"bus {line}",)) for line in range(4))),
            f"bus {number}",
            Fragment((number,)),
        )
        for number in range(3)
    ]
    write_examples(folder / "d.jsonl", found, format="ms-swift")
    data = open_dataset(folder / "d.jsonl")
    return [data[number] for number in range(len(data))]


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    evaluate(examples(tmp_path), BaselineRetriever("overlap"), tmp_path / "out", dataset="made")
    return tmp_path / "out"


def each_flipped(path: Path, number: int = 300) -> list[bytes]:
    """The file's bytes with one bit turned over, by turns each somewhere else."""
    good, draw = path.read_bytes(), random.Random(0)
    found = []
    for _ in range(number):
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        found.append(bytes(bad))
    return found


def refusals(path: Path, read: Callable[[], object]) -> int:
    """How often a read is refused in words that name the checksums."""
    good, refused = path.read_bytes(), 0
    read()
    for bad in each_flipped(path):
        path.write_bytes(bad)
        with pytest.raises(
            (DataError, ModelError), match=rf"{path.name}.* is not what was written.*SHA256SUMS"
        ):
            read()
        refused += 1
    path.write_bytes(good)
    read()
    return refused


def test_answers(evaluation: Path) -> None:
    predictions = evaluation / "predictions.jsonl"
    assert refusals(predictions, lambda: load_run(evaluation)) == 300
    assert refusals(predictions, lambda: open_evaluation(evaluation)) == 300
    assert refusals(predictions, lambda: open_evaluation(predictions)) == 300


def test_a_table_of_difficulties(tmp_path: Path) -> None:
    data = examples(tmp_path)
    table = tmp_path / DIFFICULTY_FILE
    write_difficulties(table, data, [Difficulty(0.5, 0.25, is_empty=False)] * len(data))
    write_checksums(tmp_path, [DIFFICULTY_FILE])
    assert refusals(table, lambda: load_difficulties(table, data)) == 300


def test_merged_weights(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_FOLDER, tmp_path / "merged"))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:50_000])
    write_checksums(folder, ["model.safetensors"])
    assert refusals(folder / "model.safetensors", lambda: check_model_folder(str(folder))) == 300


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "out", "out"],
        ["show", "out", "--id", "d1"],
        ["report", "out"],
        ["eval", "--model", "baseline:overlap", "--dataset", "d.jsonl", "--out", "out"],
    ],
)
def test_commands_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = ["eval", "--model", "baseline:overlap", "--dataset", "d.jsonl", "--out", "out"]
    assert CliRunner().invoke(ffr, asked).exit_code == 0
    assert CliRunner().invoke(ffr, words).exit_code == 0
    path = Path("out/predictions.jsonl")
    path.write_text(path.read_text(encoding="utf-8").replace("bus 1", "bus 2", 1), encoding="utf-8")
    done = CliRunner().invoke(ffr, words)
    assert done.exit_code == 1, done.output
    assert done.output.splitlines()[-1].startswith(
        "Error: out/predictions.jsonl: is not what was written (the SHA256SUMS beside it says so)"
    )


def test_answers_that_are_gone_on_with_have_no_checksum_until_they_are_whole(
    evaluation: Path, fake_retriever: type, tmp_path: Path
) -> None:
    data = examples(tmp_path)
    assert differing_files(evaluation) == []
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, fake_retriever(stop_after=1, batch=1), tmp_path / "b", dataset="made")
    assert not (tmp_path / "b" / "SHA256SUMS").exists()
    evaluate(data, fake_retriever(batch=1), tmp_path / "b", dataset="made")
    assert (tmp_path / "b" / "SHA256SUMS").read_text().endswith("  predictions.jsonl\n")
    assert differing_files(tmp_path / "b") == []


def test_a_bench_says_that_its_tables_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(
        "figures: [joint_f1]\ndatasets: [{label: d, dataset: d.jsonl}]\n"
        'models: [{label: m, model: "baseline:overlap"}]\n'
    )
    words = ["bench", "run", "suite.yaml", "--out", "b", "--no-progress"]
    assert CliRunner().invoke(ffr, words).exit_code == 0
    names = {line.split("  ")[1] for line in Path("b/SHA256SUMS").read_text().splitlines()}
    assert names == {"table.md", "table.csv", "table.tex"}
    content = json.loads(Path("b/results.json").read_text())
    Path("b/results.json").write_text(json.dumps(content | {"num_missing": 7}))
    Path("b/table.csv").write_text("")
    done = CliRunner().invoke(ffr, words)
    assert (done.exit_code, differing_files(Path("b"))) == (0, [])
    for name in ("results.json", "table.csv"):
        assert f"b/{name} is not what was written; it is written anew" in done.output
    assert "is not what was written" not in CliRunner().invoke(ffr, words).output
    assert json.loads(Path("b/results.json").read_text())["num_missing"] == 0
