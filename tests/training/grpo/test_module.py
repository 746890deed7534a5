"""The figures of a GRPO step by hand: a policy of one number a token, scripted answers, two updates.

Two prompts with two answers each; seven answer tokens; every log-probability is -1 at first.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from ffr.models.decoding.loop import Generated
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import BranchLogprobs
from ffr.rewards.terms import RewardTerm
from ffr.settings import GrpoConfig
from ffr.training.common.module import StepFault
from ffr.training.common.trainer import make_trainer
from ffr.training.grpo.loader import StepPrompts
from ffr.training.grpo.module import GrpoModule
from ffr.training.grpo.policy import Pass
from ffr.training.grpo.rollout import Rollout

STOP = 9
ANSWERS = [(1, STOP), (1, 2), (STOP,), (3, STOP)]  # the second one was cut off
LENGTHS = torch.tensor([len(answer) for answer in ANSWERS])
MASK = torch.arange(2) < LENGTHS[:, None]


class Policy(torch.nn.Module):
    """Has a log-probability for each token of each answer, and an entropy that does not follow from it."""

    noise = 0.0
    samples_still = False
    samples_apart = False

    def __init__(self) -> None:
        super().__init__()
        self.logprobs = torch.nn.Parameter(-torch.ones(4, 2))
        self.entropy = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [6.0, 7.0]])

    @property
    def model(self) -> torch.nn.Module:
        return self

    def cut(self, prompts: Any, dialogue_numbers: Any, answers: Any) -> list[Pass]:
        assert [answer.token_ids for answer in answers] == ANSWERS
        assert [prompt.num_tokens for prompt in prompts] == [3, 2]
        return [Pass([], [], [], [0, 1, 2, 3])]

    def is_cut_off(self, answer: Generated) -> bool:
        return answer.is_cut_off({STOP})

    def score_still(self, item: Pass, *, of_start: bool) -> torch.Tensor:
        assert not of_start
        return (self.logprobs * MASK).detach()

    def score(self, item: Pass, *, with_entropy: bool = False) -> BranchLogprobs:
        # as dropout does, it says something else while it is trained
        noise = self.noise if self.training else 0.0
        logprobs = (self.logprobs + noise) * MASK
        return BranchLogprobs(logprobs, MASK, self.entropy if with_entropy else None)


class Told(L.Callback):
    """Keeps what the module says of its steps, and where each update began, with what norm of the gradients."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.fault: StepFault | None = None
        self.norms: list[float] = []
        self.places: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: GrpoModule, optimizer: Any) -> None:
        self.norms.append(pl_module.gradient_norm())
        self.places.append(pl_module.policy.logprobs[MASK].tolist())

    def on_train_batch_end(
        self, trainer: Any, pl_module: GrpoModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.figures = pl_module.take_step_figures(batch)
        self.fault = pl_module.fault_of_step(self.figures)


def a_step(folder: Path, *, apart: bool = False, recorded: float = -1.0, **settings: Any) -> Told:
    """One step; group 0 earns (1, 0), group 1 (0, 1), which it did not before its answers were sampled anew."""
    config = GrpoConfig(
        batch_size=2, accumulate=1, num_generations=2, loss_type="dapo", kl_coefficient=0, weight_decay=0,
        learning_rate=0.5, accelerator="cpu", **settings,
    )  # fmt: skip
    policy, told = Policy(), Told()
    policy.samples_still = bool(config.lora_dropout)
    policy.samples_apart = apart
    answers = [Generated("", answer, (recorded,) * len(answer)) for answer in ANSWERS]
    values = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 0.0], [1.0, 0.0]])
    rollout = Rollout([4, 7], answers, values, values[:, 0], num_without_signal=1, num_attempts=3)
    sampler = SimpleNamespace(
        terms=[RewardTerm("f1", lambda **_: [], 1.0), RewardTerm("own", lambda **_: [], 0.0)],
        roll_out=lambda *_, **__: rollout,
    )
    module = GrpoModule(policy, config, num_steps=1, fingerprints={}, sampler=sampler)
    trainer = make_trainer(config, folder, [told], last_step=0, progress=False, is_manual=True)
    batch = StepPrompts([4, 7], [Encoded([5, 6, 7]), Encoded([5, 6])], [0, 1])
    trainer.fit(module, DataLoader([batch], batch_size=None))
    assert set(told.figures) <= set(module.columns)
    return told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dropout", "old"), [(0.1, -1.0), (0.0, -0.875)])
def test_ratios_are_to_the_policy_that_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float, old: float
) -> None:
    """Sampling drops nothing, so with dropout the update's own log-probabilities are others."""
    from ffr.training.grpo import module

    monkeypatch.setattr(Policy, "noise", 0.125)
    seen: list[tuple[float, float]] = []
    whole = module.policy_loss

    def noting(logprobs: torch.Tensor, before: torch.Tensor, *more: Any, **named: Any) -> Any:
        seen.append((float(logprobs[0, 0]), float(before[0, 0])))
        return whole(logprobs, before, *more, **named)

    monkeypatch.setattr(module, "policy_loss", noting)
    a_step(tmp_path, updates_per_rollout=2, lora_dropout=dropout)
    assert seen[0] == (-0.875, old)
    assert seen[1][1] == old
    assert seen[1][0] > -0.875


