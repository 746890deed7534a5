"""The generated sets.

What they promise, the same bytes for a seed, and nothing but content that tells a picture's topic.
"""

from __future__ import annotations

import hashlib
import itertools
import statistics
from pathlib import Path

import pytest

from ffr.data.catalog import load_dataset
from ffr.data.dataset import open_dataset
from ffr.data.sample import write_sample
from ffr.errors import UsageError
from ffr.world.lexicon import LANGUAGES


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def test_a_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        write_sample(tmp_path / name, "wechat-sample", seed)
    assert _digest(tmp_path / "one") == _digest(tmp_path / "two") != _digest(tmp_path / "three")


def test_sizes_are_as_promised(sample_home: Path) -> None:
    for name, turns, topics in (("sample", 25, 3), ("wechat-sample", 75, 6)):
        data = open_dataset(sample_home / name / "val.jsonl")
        assert statistics.mean(len(e.dialogue.utterances) for e in data) == pytest.approx(
            turns, rel=0.06
        )
        assert {len(e.meta["topics"]) for e in data} == {topics}
        assert 0.06 < statistics.mean(e.fragment.is_empty for e in data) < 0.18
        assert {entry["language"] for e in data for entry in e.meta["topics"]} == set(LANGUAGES)


def test_most_pictures_hang_on_turns_of_other_topics(sample_home: Path) -> None:
    """A picture's turn must not tell its topic.

    With three topics a random turn is its own topic's one time in three.
    """
    with_turn = []
    for example in open_dataset(sample_home / "sample" / "train.jsonl"):
        utterances = set(example.fragment.utterance_ids)
        with_turn += [
            example.dialogue.image_utterance_ids[image] in utterances
            for image in example.fragment.image_ids
        ]
    assert 0.35 < statistics.mean(with_turn) < 0.55


def test_parts_share_no_dialogue_and_no_picture(sample_home: Path) -> None:
    folder = sample_home / "sample"
    parts = {
        part: list(open_dataset(folder / f"{part}.jsonl")) for part in ("train", "grpo", "val")
    }
    words = {
        part: {tuple(line.text for line in e.dialogue.utterances) for e in examples}
        for part, examples in parts.items()
    }
    for one, other in itertools.combinations(parts, 2):
        assert not words[one] & words[other]
    pictures = {
        part: {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder / "images" / part).iterdir()
        }
        for part in parts
    }
    for one, other in itertools.combinations(parts, 2):
        assert not pictures[one] & pictures[other]


def test_another_name_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are sample, wechat-sample"):
        write_sample(tmp_path, "simple")


def test_a_set_of_another_version_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path))
    said: list[str] = []
    before = load_dataset("wechat-sample", echo=said.append).fingerprint
    stamp = tmp_path / "wechat-sample" / "generator.json"
    load_dataset("wechat-sample", echo=said.append)
    assert len(said) == 1
    stamp.write_text('{"generator_version": 0}', encoding="utf-8")
    (tmp_path / "wechat-sample" / "val.jsonl").write_text("", encoding="utf-8")
    assert load_dataset("wechat-sample", echo=said.append).fingerprint == before
    assert "another version" in said[1]
