"""Pictures from outside.

Opened safely, turned upright, made RGB, scaled down, or refused with a sentence.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
import struct
import threading
import warnings
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

import PIL.Image
import PIL.ImageOps

from ffr.errors import DataError
from ffr.text import cut_middle, described, is_url, one_line

MAX_IMAGE_PIXELS = 602_112
"""Pixels a picture keeps by default: 768·28·28, as in the released training."""

MAX_DECODED_PIXELS = 80_000_000
"""Pixels of the largest picture that is decoded at all (240 MB as RGB); less than where Pillow
warns."""

_LARGE_PIXELS = 8_000_000
_large_picture = threading.Lock()

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded; every further decoder would be one more way in for a hostile file."""

_JPEG_END = b"\xff\xd9"
_NOISE = bytes(random.Random(0).choices(range(0xFF), k=64))
"""Bytes that a JPEG's decoder takes for more of the picture, since none of them begins a marker."""

# what Pillow's decoders let out on damaged files; found by flipping bytes (tests/test_images.py)
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    EOFError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


class LoadedPicture:
    """A picture that was opened by somebody else: upright, RGB, and known by its pixels.

    It goes wherever the path of a picture goes. Two are equal where their pixels are.

    Args:
        image: The picture, as Pillow holds it; it is copied.

    Raises:
        DataError: where it is larger than `MAX_DECODED_PIXELS`, or its greys have 32 bits.

    >>> LoadedPicture(PIL.Image.new("L", (4, 3))).image.mode
    'RGB'
    """

    def __init__(self, image: PIL.Image.Image) -> None:
        try:
            _check_decoded(image)
            self.image = _to_rgb(PIL.ImageOps.exif_transpose(image).copy())
        except _UnfitError as error:
            raise DataError(f"the picture {error}") from None
        except _DECODING_ERRORS as error:
            raise DataError(f"the picture cannot be decoded ({one_line(error)})") from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over size and pixels, as 64 hex digits."""
        content = f"{self.image.size} ".encode() + self.image.tobytes()
        return hashlib.sha256(content).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedPicture) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"of {self.image.width}×{self.image.height} pixels in memory"


Location = str | Path | LoadedPicture
"""Where a picture is: a file, or in memory."""


def as_location(picture: Any) -> Path | LoadedPicture:
    """The picture that a path, a picture of Pillow's or an array of pixels stands for.

    Args:
        picture: A `str` or `Path`; a `PIL.Image.Image`; a uint8 array or tensor of shape (height,
            width), or (height, width, 3 or 4) with the colours last.

    Raises:
        ValueError: where it is anything else.
        DataError: as `LoadedPicture`.

    >>> as_location("a.png").name
    'a.png'
    >>> import numpy
    >>> as_location(numpy.zeros((3, 4, 3), numpy.uint8))
    of 4×3 pixels in memory
    """
    if isinstance(picture, LoadedPicture):
        return picture
    if isinstance(picture, str | Path):
        return Path(picture)
    if isinstance(picture, PIL.Image.Image):
        return LoadedPicture(picture)
    if not (hasattr(picture, "shape") and hasattr(picture, "__array__")):
        found = described(picture)
        raise ValueError(
            f"{found} ({type(picture).__name__}) is no picture; give a path, a PIL.Image or an "
            "array of pixels"
        )
    import numpy as np

    pixels = np.asarray(picture.cpu() if hasattr(picture, "cpu") else picture)
    is_shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not is_shaped or not pixels.size:
        raise ValueError(
            f"pixels of {pixels.dtype} and shape {pixels.shape} are no picture; give uint8 of "
            "shape (height, width, 3), colours last"
        )
    return LoadedPicture(PIL.Image.fromarray(np.ascontiguousarray(pixels)))


_ADDRESSES = {
    "data": (
        "a picture written into the data itself, which is not read",
        "write it to a file and name its path",
    ),
    "file": ("a file: address, which is not followed", "write the path that it means"),
}


def find_image(location: str | Path, *, where: str | None = None) -> Path:
    """The file at a location.

    Args:
        location: A path.
        where: The place to name in the error, such as `dev.jsonl:17`.

    Raises:
        DataError: where the location is an address, or no file is there.
    """
    if is_url(location):
        kind = str(location).partition(":")[0].lower()
        what, remedy = _ADDRESSES.get(
            kind, ("a web address, which is not fetched", "download it and write its path")
        )
        raise DataError(f"image {_shown(location)} is {what}; {remedy}", where=where)
    path = Path(location)
    try:
        found = path.is_file()
        is_folder = not found and path.is_dir()
    except (OSError, ValueError) as error:
        raise DataError(
            f"image {_shown(path)} cannot be looked up ({one_line(error)}); correct its path",
            where=where,
        ) from error
    if not found:
        if is_folder:
            raise DataError(
                f"image {_shown(path)} is a folder; name the picture's file", where=where
            )
        other = _other_spelling(path)
        remedy = "correct its path or pass --image-root"
        if other is not None:
            remedy = f"there is {_shown(other)}, spelt otherwise; write that"
        raise DataError(f"image {_shown(path)} not found; {remedy}", where=where)
    return path


def _other_spelling(path: Path) -> Path | None:
    """The file that a path means in another spelling.

    Backslashes for slashes, composed letters for decomposed ones or the reverse, `%20` for a blank.
    """
    text = str(path)
    spellings = [
        text.replace("\\", "/"),
        unquote(text),
        *(normalize(form, text) for form in ("NFC", "NFD")),
    ]
    for spelling in spellings:
        try:
            if spelling != text and Path(spelling).is_file():
                return Path(spelling)
        except (OSError, ValueError):
            continue
    return None


def open_image(
    location: Location,
    *,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    where: str | None = None,
) -> PIL.Image.Image:
    """Opens a picture as RGB.

    Upright by its EXIF data, see-through parts on white, scaled down if too large.

    Args:
        location: Path of the file, or a picture in memory.
        max_image_pixels: Width × height that the result has at most, the shape kept; None for no
            scaling.
        where: The place to name in errors, such as `dev.jsonl:17`.

    Raises:
        DataError: where the file is missing, no picture of a known kind, damaged, or larger than
            `MAX_DECODED_PIXELS`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGBA", (200, 100), (255, 0, 0, 0)).save(f"{folder}/a.png")
    ...     image = open_image(f"{folder}/a.png", max_image_pixels=5_000)
    >>> image.mode, image.size, image.getpixel((0, 0))
    ('RGB', (100, 50), (255, 255, 255))
    """
    image = _opened(location, where)
    if max_image_pixels is not None and image.width * image.height > max_image_pixels:
        image = image.resize(
            scaled_size(image.width, image.height, max_image_pixels), PIL.Image.Resampling.LANCZOS
        )
    return image


def open_thumbnail(location: str | Path, longest_side: int) -> PIL.Image.Image:
    """Opens a picture as `open_image` does, to be shown small, in little memory.

    A large picture is averaged down before it is made RGB, and one such is decoded at a time.

    Args:
        location: Path of the file.
        longest_side: Pixels that the longer side is going to have; the result is no smaller, but
            where the file is.

    Raises:
        DataError: as `open_image`.
    """
    return _opened(location, None, longest_side)


def scaled_size(width: int, height: int, max_image_pixels: int) -> tuple[int, int]:
    """The largest size of the same shape with at most `max_image_pixels` pixels; no side below 1.

    >>> scaled_size(4000, 3000, 602_112), scaled_size(10, 10, 100), scaled_size(1_000_000, 1, 1_000)
    ((896, 672), (10, 10), (1000, 1))
    """
    if max_image_pixels < 1:
        raise ValueError(f"max_image_pixels is {max_image_pixels}; it must be at least 1")
    if width * height <= max_image_pixels:
        return width, height
    scale = math.sqrt(max_image_pixels / (width * height))
    short = max(1, int(min(width, height) * scale))
    long = min(max(1, int(max(width, height) * scale)), max_image_pixels // short)
    return (long, short) if width >= height else (short, long)


def image_digest(location: Location, where: str | None = None) -> str:
    """SHA-256 of the file's bytes as 64 hex digits; names the picture in caches whatever its path.

    A picture in memory is known by its pixels.

    Raises:
        DataError: where the file is missing or cannot be read.
    """
    if isinstance(location, LoadedPicture):
        return location.digest
    path = find_image(location, where=where)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"image {_shown(path)} cannot be read ({error.strerror}); check its rights", where=where
        ) from error


def image_verdict(path: Path) -> tuple[int, int] | str:
    """Decodes a picture in full and judges it.

    Args:
        path: A file that is there.

    Returns:
        Its width and height in pixels, upright; or what is wrong with it, in the words that follow
        the picture's name in an error (`image_fault` makes one). They depend on the file's bytes
        alone.
    """
    try:
        return _decode(path).size
    except _UnfitError as error:
        return str(error)


def image_fault(location: str | Path, reason: str, where: str | None = None) -> DataError:
    """The error that says what is wrong with a picture.

    >>> str(image_fault("a.png", "is damaged; replace it", "dev.jsonl:17"))
    'dev.jsonl:17: image "a.png" is damaged; replace it'
    """
    return DataError(f"image {_shown(location)} {reason}", where=where)


def _opened(
    location: Location, where: str | None, longest_side: int | None = None
) -> PIL.Image.Image:
    if isinstance(location, LoadedPicture):
        return location.image
    path = find_image(location, where=where)
    try:
        return _decode(path, longest_side)
    except _UnfitError as error:
        raise image_fault(path, str(error), where) from error


class _UnfitError(Exception):
    """What is wrong with a picture's bytes, in the words that follow its name."""


