"""Records at hand: lists, frames, parquet, arrow, saved sets; and the way back."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest
from model_builds import random_picture

from ffr.data.catalog import load_dataset
from ffr.data.dataset import ExampleDataset
from ffr.data.exchange import to_hf
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import DataError, UsageError
from ffr.rewards import format_reward, fragment_f1_reward, fragment_mcc_reward

ANSWER = "<|utt_ids_start|>[0, 2]<|utt_ids_end|>;<|img_ids_start|>[0]<|img_ids_end|>"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return random_picture(tmp_path / "pictures" / "cat.png", 30, 20)


@pytest.fixture
def file(tmp_path: Path, picture: Path) -> ExampleDataset:
    """A data file of ours: two queries on a dialogue with a picture, one on another without truth."""
    chat = Dialogue.of([("Ann", "look"), ("Bob", "hm"), ("Ann", Path("cat.png"))], "d1")
    other = Dialogue.of([("Ann", "the bus is late")], "d2")
    examples = [
        Example(chat, "a cat", Fragment((0, 2), (0,))),
        Example(chat, "a dog", Fragment()),
        Example(other, "a bus"),
    ]
    path = picture.parent / "data.jsonl"
    write_examples(path, examples)
    return load_dataset(path)


def raw(picture: Any) -> dict[str, Any]:
    return {
        "dialogue_id": "d1",
        "dialogue": [
            {"speaker": "Ann", "utterance": "look"},
            {"speaker": "Bob", "utterance": [{"image_url": picture, "caption": "a cat"}]},
        ],
        "query_text": ["a cat", "nothing"],
        "gt_turns": [[0, 1], []],
    }


def test_a_table_of_our_own_comes_back_the_same(file: ExampleDataset, tmp_path: Path) -> None:
    for table in (to_hf(file), file.to_hf(with_images=True), file.to_hf(template="en")):
        table.to_parquet(tmp_path / "t.parquet")
        table.save_to_disk(tmp_path / "saved")
        (tmp_path / "parts").mkdir(exist_ok=True)
        datasets.DatasetDict({"val": table}).save_to_disk(tmp_path / "parts")
        arrow = next((tmp_path / "saved").glob("*.arrow"))
        with pyarrow.ipc.new_file(tmp_path / "random.arrow", table.data.table.schema) as writer:
            writer.write_table(table.data.table)
        for way in (
            table,
            list(table),
            table.to_pandas(),
            tmp_path / "t.parquet",
            str(tmp_path / "t.parquet"),
            tmp_path / "saved",
            tmp_path / "parts",
            arrow,
            tmp_path / "random.arrow",
        ):
            back = load_dataset(way)
            assert back.fingerprint == file.fingerprint, way
            assert [example.query for example in back] == ["a cat", "a dog", "a bus"]


def test_records_are_judged_like_a_file(picture: Path, tmp_path: Path) -> None:
    data = load_dataset([raw("cat.png")], image_root=picture.parent)
    assert [example.fragment for example in data] == [Fragment((0, 1), (0,)), Fragment()]
    assert data[0].dialogue.images[0].caption == "a cat"
    with pytest.raises(DataError, match=r'jsonl:2.*image ".*dog\.png" not found'):
        load_dataset([raw("cat.png"), raw("dog.png")], image_root=picture.parent)
    kept = load_dataset([raw("cat.png"), raw("dog.png")], image_root=picture.parent, skip_bad=True)
    assert (len(kept), kept.num_left_out) == (2, 1)
    with pytest.raises(DataError, match='neither "messages"'):
        load_dataset([{"text": "a"}])


def test_pictures_in_a_table_become_files(picture: Path) -> None:
    content = picture.read_bytes()
    with PIL.Image.open(picture) as opened:
        in_memory = opened.convert("RGB")
    pixels = np.asarray(in_memory)
    stored = {"bytes": content, "path": "cat.png"}
    by_path = load_dataset([raw(str(picture))])
    assert load_dataset([raw(stored)]).fingerprint == by_path.fingerprint
    assert load_dataset([raw(picture)]).fingerprint == by_path.fingerprint
    with PIL.Image.open(picture) as opened:  # knows its file
        assert load_dataset([raw(opened)]).fingerprint == by_path.fingerprint
    for way in (in_memory, pixels):
        (example, _) = load_dataset([raw(way)])
        with PIL.Image.open(next(iter(example.image_locations()))) as image:
            assert np.array_equal(np.asarray(image), pixels)
    # utterances that are texts or lists: the library keeps such a column as JSON
    table = datasets.Dataset.from_list([raw(str(picture))], on_mixed_types="use_json")
    assert load_dataset(table).fingerprint == by_path.fingerprint


def test_the_cache_holds_a_table_once(picture: Path, tmp_path: Path) -> None:
    first, second = (
        load_dataset([raw({"bytes": picture.read_bytes(), "path": None})]) for _ in "ab"
    )
    assert first.path == second.path
    kept = sorted(path for path in (tmp_path / "home" / "tables").rglob("*") if path.is_file())
    assert len(kept) == 2
    assert not any(path.name.endswith(".part") for path in kept)


def test_a_hub_set_is_asked_for_by_its_id(
    file: ExampleDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(name: str, *, split: str) -> Any:
        asked.append((name, split))
        return to_hf(file)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert load_dataset("someone/chats", split="train").fingerprint == file.fingerprint
    assert asked == [("someone/chats", "train")]


def test_a_hub_set_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *, split: str) -> Any:
        raise ConnectionError("Couldn't reach 'someone/chats' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UsageError, match=r"no data file or set 'someone/chats' here, and its part"):
        load_dataset("someone/chats")


def test_what_is_no_table_is_said(file: ExampleDataset, tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": to_hf(file), "test": to_hf(file)})
    with pytest.raises(UsageError, match="no part 'val'; they have train, test; say split="):
        load_dataset(parts)
    assert len(load_dataset(parts, split="test")) == 3
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"bad\.parquet, row 1: cannot be read as Par"):
        load_dataset(tmp_path / "bad.parquet")
    (tmp_path / "bad.arrow").write_bytes(b"no arrow at all")
    with pytest.raises(DataError, match=r"bad\.arrow, row 1: cannot be read as Arrow"):
        load_dataset(tmp_path / "bad.arrow")
    with pytest.raises(UsageError, match=r"no data file or set 'none\.parquet'"):
        load_dataset("none.parquet")
    with pytest.raises(DataError, match="record 0"):
        load_dataset([{"dialogue": [], "when": base64}])


def test_columns_are_those_of_trainers_and_rewards(file: ExampleDataset) -> None:
    table = file.to_hf()
    row = table[0]
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["completion"] == [{"role": "assistant", "content": ANSWER}]
    assert row["solution"] == ANSWER
    assert row["utterances"] == ["look", "hm", ""]
    assert row["image_utterance_ids"] == [2]
    assert Path(row["image_files"][0]).is_absolute()
    assert (table[2]["completion"], table[2]["solution"]) == (None, None)
    asked = {name: table[name][:2] for name in table.column_names}
    completions = [[{"role": "assistant", "content": ANSWER}]] * 2
    assert format_reward(completions=completions, prompts=asked["prompt"]) == [1.0, 1.0]
    columns = {name: asked[name] for name in ("solution", "utterances", "answer_style")}
    f1 = fragment_f1_reward(asked["prompt"], completions, **columns)
    assert f1[0] == 1.0
    assert f1[1] < 0.1
    mcc = fragment_mcc_reward(asked["prompt"], completions, images=asked["image_files"], **columns)
    assert mcc[0] == 1.0
    think = file.to_hf(answer_style="think")[0]
    assert think["completion"][0]["content"] == f"<think></think><answer>{ANSWER}</answer>"
    pictured = file.to_hf(with_images=True)[0]
    parts = pictured["prompt"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image", "text"]
    assert isinstance(pictured["images"][0], PIL.Image.Image)


def test_a_data_set_shows_itself(file: ExampleDataset) -> None:
    assert repr(file) == "<3 examples of data.jsonl>"
    html = file._repr_html_()
    assert "<caption>data.jsonl: 3 examples</caption>" in html
    assert "<td>d1</td><td>3</td><td>1</td><td>a cat</td>" in html
    assert io.StringIO(html).read().count("<tr>") == 4


def test_a_frame_with_empty_cells(picture: Path) -> None:
    rows = [{**raw(str(picture)), "dialogue_id": "a"}, {**raw(str(picture)), "note": "x"}]
    frame = pandas.DataFrame(rows)
    data = load_dataset(frame)
    assert [example.dialogue.id for example in data] == ["a", "a", "d1", "d1"]
    assert "note" not in data[0].meta.get("_extra", {})
