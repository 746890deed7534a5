"""Batches of the collator: plain transformers gives the very loss that training here takes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_builds import BEGUN_BUILDS, BUILDS, random_picture
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText

import ffr
from ffr.collator import IGNORED, Collator
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import DataError, UsageError
from ffr.models.loading import load_vlm
from ffr.models.prompts import PromptBuilder
from ffr.shipped.tiny import TINY_FOLDER


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Dialogues of two pictures, of none, and of one, of other sizes."""
    root = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(60, 40), (90, 130), (32, 32)]):
        random_picture(root / f"{number}.png", *size, seed=number)
    chats = [
        [("a", ["look", Path("0.png")]), ("b", "nice"), ("b", Path("1.png"))],
        [("a", "the bus is late"), ("b", "too bad")],
        [("a", Path("2.png")), ("b", "hm")],
    ]
    return [
        Example(Dialogue.of(lines), "what is shown", Fragment((0,)), image_root=root)
        for lines in chats
    ]


@pytest.mark.parametrize("kind", sorted(BUILDS | BEGUN_BUILDS))
@torch.no_grad()
def test_plain_transformers_takes_a_batch_and_gives_our_loss(
    kind: str, model_folder: Callable[[str], Path], examples: list[Example]
) -> None:
    folder = model_folder(kind)
    vlm = load_vlm(folder)
    builder = PromptBuilder(vlm)
    rows = [builder(example, with_answer=True) for example in examples]
    ours = vlm.collate(rows, padding_side="right")
    logits, targets, _ = vlm.answer_logits(ours)
    expected = torch.nn.functional.cross_entropy(logits.float(), targets)
    batch = Collator(folder)(examples)
    assert torch.equal(batch["labels"] != IGNORED, ours.answer_mask)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert model(**batch).loss.item() == pytest.approx(expected.item(), abs=2e-5)
    # one without pictures by itself
    alone = Collator(folder)(examples[1:2])
    assert "pixel_values" not in alone
    assert torch.isfinite(model(**alone).loss)


def test_rows_of_a_data_set_make_the_same_batch(examples: list[Example]) -> None:
    from ffr.data.exchange import to_hf

    collate = Collator("tiny", template="zh")
    expected = collate(examples)
    for table in (to_hf(examples), to_hf(examples, with_images=True)):
        found = collate([table[index] for index in range(len(table))])
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


def test_workers_of_a_loader_collate(examples: list[Example]) -> None:
    collate = pickle.loads(pickle.dumps(Collator("tiny")))
    loader = DataLoader(examples, batch_size=3, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    (batch,) = loader
    for name, value in Collator("tiny")(examples).items():
        assert torch.equal(batch[name], value), name


def test_prompts_to_be_answered(examples: list[Example]) -> None:
    batch = Collator("tiny", with_answer=False)(examples)
    assert "labels" not in batch
    # padded on the left, so that answers begin where prompts end
    assert batch["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert 0 in batch["attention_mask"][:, 0]
    right = Collator("tiny", with_answer=False, padding_side="right")(examples)
    assert right["attention_mask"][:, 0].tolist() == [1, 1, 1]


def test_what_cannot_be_batched_is_said(examples: list[Example], tmp_path: Path) -> None:
    no_truth = Example(examples[1].dialogue, "q")
    with pytest.raises(DataError, match="has no true answer to train on"):
        Collator("tiny")([no_truth])
    with pytest.raises(DataError, match=r"tokens, more than the 20 allowed"):
        Collator("tiny", max_tokens=20)(examples[1:2])
    missing = Example(examples[0].dialogue, "q", Fragment(), image_root=tmp_path)
    with pytest.raises(DataError, match=r"0\.png.* not found"):
        Collator("tiny")([missing])
    with pytest.raises(DataError, match="the row cannot be read as an example"):
        Collator("tiny")([{"query": "q"}])
    with pytest.raises(UsageError, match="no such model folder or run"):
        Collator(tmp_path / "none")


def test_a_plain_loop_learns(sample_home: Path) -> None:
    data = ffr.load_dataset("sample", split="train")
    model: Any = AutoModelForImageTextToText.from_pretrained(TINY_FOLDER)
    loader = DataLoader(data[:8], batch_size=4, collate_fn=Collator("tiny"))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[1]
    assert losses[-2] < losses[0]
