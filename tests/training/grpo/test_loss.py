"""The policy losses against hand-worked values and the installed TRL, and what must not change them."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trl import GRPOTrainer

from ffr.training.grpo.loss import LossType, policy_loss, token_weights
from ffr.training.grpo.sampling_gap import truncated_importance

LOSS_TYPES: tuple[LossType, ...] = get_args(LossType)
LENGTHS = [5, 1, 7, 3, 6, 2, 4, 7]
MAX_NEW_TOKENS = 11
CLIP_LOW = 0.2


def clip_high_of(loss_type: LossType) -> float:
    return 1.1 if loss_type == "cispo" else 0.28


class Batch(NamedTuple):
    logprobs: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor

    def rows(self, chosen: list[int]) -> Batch:
        return Batch(*(tensor[chosen] for tensor in self))


def make_batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Ragged answers; ratios from far below to far above the clip range, advantages of both signs and 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -3 * torch.rand(shape, generator=generator, dtype=dtype) - 0.05
    advantages = torch.randn(len(LENGTHS), generator=generator, dtype=dtype)
    advantages[0], advantages[1], advantages[5] = 1.5, -1.5, 0.0
    mask = torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]
    # a common part of each answer moves the mean over its tokens (gspo) out of the range too
    moved = torch.randn((shape[0], 1), generator=generator, dtype=dtype) * 0.4
    logprobs = old + moved + 0.5 * torch.randn(shape, generator=generator, dtype=dtype)
    reference = old + 0.5 * torch.randn(shape, generator=generator, dtype=dtype)
    return Batch(logprobs, old, reference, advantages, mask)


def our_loss(
    batch: Batch,
    loss_type: LossType,
    beta: float = 0.0,
    *,
    step: Tensor | None = None,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, gradient and sums; `step` is the mask of the whole step where the batch is only a part of it."""
    step = batch.mask if step is None else step
    leaf = batch.logprobs.clone().requires_grad_()
    weights = token_weights(
        batch.mask,
        loss_type,
        num_step_answers=len(step),
        num_step_tokens=int(step.sum()),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    loss, sums = policy_loss(
        leaf,
        batch.old,
        batch.advantages,
        batch.mask,
        weights,
        loss_type=loss_type,
        clip_low=CLIP_LOW,
        clip_high=clip_high_of(loss_type),
        kl_coefficient=beta,
        reference_logprobs=batch.reference,
        importance=importance,
    )
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad, sums


def trl_loss(
    batch: Batch,
    loss_type: LossType,
    beta: float,
    *,
    num_micro_batches: int = 1,
    num_step_tokens: int | None = None,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Loss, gradient and logged figures of TRL's own method on the same tensors."""
    leaf = batch.logprobs.clone().requires_grad_()
    metrics: dict[str, dict[str, list[float]]] = {"train": defaultdict(list)}
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (
            leaf,
            torch.zeros_like(leaf),
            None,
        ),
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=num_micro_batches
        ),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda tensor: tensor, reduce=lambda tensor, reduction: tensor
        ),
        loss_type="grpo" if loss_type == "gspo" else loss_type,
        importance_sampling_level="sequence" if loss_type == "gspo" else "token",
        epsilon_low=CLIP_LOW,
        epsilon_high=clip_high_of(loss_type),
        beta=beta,
        max_completion_length=MAX_NEW_TOKENS,
        current_gradient_accumulation_steps=num_micro_batches,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=importance is not None,
        vllm_importance_sampling_correction=importance is not None,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics=metrics,
    )
    prompt = torch.ones(len(leaf), 1, dtype=torch.long)
    inputs: dict[str, Any] = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": torch.ones_like(batch.mask, dtype=torch.long),
        "completion_mask": batch.mask.long(),
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old,
        "ref_per_token_logps": batch.reference,
        "importance_sampling_ratio": importance,
        "num_items_in_batch": torch.tensor(float(num_step_tokens or batch.mask.sum())),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad, {name: values[0] for name, values in metrics["train"].items()}


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.0, 0.02])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_agrees_with_the_installed_trl(loss_type: LossType, beta: float, seed: int) -> None:
    batch = make_batch(seed)
    loss, gradient, sums = our_loss(batch, loss_type, beta)
    expected_loss, expected_gradient, figures = trl_loss(batch, loss_type, beta)
    assert_same((loss, gradient), (expected_loss, expected_gradient))

    num_tokens = sums["num_tokens"].item()
    assert num_tokens == sum(LENGTHS)
    if beta:
        assert sums["kl"].item() / num_tokens == pytest.approx(figures["kl"], rel=1e-6)
    if loss_type == "cispo":
        assert sums["clipped_high"].item() / num_tokens == pytest.approx(
            figures["cispo_clip_ratio"]
        )
        assert sums["clipped_low"] == 0
    elif loss_type != "gspo":  # TRL counts answers there, not tokens
        assert sums["clipped_low"].item() / num_tokens == pytest.approx(
            figures["clip_ratio/low_mean"]
        )
        assert sums["clipped_high"].item() / num_tokens == pytest.approx(
            figures["clip_ratio/high_mean"]
        )


