"""Whatever call of the file system fails or is the last: the same command again gives the same files, and nothing is left lying."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from faults import Outcome, at_every_call, counting, empty

from ffr.cli.main import ffr
from ffr.files import scratch

TRAINING = (
    "-o max_steps=2 -o batch_size=2 -o val_examples=1 -o val_every_steps=1 -o max_new_tokens=8 "
    "-o checkpoint_every_steps=1 -o num_threads=1 -o gradient_checkpointing=false "
    "-o val_dataset=d.jsonl --dataset d.jsonl --no-progress"
)
EVAL = "eval --model baseline:overlap --dataset d.jsonl --no-progress --out"
SUITE = """# trivial baselines on a file
figures: [utterance_f1]
datasets:
  - {label: d, dataset: d.jsonl}
models:
  - {label: overlap, model: "baseline:overlap"}
  - {label: everything, model: "baseline:everything"}
"""


@dataclass(frozen=True)
class Command:
    """What is tried of a command.

    Args:
        words: The command.
        whole: Files and folders that are the old ones or the new ones, whatever happened.
        before: Makes what it is given, and what lies where its result goes.
        again: What is called afterwards, where that is not the same command.
    """

    words: str
    whole: tuple[str, ...]
    before: Callable[[], None] = lambda: None
    again: Callable[[], str] | None = None


def resumed(stage: str) -> str:
    """What goes on with a training; the command that began it where nothing was begun."""
    from ffr.runs import is_unbegun

    return (
        COMMANDS[f"train {stage}"].words
        if is_unbegun(Path("run"))
        else f"train {stage} --resume run"
    )


def anew() -> str:
    """The command that makes a sample, which goes nowhere where something is."""
    shutil.rmtree("out", ignore_errors=True)
    return COMMANDS["data sample"].words


def an_older_file(name: str) -> None:
    Path(name).write_bytes(b"older")


def an_evaluation() -> None:
    assert call(f"{EVAL} ev")[0] == 0
    an_older_file("page.html")


def an_archive() -> None:
    with tarfile.open("set.tar", "w") as archive:
        archive.add("d.jsonl", "train.jsonl")
    Path("home/mldr").mkdir(parents=True)
    an_older_file("home/mldr/older.txt")


def an_export() -> None:
    Path("out").mkdir()
    an_older_file("out/older.txt")
    Path("out/export.json").write_text("{}")


def a_suite() -> None:
    Path("suite.yaml").write_text(SUITE)


COMMANDS = {
    "train sft": Command(
        f"train sft {TRAINING} --out run",
        ("run/merged", "run/adapter", "run/curve.png", "run/checkpoints/step-00000001.ckpt", "run/checkpoints/step-00000002.ckpt"),
        again=partial(resumed, "sft"),
    ),
    "train grpo": Command(
        f"train grpo {TRAINING} -o model=tiny -o num_generations=2 --out run",
        ("run/merged", "run/adapter", "run/curve.png", "run/checkpoints/step-00000001.ckpt", "run/checkpoints/step-00000002.ckpt"),
        again=partial(resumed, "grpo"),
    ),
    "eval": Command(f"{EVAL} out", ("out/results.json", "out/evaluation.json")),
    "curriculum score": Command(
        "curriculum score --model tiny --dataset d.jsonl --no-progress --max-new-tokens 8 --batch-tokens 1 --out out",
        ("out/difficulty.csv", "out/scatter.png"),
    ),
    "data build": Command(
        "data build d.jsonl --out out.jsonl --topics 2 --absent 0 --force", ("out.jsonl",),
        before=partial(an_older_file, "out.jsonl"),
    ),
    "data convert": Command(
        "data convert d.jsonl out.jsonl.gz --to ms-swift --force", ("out.jsonl.gz",),
        before=partial(an_older_file, "out.jsonl.gz"),
    ),
    "data download --archive": Command(
        "data download mldr --archive set.tar --force", ("home/mldr",), before=an_archive
    ),
    "data download --url": Command(
        "data download mldr --url {url}/set.tar --force", ("home/mldr",), before=an_archive
    ),
    "data sample": Command("data sample --name wechat-sample --out out", ("out",), again=anew),
    "export onnx": Command(
        "export onnx --model tiny-clip --part text --out out --replace", ("out",), before=an_export
    ),
    "bench run": Command(
        "bench run suite.yaml --out out --no-progress",
        ("out/cells/overlap/d/results.json", "out/cells/everything/d/results.json"), before=a_suite,
    ),
    "report": Command("report ev --out page.html", ("page.html",), before=an_evaluation),
}  # fmt: skip

SPEEDS = {
    "tokens_per_second", "peak_memory_mb", "seconds_rollout", "seconds_reference", "seconds_update",
}  # fmt: skip
TIMES = SPEEDS | {
    "provenance", "started_at", "finished_at", "time", "command", "error", "date", "total_evaluation_time_seconds",
}  # fmt: skip
REMEMBERED = (
    "tensorboard", "pictures.sqlite3", "torchinductor", "tmp/.ses", "checkpoints/SHA256SUMS",
)  # fmt: skip
"""What holds times throughout, remembers what was looked at, or is another program's."""


