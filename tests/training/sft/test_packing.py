"""Packed queries against separate sequences: the same losses, gradients and steps; every example once; resumed to the bit."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from model_builds import build_model, random_picture
from vlm_reference import with_lora

from ffr.cli.main import ffr
from ffr.data.dataset import ExampleDataset, open_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import UsageError
from ffr.models.features import ImageFeatureCache
from ffr.models.packing import PackedQueries, pack
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import SftConfig
from ffr.training.common.loader import MicroBatch, StepLoader
from ffr.training.common.packs import packs_of_queries
from ffr.training.common.plan import TrainPlan
from ffr.training.common.stage import Job, train
from ffr.training.sft.module import SftModule
from ffr.training.sft.packing import QueryPacker
from ffr.training.sft.stage import SftStage

GROUP_SIZES = [1, 4, 2, 5, 3]
PICTURES_OF_DIALOGUE = [(0, 2), (), (1,), (3, 0, 1), (2,)]


def make_examples(root: Path) -> list[Example]:
    """Dialogues with 1 to 5 queries and pictures of mixed sizes, the queries of one not next to each other."""
    for number, size in enumerate([(60, 90), (112, 56), (57, 57), (130, 100)]):
        random_picture(root / f"{number}.png", *size, seed=number)
    examples = []
    for number, (size, chosen) in enumerate(zip(GROUP_SIZES, PICTURES_OF_DIALOGUE, strict=True)):
        turns = [Utterance("user1", (f"第{number}个 dialogue " + "la " * (3 * number + 1),))]
        turns += [Utterance("user2", ("see ", Image(f"{item}.png"), " here")) for item in chosen]
        turns.append(Utterance("user1", ("bye",)))
        dialogue = Dialogue(f"d{number}", tuple(turns))
        for query in range(size):
            # the first letters of the queries are alike, so that what is shared ends inside a query
            fragment = Fragment(tuple(range(query % 3)), tuple(range(min(query, len(chosen)))))
            examples.append(
                Example(dialogue, f"a query of {'long ' * query}kind {query}", fragment)
            )
    random.Random(0).shuffle(examples)
    return examples


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> ExampleDataset:
    root = tmp_path_factory.mktemp("packing")
    write_examples(root / "train.jsonl", make_examples(root))
    return open_dataset(root / "train.jsonl")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("architectures")

    def folder(name: str) -> Path:
        return root / name if (root / name).is_dir() else build_model(name, root / name)

    return folder


def refuse(line: str) -> None:
    raise AssertionError(line)


def step_of(
    vlm: Vlm, items: list[Any], sharing: PrefixSharing | None, *, per_batch: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one optimizer step over all items, through loader and module as a training has them."""
    accumulate = -(-len(items) // per_batch)
    module = SftModule(vlm, SftConfig(), num_steps=1, fingerprints={}, sharing=sharing)
    module.trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, accumulate_grad_batches=accumulate,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    plan = TrainPlan(
        [item.num_tokens for item in items], per_batch, accumulate, num_processes=1, epochs=1
    )
    loader = StepLoader(
        plan, items.__getitem__, lambda index: items[index].num_answer_tokens, num_workers=0
    )
    batches = list(loader)
    for batch in batches:
        (module.training_step(batch, 0) / accumulate).backward()
    gradients = {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}
    vlm.zero_grad(set_to_none=True)
    return module._step_loss / batches[-1].num_step_tokens, gradients


def worst(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of a gradient, relative to its norm."""
    assert mine.keys() == theirs.keys()
    assert all(gradient.abs().max() > 0 for gradient in theirs.values())
    return max(float((mine[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", ["qwen2-vl", "smolvlm"])
def test_packed_step_equals_separate_sequences(
    name: str, is_checkpointed: bool, data: ExampleDataset, model_folder: Callable[[str], Path]
) -> None:
    """Packs of 1 to 5 queries, pictures of mixed sizes, ragged answers; float32: loss 1e-4, gradients 1e-3 of their norm."""
    vlm = with_lora(model_folder(name))
    vlm.tower.cache = ImageFeatureCache(memory_bytes=2**20) if is_checkpointed else None
    if is_checkpointed:
        vlm.enable_gradient_checkpointing()
    vlm.train()
    builder = PromptBuilder(vlm, query_position="last")
    examples = [builder(example, with_answer=True) for example in data]
    expected, theirs = step_of(vlm, examples, None, per_batch=1)
    sharing = PrefixSharing(vlm)
    assert sharing.is_active
    packs = packs_of_queries(data)
    assert sorted(map(len, packs)) == [1, 2, 3, 4, 5]
    packer = QueryPacker(builder, data, packs, is_shared=True, say=refuse)
    items = [packer(number) for number in range(len(packs))]
    assert all(len(item.prompts) == 1 for item in items)
    assert sum(item.num_tokens for item in items) < 0.5 * sum(
        example.num_tokens for example in examples
    )
    for per_batch in (5, 2):
        loss, mine = step_of(vlm, items, sharing, per_batch=per_batch)
        assert loss == pytest.approx(expected, rel=1e-4)
        assert worst(mine, theirs) < 1e-3


def test_a_model_that_cannot_share_repeats(
    data: ExampleDataset, model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    vlm.train()
    builder = PromptBuilder(vlm, query_position="last")
    examples = [builder(example, with_answer=True) for example in data]
    expected, theirs = step_of(vlm, examples, None, per_batch=5)
    monkeypatch.setattr(PrefixSharing, "_obstacle", lambda self: "of a reason")
    packer = QueryPacker(builder, data, packs_of_queries(data), is_shared=False, say=refuse)
    items = [packer(number) for number in range(len(GROUP_SIZES))]
    assert sum(item.num_tokens for item in items) == sum(example.num_tokens for example in examples)
    loss, mine = step_of(vlm, items, PrefixSharing(vlm), per_batch=2)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert worst(mine, theirs) < 1e-3


def test_pictures_behind_the_query_are_not_packed(
    data: ExampleDataset, model_folder: Callable[[str], Path]
) -> None:
    """A chat template that writes all pictures last: said once, trained one by one, with the same loss."""
    vlm = with_lora(model_folder("qwen2-vl"))
    vlm.train()
    builder = PromptBuilder(vlm, query_position="last")
    original = vlm.encode

    def pictures_last(*arguments: Any, **named: Any) -> Encoded:
        row = original(*arguments, **named)
        end = row.num_tokens - row.num_answer_tokens
        is_image = [item in vlm.placeholder_ids for item in row.input_ids[:end]]
        text = [item for item, image in zip(row.input_ids, is_image, strict=False) if not image]
        pictures = [item for item, image in zip(row.input_ids, is_image, strict=False) if image]
        return Encoded([*text, *pictures, *row.input_ids[end:]], row.num_answer_tokens, row.images)

    vlm.encode = pictures_last
    packs = packs_of_queries(data)
    said: list[str] = []
    packer = QueryPacker(builder, data, packs, is_shared=True, say=said.append)
    items = [packer(number) for number in range(len(packs))]
    shared = {len(pack): len(item.prompts) for pack, item in zip(packs, items, strict=True)}
    assert shared == {1: 1, 2: 2, 3: 3, 4: 1, 5: 5}  # the dialogue with four queries has no picture
    assert len(said) == 1
    assert "do not all stand before its queries" in said[0]
    chosen = [item for item, pack in zip(items, packs, strict=True) if len(pack) in (2, 4)]
    rows = [
        builder(data[i], with_answer=True) for pack in packs if len(pack) in (2, 4) for i in pack
    ]
    expected, theirs = step_of(vlm, rows, None, per_batch=2)
    loss, mine = step_of(vlm, chosen, PrefixSharing(vlm), per_batch=2)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert worst(mine, theirs) < 1e-3


IDS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@given(
    st.lists(st.integers(0, 3), max_size=6), st.lists(st.tuples(IDS, IDS), min_size=1, max_size=5)
)
def test_packing_keeps_every_id(start: list[int], rows: list[tuple[list[int], list[int]]]) -> None:
    """What is shared and a branch make the row again; no more could be shared; no answer is shared."""
    encoded = [Encoded([9, *start, *prompt, *answer], len(answer)) for prompt, answer in rows]
    packed = pack(encoded, {99})
    [prompt], [branches], [counts] = packed.prompts, packed.branches, packed.num_scored
    assert [prompt.input_ids + branch for branch in branches] == [row.input_ids for row in encoded]
    assert counts == [row.num_answer_tokens for row in encoded]
    assert all(len(branch) >= count for branch, count in zip(branches, counts, strict=True))
    assert (
        any(len(b) == c for b, c in zip(branches, counts, strict=True))
        or len({b[0] for b in branches}) > 1
    )
    assert packed.num_answer_tokens == sum(counts)


def test_rows_that_share_nothing_stay_apart() -> None:
    packed = pack([Encoded([1, 2, 8], 1), Encoded([3, 4, 5, 8], 2)], set())
    assert [prompt.input_ids for prompt in packed.prompts] == [[1, 2], [3, 4]]
    assert packed.branches == [[[8]], [[5, 8]]]
    assert packed.num_tokens == 7


@given(
    dialogues=st.lists(st.integers(0, 7), min_size=1, max_size=60),
    max_queries=st.integers(1, 6),
    batch_size=st.integers(1, 4),
    num_processes=st.integers(1, 3),
    epochs=st.integers(1, 3),
)
def test_every_example_once_an_epoch(
    dialogues: list[int], max_queries: int, batch_size: int, num_processes: int, epochs: int
) -> None:
    examples = [
        Example(Dialogue(f"d{number}", (Utterance("a", (f"dialogue {name}",)),)), f"q{number}")
        for number, name in enumerate(dialogues)
    ]
    packs = packs_of_queries(examples, max_queries=max_queries)
    for one in packs:
        assert len({dialogues[index] for index in one}) == 1
        assert 1 <= len(one) <= max_queries
    for name, number in Counter(dialogues).items():
        sizes = [len(pack) for pack in packs if dialogues[pack[0]] == name]
        assert len(sizes) == -(-number // max_queries)
        assert max(sizes) - min(sizes) <= 1
    plan = TrainPlan([1] * len(packs), batch_size, 2, num_processes, epochs=float(epochs))
    taken = Counter(
        index
        for step in plan.steps()
        for batch in step
        for number in batch
        for index in packs[number]
    )
    assert taken == dict.fromkeys(range(len(dialogues)), epochs)


def test_a_padding_batch_counts_for_nothing(
    data: ExampleDataset, model_folder: Callable[[str], Path]
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    builder = PromptBuilder(vlm, query_position="last")
    packs = packs_of_queries(data)
    packer = QueryPacker(builder, data, packs, is_shared=True, say=refuse)
    plan = TrainPlan([1] * len(packs), batch_size=5, accumulate=1, num_processes=2, epochs=1)
    loader = StepLoader(
        plan, packer, packer.count_answer_tokens, process=1, num_processes=2, num_workers=0
    )
    batches: list[MicroBatch[PackedQueries]] = list(loader)
    assert [batch.is_padding for batch in batches] == [True]
    every = [builder(example, with_answer=True).num_answer_tokens for example in data]
    assert batches[0].num_step_tokens == sum(every)


# -- whole trainings ----------------------------------------------------------------------------------------------------

SMALL = {
    "max_steps": 5, "batch_size": 2, "accumulate": 2, "val_examples": 3, "val_every_steps": 3, "max_new_tokens": 12,
    "checkpoint_every_steps": 2, "lora_dropout": 0.1, "learning_rate": 1e-3, "num_threads": 1, "gradient_checkpointing": False,
    "pack_queries": True,
}  # fmt: skip


def rows_of(run: Path) -> list[dict[str, str]]:
    """The figures that must be the same to the last bit: all but speed and memory."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: row[name] for name in row if name not in ("tokens_per_second", "peak_memory_mb")}
        for row in rows
    ]


def figures_of(run: Path) -> list[tuple[float, float]]:
    return [(float(row["loss"]), float(row["grad_norm"])) for row in rows_of(run)]


def trained(run: Path, **settings: Any) -> Path:
    train(SftStage(), SftConfig(**{**SMALL, **settings}), Job(run=run, say=str, progress=False))
    return run


def test_stopped_and_resumed_is_the_same_to_the_bit(sample_home: Path, tmp_path: Path) -> None:
    whole, run = trained(tmp_path / "whole"), tmp_path / "run"

    def stop(line: str) -> None:
        if line.startswith("step 3/"):
            signal.raise_signal(signal.SIGTERM)

    result = train(SftStage(), SftConfig(**SMALL), Job(run=run, say=stop, progress=False))
    assert result.status == "interrupted"
    assert len(rows_of(run)) == 3
    done = CliRunner().invoke(ffr, ["train", "sft", "--resume", str(run)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "going on after step 3 of 5" in done.output
    assert rows_of(run) == rows_of(whole)
    weights = [(folder / "merged" / "model.safetensors").read_bytes() for folder in (run, whole)]
    assert weights[0] == weights[1]


def test_micro_batches_and_cached_features_do_not_change_the_step(
    sample_home: Path, tmp_path: Path
) -> None:
    """Four dialogues at once, or twice two, with and without cached features: the same losses and gradient norms."""
    settings = {"max_steps": 2, "lora_dropout": 0.0, "val_examples": 0}
    whole = trained(tmp_path / "whole", **settings, batch_size=4, accumulate=1)
    halves = trained(
        tmp_path / "halves", **settings, batch_size=2, accumulate=2, feature_cache_mb=0
    )
    for one, other in zip(figures_of(whole), figures_of(halves), strict=True):
        assert one == pytest.approx(other, rel=2e-4)


def test_a_packed_training_is_the_unpacked_one(sample_home: Path, tmp_path: Path) -> None:
    """Steps over all the data: packed or not, they are the same steps."""
    lines = (sample_home / "sample" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:13]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    packs = packs_of_queries(
        open_dataset(tmp_path / "train.jsonl", image_root=sample_home / "sample")
    )
    assert len(packs) < 6
    settings = {
        "dataset": str(tmp_path / "train.jsonl"), "image_root": str(sample_home / "sample"), "max_steps": 3, "epochs": 3,
        "lora_dropout": 0.0, "val_examples": 0, "accumulate": 1,
    }  # fmt: skip
    packed = trained(tmp_path / "packed", **settings, batch_size=len(packs))
    plain = trained(tmp_path / "plain", **settings, batch_size=13, pack_queries=False)
    assert len(figures_of(packed)) == 3
    for one, other in zip(figures_of(packed), figures_of(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    tokens = [sum(float(row["num_tokens"]) for row in rows_of(run)) for run in (packed, plain)]
    assert tokens[0] < 0.6 * tokens[1]


@pytest.mark.slow
def test_two_processes_train_as_one(sample_home: Path, tmp_path: Path) -> None:
    """DDP over gloo: the same steps as one process with twice the accumulation."""
    rows = {}
    for name, more in (
        ("alone", {"accumulate": 2}),
        ("together", {"accumulate": 1, "devices": 2, "strategy": "ddp"}),
    ):
        settings = {
            **SMALL,
            "max_steps": 3,
            "lora_dropout": 0,
            "val_examples": 4,
            "accelerator": "cpu",
            **more,
        }
        words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        done = subprocess.run(
            [sys.executable, "-m", "ffr.cli.main", "train", "sft", *words, "--out", str(tmp_path / name)],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows[name] = rows_of(tmp_path / name)
    for row, other in zip(rows["alone"], rows["together"], strict=True):
        for column in ("loss", "grad_norm", "num_tokens", "val_loss", "val_utterance_f1"):
            if row[column]:
                assert float(row[column]) == pytest.approx(
                    float(other[column]), rel=1e-3, abs=1e-6
                ), column


def test_a_model_that_cannot_share_says_so_in_a_training(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SMALL, "max_steps": 1, "val_examples": 0, "lora_dropout": 0.0}
    shared = trained(tmp_path / "shared", **settings)
    monkeypatch.setattr(PrefixSharing, "_obstacle", lambda self: "of a reason")
    said: list[str] = []
    train(
        SftStage(),
        SftConfig(**settings),
        Job(run=tmp_path / "run", say=said.append, progress=False),
    )
    assert (
        sum("repeated for each of their queries" in line and "of a reason" in line for line in said)
        == 1
    )
    assert figures_of(tmp_path / "run")[0] == pytest.approx(figures_of(shared)[0], rel=1e-3)


def test_a_dry_run_says_groups(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-o", "pack_queries=true", "-o", "batch_size=4", "-o", "max_steps=6"]
    result = CliRunner().invoke(ffr, ["train", "sft", "--dry-run", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "6 optimizer steps of up to 4 packs" in result.output
    assert "packs of 3 to 4 queries on one dialogue" in result.output
    assert "longest pack train.jsonl:" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_query_must_stand_last(
    sample_home: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    with pytest.raises(UsageError, match="set query_position=last"):
        SftConfig(pack_queries=True, query_position="first")
    folder = model_folder("qwen2-vl")
    for model_setting, found in ((None, "whatever the data file has"), ("first", "is first")):
        settings = folder / "ffr.json"
        if model_setting:
            settings.write_text(
                f'{{"prompt": {{"query_position": "{model_setting}"}}}}', encoding="utf-8"
            )
        words = [
            "--model",
            str(folder),
            "--config",
            "tiny",
            "--learning-rate",
            "0.001",
            "-o",
            "pack_queries=true",
            "--out",
            str(tmp_path / str(model_setting)),
        ]
        for more in (["--dry-run"], []):
            result = CliRunner().invoke(ffr, ["train", "sft", *words, *more])
            assert result.exit_code == 2, result.output
            assert found in result.output
            assert "set query_position=last" in result.output
        settings.unlink(missing_ok=True)
