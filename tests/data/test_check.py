"""The check: each fault with its line, good records counted, each picture decoded once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ffr.data import pictures
from ffr.data.check import check_file
from ffr.errors import DataError

Record = dict[str, Any]
Write = Callable[..., Path]


def test_a_sound_file(write: Write, record: Record, raw_record: Record) -> None:
    seen: list[tuple[int, int]] = []
    report = check_file(
        write("a.json", record, raw_record, indent=1), progress=lambda *at: seen.append(at)
    )
    assert report.is_good
    assert (report.num_records, report.num_good, report.num_examples, report.num_dialogues) == (
        2,
        2,
        3,
        2,
    )
    assert report.num_image_files == 2
    assert report.faults == []
    assert seen == [(1, 2), (2, 2)]


def test_every_fault_has_its_line_and_remedy(write: Write, record: Record, folder: Path) -> None:
    def changed(**changes: Any) -> Record:
        return {**copy.deepcopy(record), "dialogue_id": f"x{len(lines)}", **changes}

    (folder / "text.png").write_text("no picture")
    lines: list[Any] = [record]
    lines.append(changed(solution="x"))  # 2: answer format
    lines.append(changed(images=["images/a.png", "images/none.png"]))  # 3: missing
    lines.append(changed(images=["images/a.png", "text.png"]))  # 4: undecodable
    lines.append({**changed(), "dialogue_id": "d0"})  # 5: pair twice
    lines.append(
        {**changed(images=["images/b.png", "images/a.png"]), "dialogue_id": "d0"}
    )  # 6: id twice, a warning
    lines.append([1])  # 7: no object
    lines.append(changed(images=["https://e.org/a.png", "images/a.png"], odd=1))  # 8: a web address
    path = write("a.jsonl", *lines)
    with path.open("ab") as file:
        file.write('{"dialogue_id": "你"}\n'.encode("gb18030"))  # 9: encoding
        file.write(b'{"a": 1\n')  # 10: JSON
    report = check_file(path)
    assert [(fault.line, fault.kind) for fault in report.errors] == [
        (2, "answer-format"),
        (3, "image"),
        (4, "image"),
        (5, "pair-twice"),
        (7, "json"),
        (8, "image"),
        (9, "json"),
        (10, "json"),
    ]
    assert all(fault.where == f"a.jsonl:{fault.line}" for fault in report.faults)
    assert all(";" in fault.message for fault in report.errors)
    assert [(fault.line, fault.kind) for fault in report.warnings] == [
        (6, "id-twice"),
        (8, "unknown-key"),
    ]
    assert (report.num_records, report.num_good) == (10, 2)
    assert not report.is_good
    json.dumps(report.to_json())


def test_several_faults_of_one_record(write: Write, record: Record) -> None:
    record.update(solution="x", images=["none.png", "images/b.png"])
    report = check_file(write("a.jsonl", record))
    assert [fault.kind for fault in report.errors] == ["answer-format", "image"]
    assert report.num_good == 0


def test_each_picture_is_decoded_once(
    write: Write, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home"))
    decoded: list[Path] = []
    real = pictures.image_verdict
    monkeypatch.setattr(pictures, "image_verdict", lambda path: decoded.append(path) or real(path))
    records = [{**record, "dialogue_id": f"d{number}"} for number in range(20)]
    check_file(write("a.jsonl", *records))
    assert len(decoded) == 2
    assert check_file(write("a.jsonl", record), check_images=False).num_image_files == 0
    assert len(decoded) == 2


def test_warnings_are_grouped(write: Write, record: Record, raw_record: Record) -> None:
    report = check_file(write("a.jsonl", {**record, "odd": 1}, {**raw_record, "odd": 2}))
    assert report.is_good
    assert [(fault.where, count) for fault, count in report.grouped_warnings()] == [
        ("a.jsonl:1", 2)
    ]


def test_one_dialogue_with_other_queries_is_no_repeat(write: Write, raw_record: Record) -> None:
    assert check_file(write("a.jsonl", raw_record)).is_good
    twice = {**raw_record, "query_text": ["the cat", "the cat"]}
    report = check_file(write("a.jsonl", twice))
    assert [(fault.where, fault.kind) for fault in report.errors] == [
        ("a.jsonl:1, query 1", "pair-contradicts")
    ]
    twice["gt_turns"] = [[1, 2], [1, 2]]
    report = check_file(write("a.jsonl", twice))
    assert [(fault.where, fault.kind) for fault in report.errors] == [
        ("a.jsonl:1, query 1", "pair-twice")
    ]


def test_a_cut_list(write: Write, record: Record) -> None:
    path = write("a.json", record, indent=2)
    path.write_bytes(path.read_bytes()[:-3])
    report = check_file(path)
    assert [fault.kind for fault in report.errors] == ["json", "layout"]
    assert "not closed" in report.errors[-1].message


def test_prediction_files(write: Write, record: Record) -> None:
    good = {**record, "response": "anything", "labels": record["solution"]}
    del good["solution"]
    bad = {**good, "labels": "x", "dialogue_id": "d1"}
    report = check_file(
        write("p.jsonl", good, bad, {"dialogue_id": "d2", "response": "x"}, {"response": 3})
    )
    assert [(fault.line, fault.kind) for fault in report.errors] == [
        (2, "prediction"),
        (4, "prediction"),
    ]
    assert [(fault.line, fault.kind) for fault in report.warnings] == [(3, "no-prompt")]


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        check_file(tmp_path / "none.json")


@pytest.mark.parametrize(("name", "count"), [("dev.json", 183), ("dialogues.json", 40)])
def test_the_real_dialogues_have_no_fault(real_dialogues: Path, name: str, count: int) -> None:
    report = check_file(real_dialogues / name)
    assert report.errors == []
    assert report.num_records == report.num_good == count
    assert report.num_image_files == 136
    assert name != "dev.json" or not report.warnings


@pytest.mark.slow
def test_the_real_training_set_has_no_fault(real_dialogues: Path) -> None:
    report = check_file(real_dialogues / "train.jsonl.gz")
    assert report.faults == []
    assert (report.num_good, report.num_dialogues, report.num_image_files) == (8717, 1800, 592)
