"""A lack of memory, said with the record that needed most of it."""

from __future__ import annotations

import torch

from ffr.data.dataset import ExampleDataset
from ffr.images import open_image
from ffr.text import counted


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out: a GPU's, or this process's.

    >>> is_lack_of_memory(torch.OutOfMemoryError()), is_lack_of_memory(RuntimeError("a shape"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate" in str(error)


def record_in_words(
    data: ExampleDataset, index: int, num_tokens: int, *, max_image_pixels: int | None
) -> str:
    """A record by its dialogue, with its tokens, and the pixels that its pictures are taken with.

    Args:
        data: The data.
        index: Which of its records.
        num_tokens: Its tokens.
        max_image_pixels: Larger pictures are scaled down; None for a model that takes none.
    """
    example = data[index]
    size = counted(num_tokens, "token")
    locations = [] if max_image_pixels is None else list(example.image_locations())
    if locations:
        assert max_image_pixels is not None
        # they were read a moment ago; even now they are small beside what ran out
        sizes = [open_image(place, max_image_pixels=max_image_pixels).size for place in locations]
        pixels = sum(width * height for width, height in sizes)
        size += f", {counted(len(locations), 'picture')} of {pixels:,} pixels"
    return f"dialogue {example.dialogue.id!r} ({size})"
