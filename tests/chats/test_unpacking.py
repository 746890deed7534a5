"""Pictures of an export as files."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from ffr.chats.export_files import ExportFiles
from ffr.chats.unpacking import picture_file
from ffr.errors import DataError

DIGEST = hashlib.sha256(b"bytes")


@pytest.mark.parametrize(
    ("name", "suffix"), [("a/B.JPG", ".jpg"), ("x.exe", ""), ("x.jpg ; rm", ""), ("x", "")]
)
def test_an_archive_decides_no_name_of_ours(tmp_path: Path, name: str, suffix: str) -> None:
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr(name, b"bytes")
    export = ExportFiles(tmp_path / "e.zip")
    for _ in range(2):
        path, digest = picture_file(export, name, tmp_path / "out", is_private=True)
    assert path == tmp_path / "out" / f"{DIGEST.hexdigest()}{suffix}"
    assert (path.read_bytes(), digest) == (b"bytes", DIGEST.digest())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_folder_keeps_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"bytes")
    path, digest = picture_file(ExportFiles(tmp_path), "a.png", tmp_path / "out")
    assert (path, digest) == (tmp_path / "a.png", DIGEST.digest())
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        picture_file(ExportFiles(tmp_path), "gone.png", tmp_path / "out")
