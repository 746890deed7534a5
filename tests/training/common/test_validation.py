"""Validation by hand: three scripted answers, one of them malformed, in batches of bounded size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.models.decoding.loop import Generated
from ffr.models.rows import Encoded
from ffr.settings import SftConfig
from ffr.training.common import validation
from ffr.training.common.module import StageModule

DIALOGUE = Dialogue(
    "d", (Utterance("a", ("x", Image("0.png"), Image("1.png"))), Utterance("a", ("y",)))
)
TRUTHS = [Fragment((0, 1), (0,)), Fragment((1,), (1,)), Fragment((0,), (0, 1))]
ANSWERS = [
    format_answer(Fragment((0,), (0, 1))),
    "well: " + format_answer(Fragment((1,), ())),  # read leniently, and counted as malformed
    format_answer(Fragment((0,), (1,))),
]
LENGTHS = [10, 30, 9]


class Data(list):
    def where(self, index: int) -> str:
        return f"line {index}"


class Words(torch.nn.Module):
    """Four words, all equally likely; an example has its number of answer tokens."""

    opened_thought = ""

    def collate(self, rows: Sequence[Encoded], *, padding_side: str) -> int:
        return sum(row.num_answer_tokens for row in rows)

    def answer_logits(self, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor, None]:
        return torch.zeros(num_tokens, 4), torch.zeros(num_tokens, dtype=torch.long), None


class Module(StageModule[SftConfig]):
    columns = ()

    def take_step_figures(self, batch: Any) -> dict[str, float]:
        return {}


def build(example: Example, *, with_answer: bool = False, where: str) -> Encoded:
    number = int(example.query)
    assert where == f"line {number}"
    return Encoded([number] * LENGTHS[number], num_answer_tokens=3 if with_answer else 0)


@pytest.mark.parametrize(
    ("batch_tokens", "batches"),
    [(16, [[2], [0], [1]]), (20, [[2, 0], [1]]), (90, [[2, 0, 1]]), (89, [[2, 0], [1]])],
)
def test_figures_by_hand(
    monkeypatch: pytest.MonkeyPatch, batch_tokens: int, batches: list[list[int]]
) -> None:
    answered: list[list[int]] = []

    def answer(vlm: Any, prompts: list[Encoded], *, max_new_tokens: int) -> list[Generated]:
        assert max_new_tokens == 77
        answered.append([prompt.input_ids[0] for prompt in prompts])
        return [Generated(ANSWERS[prompt.input_ids[0]], (), ()) for prompt in prompts]

    monkeypatch.setattr(validation, "generate_answers", answer)
    config = SftConfig(val_batch_tokens=batch_tokens, max_new_tokens=77, val_examples=3)
    module = Module(Words(), config, num_steps=1, fingerprints={})
    module._trainer = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(reduce=lambda sums, reduce_op: sums)
    )
    data = Data(Example(DIALOGUE, str(number), truth) for number, truth in enumerate(TRUTHS))
    # the fourth is over val_examples
    data.append(Example(DIALOGUE, "3", None))
    found = validation.validate(module, module.model, data, build)
    assert answered == batches
    assert found["val_loss"] == pytest.approx(math.log(4))
    assert found["val_malformed_share"] == pytest.approx(1 / 3)
    # utterances: true positives 1 + 1 + 1, missed 1, none too many; images: 1 + 0 + 1, missed 0 + 1 + 1, too many 1
    assert found["val_utterance_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert found["val_image_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert module.training
