"""Pictures for a page: each distinct one scaled down once, as a JPEG inside the page; what cannot be opened is counted."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from ffr.errors import DataError
from ffr.images import image_digest, open_thumbnail

# longest side in pixels by how many distinct pictures there are: few may be large, thousands must stay under one page
_SIDES = ((500, 360), (2_500, 240), (6_000, 176))
_SMALLEST_SIDE = 128
_QUALITY = 70
_MAX_THREADS = 4


@dataclass(frozen=True)
class Thumbnail:
    """A picture scaled down, or why there is none.

    Args:
        source: A `data:` address with the JPEG; empty where the picture could not be opened.
        width: In pixels.
        height: In pixels.
        fault: Why it could not be opened.
    """

    source: str = ""
    width: int = 0
    height: int = 0
    fault: str = ""


def longest_side(num_pictures: int) -> int:
    """Pixels of the longer side of each of so many pictures.

    >>> longest_side(10), longest_side(2_000), longest_side(50_000)
    (360, 240, 128)
    """
    return next((side for limit, side in _SIDES if num_pictures <= limit), _SMALLEST_SIDE)


class Thumbnails:
    """Scaled-down pictures by location; two locations of the same bytes share one.

    Args:
        locations: All locations there are; repeats are looked at once.
        closed: Those among them that must not be opened, since they lie outside the data's folder.
    """

    def __init__(self, locations: Iterable[str | Path], *, closed: Container[str] = ()) -> None:
        names = list(dict.fromkeys(map(str, locations)))
        self._closed = closed
        self._side = longest_side(len(names))
        self._by_content: dict[str, Thumbnail] = {}
        self._lock = threading.Lock()
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            # decoding lets other threads run
            self._by_location = dict(zip(names, pool.map(self._make, names), strict=True))

    def __getitem__(self, location: str | Path) -> Thumbnail:
        return self._by_location[str(location)]

    @property
    def faults(self) -> list[str]:
        """One sentence for each location that could not be opened; closed ones are no fault."""
        return [
            thumbnail.fault
            for name, thumbnail in self._by_location.items()
            if thumbnail.fault and name not in self._closed
        ]

    def _make(self, location: str) -> Thumbnail:
        if location in self._closed:
            return Thumbnail(fault=f'image "{location}" lies outside the data\'s folder')
        try:
            digest = image_digest(location)
            with self._lock:
                found = self._by_content.get(digest)
            if found is not None:
                return found
            made = _encode(open_thumbnail(location, self._side), self._side)
        except DataError as error:
            return Thumbnail(fault=str(error))
        with self._lock:
            return self._by_content.setdefault(digest, made)


def _encode(image: PIL.Image.Image, side: int) -> Thumbnail:
    image.thumbnail((side, side), PIL.Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{code}", image.width, image.height)
