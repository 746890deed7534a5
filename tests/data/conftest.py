"""A few records of each form, small enough to read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.data.forms.ms_swift import example_to_record
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance

Record = dict[str, Any]


def make_example(
    number: int = 0,
    *,
    query: str = "猫",
    images: tuple[str, ...] = ("images/a.png", "images/b.png"),
) -> Example:
    lines = [
        Utterance("user1", (f"你好 {number}",)),
        *(Utterance("user2", (Image(source),)) for source in images),
    ]
    on_turn = Fragment((0, 1), (0,)) if images else Fragment((0,), ())
    return Example(Dialogue(f"d{number}", (*lines, Utterance("user1", ("再见",)))), query, on_turn)


@pytest.fixture
def record() -> Record:
    """A sound record of the ms-swift form; its pictures are images/a.png and images/b.png."""
    return example_to_record(make_example())


@pytest.fixture
def raw_record() -> Record:
    """A sound record of the raw form with two queries."""
    return {
        "dialogue_id": "r0",
        "dialogue": [
            {"speaker": "User1", "utterance_idx": 0, "utterance": "hello"},
            {
                "speaker": "User2",
                "utterance_idx": 1,
                "utterance": [
                    {"image_url": "images/a.png", "caption": "a cat"},
                    {"image_url": "images/b.png", "caption": ""},
                ],
            },
            {"speaker": "User1", "utterance_idx": 2, "utterance": "nice"},
        ],
        "query_text": ["the cat", "greeting"],
        "gt_turns": [[1, 2], [0]],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the pictures of the records."""
    (tmp_path / "images").mkdir()
    for name, grey in (("a", 0), ("b", 255)):
        PIL.Image.new("RGB", (8, 6), (grey, grey, grey)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Writes records as the name of the file says, with nothing of ours in between."""

    def write_file(name: str, *records: Any, indent: int | None = None) -> Path:
        kind = name.removesuffix(".gz").rpartition(".")[2]
        if kind == "json":
            text = json.dumps(list(records), ensure_ascii=False, indent=indent)
        else:
            text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in records)
        data = text.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return folder / name

    return write_file
