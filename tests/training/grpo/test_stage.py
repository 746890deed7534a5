"""GRPO from settings to a run folder: killed and resumed bit for bit, learning what is rewarded, and with every guard tripped."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from signalled import Event, before, behind, run_signalled

from ffr.cli.main import ffr
from ffr.errors import UsageError
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import BranchLogprobs, PrefixSharing
from ffr.rewards.terms import RewardError
from ffr.settings import GrpoConfig
from ffr.shipped.tiny import TINY_FOLDER
from ffr.training.common.stage import Job, train
from ffr.training.grpo.local_sampling import LocalSampling
from ffr.training.grpo.module import GrpoModule
from ffr.training.grpo.stage import GrpoStage

SMALL = {
    "model": "tiny", "max_steps": 4, "batch_size": 2, "accumulate": 2, "num_generations": 4, "updates_per_rollout": 2,
    "max_new_tokens": 24, "val_examples": 3, "val_every_steps": 2, "checkpoint_every_steps": 1, "learning_rate": 1e-3,
    "lora_dropout": 0.1, "num_threads": 1, "gradient_checkpointing": False, "show_samples_every_steps": 2,
    "resample_attempts": 1, "order_weight": 1.0,
}  # fmt: skip
NOT_REPEATABLE = {
    "tokens_per_second",
    "peak_memory_mb",
    "seconds_rollout",
    "seconds_reference",
    "seconds_update",
}


def _options(**settings: object) -> list[str]:
    return [
        word for name, value in {**SMALL, **settings}.items() for word in ("-o", f"{name}={value}")
    ]


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ffr.cli.main", "train", "grpo", *words]


def _train(run: Path, **settings: Any) -> Path:
    return train(
        GrpoStage(),
        GrpoConfig(**{**SMALL, **settings}),
        Job(run=run, say=lambda text: None, progress=False),
    ).run


def _rows(run: Path) -> list[dict[str, str]]:
    """The figures that must be the same to the last bit: all but speed and memory."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [
            {name: row[name] for name in row if name not in NOT_REPEATABLE}
            for row in csv.DictReader(file)
        ]


