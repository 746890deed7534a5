"""One judgement: what the check calls good is what the door lets in, and data are known by content."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.data.check import check_file
from ffr.data.dataset import FirstExamples, data_fingerprint, data_identity, open_dataset
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import DataError

Record = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _half_jpeg(path: Path) -> None:
    PIL.Image.effect_noise((80, 60), 80).convert("RGB").save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_check_and_door_agree_on_every_record(
    write: Write, record: Record, raw_record: Record, folder: Path
) -> None:
    _half_jpeg(folder / "half.jpg")
    own = {**copy.deepcopy(record), "dialogue_id": "half", "images": ["images/a.png", "half.jpg"]}
    address = {
        **copy.deepcopy(record),
        "dialogue_id": "url",
        "images": ["images/a.png", "https://e.org/b.png"],
    }
    other_answer = copy.deepcopy(record)
    other_answer["solution"] = other_answer["messages"][2]["content"] = record["solution"].replace(
        "[0, 1]", "[0]"
    )
    assert other_answer["solution"] != record["solution"]
    twice = {
        **copy.deepcopy(raw_record),
        "query_text": ["the cat", "the cat"],
        "gt_turns": [[1, 2], [0]],
    }
    path = write(
        "a.jsonl",
        record,
        own,
        address,
        record,
        other_answer,
        raw_record | {"dialogue_id": "r9"},
        twice,
    )
    report = check_file(path)
    assert [(fault.where, fault.kind) for fault in report.errors] == [
        ("a.jsonl:2", "image"),
        ("a.jsonl:3", "image"),
        ("a.jsonl:4", "pair-twice"),
        ("a.jsonl:5", "pair-contradicts"),
        ("a.jsonl:7, query 1", "pair-contradicts"),
    ]
    assert "stands at a.jsonl:1; remove one" in report.errors[2].message
    assert "stands at a.jsonl:1 with another answer" in report.errors[3].message
    dataset = open_dataset(path, skip_bad=True)
    # the repeated query is left out by itself: its record keeps the other one
    assert [example.query for example in dataset] == ["猫", "the cat", "greeting", "the cat"]
    assert [dataset[index] for index in range(4)] == list(dataset)
    assert dataset.num_left_out == len(report.errors)
    assert dataset.left_out == tuple(f"{fault.where}: {fault.message}" for fault in report.errors)
    with pytest.raises(DataError, match=r'^a.jsonl:2: image ".*half.jpg" is damaged'):
        open_dataset(path)


def test_without_pictures_only_what_is_read_can_be_wrong(
    write: Write, record: Record, folder: Path
) -> None:
    _half_jpeg(folder / "half.jpg")
    record["images"][1] = "half.jpg"
    path = write("a.jsonl", record)
    dataset = open_dataset(path, require_images=False)
    assert (len(dataset), dataset.identity.num_unread_images) == (1, 0)
    (folder / "half.jpg").unlink()
    assert open_dataset(path, require_images=False).identity.num_unread_images == 1
    assert open_dataset(path, require_images=False).fingerprint != dataset.fingerprint


def test_a_query_without_an_answer_is_left_out_where_one_is_needed(
    write: Write, record: Record
) -> None:
    bare = {**copy.deepcopy(record), "dialogue_id": "bare"}
    del bare["solution"], bare["messages"][2]
    path = write("a.jsonl", bare, record)
    assert len(open_dataset(path)) == 2
    with pytest.raises(DataError, match=r"^a.jsonl:1: has no true answer; add"):
        open_dataset(path, require_truths=True)
    dataset = open_dataset(path, require_truths=True, skip_bad=True)
    assert [example.dialogue.id for example in dataset] == ["d0"]


class NoSquares:
    """A model that takes no picture of 8 × 6 pixels, and no query of one sign."""

    def __init__(self, *, of_pictures: bool) -> None:
        self._of_pictures = of_pictures

    def picture(self, width: int, height: int) -> str:
        return "is of 8×6 pixels; cut it" if self._of_pictures and (width, height) == (8, 6) else ""

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        assert sizes["images/a.png"] == (8, 6)
        return "is too short; say more" if len(example.query) == 1 else ""


def test_what_the_model_cannot_take_is_a_fault_of_the_data(
    write: Write, record: Record, raw_record: Record
) -> None:
    path = write("a.jsonl", record, raw_record)
    with pytest.raises(DataError, match=r'^a.jsonl:1: image ".*a.png" is of 8×6 pixels; cut it$'):
        open_dataset(path, rules=NoSquares(of_pictures=True))
    dataset = open_dataset(path, rules=NoSquares(of_pictures=False), skip_bad=True)
    assert [example.query for example in dataset] == ["the cat", "greeting"]
    assert dataset.left_out == ("a.jsonl:1: is too short; say more",)
    assert [
        fault.kind for fault in check_file(path, rules=NoSquares(of_pictures=False)).errors
    ] == ["not-for-model"]


def test_the_fingerprint_is_of_the_pictures_bytes(
    write: Write, record: Record, raw_record: Record, folder: Path
) -> None:
    path = write("a.jsonl", record, raw_record)
    base = open_dataset(path)
    assert [image.digest is not None for image in base[0].dialogue.images] == [True, True]
    assert (
        data_fingerprint(FirstExamples(base, 3))
        == base.fingerprint
        == data_identity(list(base)).fingerprint
    )
    # moved, under other names
    moved = folder / "elsewhere"
    shutil.copytree(folder / "images", moved / "pics")
    text = path.read_text(encoding="utf-8").replace("images/", f"{moved}/pics/")
    (folder / "b.jsonl").write_text(text, encoding="utf-8")
    there = open_dataset(folder / "b.jsonl")
    assert there.identity == base.identity
    assert [example.key for example in there] == [example.key for example in base]
    # replaced under the same name, by a file of the same size and time
    target = folder / "images" / "b.png"
    before, status = target.read_bytes(), target.stat()
    target.write_bytes(before[:-5] + bytes([before[-5] ^ 1]) + before[-4:])
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = open_dataset(path, require_images=False)
    assert changed.fingerprint != base.fingerprint
    assert changed.identity.text_fingerprint == base.identity.text_fingerprint
    assert changed[0].key != base[0].key


def test_pictures_of_examples_made_by_hand_count_by_their_bytes_too(folder: Path) -> None:
    def made(source: str, root: Path | None) -> Example:
        return Example(Dialogue("d", (Utterance("a", (Image(source),)),)), "q", image_root=root)

    here, absolute = made("images/a.png", folder), made(str(folder / "images" / "a.png"), None)
    assert (
        data_fingerprint([here])
        == data_fingerprint([absolute])
        != data_fingerprint([made("images/b.png", folder)])
    )
    missing = data_identity([made("images/none.png", folder)])
    assert missing.num_unread_images == 1
    assert data_identity([made("https://e.org/a.png", None)]).num_unread_images == 1
