"""What is remembered of pictures: each is read and decoded once, and a memory that cannot be used costs time alone."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import PIL.Image
import pytest

from ffr.data import pictures
from ffr.data.pictures import Picture, PictureMemory, with_paths_from
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import DataError


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads and decodings that were done; files count as settled at once."""
    done: list[str] = []
    digest, verdict = pictures.image_digest, pictures.image_verdict
    monkeypatch.setattr(pictures, "image_digest", lambda *a: done.append("read") or digest(*a))
    monkeypatch.setattr(pictures, "image_verdict", lambda *a: done.append("decoded") or verdict(*a))
    monkeypatch.setattr(pictures, "_SETTLED_NS", -1)
    return done


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def _look(memory: Path, picture: Path) -> Picture:
    with PictureMemory(memory) as opened:
        return opened.look_at(picture)


def test_a_picture_is_read_and_decoded_once(
    tmp_path: Path, picture: Path, looked: list[str]
) -> None:
    memory = tmp_path / "memory"
    expected = Picture(hashlib.sha256(picture.read_bytes()).hexdigest(), 4, 3)
    assert [_look(memory, picture) for _ in range(3)] == [expected] * 3
    assert looked == ["read", "decoded"]
    # the same bytes elsewhere are read, and need no decoding
    copy = tmp_path / "b.png"
    copy.write_bytes(picture.read_bytes())
    assert _look(memory, copy) == expected
    assert looked == ["read", "decoded", "read"]
    PIL.Image.new("RGB", (5, 3)).save(picture)
    assert _look(memory, picture).width == 5
    assert looked[3:] == ["read", "decoded"]


def test_a_file_that_just_changed_is_read_again(
    tmp_path: Path, picture: Path, looked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_SETTLED_NS", 60_000_000_000)
    for _ in range(2):
        _look(tmp_path / "memory", picture)
    assert looked == ["read", "decoded", "read"]


def test_a_file_of_the_same_size_and_time_is_another(
    tmp_path: Path, picture: Path, looked: list[str]
) -> None:
    first = _look(tmp_path / "memory", picture)
    status = picture.stat()
    content = bytearray(picture.read_bytes())
    content[-1] ^= 1
    picture.write_bytes(content)
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    with PictureMemory(tmp_path / "memory") as memory:
        assert memory.digest_of(picture) == hashlib.sha256(content).hexdigest() != first.digest


def test_faults_are_said_each_time(tmp_path: Path, looked: list[str]) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    for _ in range(2):
        with pytest.raises(DataError, match=r'^image ".*bad.png" is no picture of a known kind'):
            _look(tmp_path / "memory", bad)
    assert looked == ["read", "decoded", "decoded"]


@pytest.mark.parametrize("damage", ["text", "folder", "other tables", "no folder"])
def test_a_memory_that_cannot_be_used_is_no_error(
    tmp_path: Path, picture: Path, looked: list[str], damage: str
) -> None:
    memory = tmp_path / "home" / "memory"
    memory.parent.mkdir()
    if damage == "text":
        memory.write_text("no database, but long enough to be read as one" * 100)
    elif damage == "folder":
        memory.mkdir()
    elif damage == "other tables":
        with sqlite3.connect(memory) as database:
            database.execute("CREATE TABLE files (a)")
    else:
        (tmp_path / "file").write_text("x")
        memory = tmp_path / "file" / "memory"
    assert _look(memory, picture) == _look(memory, picture)
    # what was damaged is made anew; what cannot be mended costs its time
    assert looked == (["read", "decoded"] if damage == "text" else ["read", "decoded"] * 2)


def test_a_reading_that_is_stopped_keeps_what_it_saved(
    tmp_path: Path, looked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_NUM_UNSAVED", 4)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        PIL.Image.new("RGB", (number + 1, 2)).save(path)
    memory = PictureMemory(tmp_path / "memory").__enter__()
    for path in paths:
        memory.look_at(path)
    del memory  # as a kill leaves it
    looked.clear()
    for path in paths:
        _look(tmp_path / "memory", path)
    assert looked == ["read", "decoded"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".png",)] == ["memory"]


def test_paths_from_another_folder_lead_to_the_same_pictures(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "real" / "a.png").touch()
    (tmp_path / "data" / "b.png").touch()
    sources = ("link/../a.png", "./b.png", "sub/../b.png", "/abs/c.png", "https://e.org/d.png")
    (tmp_path / "data" / "sub").mkdir()
    line = Utterance("a", tuple(Image(source) for source in sources))
    example = Example(Dialogue("d", (line,)), "q", image_root=tmp_path / "data")
    [moved] = with_paths_from(tmp_path / "new" / "far", [example])
    assert [image.source for image in moved.dialogue.images] == [
        # behind the link `..` is another folder, so the path keeps it
        "../../data/link/../a.png",
        "../../data/b.png",
        "../../data/b.png",
        "/abs/c.png",
        "https://e.org/d.png",
    ]
    (tmp_path / "new" / "far").mkdir(parents=True)
    for old, new in zip(example.image_locations(), moved.image_locations(), strict=True):
        assert str(old) == str(new) or Path(old).samefile(new)
    [same] = with_paths_from(tmp_path / "data", [example])
    assert same is example