def _weights(run: Path) -> bytes:
    return (run / "merged" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, sample_home: Path) -> Path:
    """A table of difficulties that looks like a real one; making a real one takes minutes."""
    from ffr.data.catalog import load_dataset
    from ffr.training.curriculum.difficulty import write_difficulties
    from ffr.training.curriculum.order import Difficulty

    data = list(load_dataset("sample", split="grpo"))
    path = tmp_path_factory.mktemp("table") / "difficulty.csv"
    facts = [
        Difficulty(
            (index * 7 % 11) / 10,
            (index * 5 % 13) / 4,
            bool(example.fragment and example.fragment.is_empty),
        )
        for index, example in enumerate(data)
    ]
    write_difficulties(path, data, facts)
    return path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, table: Path) -> Path:
    """A run that nothing disturbed, with an order that looks at the rewards."""
    run = tmp_path_factory.mktemp("whole") / "run"
    words = [*_options(difficulty=table), "--curriculum", "online", "--out", str(run)]
    done = CliRunner().invoke(ffr, ["train", "grpo", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Training tiny on sample" in done.output.splitlines()[0]
    return run


def test_a_run_leaves_what_it_promises(whole_run: Path) -> None:
    names = (
        "config.yaml",
        "metrics.csv",
        "curve.png",
        "levels.png",
        "samples.jsonl",
        "merged/config.json",
    )
    for name in (*names, "adapter/adapter_model.safetensors"):
        assert (whole_run / name).is_file(), name
    record = json.loads((whole_run / "run.json").read_text(encoding="utf-8"))
    assert (record["stage"], record["status"], record["model"]) == ("grpo", "finished", "tiny")
    rows = _rows(whole_run)
    assert [row["step"] for row in rows] == list("1234")
    assert [bool(row["val_loss"]) for row in rows] == [False, True, False, True]
    for row in rows:
        shares = [float(row[f"level_{level}"]) for level in ("easy", "medium", "confusing", "hard")]
        assert sum(shares) == pytest.approx(1)
        total = (
            0.3 * float(row["reward_format"]) + float(row["reward_f1"]) + float(row["reward_order"])
        )
        assert float(row["reward"]) == pytest.approx(total, rel=1e-5)
        assert float(row["kl"]) >= 0
    assert float(rows[0]["entropy"]) > 0


def test_a_checkpoint_keeps_its_form(whole_run: Path) -> None:
    """Runs that were begun by an earlier version find their place again by these names."""
    checkpoint = torch.load(whole_run / "checkpoints" / "step-00000004.ckpt", weights_only=True)
    assert checkpoint["loops"]["fit_loop"]["state_dict"] == {
        "combined_loader": [{"steps_given": 4}]
    }
    assert checkpoint["callbacks"]["CurriculumCallback"]["num_drawn"] == 4 * 4
    assert set(checkpoint["callbacks"]) == {"CurriculumCallback"}
    assert set(checkpoint["ffr"]) == {"configuration", "data", "model"}


def test_samples_say_what_was_answered_and_earned(whole_run: Path) -> None:
    lines = [
        json.loads(line)
        for line in (whole_run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in lines] == [1] * 4 + [2] * 4 + [4] * 4
    for line in lines:
        assert line["dialogue_id"].startswith("sample_grpo")
        assert len(line["answers"]) == 4
        rewards = [answer["reward"] for answer in line["answers"]]
        advantages = [answer["advantage"] for answer in line["answers"]]
        if max(rewards) - min(rewards) > 1e-5:
            assert rewards.index(max(rewards)) == advantages.index(max(advantages))


def _completions(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "completions").iterdir()}


def test_completions_are_the_samples_as_a_table(whole_run: Path) -> None:
    lines = [
        json.loads(line)
        for line in (whole_run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    names = [f"completions_{step:05d}.parquet" for step in (1, 2, 4)]
    assert sorted(_completions(whole_run)) == names
    rows = [
        row
        for name in names
        for row in pyarrow.parquet.read_table(whole_run / "completions" / name).to_pylist()
    ]
    assert [
        (row["step"], row["dialogue_id"], row["query"], row["solution"], row["completion"],
         row["reward"], row["reward_f1"], row["advantage"])
        for row in rows
    ] == [
        (line["step"], line["dialogue_id"], line["query"], line["truth"], answer["text"],
         answer["reward"], answer["terms"]["f1"], answer["advantage"])
        for line in lines for answer in line["answers"]
    ]  # fmt: skip
    for row in rows:
        assert f"<|query_start|>{row['query']}<|query_end|>" in row["prompt"]


@pytest.mark.parametrize(
    ("number", "event", "last_step"),
    [
        # the second step's answers are sampled and written down, the first of its two updates is made
        pytest.param(
            signal.SIGKILL,
            before("ffr.training.grpo.module:GrpoModule._update", 4),
            1,
            id="in an update",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            signal.SIGKILL,
            behind("ffr.run_log:MetricsFile.append", 2),
            1,
            id="before a checkpoint",
            marks=pytest.mark.slow,
        ),
        # a request to stop waits for the end of the step
        pytest.param(
            signal.SIGTERM,
            before("ffr.training.grpo.module:GrpoModule._update", 6),
            3,
            id="SIGTERM",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_and_resumed_is_the_same_to_the_bit(
    whole_run: Path,
    tmp_path: Path,
    table: Path,
    number: signal.Signals,
    event: Event,
    last_step: int,
) -> None:
    """Two updates a rollout, accumulation, dropout, validation and an order with state."""
    run = tmp_path / "run"
    words = [*_options(difficulty=table), "--curriculum", "online", "--out", str(run)]
    assert run_signalled(["train", "grpo", *words], event, number) == (
        -9 if number == signal.SIGKILL else 130
    )
    assert max(path.name for path in run.glob("checkpoints/*.ckpt")) == f"step-{last_step:08d}.ckpt"
    done = subprocess.run(
        _command("--resume", str(run)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"going on after step {last_step}" in done.stdout
    assert _rows(run) == _rows(whole_run)
    assert _weights(run) == _weights(whole_run)
    assert (run / "samples.jsonl").read_bytes() == (whole_run / "samples.jsonl").read_bytes()
    assert _completions(run) == _completions(whole_run)


def test_stopped_and_resumed_is_the_same_to_the_bit(
    whole_run: Path, tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, within one process, whose own random numbers have gone on in between."""
    run = tmp_path / "run"
    take_figures, steps = GrpoModule.take_step_figures, []

    def stop_after_two(self: GrpoModule, batch: Any) -> Any:
        steps.append(batch)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return take_figures(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GrpoModule, "take_step_figures", stop_after_two)
        words = [*_options(difficulty=table), "--curriculum", "online", "--out", str(run)]
        assert CliRunner().invoke(ffr, ["train", "grpo", *words]).exit_code == 130
    assert len(_rows(run)) == len(steps) == 2
    done = CliRunner().invoke(ffr, ["train", "grpo", "--resume", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "going on after step 2" in done.output
    assert _rows(run) == _rows(whole_run)
    assert _weights(run) == _weights(whole_run)
    assert (run / "samples.jsonl").read_bytes() == (whole_run / "samples.jsonl").read_bytes()
    assert _completions(run) == _completions(whole_run)


ONE_STEP = {
    "max_steps": 1, "batch_size": 4, "accumulate": 1, "lora_dropout": 0.0, "val_examples": 0, "updates_per_rollout": 1,
    "rollout_batch": 4, "show_samples_every_steps": 0, "resample_attempts": 0,
}  # fmt: skip


def test_how_a_step_is_cut_does_not_matter(sample_home: Path, tmp_path: Path) -> None:
    """All prompts at once, one by one, few answers at a time, prompts repeated for each answer, activations computed again."""
    cuts: list[dict[str, Any]] = [
        {},
        {"batch_size": 1, "accumulate": 4, "prompt_sharing": "off"},
        {"answers_per_pass": 3, "gradient_checkpointing": True},
    ]
    rows = [
        _rows(_train(tmp_path / str(number), **{**ONE_STEP, **cut}))[0]
        for number, cut in enumerate(cuts)
    ]
    for row in rows[1:]:
        for name in ("reward", "kl", "entropy", "answer_tokens"):
            assert float(row[name]) == pytest.approx(float(rows[0][name]), rel=1e-4, abs=1e-6), name
        assert float(row["grad_norm"]) == pytest.approx(float(rows[0]["grad_norm"]), rel=2e-3)


@pytest.mark.slow
def test_packed_queries_are_the_same_step(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All queries of a dialogue behind it, however the step is cut, against each prompt by itself: sampling, reference, update."""
    answers: list[int] = []
    score = PrefixSharing.score

    def noted(
        self: PrefixSharing, prompts: Sequence[Encoded], branches: Any, **options: Any
    ) -> BranchLogprobs:
        assert len(prompts) == 1
        answers.append(sum(map(len, branches)))
        return score(self, prompts, branches, **options)

    monkeypatch.setattr(PrefixSharing, "score", noted)
    packed = {**ONE_STEP, "batch_size": 6, "rollout_batch": 6, "pack_queries": True}
    whole = _rows(_train(tmp_path / "packed", **packed))[0]
    assert answers.pop(0) == 6 * 4, (
        "the start-up check takes as many prompts at once as a pass may hold"
    )
    # a pass a dialogue: the reference's passes, then the update's
    num_passes = len(answers) // 2
    assert num_passes < 6
    assert answers[:num_passes] == answers[num_passes:]
    assert sum(answers[:num_passes]) == 6 * 4
    monkeypatch.setattr(PrefixSharing, "score", score)
    for number, cut in enumerate(
        [
            {"prompt_sharing": "off"},
            {"answers_per_pass": 3, "gradient_checkpointing": True},
            {"batch_size": 2, "accumulate": 3},
        ]
    ):
        row = _rows(_train(tmp_path / str(number), **{**packed, **cut}))[0]
        for name in ("reward", "kl", "entropy", "answer_tokens"):
            assert float(row[name]) == pytest.approx(float(whole[name]), rel=1e-4, abs=1e-6), name
        assert float(row["grad_norm"]) == pytest.approx(float(whole["grad_norm"]), rel=2e-3)


@pytest.mark.slow
def test_a_packed_run_goes_on_where_it_stopped(sample_home: Path, tmp_path: Path) -> None:
    settings = {"pack_queries": True, "max_steps": 3, "val_examples": 0}
    whole = _train(tmp_path / "whole", **settings)
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    (half / "checkpoints" / "step-00000003.ckpt").unlink()
    record = json.loads((half / "run.json").read_text(encoding="utf-8"))
    (half / "run.json").write_text(
        json.dumps({**record, "status": "interrupted"}), encoding="utf-8"
    )
    shutil.rmtree(half / "merged")
    done = _run("--resume", str(half))
    assert done.exit_code == 0, done.output
    assert _rows(half) == _rows(whole)
    assert _weights(half) == _weights(whole)


@pytest.mark.slow
def test_processes_may_have_unlike_numbers_of_passes(sample_home: Path, tmp_path: Path) -> None:
    """Packed, a process has as many passes as its prompts have dialogues; one prompt a pass gives the same gradient, and weights."""
    found = []
    for name, cut in (("packed", {}), ("one_by_one", {"batch_size": 1, "accumulate": 6})):
        run = tmp_path / name
        settings = {
            **ONE_STEP,
            "batch_size": 6,
            "accumulate": 1,
            "rollout_batch": 6,
            "pack_queries": True,
            **cut,
        }
        words = _options(**settings, devices=2, strategy="ddp", accelerator="cpu")
        done = subprocess.run(
            _command(*words, "--out", str(run)),
            capture_output=True, text=True, check=False, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append((_rows(run)[0], load_file(run / "merged" / "model.safetensors")))
    (packed, weights), (single, their_weights) = found
    assert float(packed["reward"]) == pytest.approx(float(single["reward"]), rel=1e-4)
    assert float(packed["grad_norm"]) == pytest.approx(float(single["grad_norm"]), rel=2e-3)
    start = load_file(TINY_FOLDER / "model.safetensors")
    moved = sum(float((weights[name] - start[name]).square().sum()) for name in start)
    apart = sum(float((weights[name] - their_weights[name]).square().sum()) for name in start)
    assert moved > 0
    assert apart < 1e-2 * moved


MERGED = {**ONE_STEP, "sampling_weights": "merged"}


def test_sampling_with_merged_weights_is_the_same_training_to_rounding(
    sample_home: Path, tmp_path: Path
) -> None:
    """In float32 both draw the same answers; after two steps, since a fresh adapter adds nothing."""
    steps = {"max_steps": 2, "learning_rate": 1e-2, "warmup_share": 0}
    beside, merged = (
        _rows(_train(tmp_path / str(number), **{**settings, **steps}))
        for number, settings in enumerate((ONE_STEP, MERGED))
    )
    for plain, row in zip(beside, merged, strict=True):
        for name in ("reward", "kl", "entropy", "answer_tokens", "grad_norm"):
            assert float(row[name]) == pytest.approx(float(plain[name]), rel=1e-3, abs=1e-6), name
        assert 0 < float(row["sampling_gap_mean"]) < float(row["sampling_gap_max"]) < 1e-3
        assert float(plain["sampling_gap_max"]) < 1e-3
        assert (row["importance_capped_share"], plain["importance_capped_share"]) == ("0.0", "")


def test_a_merged_run_goes_on_where_it_stopped_and_moves_no_frozen_weight(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SMALL, "sampling_weights": "merged", "max_steps": 3, "val_examples": 0}
    whole = _train(tmp_path / "whole", **settings)
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    (half / "checkpoints" / "step-00000003.ckpt").unlink()
    record = json.loads((half / "run.json").read_text(encoding="utf-8"))
    (half / "run.json").write_text(
        json.dumps({**record, "status": "interrupted"}), encoding="utf-8"
    )
    shutil.rmtree(half / "merged")
    with monkeypatch.context() as patch:
        patch.setattr("ffr.training.grpo.local_sampling.free_bytes", lambda device: 0)
        refused = _run("--resume", str(half))
        assert refused.exit_code == 1
        assert "belongs to another way of sampling" in refused.output
        assert "there is no room for the copy" in " ".join(refused.output.split())
    done = _run("--resume", str(half))
    assert done.exit_code == 0, done.output
    assert _rows(half) == _rows(whole)
    assert _weights(half) == _weights(whole)
    # the frozen weights under the adapter are those of the start, to the bit
    adapter = load_file(whole / "adapter" / "adapter_model.safetensors")
    deltas = {
        name.partition("layers.")[2].replace("lora_A.", ""): 4.0  # alpha / rank
        * (adapter[name.replace("lora_A", "lora_B")] @ adapter[name])
        for name in adapter
        if "lora_A" in name
    }
    start, weights = (
        load_file(path / "model.safetensors") for path in (TINY_FOLDER, whole / "merged")
    )
    deltas = {name: deltas.pop(name.partition("layers.")[2], 0) for name in start} | deltas
    assert deltas.keys() == start.keys()
    for name, delta in deltas.items():
        assert torch.equal(weights[name], start[name] + delta), name


@pytest.mark.slow
def test_a_merged_run_that_is_killed_while_it_answers_goes_on_to_the_bit(
    sample_home: Path, tmp_path: Path
) -> None:
    """SIGKILL with the copy in the place of the layers; the whole run answers twice a step."""
    settings = {"sampling_weights": "merged", "max_steps": 3, "val_examples": 0, "rollout_batch": 2}
    words = [*_options(**settings), "--out"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert _run(*words, str(whole)).exit_code == 0
    # the start-up check, twice the first step with its second attempts, then in the midst of the next
    event = before("ffr.models.decoding.sampling:Sampling.__call__", 100)
    assert run_signalled(["train", "grpo", *words, str(run)], event, signal.SIGKILL) == -9
    assert max(path.name for path in run.glob("checkpoints/*.ckpt")) < "step-00000003.ckpt"
    done = subprocess.run(
        _command("--resume", str(run)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert _rows(run) == _rows(whole)
    assert _weights(run) == _weights(whole)


def test_no_room_for_a_copy_of_the_weights_is_said(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--dry-run", *_options(sampling_weights="merged")]
    there = _run(*words)
    assert "folded into a copy of the weights, 0.6 MiB while" in there.output, there.output
    monkeypatch.setattr("ffr.training.grpo.local_sampling.free_bytes", lambda device: 2**19)
    lacking = _run(*words)
    assert lacking.exit_code == 0
    assert (
        "answers are sampled with the adapter beside the weights: there is no room"
        in lacking.output
    )
    several = _run(*words, "-o", "devices=2", "-o", "strategy=ddp", "-o", "accelerator=cpu")
    assert several.exit_code == 1
    assert (
        "no room for the copy of the weights that sampling_weights=merged makes" in several.output
    )
    assert "the very weights that are trained" in _run("--dry-run", *_options()).output


def test_compiled_sampling_is_the_same_training_to_rounding(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers are drawn; what a compiler makes of a step is not what is tested."""
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda step, **options: compiled(step, backend="eager", fullgraph=True)
    )
    torch.compiler.reset()
    plain, fixed = (
        _rows(_train(tmp_path / str(number), **ONE_STEP, compile_sampling=is_compiled))[0]
        for number, is_compiled in enumerate((False, True))
    )
    for name in ("reward", "kl", "entropy", "answer_tokens", "grad_norm"):
        assert float(fixed[name]) == pytest.approx(float(plain[name]), rel=1e-3, abs=1e-6), name
    assert float(fixed["sampling_gap_max"]) < 1e-3
    assert (fixed["importance_capped_share"], plain["importance_capped_share"]) == ("0.0", "")
    said = _run("--dry-run", *_options(compile_sampling=True)).output
    assert "each token by one compiled step" in " ".join(said.split()), said


@pytest.fixture
def few(sample_home: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of four prompts, each met again at every step."""
    lines = (sample_home / "sample" / "grpo.jsonl").read_text(encoding="utf-8").splitlines(True)
    path = tmp_path / "few.jsonl"
    path.write_text("".join(lines[:4]), encoding="utf-8")
    return {
        "dataset": str(path), "image_root": str(sample_home / "sample"), "val_examples": 0, "max_steps": 3, "epochs": 9,
    }  # fmt: skip


def test_guessing_tokens_is_the_same_training_to_rounding(
    few: dict[str, Any], tmp_path: Path
) -> None:
    plain, guessed = (
        _rows(_train(tmp_path / str(number), **few, draft_tokens=number)) for number in (0, 5)
    )
    assert len(plain) == len(guessed) == 3
    for mine, theirs in zip(guessed, plain, strict=True):
        for name in ("reward", "kl", "entropy", "answer_tokens", "grad_norm"):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-3, abs=1e-6), name
        assert float(mine["sampling_gap_max"]) < 1e-3


def test_a_run_that_guesses_goes_on_where_it_stopped(
    few: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, with the answers that its prompts had got before."""
    whole = _train(tmp_path / "whole", **few, draft_tokens=5)
    half = tmp_path / "half"
    shutil.copytree(whole, half)
    (half / "checkpoints" / "step-00000003.ckpt").unlink()
    record = json.loads((half / "run.json").read_text(encoding="utf-8"))
    (half / "run.json").write_text(
        json.dumps({**record, "status": "interrupted"}), encoding="utf-8"
    )
    shutil.rmtree(half / "merged")
    known: list[list[int]] = []
    sample = LocalSampling.sample

    def noted(self: LocalSampling, *given: Any, **options: Any) -> Any:
        known.append([len(answers) for some in given[3:] for answers in some])
        return sample(self, *given, **options)

    monkeypatch.setattr(LocalSampling, "sample", noted)
    done = _run("--resume", str(half))
    assert done.exit_code == 0, done.output
    assert _rows(half) == _rows(whole)
    assert _weights(half) == _weights(whole)
    # the start-up check knows of none, the step that is done again of those of all four
    assert known[0] == []
    assert len(known[1]) == 4
    assert all(known[1])


def test_what_is_guessed_is_said(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def said(**settings: object) -> str:
        return " ".join(_run("--dry-run", *_options(draft_tokens=5, **settings)).output.split())

    assert (
        "up to 5 tokens of each are guessed ahead, from the form of answers, a prompt's others and those it got before"
        in said()
    )
    monkeypatch.setattr(PrefixSharing, "_obstacle", lambda self: "of a trial")
    assert "draft_tokens has no effect, since the answers do not share their prompt" in said()


# the others differ from grpo in what a token is divided by (test_loss.py), and from each other less
@pytest.mark.parametrize(
    "loss_type",
    [
        "grpo",
        "gspo",
        "cispo",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bnpo", "dr_grpo", "dapo")),
    ],
)
def test_every_objective_trains(sample_home: Path, tmp_path: Path, loss_type: str) -> None:
    options = {
        **ONE_STEP, "updates_per_rollout": 2, "scale_advantages": "batch", "mask_cut_off": True, "startup_check": False,
    }  # fmt: skip
    run = _train(
        tmp_path / "run",
        loss_type=loss_type,
        clip_high=5.0 if loss_type == "cispo" else 0.28,
        **options,
    )
    assert all(float(row["grad_norm"]) > 0 for row in _rows(run))


REWARDS = """
def brief(prompts, completions, completion_ids, **columns):
    assert len(prompts) == len(completions) == len(completion_ids)
    return [-len(ids) / 10 for ids in completion_ids]

def lengthy(prompts, completions, completion_ids, **columns):
    return [len(ids) / 10 for ids in completion_ids]

def broken(prompts, completions, **columns):
    raise KeyError("colour")

def not_a_number(prompts, completions, **columns):
    return [float("nan")] * len(completions)
"""


@pytest.fixture
def own_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_rewards_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.slow
def test_it_learns_what_is_rewarded(sample_home: Path, tmp_path: Path, own_rewards: str) -> None:
    """With nothing rewarded but brevity answers get shorter, with length longer: the sign and the sampler are right."""
    lengths = {}
    for wish in ("brief", "lengthy"):
        run = _train(
            tmp_path / wish, rewards=f"{own_rewards}:{wish}=0.5", f1_weight=0, order_weight=0, format_weight=0,
            kl_coefficient=0, max_steps=10, batch_size=8, accumulate=1, num_generations=8, max_new_tokens=48,
            updates_per_rollout=1, learning_rate=3e-3, lora_dropout=0, val_examples=0, warmup_share=0, resample_attempts=0,
        )  # fmt: skip
        rows = _rows(run)
        assert float(rows[0]["reward"]) == pytest.approx(
            0.5 * float(rows[0][f"reward_{wish}"]), rel=1e-5
        )
        assert not rows[0]["kl"]
        lengths[wish] = sum(float(row["answer_tokens"]) for row in rows[-3:]) / 3
    assert lengths["brief"] < 0.8 * lengths["lengthy"]


@pytest.mark.parametrize("name", ["broken", "not_a_number"])
def test_a_reward_that_fails_names_its_sample(
    sample_home: Path, tmp_path: Path, own_rewards: str, name: str
) -> None:
    with pytest.raises(RewardError, match=rf"{name} .*dialogue 'sample_train"):
        _train(tmp_path / "run", rewards=f"{own_rewards}:{name}")
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "failed"


def test_trying_the_longest_prompt_changes_nothing(sample_home: Path, tmp_path: Path) -> None:
    runs = [
        _train(tmp_path / str(check), **ONE_STEP, startup_check=check) for check in (True, False)
    ]
    assert _rows(runs[0]) == _rows(runs[1])
    assert _weights(runs[0]) == _weights(runs[1])


def test_it_starts_from_the_newest_sft_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no finished SFT run .* `ffr train sft` first"):
        GrpoStage().choose_model(GrpoConfig(), tmp_path)
    for number, stage in enumerate(("sft", "sft", "grpo")):
        run = tmp_path / f"{stage}-tiny-{number}"
        (run / "merged").mkdir(parents=True)
        (run / "merged" / "config.json").touch()
        record = {
            "stage": stage,
            "status": "finished",
            "started_at": "",
            "seed": 0,
            "model": "",
            "dataset": "",
        }
        record["finished_at"] = f"2026-01-0{number + 1}"
        (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    config, source = GrpoStage().choose_model(GrpoConfig(), tmp_path)
    assert source.label == "sft-tiny-1"
    assert config.model == str(tmp_path / "sft-tiny-1")
    assert GrpoStage().choose_model(GrpoConfig(model="tiny"), tmp_path)[1].label == "tiny"


def _run(*words: str) -> Result:
    return CliRunner().invoke(ffr, ["train", "grpo", *words])


def test_a_dry_run_says_what_would_be_done(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run("--dry-run", *_options())
    assert result.exit_code == 0, result.output
    assert "4 steps of 4 prompts with 4 answers each" in result.output
    assert "rewards: format × 0.3, f1 × 1, order × 1" in result.output
    assert "prompts pass through the model once" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_a_wrong_call_says(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_run: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, code, sentence in (
        ([], 2, "no finished SFT run"),
        (["--from", "./nowhere"], 2, "no such model folder or run"),
        (["--from", "tiny", "-o", "lora_rank=0"], 2, "set lora_rank, or kl_coefficient=0"),
        (
            ["--from", "tiny", "-o", "lora_rank=0", "-o", "sampling_weights=merged"],
            2,
            "folds an adapter, and lora_rank=0 has none",
        ),
        (
            ["--from", "tiny", "-o", "strategy=fsdp", "-o", "sampling_weights=merged"],
            2,
            "needs whole weights in each process",
        ),
        (
            ["--from", "tiny", "-o", "load_in_4bit=true", "-o", "sampling_weights=merged"],
            2,
            "which load_in_4bit has not",
        ),
        (
            ["--from", "tiny", "-o", "compile_sampling=true", "-o", "prompt_sharing=off"],
            2,
            "leave prompt_sharing at auto",
        ),
        (
            ["--from", "tiny", "-o", "draft_tokens=4", "-o", "prompt_sharing=off"],
            2,
            "leave prompt_sharing at auto, or draft_tokens at 0",
        ),
        (["--from", "tiny", "-o", "draft_tokens=40"], 2, "at most 32"),
        (["--from", "tiny", "-o", "loss_type=cispo"], 2, "too small for cispo"),
        (["--from", "tiny", "-o", "loss_type=gpro"], 2, "did you mean"),
        (["--from", "tiny", "-o", "rewards=nowhere:nothing"], 2, "nowhere"),
        (["--from", "tiny", "-o", "rewards=math:sqrt=much"], 2, "'much'"),
        (
            [
                "--from",
                "tiny",
                "-o",
                "f1_weight=0",
                "-o",
                "order_weight=0",
                "-o",
                "format_weight=0",
            ],
            2,
            "no reward has a",
        ),
        (["--from", "tiny", "--curriculum", "-o", "difficulty=none.csv"], 1, "none.csv"),
        (["--from", "tiny", "-o", "order_weight=1", "-o", "encoder=./nowhere"], 1, "./nowhere"),
        (["--from", "tiny", "-o", "num_generations=1"], 2, "at least 2"),
        (["--resume", str(whole_run), "--seed", "1"], 2, "takes its settings from the run"),
    ):
        result = _run(*words, *(() if "--resume" in words else ("--out", str(tmp_path / "run"))))
        assert (result.exit_code, sentence in result.output) == (code, True), (words, result.output)
        assert "Traceback" not in result.output
        for path in (tmp_path / "run").glob("*"):
            path.unlink()
    other = CliRunner().invoke(ffr, ["train", "sft", "--resume", str(whole_run)])
    assert other.exit_code == 2
    assert "ffr train grpo --resume" in other.output
    assert "nothing is left" in _run("--resume", str(whole_run)).output


@pytest.mark.slow
def test_two_processes_train_one_policy(sample_home: Path, tmp_path: Path, table: Path) -> None:
    """DDP over gloo: different prompts and answers on each process, one order of the data, one set of weights."""
    run = tmp_path / "run"
    words = _options(
        devices=2, strategy="ddp", accelerator="cpu", difficulty=table, scale_advantages="batch"
    )
    done = subprocess.run(
        _command(*words, "--curriculum", "online", "--out", str(run)),
        capture_output=True, text=True, check=False, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = _rows(run)
    assert len(rows) == 4
    assert all(float(row["grad_norm"]) > 0 for row in rows)
    lines = [
        json.loads(line)
        for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == 3 * 4