def _check_decoded(image: PIL.Image.Image) -> int:
    """Number of pixels of a picture that may be decoded."""
    num_pixels = image.width * image.height
    if num_pixels > MAX_DECODED_PIXELS:
        raise _too_large(f"{image.width}×{image.height} pixels")
    if image.mode in ("I", "F"):
        raise _UnfitError(
            "has greys of 32 bits, of which none says what is white; convert it to 8 or 16 bits"
        )
    return num_pixels


def _decode(path: Path, longest_side: int | None = None) -> PIL.Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is refused below in any case
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            opened = PIL.Image.open(path, formats=IMAGE_FORMATS)
        with opened as image:
            num_pixels = _check_decoded(image)
            try:
                if longest_side is None or num_pixels <= _LARGE_PIXELS:
                    image.load()
                    return _to_rgb(PIL.ImageOps.exif_transpose(image))
                with _large_picture:
                    # what a JPEG's decoder can leave out need not be there at all
                    image.draft(None, (2 * longest_side, 2 * longest_side))
                    image.load()
                    small = _averaged(image, longest_side)
                    if small is not image:
                        image.close()  # gives the memory back before the next one is decoded
                    return _to_rgb(PIL.ImageOps.exif_transpose(small))
            except OSError:
                if image.format != "JPEG":
                    raise
                return _without_end_marker(path)
    except PIL.UnidentifiedImageError as error:
        kinds = ", ".join(IMAGE_FORMATS)
        raise _UnfitError(
            f"is no picture of a known kind ({kinds}); convert it to one of them"
        ) from error
    except PIL.Image.DecompressionBombError as error:
        raise _too_large("far too many pixels") from error
    except _DECODING_ERRORS as error:
        # an error of the system names the file, which a verdict on its bytes must not
        reason = getattr(error, "strerror", None) or one_line(error)
        raise _UnfitError(f"is damaged or cannot be decoded ({reason}); replace it") from error


