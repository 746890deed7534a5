"""Faults that the door could have seen never end a run in its middle, and runs outlive the places of their data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.data.forms.ms_swift import example_to_record
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance


def _record(number: int, *sources: str) -> dict[str, Any]:
    lines = (
        Utterance("a", (f"line {number}",)),
        *(Utterance("b", (Image(source),)) for source in sources),
    )
    return example_to_record(Example(Dialogue(f"d{number}", lines), "q", Fragment((0,), ())))


def _write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    return path


def _run(*words: object) -> Result:
    return CliRunner().invoke(ffr, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `a/d.jsonl` with sound pictures, and pictures that are not."""
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        (tmp_path / "a").mkdir(exist_ok=True)
        PIL.Image.new("RGB", (56, 56), (100 * number, 0, 0)).save(tmp_path / "a" / f"{number}.png")
    noise = PIL.Image.effect_noise((80, 60), 80).convert("RGB")
    noise.save(tmp_path / "a" / "half.jpg")
    half = tmp_path / "a" / "half.jpg"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    PIL.Image.new("RGB", (4, 1000)).save(tmp_path / "a" / "strip.png")
    _write(tmp_path / "a" / "d.jsonl", _record(0, "0.png"), _record(1, "1.png"), _record(2))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("half.jpg", "is damaged"),
        ("strip.png", "is a strip of 4×1000 pixels, which the model cannot take"),
    ],
)
def test_bad_pictures_are_left_out_before_the_first_step(
    folder: Path, source: str, fault: str
) -> None:
    data = _write(folder / "a" / "bad.jsonl", _record(0, "0.png"), _record(1, source), _record(2))
    common = ("--dataset", data, "--no-progress")
    train = ("train", "sft", *common, "-o", "max_steps=1", "-o", "val_examples=0")
    refused = _run(*train, "--out", "refused")
    assert refused.exit_code == 1
    assert f'bad.jsonl:2: image "{folder}/a/{source}" {fault}' in refused.output
    assert not Path("refused").exists()
    assert _run(*train, "--dry-run").output == refused.output
    trained = _run(*train, "--out", "run", "--skip-bad")
    assert trained.exit_code == 0, trained.output
    assert f'  bad.jsonl:2: image "{folder}/a/{source}" {fault}' in trained.output
    assert json.loads(Path("run/run.json").read_text())["num_left_out"] == 1
    measured = _run("eval", "--model", "tiny", *common, "--skip-bad", "--out", "ev")
    assert measured.exit_code == 0, measured.output
    found = json.loads(Path("ev/results.json").read_text())["data"]
    assert (found["num_examples"], found["num_left_out"], found["num_unread_images"]) == (2, 1, 0)
    warned = _run("data", "check", data)
    named = _run("data", "check", data, "--model", "tiny")
    assert named.exit_code == 1
    assert f'bad.jsonl:2: image "{folder}/a/{source}" {fault}' in named.output
    assert (warned.exit_code, "warning: bad.jsonl:2" in warned.output) == (
        (0, True) if source == "strip.png" else (1, False)
    )


def test_an_input_that_is_too_long_is_known_before_the_first_step(folder: Path) -> None:
    long = _record(1)
    long["messages"][1]["content"] = long["messages"][1]["content"].replace("line 1", "line " * 400)
    data = _write(folder / "a" / "long.jsonl", _record(0), long)
    train = (
        "train",
        "sft",
        "--dataset",
        data,
        "--no-progress",
        "--dry-run",
        "-o",
        "max_tokens=500",
    )
    refused = _run(*train)
    assert refused.exit_code == 1
    assert "long.jsonl:2: dialogue 'd1' makes " in refused.output
    assert _run(*train, "--skip-bad").exit_code == 0


def test_what_a_policy_will_write_has_to_fit_behind_its_prompt(folder: Path) -> None:
    data = _write(folder / "a" / "d.jsonl", _record(0), _record(1))
    train = ("train", "grpo", "--from", "tiny", "--dataset", data, "--no-progress", "--dry-run")
    refused = _run(*train, "-o", "max_new_tokens=8180")
    assert refused.exit_code == 1
    assert "d.jsonl:1: dialogue 'd0' makes " in refused.output
    assert "leaves no room for 8180 of an answer in the model's context of 8192" in refused.output
    assert _run(*train, "-o", "max_new_tokens=64").exit_code == 0


