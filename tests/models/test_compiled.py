"""Compiled decoder layers give the values, gradients and answers of plain ones, for every architecture."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from vlm_reference import with_lora

from ffr.dialogue import FilePrompt
from ffr.errors import UsageError
from ffr.models import shared_prefix
from ffr.models.compiled import compile_layers
from ffr.models.decoding.sampling import sample_answers
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import SftConfig
from ffr.shipped.tiny import TINY_FOLDER
from ffr.training.common.stage import Job, train
from ffr.training.sft.stage import SftStage

Ask = Callable[..., tuple[FilePrompt, list[Path]]]
BRANCHES = [[[21, 22, 23, 24, 25], [31, 32]], [[41], [51, 52, 53]]]


def figures(vlm: Vlm, ask: Ask) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[list[int]]]:
    """Log-probabilities and gradients in training of two calls of other lengths, and answers drawn."""
    sharing = PrefixSharing(vlm)
    assert sharing.is_active, sharing.reason
    vlm.train()
    parts = []
    for words in ("a few", "more and more words " * 3):
        prompts = [vlm.encode(*ask(0, 2, words=words)), vlm.encode(*ask(1))]
        scores = sharing.score(prompts, BRANCHES)
        (scores.logprobs * scores.mask).square().sum().backward()
        parts.append(scores.logprobs.detach().flatten())
    found = {name: p.grad.clone() for name, p in vlm.named_parameters() if p.grad is not None}
    vlm.eval()
    groups = sample_answers(
        vlm,
        [vlm.encode(*ask(3))],
        num_samples=3,
        max_new_tokens=6,
        generator=torch.Generator().manual_seed(0),
    )
    return torch.cat(parts), found, [list(answer.token_ids) for group in groups for answer in group]


def assert_the_same(plain: Vlm, vlm: Vlm, ask: Ask) -> None:
    """Whether a model whose layers are compiled gives what a plain one gives, and really ran compiled code."""
    names = list(vlm.base.state_dict())
    compile_layers(vlm)
    assert list(vlm.base.state_dict()) == names
    torch.compiler.reset()
    counters.clear()
    logprobs, gradients, answers = figures(vlm, ask)
    assert counters["stats"]["unique_graphs"], "no layer was compiled"
    assert not counters["unimplemented"]  # the limit of recompilations is one
    expected, theirs, their_answers = figures(plain, ask)
    assert (logprobs - expected).abs().max() < 1e-4
    assert gradients.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (gradients[name] - gradient).norm() < 1e-3 * gradient.norm(), name
    assert answers == their_answers


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and guarded as in the real thing, and then run as they are: what an
    architecture can break is the tracing, and C++ for each takes minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


@pytest.mark.slow
def test_compiled_layers_change_nothing(model_folder: Callable[[str], Path], ask: Ask) -> None:
    assert_the_same(with_lora(model_folder("qwen2-vl")), with_lora(model_folder("qwen2-vl")), ask)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_only")
def test_traced_layers_change_nothing(folder: Path, ask: Ask) -> None:
    assert_the_same(with_lora(folder), with_lora(folder), ask)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_only")
def test_compiled_layers_take_branches_in_blocks(
    model_folder: Callable[[str], Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prefix, "block_size", lambda *_: 5)
    assert_the_same(with_lora(model_folder("qwen2-vl")), with_lora(model_folder("qwen2-vl")), ask)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_only")
def test_compiled_layers_are_recomputed_in_the_backward_pass(
    model_folder: Callable[[str], Path], ask: Ask
) -> None:
    vlm = with_lora(model_folder("qwen2-vl"))
    vlm.enable_gradient_checkpointing()
    assert_the_same(with_lora(model_folder("qwen2-vl")), vlm, ask)


@pytest.mark.slow
def test_a_compiled_training_is_resumed_up_to_rounding(sample_home: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "compile": True, "max_steps": 4, "batch_size": 2, "accumulate": 2, "val_examples": 0, "checkpoint_every_steps": 1,
        "num_threads": 1, "gradient_checkpointing": False, "accelerator": "cpu",
    }  # fmt: skip
    whole = train(
        SftStage(), SftConfig(**settings), Job(run=tmp_path / "whole", say=str, progress=False)
    ).run

    def stop(line: str) -> None:
        if line.startswith("step 2/"):
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    assert (
        train(SftStage(), SftConfig(**settings), Job(run=run, say=stop, progress=False)).status
        == "interrupted"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ffr.cli.main", "train", "sft", "--resume", str(run)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on after step 2 of 4" in done.stdout
    start, mine, theirs = (
        load_file(folder / "model.safetensors")
        for folder in (TINY_FOLDER, run / "merged", whole / "merged")
    )
    moved = sum(float((theirs[name] - start[name]).square().sum()) for name in theirs)
    apart = sum(float((theirs[name] - mine[name]).square().sum()) for name in theirs)
    assert apart < 1e-6 * moved


def test_what_cannot_be_compiled_is_refused(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_nothing(function: object, **_: object) -> Callable[..., None]:
        def call(*_: object) -> None:
            raise RuntimeError("no compiler\nand more words")

        return call

    vlm = with_lora(model_folder("qwen2-vl"))
    before = [layer.forward for layer in vlm.language_model.layers]
    monkeypatch.setattr(torch, "compile", compile_nothing)
    with pytest.raises(
        UsageError,
        match=r"^setting compile: nothing can be compiled here \(no compiler.*\); leave it false$",
    ):
        compile_layers(vlm)
    assert [layer.forward for layer in vlm.language_model.layers] == before


@pytest.mark.slow
def test_without_a_compiler_the_setting_is_refused(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = ["-o", "compile=true", "-o", "accelerator=cpu", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "ffr.cli.main", "train", "sft", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "setting compile: nothing can be compiled here" in done.stderr
    assert "Traceback" not in done.stderr
