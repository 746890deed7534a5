"""Pictures from outside: what comes out, and that damaged or hostile ones end in a sentence."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import struct
import zlib
from pathlib import Path

import PIL.Image
import pytest

from ffr.errors import DataError
from ffr.images import MAX_DECODED_PIXELS, image_digest, image_verdict, open_image, scaled_size


def _photo(size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    chance = random.Random(0)
    return PIL.Image.frombytes("RGB", size, chance.randbytes(size[0] * size[1] * 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_kind_comes_out_as_rgb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.dat"  # the content counts, not the name
    _photo().save(path, format=kind)
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert type(image) is PIL.Image.Image
    assert image_verdict(path) == (64, 48)
    assert image_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_comes_out_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    PIL.Image.new(mode, (5, 4)).save(path)
    assert open_image(path).mode == "RGB"


def test_lossless_pixels_are_kept(tmp_path: Path) -> None:
    photo = _photo()
    photo.save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").tobytes() == photo.tobytes()


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    image = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_palette_transparency_becomes_white(tmp_path: Path) -> None:
    image = PIL.Image.new("P", (1, 1), 0)
    image.putpalette([9, 9, 9] * 256)
    image.save(tmp_path / "a.png", transparency=0)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    PIL.Image.new("I;16", (1, 1), 0x8000).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (20, 40)
    assert image_verdict(tmp_path / "a.jpg") == (20, 40)


def test_large_pictures_are_scaled_down_in_shape(tmp_path: Path) -> None:
    _photo((400, 100)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_image_pixels=10_000).size == (200, 50)
    assert open_image(tmp_path / "a.png", max_image_pixels=None).size == (400, 100)


def test_scaled_size_never_exceeds_and_never_vanishes() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        width, height, most = (
            chance.randint(1, 50_000),
            chance.randint(1, 50_000),
            chance.randint(1, 700_000),
        )
        new_width, new_height = scaled_size(width, height, most)
        assert new_width >= 1
        assert new_height >= 1
        assert new_width * new_height <= most
        if width * height <= most:
            assert (new_width, new_height) == (width, height)
    with pytest.raises(ValueError, match="at least 1"):
        scaled_size(2, 2, 0)


def test_missing_folder_url_and_impossible_paths(tmp_path: Path) -> None:
    for location, text in (
        (tmp_path / "none.png", "not found; correct its path or pass --image-root"),
        (tmp_path, "is a folder"),
        ("https://example.org/a.png", "not fetched; download it"),
        ("a\0b.png", "cannot be looked up|not found"),
        ("x" * 5000, "cannot be looked up|not found"),
    ):
        for use in (open_image, image_digest):
            with pytest.raises(DataError, match=text) as caught:
                use(location, where="dev.jsonl:17")
            assert str(caught.value).startswith("dev.jsonl:17: image ")


def test_text_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(DataError, match="no picture of a known kind"):
        open_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match="no picture of a known kind"):
        open_image(tmp_path / "b.png")


def test_other_decoders_stay_shut(tmp_path: Path) -> None:
    _photo().save(tmp_path / "a.png", format="PPM")
    with pytest.raises(DataError, match="no picture of a known kind"):
        open_image(tmp_path / "a.png")


def _png_with_size(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(9000, 9000), (30_000, 30_000), (1, 100_000_000)])
def test_bombs_are_refused_unread(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(_png_with_size(*size))
    assert size[0] * size[1] > MAX_DECODED_PIXELS
    with pytest.raises(DataError, match="scale it down"):
        open_image(tmp_path / "a.png")


def test_truncated_pictures_are_refused(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        _photo().save(buffer, format=kind)
        (tmp_path / "a").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(DataError, match=r"damaged|no picture"):
            open_image(tmp_path / "a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_end_in_a_sentence(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    image = _photo((24, 16)).quantize(8) if kind == "GIF" else _photo((24, 16))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, format=kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
    whole = buffer.getvalue()
    chance = random.Random(kind)
    path = tmp_path / "a"
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            # headers are where decoders trip
            end = chance.choice((min(64, len(damaged)), len(damaged)))
            damaged[chance.randrange(end)] = chance.randrange(256)
        path.write_bytes(
            bytes(damaged[: chance.randint(1, len(damaged))] if chance.random() < 0.2 else damaged)
        )
        with contextlib.suppress(DataError):
            assert open_image(path).mode == "RGB"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 100}])
def test_a_jpeg_without_its_end_marker_is_sound_and_a_cut_one_is_not(
    tmp_path: Path, options: dict[str, object]
) -> None:
    path = tmp_path / "a.jpg"
    _photo((200, 120)).save(path, format="JPEG", **options)
    whole, pixels = path.read_bytes(), open_image(path).tobytes()
    assert whole.endswith(b"\xff\xd9")
    for num_missing in (1, 2):
        path.write_bytes(whole[:-num_missing])
        assert open_image(path).tobytes() == pixels
        assert image_verdict(path) == (200, 120)
    for length in (len(whole) - 12, len(whole) * 3 // 4, len(whole) // 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"is damaged or cannot be decoded .*truncated"):
            open_image(path)