@pytest.mark.parametrize("beta", [0.0, 0.02])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_truncated_importance_agrees_with_the_installed_trl(
    loss_type: LossType, beta: float
) -> None:
    """Their `token_truncate`; a few tokens are beyond the cap, and padding holds anything."""
    batch = make_batch(4)
    noise = torch.randn(batch.old.shape, generator=torch.Generator().manual_seed(5))
    recorded = batch.old + noise
    ours = truncated_importance(batch.old, recorded, batch.mask, cap=2.0)
    # as grpo_trainer.py has it, with a minimum of none
    theirs = torch.clamp(torch.exp((batch.old - recorded) * batch.mask), min=None, max=2.0)
    torch.testing.assert_close(ours, theirs)
    assert 0 < int((ours[batch.mask] == 2.0).sum()) < sum(LENGTHS)
    found = our_loss(batch, loss_type, beta, importance=ours)[:2]
    assert_same(found, trl_loss(batch, loss_type, beta, importance=theirs)[:2])
    with pytest.raises(AssertionError):
        assert_same(found, trl_loss(batch, loss_type, beta)[:2])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_batches_reach_beyond_both_bounds(loss_type: LossType) -> None:
    sums = [our_loss(make_batch(seed), loss_type)[2] for seed in range(3)]
    assert sum(s["clipped_high"].item() for s in sums) > 0
    assert loss_type == "cispo" or sum(s["clipped_low"].item() for s in sums) > 0
    assert all(s["clipped_high"].item() < s["num_tokens"].item() for s in sums)


@pytest.mark.parametrize("other", [name for name in LOSS_TYPES if name != "grpo"])
def test_the_comparison_with_trl_tells_losses_apart(other: LossType) -> None:
    batch = make_batch()
    expected = trl_loss(batch, "grpo", 0.0)[:2]
    with pytest.raises(AssertionError):
        assert_same(our_loss(batch, other)[:2], expected)


@pytest.mark.parametrize("loss_type", [name for name in LOSS_TYPES if name != "bnpo"])
def test_two_micro_batches_agree_with_trls_accumulation(loss_type: LossType) -> None:
    batch = make_batch(3)
    halves = [batch.rows([0, 1, 2, 3]), batch.rows([4, 5, 6, 7])]
    for half in halves:
        found = our_loss(half, loss_type, 0.02, step=batch.mask)[:2]
        assert_same(
            found,
            trl_loss(
                half, loss_type, 0.02, num_micro_batches=2, num_step_tokens=int(batch.mask.sum())
            )[:2],
        )


def test_bnpo_of_trl_depends_on_the_cut_and_ours_does_not() -> None:
    batch = make_batch(3)
    halves = [batch.rows([0, 1, 2, 3]), batch.rows([4, 5, 6, 7])]
    whole = our_loss(batch, "bnpo")[0].item()
    assert sum(
        our_loss(half, "bnpo", step=batch.mask)[0].item() for half in halves
    ) == pytest.approx(whole)
    theirs = sum(trl_loss(half, "bnpo", 0.0, num_micro_batches=2)[0].item() for half in halves)
    assert abs(theirs - whole) > 1e-3


