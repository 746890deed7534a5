"""What a reader learns from: by hand, and that padding and empty truths teach what they should."""

from __future__ import annotations

import math

import pytest
import torch

from ffr.training.common.reader_loss import reader_loss, soft_f1

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.3, -0.2, 7.0]])
LABELS = torch.tensor([[True, False, True], [False, False, True]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
NOTHING = torch.tensor([-1.5, 0.5])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_loss_by_hand() -> None:
    loss = reader_loss(LOGITS, NOTHING, LABELS, MASK, nothing_weight=0.3)
    p = [sigmoid(value) for value in (2.0, -1.0, 0.5)]
    of_units = -(math.log(p[0]) + math.log(1 - p[1]) + math.log(p[2])) / 3
    of_f1 = 1 - (2 * (p[0] + p[2]) + 1) / (sum(p) + 2 + 1)
    assert loss[0].item() == pytest.approx(of_units + of_f1 - 0.3 * math.log(1 - sigmoid(-1.5)))
    # the only true unit of the second stands on padding: nothing is true there
    assert loss[1].item() == pytest.approx(-0.3 * math.log(sigmoid(0.5)))


def test_what_stands_on_padding_has_no_influence_and_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    labels = torch.tensor([[True, False, True], [True, False, False]])
    loss = reader_loss(logits, NOTHING, labels, MASK, nothing_weight=1.0)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[1, 2] == 0
    assert (logits.grad[MASK] != 0).all()
    other = LOGITS.clone()
    other[1, 2] = -1e4
    moved = reader_loss(other, NOTHING, labels, MASK, nothing_weight=1.0)
    assert torch.equal(loss, moved)
    alone = reader_loss(LOGITS[1:, :2], NOTHING[1:], labels[1:, :2], MASK[1:, :2], nothing_weight=1)
    assert torch.allclose(alone, loss[1:])


def test_an_empty_truth_teaches_that_there_is_nothing_and_no_unit() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    nothing = NOTHING.clone().requires_grad_(True)
    reader_loss(logits, nothing, torch.zeros_like(MASK), MASK, nothing_weight=2.0).sum().backward()
    assert logits.grad is not None
    assert nothing.grad is not None
    assert (logits.grad == 0).all()
    assert (nothing.grad < 0).all()


def test_a_perfect_answer_has_an_f1_of_one() -> None:
    assert soft_f1(LABELS.float(), LABELS, MASK).tolist() == [1.0, 1.0]
    # one of two, and one too many: 3 / 5
    assert soft_f1(torch.tensor([[1.0, 1.0, 0.0]]), LABELS[:1], MASK[:1]).item() == pytest.approx(
        0.6
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": LABELS[:, :2]}, "differ; give"),
        ({"labels": LABELS.float()}, "they are bool"),
        ({"nothing": NOTHING[:1]}, r"\(1,\) logits of nothing beside 2 queries"),
        ({"nothing_weight": -1.0}, "nothing_weight is -1.0; it is at least 0"),
        ({"logits": LOGITS[0]}, "differ; give"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], sentence: str) -> None:
    given = {
        "logits": LOGITS,
        "nothing": NOTHING,
        "labels": LABELS,
        "mask": MASK,
        "nothing_weight": 1,
    }
    with pytest.raises(ValueError, match=sentence):
        reader_loss(**{**given, **change})  # type: ignore[arg-type]
