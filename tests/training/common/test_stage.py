"""A dry run and a run by exit code and sentence: what stops one at its start stops the other, and a dry run leaves no trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.data.dataset import open_dataset
from ffr.training.common.checkpoints import newest_checkpoint
from ffr.training.curriculum.difficulty import write_difficulties
from ffr.training.curriculum.order import Difficulty
from ffr.training.grpo import data_order

LINES = [{"speaker": "a", "utterance": "hi"}, {"speaker": "b", "utterance": "x"}]
SMALL = {
    "max_steps": 1, "batch_size": 2, "accumulate": 1, "max_new_tokens": 8, "num_threads": 1, "val_examples": 2,
    "gradient_checkpointing": False, "accelerator": "cpu",
}  # fmt: skip
SMALL_GRPO = {**SMALL, "num_generations": 2, "resample_attempts": 0, "order_weight": 0.0}


def write_data(path: Path, *, without: int | None = None) -> Path:
    """Four examples, all with true answers but one."""
    records = [
        {
            "dialogue_id": f"d{number}",
            "dialogue": LINES,
            "query_text": f"q{number}",
            "gt_turns": [0],
        }
        for number in range(4)
    ]
    if without is not None:
        del records[without]["gt_turns"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a stage on four examples in an empty folder; settings by name."""
    write_data(tmp_path / "good.jsonl")
    write_data(tmp_path / "third.jsonl", without=2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "cache" / "data"))

    def run(stage: str, *words: str, dataset: str = "good.jsonl", **settings: Any) -> Result:
        chosen = {**(SMALL if stage == "sft" else SMALL_GRPO), **settings}
        options = [word for name, value in chosen.items() for word in ("-o", f"{name}={value}")]
        model = ["--model" if stage == "sft" else "--from", "tiny"]
        return CliRunner().invoke(
            ffr,
            [
                "train",
                stage,
                *model,
                "--dataset",
                str(tmp_path / dataset),
                "--no-progress",
                *options,
                *words,
            ],
        )

    return run


LACK_4BIT = {"load_in_4bit": True}
CASES: list[tuple[str, list[str], dict[str, Any], int, str]] = [
    ("sft", [], {"dataset": "third.jsonl"}, 1, "third.jsonl:3: has no true answer; add `solution`"),
    (
        "sft",
        [],
        {"val_dataset": "../third.jsonl", "val_examples": 3},
        1,
        "third.jsonl:3: has no true answer to validate",
    ),
    ("sft", [], {"max_tokens": 40}, 1, "more than the 40 allowed"),
    (
        "sft",
        [],
        {"accelerator": "gpu"},
        2,
        "accelerator=gpu, devices=1, strategy=auto cannot be set up here: ",
    ),
    ("sft", [], {"strategy": "foo"}, 2, "strategy=foo cannot be set up here: "),
    ("sft", [], {"report_to": "wandb"}, 2, "wandb is not installed"),
    ("sft", [], LACK_4BIT, 2, "bitsandbytes"),
    ("sft", [], {"pack_queries": True, "query_position": "first"}, 2, "set query_position=last"),
    ("sft", ["--model", "./nowhere"], {}, 2, "no such model folder or run"),
    (
        "grpo",
        [],
        {"dataset": "third.jsonl"},
        1,
        "third.jsonl:3: has no true answer; add `solution`",
    ),
    (
        "grpo",
        [],
        {"accelerator": "gpu"},
        2,
        "accelerator=gpu, devices=1, strategy=auto cannot be set up here: ",
    ),
    ("grpo", [], LACK_4BIT, 2, "bitsandbytes"),
    ("grpo", ["--curriculum"], {"difficulty": "none.csv"}, 1, "none.csv: not found"),
    ("grpo", [], {"rewards": "nowhere:nothing"}, 2, "module nowhere cannot be imported"),
    ("grpo", [], {"overlong_tokens": 9}, 2, "overlong_tokens: 9 is more than the 8 tokens"),
    ("grpo", [], {"lora_rank": 0}, 2, "set lora_rank, or kl_coefficient=0"),
    ("grpo", [], {"pack_queries": True, "query_position": "first"}, 2, "set query_position=last"),
]