# one answer of two tokens with ratios 2 and 1/2, one of a single token with ratio 1; advantages 1 and -2
_RATIOS = torch.tensor([[2.0, 0.5], [1.0, 1.0]])
_HAND = Batch(
    logprobs=torch.tensor([[-0.5, -1.5], [-1.0, 0.0]]),
    old=torch.tensor([[-0.5, -1.5], [-1.0, 0.0]]) - _RATIOS.log(),
    reference=torch.tensor([[-0.5, -1.5], [-1.0 + math.log(2), 0.0]]),
    advantages=torch.tensor([1.0, -2.0]),
    mask=torch.tensor([[True, True], [True, False]]),
)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        # min(2, 1.28) + min(0.5, 0.8) = 1.78, and -2
        ("grpo", -(1.78 / 2 - 2) / 2),
        ("bnpo", -(1.78 - 2) / 3),
        ("dr_grpo", -(1.78 - 2) / (2 * MAX_NEW_TOKENS)),
        ("dapo", -(1.78 - 2) / 3),
        # the first answer's ratio is the geometric mean of 2 and 1/2
        ("gspo", -(1 - 2) / 2),
        # ratio bound 1.1: 1.1 * 1 * -0.5, 0.5 * 1 * -1.5, 1 * -2 * -1
        ("cispo", -(-0.55 - 0.75 + 2) / 3),
    ],
)
def test_losses_worked_by_hand(loss_type: LossType, expected: float) -> None:
    assert our_loss(_HAND, loss_type)[0].item() == pytest.approx(expected, rel=1e-6)


def test_gradients_and_sums_worked_by_hand() -> None:
    _, gradient, sums = our_loss(_HAND, "dapo")
    # the clipped token has none; the others have -ratio * advantage / 3
    assert gradient.flatten().tolist() == pytest.approx([0.0, -0.5 / 3, 2 / 3, 0.0])
    assert {name: value.item() for name, value in sums.items()} == pytest.approx(
        # k3 of the last token: 2 - ln 2 - 1; the low ratio of a good answer is not clipped
        {
            "num_tokens": 3,
            "ratio_sum": 3.5,
            "clipped_low": 0,
            "clipped_high": 1,
            "kl": 1 - math.log(2),
        }
    )
    assert not any(value.requires_grad for value in sums.values())
    # d k3 / d logprob = 1 - exp(reference - logprob) = -1
    with_divergence = our_loss(_HAND, "dapo", 0.3)[1]
    assert (with_divergence - gradient).flatten().tolist() == pytest.approx(
        [0.0, 0.0, -0.3 / 3, 0.0], abs=1e-7
    )


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    _, gradient, sums = our_loss(_HAND, "cispo")
    assert gradient.flatten().tolist() == pytest.approx([-1.1 / 3, -0.5 / 3, 2 / 3, 0.0])
    assert sums["clipped_high"] == 1


def test_a_low_ratio_is_clipped_where_the_answer_was_bad() -> None:
    worse = _HAND._replace(advantages=torch.tensor([-1.0, -2.0]))
    _, gradient, sums = our_loss(worse, "dapo")
    assert gradient.flatten().tolist() == pytest.approx([2.0 / 3, 0.0, 2 / 3, 0.0])
    assert sums["clipped_low"] == 1
    assert sums["clipped_high"] == 0


def test_gspo_counts_a_clipped_answer_with_all_its_tokens() -> None:
    batch = _HAND._replace(old=_HAND.logprobs - math.log(1.5))
    sums = our_loss(batch, "gspo")[2]
    assert sums["clipped_high"] == 2
    assert sums["clipped_low"] == 0
    assert sums["ratio_sum"].item() == pytest.approx(4.5)


@st.composite
def cuts(draw: st.DrawFn) -> list[list[int]]:
    """The rows of a step in any order, cut anywhere."""
    order = draw(st.permutations(range(len(LENGTHS))))
    edges = sorted(draw(st.sets(st.integers(min_value=1, max_value=len(order) - 1))))
    return [
        list(order[start:end]) for start, end in zip([0, *edges], [*edges, len(order)], strict=True)
    ]


