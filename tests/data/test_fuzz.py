"""Nothing but FfrError comes out of reading, checking and counting, whatever the file holds.

Corrupted copies by the thousand.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutators import corrupted, mutated

from ffr.data.check import check_file
from ffr.data.dataset import open_dataset
from ffr.data.forms.formats import read_record
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.forms.predictions import prediction_from_json, read_predictions
from ffr.data.forms.raw import examples_to_raw_record
from ffr.data.stats import dataset_stats
from ffr.errors import FfrError

Record = dict[str, Any]


def _use(record: Record) -> None:
    """All that is done with a record that could be read."""
    examples, findings = read_record(record)
    assert bool(examples) is not any(finding.is_error for finding in findings)
    for example in examples:
        try:
            again, _ = read_record(example_to_record(example))
        except FfrError:
            continue
        assert [item.query for item in again] == [example.query]
        assert again[0].fragment == example.fragment
    if examples:
        dataset_stats(examples)
        with contextlib.suppress(FfrError):
            examples_to_raw_record(examples)


def _use_file(path: Path) -> None:
    sentences: list[str] = []
    for use in (
        lambda: check_file(path),
        lambda: open_dataset(path),
        lambda: dataset_stats(open_dataset(path, skip_bad=True, require_images=False)),
        lambda: read_predictions(path),
    ):
        try:
            use()
        except FfrError as error:
            sentences.append(str(error))
    assert not [text for text in sentences if not text or "\n" in text]


@pytest.fixture(scope="module")
def seeds(real_dialogues: Path) -> list[Record]:
    """Real records of every form."""
    dev = json.loads((real_dialogues / "dev.json").read_bytes())[:20]
    raw = json.loads((real_dialogues / "dialogues.json").read_bytes())[:10]
    predictions = [
        {
            **record,
            "response": record["solution"],
            "labels": record["solution"],
            "logprobs": {"content": [{"logprob": -1.0}]},
        }
        for record in dev[:5]
    ]
    return [*dev, *raw, *predictions]


def _run_records(seeds: list[Record], count: int) -> None:
    chance = random.Random(count)
    for _ in range(count):
        record = mutated(chance.choice(seeds), chance)
        _use(record)
        with contextlib.suppress(FfrError):
            prediction_from_json(record, "p.jsonl:1")


def _run_files(seeds: list[Record], count: int, folder: Path) -> None:
    chance = random.Random(count)
    for number in range(count):
        chosen = chance.choices(seeds, k=chance.randint(1, 3))
        name = chance.choice(["a.json", "a.jsonl", "a.json.gz", "a.jsonl.gz"])
        if ".jsonl" in name:
            data = b"".join(
                json.dumps(record, ensure_ascii=bool(number % 2)).encode() + b"\n"
                for record in chosen
            )
        else:
            data = json.dumps(
                chosen, indent=chance.choice((None, 1)), ensure_ascii=bool(number % 2)
            ).encode()
        if name.endswith(".gz"):
            inside = chance.random() < 0.5
            data = gzip.compress(corrupted(data, chance) if inside else data, 1)
            data = data if inside else corrupted(data, chance)
        else:
            data = corrupted(data, chance)
        (folder / name).write_bytes(data)
        _use_file(folder / name)


def test_records_with_parts_changed(seeds: list[Record]) -> None:
    _run_records(seeds, 1500)


def test_files_with_bytes_changed(seeds: list[Record], tmp_path: Path) -> None:
    _run_files(seeds, 250, tmp_path)


@pytest.mark.slow
def test_many_records_with_parts_changed(seeds: list[Record]) -> None:
    _run_records(seeds, 30_000)


@pytest.mark.slow
def test_many_files_with_bytes_changed(seeds: list[Record], tmp_path: Path) -> None:
    _run_files(seeds, 5_000, tmp_path)


def test_made_up_records_with_parts_changed(record: Record, raw_record: Record) -> None:
    """The same without the real dialogues, where they are not at hand."""
    _run_records([record, raw_record, {**record, "response": "x"}], 2000)


def test_made_up_files_with_bytes_changed(
    write: Callable[..., Path], record: Record, raw_record: Record
) -> None:
    folder = write("a.jsonl", record).parent
    _run_files([record, raw_record], 250, folder)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    [
        "dialogue_id",
        "images",
        "messages",
        "solution",
        "meta",
        "dialogue",
        "query_text",
        "gt_turns",
        "response",
        "labels",
        "logprobs",
        "role",
        "content",
        "speaker",
        "utterance",
        "utterance_idx",
        "path",
        "url",
        "image_url",
        "caption",
    ]
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        _KEYS, _JSON | st.lists(st.dictionaries(_KEYS, _JSON, max_size=4), max_size=3), max_size=6
    )
)
def test_any_object_is_read_or_refused(record: Record) -> None:
    _use(record)
    with contextlib.suppress(FfrError):
        prediction_from_json(record, "p:1")


@settings(max_examples=200)
@given(
    st.binary(max_size=200) | st.text('[]{}",:\\ \n0a', max_size=60).map(str.encode),
    st.sampled_from(["a.json", "a.jsonl.gz"]),
)
def test_any_bytes_are_read_or_refused(data: bytes, name: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(data)
        _use_file(Path(folder, name))
