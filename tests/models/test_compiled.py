"""Compiled decoder layers give the values, gradients and answers of plain ones, for every architecture."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vlm_reference import with_lora

from ffr.dialogue import FilePrompt
from ffr.models.compiled import compile_layers
from ffr.models.generate import sample_answers
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm

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
        vlm, [vlm.encode(*ask(3))], num_samples=3, max_new_tokens=6, generator=torch.Generator().manual_seed(0)
    )
    return torch.cat(parts), found, [list(answer.token_ids) for group in groups for answer in group]


@pytest.mark.slow
def test_compiled_layers_change_nothing(folder: Path, ask: Ask) -> None:
    plain, vlm = with_lora(folder), with_lora(folder)
    names = list(vlm.base.state_dict())
    compile_layers(vlm)
    assert list(vlm.base.state_dict()) == names
    (logprobs, gradients, answers), (expected, theirs, their_answers) = figures(vlm, ask), figures(plain, ask)
    assert (logprobs - expected).abs().max() < 1e-4
    assert gradients.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (gradients[name] - gradient).norm() < 1e-3 * gradient.norm(), name
    assert answers == their_answers


def test_without_a_compiler_the_setting_is_refused(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = ["-o", "compile=true", "-o", "accelerator=cpu", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "ffr.cli.main", "train", "sft", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "setting compile: nothing can be compiled here" in done.stderr
    assert "Traceback" not in done.stderr
