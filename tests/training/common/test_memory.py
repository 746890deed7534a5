"""A lack of memory is told from other faults, and a record by its size. Where it is said: test_stage."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest
import torch

from ffr.data.dataset import open_dataset
from ffr.training.common.memory import is_lack_of_memory, record_in_words


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("cannot allocate"), False),
    ],
    ids=["gpu", "python", "cpu", "shapes", "value"],
)
def test_what_is_a_lack_of_memory(error: Exception, expected: bool) -> None:
    assert is_lack_of_memory(error) is expected


def test_a_record_by_its_size(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    PIL.Image.new("RGB", (200, 50)).save(tmp_path / "b.png")
    seen = [{"image_url": name, "caption": ""} for name in ("a.png", "b.png")]
    records = [
        {"dialogue_id": "plain", "dialogue": [{"speaker": "a", "utterance": "hi"}]},
        {"dialogue_id": "seen", "dialogue": [{"speaker": "a", "utterance": seen}]},
    ]
    path = tmp_path / "data.jsonl"
    path.write_text(
        "".join(
            json.dumps({**record, "query_text": "q", "gt_turns": [0]}) + "\n" for record in records
        )
    )
    data = open_dataset(path)
    assert record_in_words(data, 0, 1, max_image_pixels=100) == "dialogue 'plain' (1 token)"
    # 40 × 30 as it is, 200 × 50 scaled down to 100 × 25
    found = record_in_words(data, 1, 2_000, max_image_pixels=2_500)
    assert found == "dialogue 'seen' (2,000 tokens, 2 pictures of 3,700 pixels)"
    assert record_in_words(data, 1, 7, max_image_pixels=None) == "dialogue 'seen' (7 tokens)"
