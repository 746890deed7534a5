"""Checkpoints: found again only as they were written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from ffr.training.common.checkpoints import CheckpointFiles, newest_checkpoint, step_of


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    good, torn = tmp_path / "step-00000003.ckpt", tmp_path / "step-00000099.ckpt"
    torch.save({"state_dict": {"weight": torch.ones(1000)}}, good)
    assert newest_checkpoint(tmp_path) == good
    assert step_of(good) == 3
    for size in (1000, 0):
        torn.write_bytes(good.read_bytes()[:size])
        assert newest_checkpoint(tmp_path) == good
    good.unlink()
    assert newest_checkpoint(tmp_path) is None


def test_a_hostile_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"x": Hostile()}, tmp_path / "step-00000001.ckpt")
    assert newest_checkpoint(tmp_path) is None
    assert not (tmp_path / "touched").exists()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Checkpoints of two steps."""
    files = CheckpointFiles()
    for step in (1, 2):
        files.save_checkpoint(
            {"state_dict": {"weight": torch.full((300,), step)}},
            tmp_path / f"step-0000000{step}.ckpt",
        )
    return tmp_path


def test_each_flipped_bit_is_noticed(written: Path) -> None:
    newest = written / "step-00000002.ckpt"
    assert newest_checkpoint(written) == newest
    whole, draw = newest.read_bytes(), random.Random(5)
    said: list[str] = []
    for _ in range(300):
        torn = bytearray(whole)
        torn[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        newest.write_bytes(torn)
        found = newest_checkpoint(written, said.append)
        assert found is not None
        assert found.name == "step-00000001.ckpt"
    assert len(said) == 300
    assert said[0] == f"{newest} is not as it was written (torn or changed): passed over"


def test_a_flipped_bit_in_the_checksums_costs_one_checkpoint(written: Path) -> None:
    path = written / "SHA256SUMS"
    lines = path.read_bytes()
    path.write_bytes(lines[:70] + bytes([lines[70] ^ 1]) + lines[71:])
    assert newest_checkpoint(written) == written / "step-00000002.ckpt"
    path.write_bytes(lines.replace(lines[90:100], b"0123456789"))
    assert newest_checkpoint(written) == written / "step-00000001.ckpt"


def test_checkpoints_of_an_older_ffr_get_checksums_at_the_next_one(written: Path) -> None:
    (written / "SHA256SUMS").unlink()
    assert newest_checkpoint(written) == written / "step-00000002.ckpt"
    CheckpointFiles().save_checkpoint({"state_dict": {}}, written / "step-00000003.ckpt")
    (written / "step-00000003.ckpt").write_bytes(b"torn")
    assert newest_checkpoint(written) == written / "step-00000002.ckpt"


def test_removed_checkpoints_leave_the_checksums(written: Path) -> None:
    (written / "step-00000001.ckpt").unlink()
    CheckpointFiles().save_checkpoint({"state_dict": {}}, written / "step-00000003.ckpt")
    names = [line.split()[1] for line in (written / "SHA256SUMS").read_text().splitlines()]
    assert names == ["step-00000002.ckpt", "step-00000003.ckpt"]