@pytest.mark.filterwarnings("ignore")
def test_the_figures_of_a_step_by_hand(tmp_path: Path) -> None:
    told = a_step(tmp_path, updates_per_rollout=2)
    figures = told.figures
    assert figures["reward"] == 0.5
    assert figures["reward_f1"] == 0.5
    assert figures["reward_own"] == 0.25
    deviation = math.sqrt(0.5)  # of (1, 0), with one degree of freedom
    assert figures["reward_std"] == pytest.approx(deviation)
    assert figures["no_signal_share"] == 0.5, (
        "one of two prompts at the first attempt, though none is left"
    )
    assert figures["resampled"] == 3
    assert figures["answer_tokens"] == 7 / 4
    assert figures["cut_off_share"] == 1 / 4
    assert figures["num_tokens"] == 5 + 7
    assert figures["entropy"] == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 + 7) / 7), (
        "of the first update alone"
    )
    # advantages are ± 0.5 / deviation; four of seven tokens are of better answers
    advantage = 0.5 / deviation
    assert figures["loss"] == pytest.approx(-advantage * (4 - 3) / 7, rel=1e-3), (
        "before the first update"
    )
    # AdamW's first step moves every token by the learning rate, the better ones up
    ratio = math.exp(0.5)
    assert ratio > 1.28
    assert 1 / ratio < 0.8
    assert told.places[0] == [-1.0] * 7
    assert told.places[1] == pytest.approx([-0.5, -0.5, -1.5, -1.5, -1.5, -0.5, -0.5], rel=1e-3)
    # so that the second update finds all tokens clipped: of 2 x 7 tokens 4 above and 3 below
    assert figures["clipped_high_share"] == pytest.approx(4 / 14)
    assert figures["clipped_low_share"] == pytest.approx(3 / 14)
    assert figures["grad_norm"] == 0, "clipped tokens have no gradient"


@pytest.mark.filterwarnings("ignore")
def test_a_gap_between_what_samples_and_what_is_trained_is_stated_and_weighted(
    tmp_path: Path,
) -> None:
    """Sampling says -1 - ln 2 of each token, the policy -1: each counts twice, or up to the cap."""
    half = -1.0 - math.log(2)
    plain, beside = a_step(tmp_path), a_step(tmp_path, recorded=half)
    assert plain.figures["sampling_gap_mean"] == plain.figures["sampling_gap_max"] == 0
    for name in ("sampling_gap_mean", "sampling_gap_max"):
        assert beside.figures[name] == pytest.approx(math.log(2), rel=1e-6)
    assert "importance_capped_share" not in beside.figures
    assert beside.norms == plain.norms, "a gap of rounding weighs nothing"
    for cap, factor, share in ((3.0, 2.0, 0.0), (1.5, 1.5, 1.0)):
        settings = {"importance_cap": cap, "max_grad_norm": 0}
        apart = a_step(tmp_path, apart=True, recorded=half, **settings)
        assert apart.norms == pytest.approx([factor * plain.norms[0]], rel=1e-5)
        assert apart.figures["loss"] == pytest.approx(factor * plain.figures["loss"], rel=1e-5)
        assert apart.figures["importance_capped_share"] == share


@pytest.mark.filterwarnings("ignore")
def test_a_gap_beyond_its_limit_stops_the_run(tmp_path: Path) -> None:
    for settings, words in (
        ({"recorded": -1.0 - 0.051}, "precision=fp32, or a higher sampling_gap_limit"),
        ({"recorded": -1.0 + 0.051, "sampling_weights": "merged"}, "sampling_weights=adapters"),
    ):
        fault = a_step(tmp_path, **settings).fault
        assert fault is not None
        assert "differ by 0.051 in the mean (sampling_gap_limit is 0.05)" in fault.what
        assert words in fault.remedy
    assert a_step(tmp_path, recorded=-1.049).fault is None
    assert a_step(tmp_path, recorded=-9.0, sampling_gap_limit=None).fault is None
    not_finite = a_step(tmp_path, recorded=math.nan, sampling_gap_limit=None).fault
    assert not_finite is not None
    assert "sampling_gap_mean is nan" in not_finite.what


@pytest.mark.filterwarnings("ignore")
def test_a_gradient_is_scaled_down_to_its_largest_norm(tmp_path: Path) -> None:
    norm = math.sqrt(7) * (0.5 / math.sqrt(0.5)) / 7
    for largest, taken in ((1.0, norm), (0.1, 0.1), (0.0, norm)):
        told = a_step(tmp_path, max_grad_norm=largest)
        assert told.figures["grad_norm"] == pytest.approx(norm, rel=1e-3), (
            "what is told is the norm from before"
        )
        assert told.norms == pytest.approx([taken], rel=1e-3)


def test_the_curves_follow_from_the_terms() -> None:
    terms = [RewardTerm(name, lambda **_: [], 1.0) for name in ("f1", "overlong", "mine")]
    module = GrpoModule(
        Policy(),
        GrpoConfig(),
        num_steps=1,
        fingerprints={},
        sampler=SimpleNamespace(terms=terms),
    )
    assert list(module.curves) == ["reward", "reward_f1", "reward_overlong", "reward_mine"]
    assert set(module.curves) <= set(module.columns)