def _without_end_marker(path: Path) -> PIL.Image.Image:
    """A JPEG whose last bytes are missing, where no row of it is lost.

    Some cameras and chat programs write such. The decoder fills what is lost with grey, and goes on
    with whatever follows as if it were the picture's own. So it is decoded twice, with nothing and
    with noise in the place of what is missing: where both give the same pixels, all are there.

    Raises:
        OSError: where they differ.
    """
    known = path.read_bytes().rstrip(b"\xff")
    found = []
    for tail in (b"", _NOISE):
        with PIL.Image.open(io.BytesIO(known + tail + _JPEG_END), formats=("JPEG",)) as image:
            image.load()
            found.append(_to_rgb(PIL.ImageOps.exif_transpose(image)))
    if found[0].tobytes() != found[1].tobytes():
        raise OSError("image file is truncated")
    return found[0]


def _averaged(image: PIL.Image.Image, longest_side: int) -> PIL.Image.Image:
    """The picture at a whole fraction of its size, at least twice as long as is asked."""
    factor = max(image.size) // (2 * longest_side)
    if factor < 2:
        return image
    if image.mode in ("1", "P", "PA") or (
        image.mode in ("L", "RGB") and image.has_transparency_data
    ):
        # palette numbers and see-through colours have no mean
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"):
        return image
    small = image.reduce(factor)
    small.info["exif"] = image.getexif().tobytes()
    return small


def _too_large(size: str) -> _UnfitError:
    return _UnfitError(
        f"has {size}, more than the {MAX_DECODED_PIXELS:,} that are decoded; scale it down"
    )


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit grey at 255 and leaves a white picture
        grey = image.convert("I")
        image = grey.point(lambda value: value * (1 / 256)).convert("L")
        # one grey of 65,536, which 8 bits do not tell from its neighbours
        see_through = image.info.pop("transparency", None)
        if isinstance(see_through, int):
            import numpy as np

            image.paste(255, mask=PIL.Image.fromarray(np.asarray(grey) == see_through))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        return PIL.Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" and type(image) is PIL.Image.Image else image.convert("RGB")


def _shown(location: str | Path) -> str:
    # the file's name stands at the end
    return f'"{cut_middle(one_line(location, 10_000), 100)}"'
