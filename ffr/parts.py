"""What stands for texts, pictures and fragments that become vectors; read without torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import PIL.Image

from ffr.images import IMAGE_FORMATS, LoadedPicture, Location, as_location
from ffr.text import described

Picture = Location | PIL.Image.Image | npt.NDArray[Any]
"""A path (`str` or `Path`), a picture of Pillow's, or an array of pixels."""

Texts = Sequence[str] | str
"""Texts; a `str` is one text, not its characters."""

Pictures = Sequence[Picture] | Picture
"""Pictures, or one of them."""

FragmentParts = Sequence[str | Picture]
"""A fragment for an encoder: texts (`str`) and pictures in the dialogue's order.

`ffr.dialogue.Example.parts` gives it. A picture's place must be a `Path` here: a `str` is a text,
whatever it says."""

Parts = Sequence[str | Path | LoadedPicture]
"""A fragment's parts once they are read."""

_PICTURE_SUFFIXES = (".jpg", ".tif", *(f".{name.lower()}" for name in IMAGE_FORMATS))


def as_texts(texts: Any) -> list[str]:
    """The texts that a call means.

    Raises:
        ValueError: where something else is given.

    >>> as_texts("a cat on a mat"), as_texts(("a cat", "a dog"))
    (['a cat on a mat'], ['a cat', 'a dog'])
    """
    if isinstance(texts, str):
        return [texts]
    found = [
        str(item) if isinstance(item, str) else item for item in _listed(texts, "texts", "text")
    ]
    for number, item in enumerate(found):
        if not isinstance(item, str):
            raise ValueError(f"text {number} is {_shown(item)}; give texts (str)")
    return found


def as_pictures(images: Any) -> list[Path | LoadedPicture]:
    """The pictures that a call means.

    Raises:
        ValueError: where something else is given.
        DataError: where a picture in memory cannot be taken.

    >>> [str(picture) for picture in as_pictures("a.png")]
    ['a.png']
    """
    if isinstance(images, str) or _is_picture(images):
        return [as_location(images)]
    return [as_location(item) for item in _listed(images, "pictures", "picture")]


def as_fragments(fragments: Any) -> list[Parts]:
    """The fragments that a call means, each a list of its parts.

    Raises:
        ValueError: where something else is given.
        DataError: where a picture in memory cannot be taken.

    >>> [[str(part) for part in parts] for parts in as_fragments([["look", Path("a.png")], "nice"])]
    [['look', 'a.png'], ['nice']]
    """
    if isinstance(fragments, str):
        fragments = [fragments]
    listed = _listed(fragments, "fragments", "list of parts")
    return [_as_parts(item, number) for number, item in enumerate(listed)]


def _as_parts(parts: Any, number: int) -> Parts:
    if isinstance(parts, str) or _is_picture(parts):
        parts = [parts]
    found: list[str | Path | LoadedPicture] = []
    for part in _listed(parts, f"the parts of fragment {number}", "text or picture"):
        if not isinstance(part, str):
            found.append(as_location(part))
            continue
        if part.lower().endswith(_PICTURE_SUFFIXES) and _is_file(part):
            warnings.warn(
                f"the text {_shown(part)} of fragment {number} is the name of a file and is "
                "embedded as words; for the picture, write Path(…)",
                stacklevel=4,
            )
        found.append(part)
    return found


def _is_picture(value: Any) -> bool:
    """Whether something is one picture and no list of them; an array of four axes is a list."""
    is_array = getattr(value, "ndim", 0) in (2, 3)
    return isinstance(value, Path | LoadedPicture | PIL.Image.Image) or is_array


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _listed(values: Any, what: str, one: str) -> list[Any]:
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise ValueError(f"{what} are {_shown(values)}; give a list with one {one} each")
    return list(values)


def _shown(value: object) -> str:
    return f"{described(value)} ({type(value).__name__})"