@settings(max_examples=30)
@given(
    cuts(),
    st.sampled_from(LOSS_TYPES),
    st.sampled_from([0.0, 0.02]),
    st.integers(min_value=0, max_value=99),
)
def test_any_cut_of_a_step_has_its_loss_and_gradient(
    parts: list[list[int]], loss_type: LossType, beta: float, seed: int
) -> None:
    step = make_batch(seed, torch.float64)
    whole_loss, whole_gradient, whole_sums = our_loss(step, loss_type, beta)
    loss, gradient, sums = (
        torch.zeros(()).double(),
        torch.zeros_like(whole_gradient),
        defaultdict[str, Tensor](lambda: torch.zeros(()).double()),
    )
    for rows in parts:
        part = step.rows(rows)
        width = int(
            part.mask.sum(dim=1).max()
        )  # a micro-batch is as wide as its own longest answer
        part = Batch(*(tensor[:, :width] if tensor.ndim == 2 else tensor for tensor in part))
        part_loss, part_gradient, part_sums = our_loss(part, loss_type, beta, step=step.mask)
        loss += part_loss
        gradient[rows, :width] += part_gradient
        for name, value in part_sums.items():
            sums[name] += value
    torch.testing.assert_close(loss, whole_loss, atol=1e-7, rtol=1e-6)  # the weights are float32
    torch.testing.assert_close(gradient, whole_gradient, atol=1e-7, rtol=1e-6)
    assert {name: value.item() for name, value in sums.items()} == pytest.approx(
        {name: value.item() for name, value in whole_sums.items()}
    )


def test_weights_of_parts_counted_alone_do_not_sum_to_the_step() -> None:
    step = make_batch(3)
    halves = [step.rows([0, 1, 2, 3]), step.rows([4, 5, 6, 7])]
    alone = sum(our_loss(half, "dapo")[0].item() for half in halves)
    assert abs(alone - our_loss(step, "dapo")[0].item()) > 1e-3


@pytest.mark.parametrize("beta", [0.0, 0.02])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_padding_has_no_influence(loss_type: LossType, beta: float) -> None:
    clean = make_batch()
    generator = torch.Generator().manual_seed(7)
    loss, gradient, sums = our_loss(clean, loss_type, beta)
    for factor in (1.0, 1e4, 3e38):
        garbage = [
            factor * (2 * torch.rand(clean.mask.shape, generator=generator) - 1) for _ in range(3)
        ]
        dirty = clean._replace(
            logprobs=clean.logprobs.where(clean.mask, garbage[0]),
            old=clean.old.where(clean.mask, garbage[1]),
            reference=clean.reference.where(clean.mask, garbage[2]),
        )
        dirty_loss, dirty_gradient, dirty_sums = our_loss(dirty, loss_type, beta)
        assert dirty_loss.equal(loss)
        assert dirty_gradient.equal(gradient)
        assert dirty_gradient[~clean.mask].eq(0).all()
        assert all(dirty_sums[name].equal(value) for name, value in sums.items())


def test_an_answer_token_has_influence_where_padding_has_none() -> None:
    clean = make_batch()
    moved = clean.logprobs.clone()
    moved[0, 0] = clean.old[0, 0]
    assert not our_loss(clean._replace(logprobs=moved), "dapo")[0].equal(our_loss(clean, "dapo")[0])


