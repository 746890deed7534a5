"""Files of vectors: the same bytes of the same vectors, and nothing believed that is not so."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ffr.corpus.adding import text_key
from ffr.corpus.shard_files import Shard, read_shard_file, shard_files, write_shard_file
from ffr.errors import DataError, UsageError

ENCODER = "0123456789abcdef" * 2
KEYS = [key for key in (text_key(str(number)) for number in range(40)) if Shard(2, 3).holds(key)]
VECTORS = torch.arange(len(KEYS) * 4, dtype=torch.float32).reshape(-1, 4) / 7


def _written(folder: Path) -> Path:
    return write_shard_file(folder, Shard(2, 3), ENCODER, KEYS, VECTORS)


def test_each_text_falls_into_one_shard() -> None:
    shards = [Shard(number, 7) for number in range(1, 8)]
    for number in range(200):
        assert sum(shard.holds(text_key(str(number))) for shard in shards) == 1
    # the digest's first eight bytes, as a number, are 9: 9 mod 4 is 1, the second of four
    assert Shard(2, 4).holds(bytes(7) + b"\x09" + b"\xff" * 8)


def test_torchrun_says_which_shard() -> None:
    assert Shard.of_words("auto", {"RANK": "0", "WORLD_SIZE": "4"}) == Shard(1, 4)
    assert Shard.of_words("auto", {"RANK": "3", "WORLD_SIZE": "4"}) == Shard(4, 4)
    with pytest.raises(UsageError, match="which did not start this process"):
        Shard.of_words("auto", {"RANK": "0"})


@pytest.mark.parametrize(
    "words", ["0/4", "5/4", "1", "1/0", "a/b", "１/4", "1/4 ", "1/2000000", ""]
)
def test_other_words_are_no_shard(words: str) -> None:
    with pytest.raises(UsageError, match="write I/N, such as 1/4"):
        Shard.of_words(words)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path / "made")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = _written(tmp_path / "again")
    assert again.name == path.name
    (found,) = shard_files([tmp_path / "made"])
    assert (found.shard, found.encoder, found.width) == (Shard(2, 3), ENCODER, 4)
    assert [key.ljust(16, b"\0") for key in found.keys] == KEYS
    np.testing.assert_array_equal(found.rows(np.array([3, 0])), VECTORS[[3, 0]].numpy())


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not finite"):
        write_shard_file(tmp_path, Shard(2, 3), ENCODER, KEYS, VECTORS * float("nan"))


def _changed(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(bytes(data))

    return change


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _said(**about: str | None) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        tensors = load_file(path)
        size = int.from_bytes(path.read_bytes()[:8], "little")
        known = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"] | about
        save_file(tensors, path, {name: text for name, text in known.items() if text is not None})

    return change


def _without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        tensors = load_file(path)
        del tensors[name]
        size = int.from_bytes(path.read_bytes()[:8], "little")
        save_file(tensors, path, json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"])

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_cut, "cannot be read as a file of vectors"),
        (_changed(-1), "not what was written"),
        (_changed(3), "cannot be read as a file of vectors"),
        (lambda path: path.write_bytes(b""), "cannot be read as a file of vectors"),
        (lambda path: path.unlink(), "is not there"),
        (_said(form="other"), "is no file of vectors"),
        (_said(shard="1/3"), "not what was written"),
        (_said(shard="9/3"), "no shard"),
        (_said(checksum=None), "no checksum"),
        (_said(encoder="../x"), "does not hold what it says"),
        (_said(count="99999999999999999999"), "does not hold what it says"),
        (_said(width="5"), "does not hold what it says"),
        (_without("keys"), "does not hold what it says"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    path = _written(tmp_path)
    change(path)
    with pytest.raises(DataError, match=words):
        read_shard_file(path)


def test_a_text_of_another_shard_is_refused(tmp_path: Path) -> None:
    other = [text_key("x"), text_key("x")]
    number = Shard.number_of(other[0], 3)
    twice = write_shard_file(tmp_path / "twice", Shard(number, 3), ENCODER, other, VECTORS[:2])
    with pytest.raises(DataError, match="has a text twice or of another shard"):
        read_shard_file(twice)
    elsewhere = Shard(number % 3 + 1, 3)
    lost = write_shard_file(tmp_path / "lost", elsewhere, ENCODER, other[:1], VECTORS[:1])
    with pytest.raises(DataError, match="has a text twice or of another shard"):
        read_shard_file(lost)
