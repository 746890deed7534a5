"""Thumbnails: each distinct picture once, bounded in size; what is closed stays closed."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import PIL.Image
import pytest

from ffr.report.html.pictures import Thumbnails, longest_side


def test_the_same_bytes_are_one_picture_scaled_to_fit(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (720, 180), (200, 0, 0)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    PIL.Image.new("RGB", (30, 20), (0, 0, 200)).save(tmp_path / "c.png")
    names = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    made = Thumbnails([*names, names[0]])
    first, second, small = (made[name] for name in names)
    assert first is second
    assert (first.width, first.height) == (360, 90)
    assert (small.width, small.height) == (30, 20)  # never larger than it is
    assert made.faults == []
    head, _, code = first.source.partition(",")
    assert head == "data:image/jpeg;base64"
    with PIL.Image.open(io.BytesIO(base64.b64decode(code))) as image:
        assert (image.format, image.size) == ("JPEG", (360, 90))
        red = image.convert("RGB").getpixel((180, 45))
    assert isinstance(red, tuple)
    assert all(abs(found - drawn) < 8 for found, drawn in zip(red, (200, 0, 0), strict=True))


def test_what_does_not_open_says_why_and_what_is_closed_is_no_fault(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    missing, closed = str(tmp_path / "none.png"), str(tmp_path / "a.png")
    made = Thumbnails([missing, closed], closed={closed})
    assert made[closed].source == ""
    assert made[closed].fault == f'image "{closed}" lies outside the data\'s folder'
    assert (made[missing].source, made[missing].width) == ("", 0)
    assert len(made.faults) == 1
    assert made.faults[0].startswith(f'image "{missing}" not found')


@pytest.mark.parametrize(
    ("num", "side"), [(0, 360), (500, 360), (501, 240), (2500, 240), (2501, 176), (6001, 128)]
)
def test_many_pictures_are_smaller(num: int, side: int) -> None:
    assert longest_side(num) == side
