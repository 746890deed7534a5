"""Records ⇄ examples: every spelling, every fault, and round trips that lose nothing."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ffr.data.dataset import open_dataset
from ffr.data.forms.fields import EXTRA_KEYS
from ffr.data.forms.formats import read_record, write_examples
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.forms.raw import examples_to_raw_record
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.files import write_records

Record = dict[str, Any]
Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.gz"])
def test_every_layout_gives_the_same_examples(
    write: Write, record: Record, raw_record: Record, name: str
) -> None:
    second = {**raw_record, "dialogue_id": "r1"}
    dataset = open_dataset(write(name, record, raw_record, second))
    assert len(dataset) == 5
    assert [example.query for example in dataset] == [
        "猫",
        "the cat",
        "greeting",
        "the cat",
        "greeting",
    ]
    assert [dataset[index] for index in range(5)] == list(dataset)
    assert dataset[-1] == dataset[4]
    assert dataset[1:3] == [dataset[1], dataset[2]]
    assert dataset[0].prompt == FilePrompt(
        record["messages"][1]["content"], record["messages"][0]["content"]
    )
    assert dataset[1].prompt is None
    assert dataset[1].fragment == Fragment((1, 2), (0, 1))
    assert dataset[2].fragment == Fragment((0,), ())
    assert dataset[0].image_root == dataset.path.parent
    assert (
        dataset.fingerprint
        == open_dataset(write("b.jsonl", record, raw_record, second)).fingerprint
    )
    with pytest.raises(IndexError):
        dataset[5]
    if not name.startswith("a.json."):
        assert dataset.where(0).startswith(f"{name}:1")
        assert dataset.where(2).endswith(", query 1")


def test_the_fingerprint_is_of_content_and_order(
    write: Write, record: Record, raw_record: Record
) -> None:
    def fingerprint(*records: Any) -> str:
        return open_dataset(write("a.jsonl", *records)).fingerprint

    base = fingerprint(record, raw_record)
    assert fingerprint({**record, "dialogue_id": "x", "meta": {"a": 1}}, raw_record) == base
    assert fingerprint(raw_record, record) != base
    other = copy.deepcopy(raw_record)
    other["gt_turns"][1] = []
    assert fingerprint(record, other) != base
    del other["gt_turns"]
    assert fingerprint(record, other) != base


def test_datasets_go_to_other_processes(write: Write, record: Record) -> None:
    for name in ("a.jsonl", "a.jsonl.gz"):
        dataset = open_dataset(write(name, record))
        other = pickle.loads(pickle.dumps(dataset))
        assert other[0] == dataset[0]
        assert other.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    "spelling",
    [
        lambda path: path,
        lambda path: {"path": path},
        lambda path: {"path": path, "bytes": None},
        lambda path: {"image_url": path},
        lambda path: {"image_url": {"url": path}},
        lambda path: {"image_url": {"url": path, "detail": "low"}},
        lambda path: {"url": path},
    ],
)
def test_every_spelling_of_an_image(
    write: Write, record: Record, spelling: Callable[[str], Any]
) -> None:
    record["images"] = [spelling(path) for path in record["images"]]
    assert [
        image.source for image in open_dataset(write("a.jsonl", record))[0].dialogue.images
    ] == [
        "images/a.png",
        "images/b.png",
    ]


def test_parts_that_may_be_absent(record: Record) -> None:
    del record["messages"][0], record["messages"][1], record["solution"]
    examples, findings = read_record(record)
    assert not findings
    assert examples[0].fragment is None
    assert examples[0].prompt is not None
    assert examples[0].prompt.system is None
    again = example_to_record(examples[0])
    assert again == record


def test_either_answer_will_do(record: Record) -> None:
    only_solution, only_assistant = copy.deepcopy(record), copy.deepcopy(record)
    del only_solution["messages"][2], only_assistant["solution"]
    for one in (only_solution, only_assistant):
        assert read_record(one)[0][0].fragment == Fragment((0, 1), (0,))


def _set(path: str, value: Any) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        *folders, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        target: Any = record
        for part in folders:
            target = target[part]
        target[last] = value

    return change


def _replace_in_prompt(old: str, new: str) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        record["messages"][1]["content"] = record["messages"][1]["content"].replace(old, new)

    return change


_ANSWER = "<|utt_ids_start|>[%s]<|utt_ids_end|>;<|img_ids_start|>[%s]<|img_ids_end|>"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set("messages", {}), "wrong-type"),
        (_set("messages", []), "no-prompt"),
        (_set("messages", [3]), "wrong-type"),
        (_set("messages/1/role", "human"), "role"),
        (_set("messages/1/role", ["user"]), "role"),
        (_set("messages/0/role", "user"), "role"),
        (_set("messages/1/content", 5), "wrong-type"),
        (_set("messages/1/content", None), "wrong-type"),
        (_set("messages/1/content", [{"type": "text"}]), "wrong-type"),
        (_set("messages/1/loss", True), "unknown-key"),
        (_set("messages/1/content", "hello"), "prompt"),
        (_set("images", ["images/a.png"]), "prompt"),
        (_set("images", ["images/a.png"] * 3), "prompt"),
        (_set("images", "images/a.png"), "wrong-type"),
        (_set("images/0", 5), "wrong-type"),
        (_set("images/0", ""), "image-spelling"),
        (_set("images/0", "a\0"), "image-spelling"),
        (_set("images/0", {}), "image-spelling"),
        (_set("images/0", {"path": "a", "url": "b"}), "image-spelling"),
        (_set("images/0", {"image_url": {"uri": "a"}}), "wrong-type"),
        (_set("images/0", {"bytes": "aGk="}), "image-spelling"),
        (_set("solution", _ANSWER % ("0, 4", "0")), "id-range"),
        (_set("solution", _ANSWER % ("0", "2")), "id-range"),
        (_set("solution", _ANSWER % ("0", "")), "two-answers"),
        (_set("solution", "[0, 1]"), "answer-format"),
        (_set("solution", ""), "answer-format"),
        (_set("solution", [0]), "wrong-type"),
        (_set("messages/2/content", "no"), "answer-format"),
        (_set("dialogue_id", 1.5), "wrong-type"),
        (_set("dialogue_id", True), "wrong-type"),
        (_set("meta", [1]), "wrong-type"),
        (_set("meta", {EXTRA_KEYS: {}}), "reserved-key"),
        (_set("meta", {"image_captions": ["one"]}), "wrong-type"),
        (_set("response", "x"), "prediction"),
        (_replace_in_prompt("<image>", ""), "prompt"),
        (_replace_in_prompt("<|utt_id_start|>2", "<|utt_id_start|>3"), "prompt"),
    ],
)
def test_faults_of_a_record(record: Record, change: Callable[[Record], None], kind: str) -> None:
    change(record)
    examples, findings = read_record(record)
    assert examples == []
    errors = [finding for finding in findings if finding.is_error]
    assert kind in [finding.kind for finding in errors]
    assert all(";" in finding.message for finding in errors), "what to do is said"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set("dialogue", []), "no-utterance"),
        (_set("dialogue", {"a": 1}), "wrong-type"),
        (_set("dialogue/0", "hello"), "wrong-type"),
        (_set("dialogue/1/utterance_idx", 2), "utterance-idx"),
        (_set("dialogue/0/utterance_idx", False), "utterance-idx"),
        (_set("dialogue/0/utterance_idx", "0"), "utterance-idx"),
        (_set("dialogue/0/speaker", None), "wrong-type"),
        (_set("dialogue/0/speaker", "a: b"), "marker"),
        (_set("dialogue/0/utterance", None), "wrong-type"),
        (_set("dialogue/0/utterance", "see <image>"), "marker"),
        (_set("dialogue/1/utterance", [5]), "wrong-type"),
        (_set("dialogue/1/utterance", [{"caption": "x"}]), "image-spelling"),
        (_set("dialogue/1/utterance/0/caption", 3), "wrong-type"),
        (_set("query_text", None), "wrong-type"),
        (_set("query_text", []), "wrong-type"),
        (_set("query_text", ["a", 3]), "wrong-type"),
        (_set("query_text", ["a", "b<|query_end|>"]), "marker"),
        (_set("gt_turns", [[0]]), "gt-turns"),
        (_set("gt_turns", [0, 1]), "gt-turns"),
        (_set("gt_turns", [[0], [True]]), "gt-turns"),
        (_set("gt_turns", [[0], [-1]]), "gt-turns"),
        (_set("gt_turns", [[0], [1.0]]), "gt-turns"),
        (_set("gt_turns", [[0], ["1"]]), "gt-turns"),
        (_set("gt_turns", {"0": 1}), "wrong-type"),
        (_set("gt_turns", [[0], [3]]), "id-range"),
        (_set("meta", [{}]), "wrong-type"),
        (_set("meta", [{}, 1]), "wrong-type"),
    ],
)
def test_faults_of_a_raw_record(
    raw_record: Record, change: Callable[[Record], None], kind: str
) -> None:
    change(raw_record)
    examples, findings = read_record(raw_record)
    assert examples == []
    assert kind in [finding.kind for finding in findings if finding.is_error]


@pytest.mark.parametrize(
    ("queries", "turns", "expected"),
    [
        ("q", [0, 2], [(0, 2)]),
        ("q", [[0, 2]], [(0, 2)]),
        ("q", [], [()]),
        ("q", [[]], [()]),
        (["q"], [0], [(0,)]),
        (["q"], [], [()]),
        (["q", "r"], [[], [1]], [(), (1,)]),
        (["q", "r"], None, [None, None]),
    ],
)
def test_raw_queries_and_turns(
    raw_record: Record, queries: Any, turns: Any, expected: list[Any]
) -> None:
    raw_record.update(query_text=queries, gt_turns=turns)
    examples, findings = read_record(raw_record)
    assert not findings
    found = [
        None if example.fragment is None else example.fragment.utterance_ids for example in examples
    ]
    assert found == expected


def test_unknown_keys_are_warned_of_and_kept(write: Write, record: Record, tmp_path: Path) -> None:
    record.update(solutions=record.pop("solution"), meta={"lang": "zh"}, channel={"x": [1]})
    examples, findings = read_record(record)
    assert [(finding.kind, finding.is_error) for finding in findings] == [
        ("unknown-key", False)
    ] * 2
    assert findings[0].message == 'unknown key "solutions"; did you mean "solution"?'
    assert examples[0].meta == {
        "lang": "zh",
        EXTRA_KEYS: {"solutions": record["solutions"], "channel": {"x": [1]}},
    }
    again = example_to_record(examples[0])
    assert {key: again[key] for key in ("solutions", "channel", "meta")} == {
        key: record[key] for key in ("solutions", "channel", "meta")
    }


def test_ids_that_are_numbers_or_missing(record: Record) -> None:
    assert read_record({**record, "dialogue_id": 7})[0][0].dialogue.id == "7"
    del record["dialogue_id"]
    examples, findings = read_record(record, fallback_id="a-1")
    assert examples[0].dialogue.id == "a-1"
    assert [finding.kind for finding in findings] == ["missing-id"]


def test_what_is_no_record_of_ours(record: Record) -> None:
    _, findings = read_record({"mesages": record["messages"]})
    assert 'did you mean "mesages"? rename it to "messages"' in findings[0].message


def test_ms_swift_round_trip(write: Write, record: Record, folder: Path) -> None:
    record["messages"][1]["content"] = record["messages"][1]["content"].replace("请根据", "Bitte, ")
    record["messages"][0]["content"] = "another system text"
    dataset = open_dataset(write("a.jsonl", {**record, "meta": {"a": [1, None, 2.5]}}))
    for name in ("b.jsonl", "b.json", "b.jsonl.gz", "b.json.gz"):
        assert write_examples(folder / name, dataset) == 1
        again = open_dataset(folder / name)
        assert list(again) == list(dataset)
        assert again[0].meta == dataset[0].meta
        assert example_to_record(again[0]) == {**record, "meta": {"a": [1, None, 2.5]}}


def test_raw_round_trip(write: Write, raw_record: Record, folder: Path) -> None:
    raw_record["topics"] = ["cats"]
    raw_record["dialogue"][0]["topic_index"] = 0
    dataset = open_dataset(write("a.json", raw_record))
    assert examples_to_raw_record(list(dataset)) == raw_record
    write_examples(folder / "b.jsonl", dataset, format="raw")
    assert [json.loads(line) for line in (folder / "b.jsonl").read_text().splitlines()] == [
        raw_record
    ]
    # through the ms-swift form and back: captions and unknown keys come along, capitals of speakers
    # do not
    write_examples(folder / "c.jsonl", dataset)
    middle = open_dataset(folder / "c.jsonl")
    assert middle.fingerprint == dataset.fingerprint
    back = examples_to_raw_record(list(middle))
    for line in raw_record["dialogue"]:
        line["speaker"] = line["speaker"].lower()
    assert back == raw_record


def test_raw_keeps_what_each_query_says(folder: Path) -> None:
    chat = Dialogue("d", (Utterance("a", ("x",)),))
    examples = [
        Example(chat, query, Fragment((0,), ()), meta={"kind": query}) for query in ("q", "r")
    ]
    write_examples(folder / "a.jsonl", examples, format="raw")
    again = open_dataset(folder / "a.jsonl")
    assert list(again) == examples
    assert [dict(example.meta) for example in again] == [{"kind": "q"}, {"kind": "r"}]
    assert len((folder / "a.jsonl").read_text().splitlines()) == 1


def test_mixed_lines_round_trip_in_raw(folder: Path) -> None:
    line = Utterance("a", ("see ", Image("images/a.png", "cat"), " there"))
    example = Example(Dialogue("d", (line, Utterance("b"))), "q", Fragment((0,), (0,)))
    write_examples(folder / "a.jsonl", [example], format="raw")
    assert open_dataset(folder / "a.jsonl")[0] == example


@pytest.mark.parametrize("image_ids", [(), (0, 1), (1,)])
def test_raw_refuses_what_it_cannot_say(folder: Path, image_ids: tuple[int, ...]) -> None:
    chat = Dialogue(
        "d", (Utterance("a", (Image("images/a.png"),)), Utterance("b", (Image("images/b.png"),)))
    )
    with pytest.raises(DataError, match="the raw form cannot say that"):
        write_examples(
            folder / "a.jsonl", [Example(chat, "q", Fragment((0,), image_ids))], format="raw"
        )
    assert not (folder / "a.jsonl").exists()
    assert {path.name for path in folder.iterdir()} == {"images"}


def test_raw_lets_go_of_prompts_only_when_told(folder: Path) -> None:
    chat = Dialogue("d", (Utterance("a", ("x",)),))
    own = Example(chat, "q", Fragment((0,), ()), FilePrompt("in my words"))
    with pytest.raises(DataError, match="pass --drop-prompts"):
        examples_to_raw_record([own])
    assert examples_to_raw_record([own], drop_prompts=True)["query_text"] == "q"


@pytest.mark.parametrize(
    ("template", "query_position"), [("zh", "last"), ("en", "first"), ("en", "last")]
)
def test_written_prompts_are_read_again(folder: Path, template: str, query_position: Any) -> None:
    chat = Dialogue("d", (Utterance("a", ("x",)), Utterance("b", (Image("images/a.png"),))))
    example = Example(chat, "q", Fragment((0,), ()))
    write_examples(folder / "a.jsonl", [example], template=template, query_position=query_position)
    again = open_dataset(folder / "a.jsonl")[0]
    assert (again.dialogue, again.query, again.fragment) == (chat, "q", example.fragment)
    assert examples_to_raw_record([again])["query_text"] == "q"  # known words: nothing is lost


def test_missing_pictures_are_found_at_the_door(write: Write, record: Record) -> None:
    record["images"][1] = "images/none.png"
    path = write("a.jsonl", {**record, "dialogue_id": "x"}, record)
    with pytest.raises(
        DataError, match=r"^a.jsonl:1: image .*none.png\" not found; .*--image-root"
    ):
        open_dataset(path)
    assert len(open_dataset(path, require_images=False)) == 2
    record["images"][1] = "https://example.org/a.png"
    with pytest.raises(DataError, match="not fetched"):
        open_dataset(write("a.jsonl", record))


def test_image_root(write: Write, record: Record, tmp_path: Path) -> None:
    record["images"] = ["a.png", "b.png"]
    path = write("a.jsonl", record)
    dataset = open_dataset(path, image_root=tmp_path / "images")
    assert list(dataset[0].image_locations()) == [
        tmp_path / "images" / "a.png",
        tmp_path / "images" / "b.png",
    ]


def test_bad_records_fail_or_are_counted(write: Write, record: Record, raw_record: Record) -> None:
    bad = {**record, "solution": "x"}
    path = write("a.jsonl", record, bad, {"x": 1}, raw_record)
    with pytest.raises(DataError, match=r"^a.jsonl:2: "):
        open_dataset(path)
    dataset = open_dataset(path, skip_bad=True)
    assert (len(dataset), dataset.num_left_out, len(dataset.left_out)) == (3, 2, 2)
    assert dataset.where(0) == "a.jsonl:1"
    assert dataset.where(2) == "a.jsonl:4, query 1"
    assert [dataset[index] for index in range(3)] == list(dataset)
    assert dataset.fingerprint == open_dataset(write("b.jsonl", record, raw_record)).fingerprint
    with pytest.raises(DataError, match=r"holds no usable record; the first fault: c.jsonl:1"):
        open_dataset(write("c.jsonl", bad), skip_bad=True)
    with pytest.raises(DataError, match="holds no records"):
        open_dataset(write("c.json"))


def test_a_cut_list_is_usable_when_told(write: Write, record: Record) -> None:
    path = write("a.json", record, record)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError):
        open_dataset(path)
    dataset = open_dataset(path, skip_bad=True)
    assert (len(dataset), dataset.num_left_out) == (
        1,
        2,
    )  # the cut record, and the list's missing end


def test_writing_appears_whole_or_not_at_all(folder: Path, record: Record) -> None:
    (folder / "a.jsonl").write_text("before")

    def records() -> Any:
        yield record
        raise DataError("in the middle")

    with pytest.raises(DataError, match="in the middle"):
        write_records(folder / "a.jsonl", records())
    assert (folder / "a.jsonl").read_text() == "before"
    with pytest.raises(DataError, match="cannot be written as JSON"):
        write_records(folder / "a.jsonl", [{"a": float("nan")}])
    with pytest.raises(UsageError, match=r"ends in .json"):
        write_records(folder / "a.txt", [record])
    with pytest.raises(DataError, match="cannot be written"):
        write_records(folder / "a.jsonl" / "b.jsonl", [record])
    assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl", "images"]


def test_packed_files_are_the_same_bytes_each_time(folder: Path, record: Record) -> None:
    write_records(folder / "a.jsonl.gz", [record])
    write_records(folder / "b.jsonl.gz", [record])
    assert (folder / "a.jsonl.gz").read_bytes() == (folder / "b.jsonl.gz").read_bytes()


def test_kept_keys_that_collide_are_refused(raw_record: Record) -> None:
    raw_record["solution"] = "x"
    examples, _ = read_record(raw_record)
    with pytest.raises(DataError, match="rename it first"):
        example_to_record(examples[0])


def test_real_records_come_back(real_dialogues: Path, tmp_path: Path) -> None:
    dev = open_dataset(real_dialogues / "dev.json")
    raw = open_dataset(real_dialogues / "dialogues.json")
    assert dev.num_left_out == raw.num_left_out == 0
    assert (
        dev.fingerprint == raw.fingerprint
    )  # the same dialogues, queries and answers in both forms
    records = json.loads((real_dialogues / "dev.json").read_bytes())
    assert [example_to_record(example) for example in dev] == records
    write_examples(tmp_path / "a.json.gz", dev, format="raw")
    assert (
        open_dataset(tmp_path / "a.json.gz", image_root=real_dialogues).fingerprint
        == dev.fingerprint
    )


def test_the_real_training_set_is_read(real_dialogues: Path) -> None:
    train = open_dataset(real_dialogues / "train.jsonl.gz")
    assert (len(train), train.num_left_out) == (8717, 0)
    assert train.where(16) == "train.jsonl.gz:17"