def call(words: str) -> tuple[int, str]:
    """As a process of its own would: nothing is remembered of folders that were looked into."""
    scratch._looked_at.clear()
    done = CliRunner().invoke(ffr, words.split())
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return 1, f"{done.output}\nTraceback: {done.exception!r}"
    return done.exit_code, done.output


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in TIMES}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def trained(checkpoint: Path) -> Any:
    """Weights and moments of a checkpoint; Lightning counts in it how often a run was gone on with."""
    import torch

    def named(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        return [named(item) for item in value] if isinstance(value, list) else value

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return named({key: saved[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")})


def content(folder: Path) -> dict[str, Any]:
    """All files but times, by their paths; None for a folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if any(part in name for part in REMEMBERED):
            continue
        data = None if path.is_dir() else path.read_bytes()
        if data and path.suffix == ".json":
            with suppress(ValueError):  # torn, in a scratch folder
                data = untimed(json.loads(data))
        elif data and path.suffix == ".ckpt":
            data = trained(path)
        elif data and path.name == "metrics.csv":
            rows = csv.DictReader(io.StringIO(data.decode()))
            data = [{key: row[key] for key in row if key not in SPEEDS} for row in rows]
        found[name] = data
    return found


def part_of(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {path: found[path] for path in found if path == name or path.startswith(f"{name}/")}


def in_a_child(words: str, said: Path, *, killed_after: float | None = None) -> int:
    """The exit status of a command in a forked process, which may be killed after some seconds."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code, text = call(words)
            said.write_text(text)
        finally:
            os._exit(code)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Bench:
    """A folder in which a command is tried, from the same beginning each time."""

    def __init__(self, name: str, folder: Path, url: str) -> None:
        self.command, self._folder = COMMANDS[name], folder
        self.words = self.command.words.format(url=url)
        self.work = folder / "work"
        self.work.mkdir()
        os.chdir(self.work)
        os.environ |= {"FFR_DATA_HOME": str(self.work / "home"), "TMPDIR": str(self.work / "tmp")}
        tempfile.tempdir = str(self.work / "tmp")
        records = [
            {
                "dialogue_id": f"d{number}",
                "dialogue": [
                    {"speaker": "a", "utterance": "hi"},
                    {"speaker": "b", "utterance": f"bus {number}"},
                ],
                "query_text": f"bus {number}",
                "gt_turns": [1],
            }
            for number in range(4)
        ]
        Path("d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        Path("tmp").mkdir()
        self.command.before()
        self.old = content(self.work)
        shutil.copytree(self.work, folder / "begun")

    def put(self, state: Path) -> None:
        empty(self.work)
        shutil.copytree(state, self.work, dirs_exist_ok=True)

    def result(self) -> dict[str, Any]:
        """What the command makes when nothing strikes.

        In this process, so that its children have what is imported on the way.
        """
        code, said = call(self.words)
        assert code == 0, said
        found = content(self.work)
        self.put(self._folder / "begun")
        return found

    def again(self) -> str:
        return self.words if self.command.again is None else self.command.again()


def misbehaved(outcome: Outcome) -> bool:
    """Whether a command did not take a fault as it should: in one sentence, or in spite of it."""
    if outcome.strike == "killed":
        return outcome.status != -9
    lines = [line for line in outcome.said.splitlines() if line.startswith("Error: ")]
    # a bench goes on after a cell that cannot be measured, and says so
    is_told = len(lines) == 1 or "MISSING: " in outcome.said
    is_sound = outcome.status == 0 or (outcome.status in (1, 2) and is_told)
    return "Traceback" in outcome.said or not is_sound


def gone_on(bench: Bench, state: Path, new: Mapping[str, Any]) -> str:
    """What is wrong with what a fault left, or with what the next call makes of it."""
    bench.put(state)
    left = content(bench.work)
    for part in bench.command.whole:
        if part_of(left, part) not in (part_of(bench.old, part), part_of(new, part)):
            return f"{part} is neither the old one nor the new one"
    again = bench.again()
    code = in_a_child(again, said := state.with_suffix(".said"))
    if code:
        return f"`ffr {again}` ends with {code}: {said.read_text()}"
    differing = differing_paths(content(bench.work), new)
    return f"{differing} differ after `ffr {again}`" if differing else ""


def differing_paths(found: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(
        path for path in found.keys() | new.keys() if found.get(path, 0) != new.get(path, 0)
    )


def struck(name: str, strikes: Mapping[str, int], folder: Path, url: str) -> tuple[int, int]:
    """Tries a command; tells how many calls it makes, and how many states were gone on from."""
    bench = Bench(name, folder, url)
    new = bench.result()
    states = folder / "states"
    states.mkdir()
    num_calls, outcomes = at_every_call(
        lambda: call(bench.words), bench.work, states, content, strikes
    )
    assert outcomes
    assert not (differing := differing_paths(content(bench.work), new)), differing
    faults = [f"{outcome}" for outcome in outcomes if misbehaved(outcome)]
    first = {outcome.state: outcome for outcome in reversed(outcomes)}
    for state, outcome in first.items():
        if fault := gone_on(bench, states / state, new):
            faults.append(f"after {outcome}: {fault}")
    assert not faults, "\n".join(faults)
    return num_calls, len(first)


class _Handler(SimpleHTTPRequestHandler):
    """Serves files, with a tag by which a download is known again, and says nothing."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"same"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    handler = partial(_Handler, directory=str(tmp_path / "begun"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Writer:
    """TensorBoard's writer without its thread, which no fork has."""

    def __init__(self, writer: Any, *_: Any) -> None:
        self.write, self.flush, self.close = writer.write, writer.flush, writer.close


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has the folder and the environment, which a bench changes, put back at the end."""
    monkeypatch.chdir(tmp_path)
    for name in ("FFR_DATA_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, placed: None) -> None:
    """A process without threads, which may fork at any time."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_AsyncWriter", _Writer)


@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("eval", 9),
        ("data convert", 2),
        ("data download --archive", 3),
        ("data download --url", 5),
        ("report", 4),
    ],
)
def test_some_calls(name: str, every: int, tmp_path: Path, url: str, alone: None) -> None:
    struck(name, {"killed": every, "disk full": every}, tmp_path, url)


def test_compare_writes_nothing(tmp_path: Path, url: str, placed: None) -> None:
    bench, calls = Bench("report", tmp_path, url), list[str]()
    with counting(calls.append, bench.work):
        code, said = call("compare ev ev --json")
    assert code == 0, said
    assert calls == []
    assert content(bench.work) == bench.old


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "strikes",
    [
        {"killed": 1},
        {"disk full": 1},
        {"disk full from then on": 3, "disk fault": 7, "no right": 7},
    ],
    ids=["killed", "full", "others"],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_call(
    name: str, strikes: Mapping[str, int], tmp_path: Path, url: str, alone: None
) -> None:
    print(name, strikes, struck(name, strikes, tmp_path, url))


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["train sft", "train grpo", "export onnx"])
def test_killed_at_any_time(name: str, tmp_path: Path, url: str, placed: None) -> None:
    """In the midst of what safetensors, TensorBoard and ONNX write too, at moments of a fixed seed."""
    bench = Bench(name, tmp_path, url)
    new, chance, faults = bench.result(), random.Random(name), []
    begun = time.monotonic()
    assert in_a_child(bench.words, tmp_path / "whole.said") == 0
    duration = time.monotonic() - begun
    for number in range(8):
        bench.put(tmp_path / "begun")
        seconds = chance.uniform(0, duration)
        in_a_child(bench.words, tmp_path / f"{number}.said", killed_after=seconds)
        shutil.copytree(bench.work, state := tmp_path / f"state{number}")
        if fault := gone_on(bench, state, new):
            faults.append(f"killed after {seconds:.2f} of {duration:.2f} s: {fault}")
    assert not faults, "\n".join(faults)
