"""Whatever call of the file system fails or is the last: the same command again gives the same files, and nothing is left lying."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import counting

from ffr import files
from ffr.cli.main import ffr

COMMANDS = {
    "eval": [
        "eval",
        "--model",
        "baseline:overlap",
        "--dataset",
        "d.jsonl",
        "--out",
        "out",
        "--no-progress",
    ],
    "convert": ["data", "convert", "d.jsonl", "out.jsonl.gz", "--to", "ms-swift", "--force"],
    "bench": ["bench", "run", "suite.yaml", "--out", "out", "--no-progress"],
    "report": ["report", "ev", "--out", "page.html"],
}


SUITE = """# trivial baselines on a file
figures: [utterance_f1]
datasets:
  - {label: d, dataset: d.jsonl}
models:
  - {label: word overlap, model: "baseline:overlap"}
"""


def call(words: list[str]) -> tuple[int, str]:
    """As a process of its own would: nothing is remembered of folders that were looked into."""
    files._looked_at.clear()
    done = CliRunner().invoke(ffr, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def content(folder: Path) -> dict[str, object]:
    """All files but times, by their paths."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            is_results = path.name == "results.json"
            found[str(path.relative_to(folder))] = (
                _without_times(json.loads(data)) if is_results else data
            )
    return found


def _without_times(value: object) -> object:
    """A result without what differs from one time to the next, and from one folder to the next."""
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    left_out = {"provenance", "path", "image_root"}
    return {name: _without_times(item) for name, item in value.items() if name not in left_out}


def fail() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_child(work: Callable[[], int]) -> int:
    """What a forked process returns, negative where a signal ended it."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(folder: Path, evaluation: Path | None) -> None:
    folder.mkdir()
    os.chdir(folder)
    records = [
        {
            "dialogue_id": f"d{number}",
            "dialogue": [
                {"speaker": "a", "utterance": "hi"},
                {"speaker": "b", "utterance": f"bus {number}"},
            ],
            "query_text": "bus",
            "gt_turns": [1],
        }
        for number in range(3)
    ]
    (folder / "d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "suite.yaml").write_text(SUITE)
    if evaluation is not None:
        shutil.copytree(evaluation, folder / "ev")


def strikes(name: str, strike: Callable[[], None], tmp_path: Path, every: int) -> int:
    """Strikes at calls one by one; tells how many were tried."""
    words, evaluation = COMMANDS[name], None
    if name == "report":
        start(tmp_path / "of", None)
        assert call(COMMANDS["eval"])[0] == 0
        evaluation = tmp_path / "of" / "out"
    start(tmp_path / "whole", evaluation)
    with counting(None, fail) as number:
        assert call(words)[0] == 0
    expected, tried = content(tmp_path / "whole"), 0
    for at in range(1, number[0] + 1, every):
        folder = tmp_path / str(at)
        start(folder, evaluation)

        def struck(at: int = at) -> int:
            with counting(at, strike):
                code, said = call(words)
            lines = [line for line in said.splitlines() if line.startswith("Error")]
            # a bench goes on after a cell that cannot be measured, and says so
            assert code == 0 or (code in (1, 2) and (len(lines) == 1 or "MISSING: " in said)), said
            return code

        assert in_a_child(struck) in ((0, 1, 2) if strike is fail else (-signal.SIGKILL,)), at
        code, said = call(words)
        assert code == 0, (at, said)
        assert content(folder) == expected, at
        tried += 1
    assert tried
    return tried


@pytest.mark.parametrize("strike", [fail, die])
@pytest.mark.parametrize("name", COMMANDS)
def test_some_calls(
    name: str, strike: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    strikes(name, strike, tmp_path, every=41 if name == "bench" else 7)


@pytest.mark.slow
@pytest.mark.parametrize("strike", [fail, die])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_call(
    name: str, strike: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    strikes(name, strike, tmp_path, every=1)
