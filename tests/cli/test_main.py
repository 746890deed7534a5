"""The command itself: errors as one sentence with their exit code, completion, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ffr.cli import main as main_module
from ffr.cli.main import ffr
from ffr.errors import DataError, FfrError, ModelError, UsageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such thing"), 2),
        (DataError("is broken", where="a.jsonl:3"), 1),
        (ModelError("is broken", "folder"), 1),
        (FfrError("broken"), 1),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: FfrError, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(main_module, "failing", failing, raising=False)
    monkeypatch.setitem(main_module._COMMANDS, "failing", ("ffr.cli.main", "failing", "fails"))
    result = CliRunner().invoke(ffr, ["failing"])
    assert result.exit_code == code
    assert result.output == f"Error: {error}\n"


@pytest.mark.parametrize(
    ("number", "words"), [(28, "No space left on device"), (13, "Permission denied")]
)
def test_what_the_disk_does_is_a_sentence(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def failing() -> None:
        raise OSError(number, words, "run/merged")

    monkeypatch.setattr(main_module, "failing", failing, raising=False)
    monkeypatch.setitem(main_module._COMMANDS, "failing", ("ffr.cli.main", "failing", "fails"))
    result = CliRunner().invoke(ffr, ["failing"])
    sentence = f"run/merged: {words}; see to its room and its rights, or name another place"
    assert (result.exit_code, result.output) == (1, f"Error: {sentence}\n")


def test_unknown_commands_and_options_exit_with_2() -> None:
    assert CliRunner().invoke(ffr, ["trian"]).exit_code == 2
    assert CliRunner().invoke(ffr, ["train", "sft", "--sed", "1"]).exit_code == 2


@pytest.mark.parametrize("words", ["train sft --list-settings", "data check --help"])
def test_a_reader_that_has_gone_ends_the_command_quietly(words: str) -> None:
    # a pipe that nobody reads from the beginning: `head` may be too slow
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ffr.cli.main", *words.split()]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_doctor_shows_brackets_and_foreign_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ffr.cli import doctor

    findings = [
        doctor.Finding("data", "ok", "data folder /x[/b]y\x1b[2J"),
        doctor.Finding("extra", "note", "wandb is not installed", "pip install 'ffr-vlm[wandb]'"),
    ]
    for name in ("_packages", "_devices", "_providers", "_data", "_models"):
        monkeypatch.setattr(doctor, name, lambda name=name: findings if name == "_data" else [])
    result = CliRunner(env={"COLUMNS": "200"}).invoke(ffr, ["doctor"])
    assert result.exit_code == 0
    assert "data folder /x[/b]y␛[2J" in result.output
    assert "pip install 'ffr-vlm[wandb]'" in result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_ffr(shell: str) -> None:
    result = CliRunner().invoke(ffr, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert "_FFR_COMPLETE" in result.output


def test_completion_completes() -> None:
    from click.shell_completion import BashComplete

    found = BashComplete(ffr, {}, "ffr", "_FFR_COMPLETE").get_completions(
        ["train", "sft"], "--data"
    )
    assert [item.value for item in found] == ["--dataset"]


def test_doctor_lists_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(ffr, ["doctor", "--json"])
    findings = json.loads(result.output)
    texts = [finding["text"] for finding in findings]
    assert any(text.startswith("torch ") for text in texts)
    assert "tiny: embedded" in texts
    remedies = {finding["text"].split(":")[0]: finding["remedy"] for finding in findings}
    assert "ffr data download mldr" in remedies["mldr"]
    assert result.exit_code == (
        1 if any(finding["status"] == "missing" for finding in findings) else 0
    )
    table = CliRunner().invoke(ffr, ["doctor"])
    assert "torch" in table.output


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ffr.shipped.tiny

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ffr.shipped.tiny, "TINY_FOLDER", tmp_path)
    result = CliRunner().invoke(main_module.ffr, ["doctor", "--json"])
    assert result.exit_code == 1
    missing = [finding for finding in json.loads(result.output) if finding["status"] == "missing"]
    assert any("tiny" in finding["text"] and finding["remedy"] for finding in missing)


def test_ctrl_c_is_a_sentence_and_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ffr.run_summary.all_runs", stop)
    done = CliRunner().invoke(ffr, ["runs", "list", "--root", str(tmp_path)])
    assert done.exit_code == 130
    assert done.output == "\nstopped by Ctrl-C; what was written whole stays\n"