@pytest.mark.parametrize(("stage", "words", "settings", "code", "sentence"), CASES)
def test_what_stops_a_run_stops_its_dry_run(
    call: Callable[..., Result],
    stage: str,
    words: list[str],
    settings: dict[str, Any],
    code: int,
    sentence: str,
) -> None:
    if settings.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    dry = call(stage, *words, "--dry-run", **settings)
    assert (dry.exit_code, sentence in dry.output) == (code, True), dry.output
    assert list(Path().iterdir()) == []
    run = call(stage, *words, "--out", "run", **settings)
    assert run.exit_code == code, run.output
    assert run.output.splitlines()[-1] == dry.output.splitlines()[-1]
    assert "Traceback" not in run.output + dry.output


def test_too_little_memory_stops_both(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("ffr.training.grpo.vlm_policy.try_longest", fail)
    dry, run = call("grpo", "--dry-run"), call("grpo", "--out", "run")
    assert dry.exit_code == run.exit_code == 1, run.output
    assert (
        "there is not enough memory for a step on the longest prompt, dialogue 'd0'" in run.output
    )
    assert run.output.splitlines()[-1] == dry.output.splitlines()[-1]
    assert call("grpo", "--dry-run", startup_check=False).exit_code == 0


def with_pictures(path: Path) -> Path:
    """Two examples; the second has more to say, and two pictures, one of them scaled down."""
    import PIL.Image

    for name, size in (("a.png", (40, 30)), ("b.png", (300, 100))):
        PIL.Image.new("RGB", size).save(path.parent / name)
    seen = [{"image_url": name, "caption": "seen"} for name in ("a.png", "b.png")]
    records = [
        {"dialogue_id": "short", "dialogue": LINES, "query_text": "q", "gt_turns": [0]},
        {
            "dialogue_id": "long",
            "dialogue": [*LINES * 4, {"speaker": "a", "utterance": seen}],
            "query_text": "q",
            "gt_turns": [0],
        },
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["of a GPU", "of this machine"],
)
def test_too_little_memory_in_a_step_names_its_longest_record(
    call: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stage: str,
    kind: type[Exception],
    words: str,
) -> None:
    error = kind(words)

    def fail(*_: object, **__: object) -> None:
        raise error

    dataset = str(with_pictures(tmp_path / "pictures.jsonl"))
    settings = {"max_image_pixels": 10_000, "num_workers": 0, "dataset": dataset}
    where = {"sft": "sft.module:SftModule.loss_of", "grpo": "grpo.module:GrpoModule._update"}
    name = where[stage].replace(":", ".")
    monkeypatch.setattr(f"ffr.training.{name}", fail)
    run = call(stage, "--out", "run", **settings)
    assert run.exit_code == 1, run.output
    sentence = " ".join(run.output.split()).rpartition("Error: ")[2]
    # 40 × 30, and 300 × 100 scaled down to 10,000 at most: 173 × 57
    assert re.search(
        r"pictures.jsonl:2: there is not enough memory for step 1, whose longest record was dialogue "
        r"'long' \(\d+ tokens, 2 pictures of 11,061 pixels\); lower ",
        sentence,
    ), sentence
    error.args = ("shapes differ",)
    if not isinstance(error, torch.OutOfMemoryError):
        assert call(stage, "--out", "other", **settings).exception is error


def test_too_little_memory_behind_a_step_is_said(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ffr.training.common.vlm_subject.validate", fail)
    run = call("sft", "--out", "run", val_dataset="../third.jsonl", val_examples=1)
    assert run.exit_code == 1, run.output
    assert "there is not enough memory for what follows step 1; lower" in run.output


def test_a_dry_run_scores_nothing_and_says_so(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    score = data_order.score_dataset

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a long work in a dry run")

    monkeypatch.setattr(data_order, "score_dataset", refuse)
    dry = call("grpo", "--curriculum", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "curriculum paper: the start model would first answer all 4 examples once" in dry.output
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(data_order, "score_dataset", score)
    run = call("grpo", "--curriculum", "--out", "run")
    assert run.exit_code == 0, run.output
    assert Path("run/difficulty.png").is_file()
    assert Path("run/levels.png").is_file()
    monkeypatch.setattr(data_order, "score_dataset", refuse)
    dry = call("grpo", "--curriculum", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "4 items are trained on" in dry.output, "the table that the run has left is read"


def test_a_dry_run_of_a_resumed_run(call: Callable[..., Result], tmp_path: Path) -> None:
    """It says where the run would go on, trains nothing, and is refused where the run would be."""
    done = call("sft", "--out", "run", max_steps=2, checkpoint_every_steps=1)
    assert done.exit_code == 0, done.output
    run = Path("run")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}), encoding="utf-8")
    (run / "checkpoints" / "step-00000002.ckpt").unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    def resume(*words: str) -> Result:
        return CliRunner().invoke(ffr, ["train", "sft", "--resume", "run", *words])

    dry = resume("--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "going on after step 1 of 2" in dry.output
    assert (
        f"Would train tiny on {tmp_path / 'good.jsonl'} (4 examples, train) resuming run"
        in dry.output
    )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    settings = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(
        settings.replace("\nseed: 0\n", "\nseed: 1\n"), encoding="utf-8"
    )
    for refused in (resume("--dry-run"), resume("--no-progress")):
        assert refused.exit_code == 2, refused.output
        assert "config.yaml: not the settings that the run began with" in refused.output
    (run / "config.yaml").write_text(settings, encoding="utf-8")
    data = tmp_path / "good.jsonl"
    data.write_text(data.read_text(encoding="utf-8").replace('"q3"', '"q9"'), encoding="utf-8")
    for refused in (resume("--dry-run"), resume("--no-progress")):
        assert refused.exit_code == 1, refused.output
        assert "the training data changed since the run began" in refused.output
    assert newest_checkpoint(run / "checkpoints") == run / "checkpoints" / "step-00000001.ckpt"


def test_a_run_is_not_gone_on_with_in_another_order(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    """A table of difficulties that was made anew since: the checkpoint's place in the order means nothing in it."""
    data = list(open_dataset(tmp_path / "good.jsonl"))
    table = tmp_path / "difficulty.csv"
    write_difficulties(table, data, [Difficulty(f1, 1.0, False) for f1 in (0.0, 1.0, 0.4, 0.6)])
    done = call(
        "grpo", "--curriculum", "paced", "--out", "run", difficulty=table, checkpoint_every_steps=1
    )
    assert done.exit_code == 0, done.output
    record = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    Path("run/run.json").write_text(
        json.dumps({**record, "status": "interrupted"}), encoding="utf-8"
    )
    write_difficulties(table, data, [Difficulty(f1, 1.0, False) for f1 in (0.0, 1.0, 0.4, 0.7)])
    for words in (["--dry-run"], ["--no-progress"]):
        refused = CliRunner().invoke(ffr, ["train", "grpo", "--resume", "run", *words])
        assert refused.exit_code == 2, refused.output
        assert "the checkpoint's data order was made of other data, difficulties" in refused.output


def test_a_table_of_difficulties_orders_the_data(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    data = open_dataset(tmp_path / "good.jsonl")
    facts = [Difficulty(f1, 1 - f1, False) for f1 in (0.0, 1.0, 0.4, 0.6)]
    write_difficulties(tmp_path / "difficulty.csv", list(data), facts)
    dry = call("grpo", "--curriculum", "paced", "--dry-run", difficulty="../difficulty.csv")
    assert dry.exit_code == 0, dry.output
    assert (
        "curriculum paced: 1 easy, 1 medium, 1 confusing, 1 hard; 4 of 4 items are trained on"
        in dry.output
    )