def test_weights_on_padding_are_not_used() -> None:
    batch = make_batch()
    weights = torch.full(batch.mask.shape, 0.1)
    losses = [
        policy_loss(*batch[:2], batch.advantages, batch.mask, given, loss_type="dapo")[0]
        for given in (weights, weights.where(batch.mask, 1e30))
    ]
    assert losses[0].equal(losses[1])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_empty_answer_gives_nothing_and_an_empty_step_is_zero(loss_type: LossType) -> None:
    batch = make_batch()
    mask = batch.mask.clone()
    mask[2] = False
    loss, gradient, _ = our_loss(batch._replace(mask=mask), loss_type, 0.02)
    assert math.isfinite(loss.item())
    assert not gradient[2].any()

    nothing = torch.zeros_like(batch.mask)
    weights = token_weights(
        nothing, loss_type, num_step_answers=0, num_step_tokens=0, max_new_tokens=5
    )
    leaf = batch.logprobs.clone().requires_grad_()
    loss, sums = policy_loss(
        leaf, batch.old, batch.advantages, nothing, weights, loss_type=loss_type
    )
    loss.backward()
    assert leaf.grad is not None
    assert loss == 0
    assert not leaf.grad.any()
    assert not any(value.any() for value in sums.values())


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_on_policy_gradient_is_the_weighted_advantage(loss_type: LossType) -> None:
    batch = make_batch()
    batch = batch._replace(logprobs=batch.old.clone())
    weights = token_weights(
        batch.mask,
        loss_type,
        num_step_answers=8,
        num_step_tokens=sum(LENGTHS),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    leaf = batch.logprobs.clone().requires_grad_()
    # a bound above 1, so that cispo cuts nothing either
    policy_loss(
        leaf, batch.old, batch.advantages, batch.mask, weights, loss_type=loss_type, clip_high=2.0
    )[0].backward()
    torch.testing.assert_close(
        leaf.grad, -weights * batch.advantages[:, None], atol=1e-7, rtol=1e-6
    )


def test_half_precision_is_computed_in_float32() -> None:
    batch = make_batch()
    halves = Batch(*(t.bfloat16() if t.is_floating_point() else t for t in batch))
    exact = Batch(*(t.float() if t.is_floating_point() else t for t in halves))
    loss, gradient, _ = our_loss(halves, "grpo", 0.02)
    assert loss.dtype == torch.float32
    assert loss.equal(our_loss(exact, "grpo", 0.02)[0])
    assert gradient.dtype == torch.bfloat16


def test_without_a_reference_no_divergence_is_reported() -> None:
    batch = make_batch()
    weights = torch.ones(batch.mask.shape)
    _, sums = policy_loss(
        batch.logprobs, batch.old, batch.advantages, batch.mask, weights, loss_type="grpo"
    )
    assert sorted(sums) == ["clipped_high", "clipped_low", "num_tokens", "ratio_sum"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logprobs": torch.zeros(8)}, r"logprobs have the shape \(8,\)"),
        ({"old_logprobs": torch.zeros(8, 6)}, "old_logprobs has the shape"),
        ({"weights": torch.zeros(7)}, "weights has the shape"),
        ({"mask": torch.ones(8, 6, dtype=torch.bool)}, "mask has the shape"),
        ({"mask": torch.ones(8, 7)}, "mask is torch.float32"),
        ({"reference_logprobs": torch.zeros(1, 7)}, "reference_logprobs has the shape"),
        ({"advantages": torch.zeros(8, 1)}, "advantages have the shape"),
        ({"advantages": torch.tensor([0.0, math.nan] * 4)}, "answer 1 is nan"),
        ({"advantages": torch.tensor([-math.inf, 0.0] * 4)}, "answer 0 is -inf"),
        ({"loss_type": "ppo"}, "grpo, bnpo"),
        ({"clip_low": -0.1}, "clip_low"),
        ({"clip_low": math.nan}, "clip_low"),
        ({"clip_high": -0.1}, "clip_high"),
        ({"loss_type": "cispo", "clip_high": 0.0}, "clip_high"),
        ({"kl_coefficient": -0.1}, "kl_coefficient"),
        ({"kl_coefficient": 0.1}, "without reference_logprobs"),
    ],
)
def test_wrong_input_of_the_loss_is_refused(changes: dict[str, Any], message: str) -> None:
    batch = make_batch()
    arguments: dict[str, Any] = {
        "logprobs": batch.logprobs,
        "old_logprobs": batch.old,
        "advantages": batch.advantages,
        "mask": batch.mask,
        "weights": torch.ones(batch.mask.shape),
        "loss_type": "grpo",
    }
    policy_loss(**arguments)
    with pytest.raises(ValueError, match=message):
        policy_loss(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.ones(2, 3)}, "expected bool"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"shape \(3,\)"),
        ({"loss_type": "ppo"}, "grpo, bnpo"),
        ({"num_step_answers": 1}, "counts 1 answers"),
        ({"num_step_tokens": 5}, "counts 2 answers and 5 tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_wrong_input_of_the_weights_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "mask": torch.ones(2, 3, dtype=torch.bool),
        "loss_type": "dapo",
        "num_step_answers": 2,
        "num_step_tokens": 6,
        "max_new_tokens": 3,
    }
    token_weights(**arguments)
    with pytest.raises(ValueError, match=message):
        token_weights(**(arguments | changes))
