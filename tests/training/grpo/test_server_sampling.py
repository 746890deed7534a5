"""Answers by a server: what it is asked, that they are those of the trained policy, and each fault in words."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rollout_standin import BASE, Fault, RolloutStandin, refusal, rollout_standin

from ffr.cli.main import ffr
from ffr.shipped.tiny import TINY_FOLDER

PLACEHOLDER = json.loads((TINY_FOLDER / "config.json").read_text(encoding="utf-8"))[
    "image_token_id"
]
KEY = "sk-secret-0123456789abcdef"
SETTINGS = {
    "max_steps": 2, "batch_size": 2, "accumulate": 1, "num_generations": 3, "max_new_tokens": 24, "val_examples": 0,
    "learning_rate": 1e-2, "warmup_share": 0, "num_threads": 1, "gradient_checkpointing": False, "resample_attempts": 1,
    "show_samples_every_steps": 1, "rollout_engine": "server", "rollout_retries": 1, "rollout_key_env": "ROLLOUT_KEY",
    "rollout_timeout": 20, "num_workers": 0,
}  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, sample_home: Path) -> Iterator[RolloutStandin]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROLLOUT_KEY", KEY)
    with rollout_standin(TINY_FOLDER) as standin:
        yield standin


def trained(server: RolloutStandin, *more: str, **settings: Any) -> Result:
    chosen = {**SETTINGS, "rollout_server": f"{server.url}#{BASE}", **settings}
    words = [word for name, value in chosen.items() for word in ("-o", f"{name}={value}")]
    return CliRunner().invoke(ffr, ["train", "grpo", "--from", "tiny", *words, *more])


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_by_a_server(server: RolloutStandin, tmp_path: Path) -> None:
    """The stand-in answers by the adapter that it was handed, so that the gap is one of rounding: before and after an update."""
    run = tmp_path / "run"
    done = trained(server, "--out", str(run))
    assert done.exit_code == 0, done.output
    assert f"answers are sampled by the server at {server.url.removesuffix('/v1')}" in done.output
    for row in rows(run):
        assert float(row["sampling_gap_max"]) < 1e-3
        assert row["importance_capped_share"] == "0.0"
        assert float(row["grad_norm"]) > 0
    lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [len(json.loads(line)["answers"]) for line in lines] == [3] * 4

    paths = [path.removeprefix("/v1/") for path, _ in server.asked]
    assert paths[0] == "chat/completions", "first it is seen that the server is there"
    assert paths.count("load_lora_adapter") == paths.count("unload_lora_adapter") == 2
    assert server.adapters == {}
    assert not (run / "served_adapter").exists()
    loaded = [body for path, body in server.asked if path.endswith("/load_lora_adapter")]
    assert len({body["lora_name"] for body in loaded}) == 2
    assert all(Path(body["lora_path"]).parent == run / "served_adapter" for body in loaded)
    asked = [body for path, body in server.asked[1:] if path.endswith("/completions")]
    assert len(asked) >= 4
    assert {body["model"] for body in asked} == {body["lora_name"] for body in loaded}
    assert {
        (body["n"], body["max_tokens"], body["temperature"], body["top_p"]) for body in asked
    } == {(3, 24, 1.0, 0.85)}
    assert len({body["seed"] for body in asked}) == len(asked)
    assert any("image_url" in json.dumps(body["messages"]) for body in asked)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    for path in run.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_seeds_of_a_run_are_its_own(server: RolloutStandin, tmp_path: Path) -> None:
    """The same run asks with the same seeds, so that a server whose sums have one order gives the same run."""
    found = []
    for name in ("one", "two"):
        server.asked.clear()
        assert trained(server, "--out", str(tmp_path / name), max_steps=1).exit_code == 0
        found.append(sorted(body["seed"] for _, body in server.asked if "seed" in body))
    assert found[0] == found[1]
    texts = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("one", "two")]
    assert texts[0] == texts[1]


def test_adapters_may_lie_elsewhere(server: RolloutStandin, tmp_path: Path) -> None:
    both_see = tmp_path / "seen"
    done = trained(
        server, "--out", str(tmp_path / "run"), max_steps=1, rollout_adapter_dir=str(both_see)
    )
    assert done.exit_code == 0, done.output
    folder = next(body["lora_path"] for path, body in server.asked if "/load" in path)
    assert Path(folder).parent == both_see / "run-served_adapter"
    assert list(both_see.iterdir()) == []


def on(path: str, change: Any) -> Fault:
    """What is sent in the place of every answer to an adapter's name, or to a call."""

    def fault(asked: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        if not asked.endswith(path) or body.get("model") == BASE:
            return None
        return change(body)

    return fault


def edited(server: RolloutStandin, edit: Any) -> Fault:
    """The true answer, changed."""

    def fault(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        status, content = server._true_reply(path, body)
        # one that was under way when another had failed comes too late for its adapter
        if not path.endswith("/completions") or body["model"] == BASE or status != 200:
            return status, content
        found = json.loads(content)
        edit(found)
        return status, json.dumps(found).encode()

    return fault


def _drop_one(found: dict[str, Any]) -> None:
    found["choices"].pop()


def _without_ids(found: dict[str, Any]) -> None:
    found["choices"][0]["logprobs"]["content"][0]["token"] = "["


def _read_more(found: dict[str, Any]) -> None:
    found["usage"]["prompt_tokens"] += 7


def _infinite(found: dict[str, Any]) -> None:
    found["choices"][1]["logprobs"]["content"][0]["logprob"] = -float("inf")


def _unknown_token(found: dict[str, Any]) -> None:
    found["choices"][1]["logprobs"]["content"][0]["token"] = "token_id:999999"


def _no_stop(found: dict[str, Any]) -> None:
    choice = found["choices"][0]
    choice["finish_reason"] = "stop"
    choice["logprobs"]["content"][-1]["token"] = "token_id:20"


def _goes_on(found: dict[str, Any]) -> None:
    for choice in found["choices"]:
        # of some prompts all answers are cut off
        if choice["finish_reason"] == "stop":
            tokens = choice["logprobs"]["content"]
            tokens.insert(0, tokens[-1])


def _a_picture(found: dict[str, Any]) -> None:
    found["choices"][0]["logprobs"]["content"][0]["token"] = f"token_id:{PLACEHOLDER}"


def _drifted(found: dict[str, Any]) -> None:
    for choice in found["choices"]:
        for token in choice["logprobs"]["content"]:
            token["logprob"] -= 0.5


@pytest.mark.parametrize(
    ("edit", "sentence", "repeated"),
    [
        pytest.param(_drop_one, "2 answers where 3 were asked for", True, id="fewer answers"),
        pytest.param(_without_ids, "without the ids of its tokens", True, id="no ids"),
        pytest.param(_infinite, "a log-probability that is no finite number", True, id="inf"),
        pytest.param(_read_more, "have it serve that model, with its own chat", False, id="prompt"),
        pytest.param(_unknown_token, "with a token that the model has not", False, id="unknown"),
        pytest.param(_no_stop, "ends with another token than the model's", False, id="no stop"),
        pytest.param(_goes_on, "that goes on behind its end", False, id="goes on"),
        pytest.param(_a_picture, "token that stands for a picture", False, id="picture"),
        pytest.param(_drifted, "differ by 0.5 in the mean", False, id="drift"),
    ],
)
def test_answers_that_are_not_what_was_asked_for(
    server: RolloutStandin, tmp_path: Path, edit: Any, sentence: str, repeated: bool
) -> None:
    server.fault = edited(server, edit)
    done = trained(server, "--out", str(tmp_path / "run"), max_steps=1)
    assert done.exit_code == 1
    assert sentence in done.output
    assert ("asked 2 times" in done.output) == repeated
    assert "Traceback" not in done.output
    assert server.adapters == {}, "the adapter is let go of all the same"


@pytest.mark.parametrize(
    ("fault", "sentences"),
    [
        pytest.param(
            on("/load_lora_adapter", lambda body: refusal(400, "rank 8 is more than 4")),
            ("refused with 400 (rank 8 is more than 4)", "--max-lora-rank"),
            id="refuses the adapter",
        ),
        pytest.param(
            on("/load_lora_adapter", lambda body: (404, b'{"detail":"Not Found"}')),
            ("refused with 404", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
            id="knows no adapters",
        ),
        pytest.param(
            on("/completions", lambda body: refusal(500, f"broken, {KEY}")),
            ("asked 2 times and gave no answer, at last 500 (broken, [key])", "--resume"),
            id="500 for ever",
        ),
        pytest.param(
            on("/completions", lambda body: (200, b"<html>")),
            ("asked 2 times", "is not JSON"),
            id="no JSON",
        ),
        pytest.param(
            on("/completions", lambda body: refusal(401, "who are you")),
            ("refused with 401", "ROLLOUT_KEY (rollout_key_env names another"),
            id="key",
        ),
        pytest.param(
            on("/completions", lambda body: refusal(400, "maximum context length")),
            ("refused with 400 (maximum context length)", "room for the prompt"),
            id="too long",
        ),
    ],
)
def test_faults_of_a_server_are_said(
    server: RolloutStandin, tmp_path: Path, fault: Fault, sentences: tuple[str, ...]
) -> None:
    server.fault = fault
    done = trained(server, "--out", str(tmp_path / "run"), max_steps=1)
    assert done.exit_code == 1
    for sentence in sentences:
        assert sentence in done.output
    assert KEY not in done.output
    assert "Traceback" not in done.output


def test_a_server_that_never_answered_leaves_nothing_to_go_on_with(
    server: RolloutStandin, tmp_path: Path
) -> None:
    server.fault = lambda path, body: refusal(500, "starting")
    done = trained(server, "--out", str(tmp_path / "run"), max_steps=1)
    assert done.exit_code == 1
    assert "then give the same command" in done.output
    assert "--resume" not in done.output


def test_a_passing_fault_is_passed_over(server: RolloutStandin, tmp_path: Path) -> None:
    failed: set[str] = set()

    def once_each(path: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        if path in failed:
            return None
        failed.add(path)
        return refusal(503, "loading")

    server.fault = once_each
    done = trained(server, "--out", str(tmp_path / "run"), max_steps=1)
    assert done.exit_code == 0, done.output
    assert len(failed) == 3


def test_a_server_that_is_not_there_stops_a_dry_run_too(
    server: RolloutStandin, tmp_path: Path
) -> None:
    there = trained(server, "--dry-run")
    assert there.exit_code == 0, there.output
    assert "answers are sampled by the server at" in there.output
    assert server.adapters == {}
    for words in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        gone = trained(server, *words, rollout_server="http://127.0.0.1:9/v1#m")
        assert gone.exit_code == 1
        assert "gave no answer, at last a cut connection" in gone.output
        assert "see whether it runs at http://127.0.0.1:9" in gone.output
    other = trained(server, "--dry-run", rollout_server=f"{server.url}#org/other")
    assert other.exit_code == 1
    assert "refused with 404" in other.output
    assert "see that it serves the model that 'org/other' names" in other.output


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rollout_server": "none"}, "have no meaning without each other"),
        ({"rollout_engine": "local"}, "have no meaning without each other"),
        ({"rollout_server": "localhost:8000"}, "is written"),
        ({"rollout_server": "http://u:p@host/v1#m"}, "which would be written down"),
        ({"temperature": 0.7}, "log-probabilities at temperature 1 alone"),
        ({"devices": 2}, "set devices=1"),
        ({"lora_rank": 0, "kl_coefficient": 0}, "lora_rank=0 has none"),
        ({"sampling_weights": "merged"}, "has no meaning; leave it at adapters"),
        ({"compile_sampling": True}, "compile_sampling has no meaning; leave it false"),
        ({"draft_tokens": 4}, "draft_tokens has no meaning; leave it at 0"),
    ],
)
def test_settings_that_do_not_go_together(
    server: RolloutStandin, settings: dict[str, Any], sentence: str
) -> None:
    done = trained(server, "--dry-run", **settings)
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.output.split())
