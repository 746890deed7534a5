"""Pictures of messages as a browser may have them: decoded and checked here, and always JPEG."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import PIL.Image

from ffr.corpus.forgetting import THUMBNAIL_FOLDER
from ffr.corpus.store import Store
from ffr.errors import DataError
from ffr.files import make_private_folder, replaced_file
from ffr.images import open_image, open_thumbnail

_log = logging.getLogger(__name__)

THUMBNAIL_SIDE = 480
MAX_PIXELS = 24_000_000
"""Pixels of the largest picture that is handed out; a larger one is scaled down to it."""

_QUALITY, _THUMBNAIL_QUALITY = 92, 80


def full_picture(path: str | Path) -> bytes:
    """A picture at its full size, as JPEG: upright, without what else its file may hold.

    Raises:
        DataError: where it is missing, damaged, too large, or none.
    """
    return _jpeg(open_image(Path(path), max_image_pixels=MAX_PIXELS), _QUALITY)


def small_picture(path: str | Path, side: int = THUMBNAIL_SIDE) -> bytes:
    """A picture whose longer side has at most so many pixels, as JPEG.

    Raises:
        DataError: as `full_picture`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGB", (900, 300)).save(f"{folder}/a.png")
    ...     small = PIL.Image.open(io.BytesIO(small_picture(f"{folder}/a.png", 300)))
    >>> small.format, small.size
    ('JPEG', (300, 100))
    """
    # the copy: a picture of the same size is the one that was opened
    image = open_thumbnail(path, side).copy()
    image.thumbnail((side, side), PIL.Image.Resampling.BICUBIC)
    return _jpeg(image, _THUMBNAIL_QUALITY)


def thumbnail(store: Store, path: str, digest: bytes | None) -> bytes:
    """A small picture out of the store's folder, where it is kept for the next time.

    Args:
        store: The store.
        path: Of the picture.
        digest: Of its bytes, by which it is kept; None keeps nothing.

    Raises:
        DataError: as `full_picture`.
    """
    if digest is None:
        return small_picture(path)
    folder = store.folder / THUMBNAIL_FOLDER
    kept = folder / f"{digest.hex()}.jpg"
    try:
        return kept.read_bytes()
    except OSError:
        pass  # not made yet
    made = small_picture(path)
    try:
        make_private_folder(folder)
        with replaced_file(kept, is_private=True) as write:
            write(made)
    except (DataError, OSError) as error:
        _log.warning("small pictures cannot be kept (%s)", error)
    return made


def _jpeg(image: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