def test_a_prompt_without_room_is_known_before_a_model_is_asked(folder: Path) -> None:
    long = _record(1)
    long["messages"][1]["content"] = long["messages"][1]["content"].replace("line 1", "ab " * 9000)
    data = _write(folder / "a" / "long.jsonl", _record(0), long, _record(2))
    fault = (
        r"long\.jsonl:2: its prompt of (\d+) tokens and an answer of up to 512 exceed the model's "
        r"8192; lower --max-new-tokens, cut long dialogues by --window"
    )
    checked = _run("data", "check", data, "--model", "tiny")
    assert checked.exit_code == 1
    assert re.search(f"^{fault}", checked.output, re.MULTILINE)
    assert "2 of 3 records good, 1 bad" in checked.output

    command = ("eval", "--model", "tiny", "--dataset", data, "--no-baselines", "--no-progress")
    asked = _run(*command, "--out", "ev")
    assert asked.exit_code == 0, asked.output
    said = (
        "long.jsonl: 1 query cannot be answered and will count as wrong (--skip-bad leaves it "
        f"out):\n  {re.search(fault, checked.output)[0]}"  # type: ignore[index]
    )
    assert said in asked.output
    assert asked.output.index(said) < asked.output.index("Results: ")
    found = json.loads(Path("ev/results.json").read_text())
    assert (found["data"]["num_examples"], found["summary"]["answers"]["num_failed"]) == (3, 1)

    skipped = _run(*command, "--out", "skipped", "--skip-bad")
    assert skipped.exit_code == 0, skipped.output
    assert "1 bad record or query left out:\n  long.jsonl:2: its prompt of " in skipped.output
    found = json.loads(Path("skipped/results.json").read_text())
    assert (found["data"]["num_examples"], found["data"]["num_left_out"]) == (2, 1)
    assert found["summary"]["answers"]["num_failed"] == 0


def test_replaced_pictures_are_other_data(folder: Path) -> None:
    command = ("eval", "--model", "baseline:overlap", "--dataset", "a/d.jsonl", "--out", "ev")
    assert _run(*command).exit_code == 0
    shutil.copytree("a", "moved/data")
    moved = _run(*command[:4], "moved/data/d.jsonl", *command[5:])
    assert moved.exit_code == 0, moved.output
    assert json.loads(Path("ev/results.json").read_text())["provenance"]["num_answers_resumed"] == 3
    PIL.Image.new("RGB", (56, 56), (7, 7, 7)).save("a/1.png")
    refused = _run(*command)
    assert refused.exit_code == 2
    assert "differs in data_fingerprint" in refused.output


def test_a_run_outlives_the_places_of_its_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--no-progress", "-o", "max_steps=1", "-o", "val_examples=0", "-o", "num_workers=0")
    assert _run("train", "sft", "--dataset", "a/d.jsonl", "--out", "run", *words).exit_code == 0
    record = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    resume = ("train", "sft", "--resume", folder / "run", "--dry-run", "--no-progress")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert _run(*resume).exit_code == 0
    shutil.move(folder / "a", folder / "b")
    lost = _run(*resume)
    assert lost.exit_code == 2
    assert "no data file or set" in lost.output
    named = _run(*resume, "--dataset", "../b/d.jsonl")
    assert named.exit_code == 0, named.output
    PIL.Image.new("RGB", (56, 56), (7, 7, 7)).save(folder / "b" / "1.png")
    changed = _run(*resume, "--dataset", "../b/d.jsonl")
    assert changed.exit_code == 1
    assert (
        "the training data changed since the run began (its texts, answers or pictures)"
        in changed.output
    )


def test_what_was_killed_before_it_began_begins_anew(folder: Path) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("model: tiny\n")
    refused = _run("train", "sft", "--resume", "run")
    assert refused.exit_code == 2
    assert (
        "no training was begun there; give the command that starts it, with --out run"
        in refused.output
    )
    command = (
        "train",
        "sft",
        "--dataset",
        "a/d.jsonl",
        "--out",
        "run",
        "--no-progress",
        "-o",
        "max_steps=1",
    )
    assert _run(*command, "--dry-run").exit_code == 0
    Path("run/metrics.csv").write_text("")
    assert "this folder is not empty" in _run(*command, "--dry-run").output
