"""`ffr push` against a hub on this machine: all files and the card arrive, and every refusal is a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_standin import Hub, running_hub

from ffr.dialogue import Dialogue, Example, Fragment
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.files import write_text
from ffr.retrieval.lexical import BaselineRetriever

TOKEN = "hf_" + "a" * 34


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "sft-a-1"
    for part in ("merged", "adapter"):
        (folder / part).mkdir(parents=True)
        write_text(folder / part / "README.md", f"# {part}\n")
        (folder / part / "model.safetensors").write_bytes(bytes(range(256)))
        (folder / part / ".owner").write_text("somebody")
    chat = Dialogue.of([("Ann", "the bus is late"), ("Bob", "tea?")], "d")
    evaluate(
        [Example(chat, "bus", Fragment((0,)))],
        BaselineRetriever("overlap"),
        folder / "eval" / "chats",
        dataset="chats",
        baselines=(),
    )
    return folder


def push(*words: object, **environment: str) -> tuple[int, str]:
    """The command in a process of its own: huggingface_hub reads its settings when it is imported."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANS"))
    }
    done = subprocess.run(
        [sys.executable, "-c", "from ffr.cli.main import main; main()", "push", *map(str, words)],
        env={**kept, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_model_arrives_whole(hub: Hub, run: Path, tmp_path: Path) -> None:
    home = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}
    code, text = push(run, "--to", "ann/reads-chats", "--private", **home)
    assert code == 0, text
    assert "figures hold" in text
    last = text.splitlines()[-1]
    assert last == f"{run / 'merged'} is at {hub.address}/ann/reads-chats"
    assert hub.created["name"] == "reads-chats"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in text
    assert hub.files.keys() == {"README.md", "model.safetensors"}
    assert hub.files["model.safetensors"] == bytes(range(256))
    assert b"| chats" in hub.files["README.md"]
    assert hub.messages == ["Upload by ffr"]


def test_nothing_is_pushed_whose_figures_do_not_hold(hub: Hub, run: Path, tmp_path: Path) -> None:
    results = Results.load(run / "eval" / "chats")
    results.summary["scores"]["joint_f1"] = 0.123
    results.save(run / "eval" / "chats")
    hub.requests.clear()
    code, text = push(
        run, "--to", "ann/x", HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN, HF_HOME=str(tmp_path)
    )
    assert code == 1
    assert "so nothing was pushed" in text
    assert hub.requests == []


@pytest.mark.parametrize(
    ("words", "environment", "code", "sentence"),
    [
        (["--to", "no name"], {"HF_TOKEN": TOKEN}, 2, "cannot be a name on the hub"),
        (["--to", "ann/x"], {}, 2, "does not let you write ann/x (401); run `hf auth login`"),
        (["--to", "ann/x"], {"HF_HUB_OFFLINE": "1"}, 2, "is switched off by HF_HUB_OFFLINE"),
        (
            ["--to", "ann/x"],
            {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "http://127.0.0.1:9"},
            1,
            "the hub cannot be reached",
        ),
        (["--to", "ann/x", "--part", "reader"], {}, 2, "has no reader; it has merged, adapter"),
        ([], {}, 2, "Missing option '--to'"),
    ],
)
def test_every_refusal_is_a_sentence(
    hub: Hub, run: Path, tmp_path: Path, words: list[str], environment: dict[str, str], code: int, sentence: str,
) -> None:  # fmt: skip
    home = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
    found, text = push(run, *words, **{**home, **environment})
    assert (found, sentence in " ".join(text.split())) == (code, True), text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, 2, "the hub does not let you write ann/x (403)"),
        (400, 1, "ann/x: the hub refused it"),
    ],
)
def test_a_hub_that_refuses(
    hub: Hub, run: Path, tmp_path: Path, status: int, code: int, sentence: str
) -> None:
    hub.refuses = status
    try:
        found, text = push(
            run, "--to", "ann/x", HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN, HF_HOME=str(tmp_path)
        )
    finally:
        hub.refuses = None
    assert (found, sentence in " ".join(text.split())) == (code, True), text
    assert "Traceback" not in text
