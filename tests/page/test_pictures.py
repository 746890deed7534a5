"""Pictures for a browser: always JPEG, small ones kept for their owner alone."""

from __future__ import annotations

import io
from pathlib import Path

import PIL.Image
import pytest
from page_builds import fill

from ffr.corpus.store import Store
from ffr.errors import DataError
from ffr.page import pictures
from ffr.page.pictures import full_picture, small_picture, thumbnail


def _opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def test_a_picture_is_made_anew_as_jpeg(tmp_path: Path) -> None:
    image = PIL.Image.new("RGBA", (900, 600), (0, 200, 0, 0))
    exif = PIL.Image.Exif()
    exif[0x010E] = "a secret place"
    image.save(tmp_path / "a.png", exif=exif)
    assert b"secret" in (tmp_path / "a.png").read_bytes()
    for data, size in (
        (full_picture(tmp_path / "a.png"), (900, 600)),
        (small_picture(tmp_path / "a.png"), (480, 320)),
    ):
        assert (_opened(data).format, _opened(data).size) == ("JPEG", size)
        assert b"secret" not in data


def test_the_largest_are_scaled_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PIL.Image.new("L", (400, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 10_000)
    assert _opened(full_picture(tmp_path / "a.png")).size == (200, 50)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload='alert(1)'/>")
    for make in (full_picture, small_picture):
        with pytest.raises(DataError, match="no picture of a known kind"):
            make(tmp_path / "a.png")


def test_small_ones_are_kept_by_their_bytes(tmp_path: Path) -> None:
    with Store(fill(tmp_path)) as store:
        made = thumbnail(store, str(tmp_path / "flat.png"), b"\xab" * 32)
        (kept,) = (store.folder / "thumbnails").iterdir()
        assert kept.name == "ab" * 32 + ".jpg"
        assert kept.read_bytes() == made
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.parent.stat().st_mode & 0o777 == 0o700
        # it is taken from there: the picture itself may be gone
        assert thumbnail(store, str(tmp_path / "gone.png"), b"\xab" * 32) == made
        thumbnail(store, str(tmp_path / "flat.png"), None)
        assert len(list(kept.parent.iterdir())) == 1


def test_a_folder_that_takes_none_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(fill(tmp_path)) as store:
        (store.folder / "thumbnails").write_text("in the way")
        made = thumbnail(store, str(tmp_path / "flat.png"), b"\xab" * 32)
        assert _opened(made).size == (480, 360)
