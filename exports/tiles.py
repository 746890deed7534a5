"""How LLaVA-OneVision joins the features of tiles, as indices and shares for a graph to gather.

Shapes: T tiles of an image, the first of them the whole image; s patches of a tile's side; P
features that come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TileSettings:
    """What of a LLaVA-OneVision model decides where its features go.

    Args:
        pinpoints: Heights and widths in pixels that an image may be fitted into.
        tile_pixels: Side of a tile.
        side: Patches of a tile's side.
        max_tiles: Features of more tiles are scaled down to so many.
    """

    pinpoints: list[tuple[int, int]]
    tile_pixels: int
    side: int
    max_tiles: int


def tile_plan(
    num_tiles: int, image_size: tuple[int, int], settings: TileSettings
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which features of the tiles make up each that the language model gets, and how much of each.

    The padding around an image is cut off, features beyond `max_tiles` are scaled down (bilinear),
    every line ends with the newline, and the whole image's features stand before them all:
    LLaVA-OneVision's anyres form, as transformers has it.

    Args:
        num_tiles: T; 1 where the image is one of several and is not cut.
        image_size: Height and width of the image in pixels.
        settings: The model's.

    Returns:
        Indices into the T·s² features with the newline behind them, (P, 4), and shares (P, 4).

    >>> indices, shares = tile_plan(1, (9, 9), TileSettings([(4, 4)], 4, 2, 9))
    >>> indices[:, 0].tolist(), shares[0].tolist()
    ([0, 1, 2, 3, 4], [1.0, 0.0, 0.0, 0.0])
    """
    side, newline = settings.side, num_tiles * settings.side**2
    whole = np.arange(side * side)
    if num_tiles == 1:
        return _single(np.append(whole, newline))
    from transformers.image_processing_utils import select_best_resolution

    height, width = (
        # tiles down and across of the size that wastes least
        length // settings.tile_pixels
        for length in select_best_resolution(image_size, settings.pinpoints)
    )
    # the whole image's features come first, so the tiles' begin behind them
    grid = (side * side + np.arange(height * width * side * side)).reshape(
        height, width, side, side
    )
    lines = _without_padding(
        # lines of patches across tiles, no longer tile by tile
        grid.transpose(0, 2, 1, 3).reshape(height * side, width * side),
        image_size,
    )
    num_lines, num_columns = lines.shape
    ratio = math.sqrt(num_lines * num_columns / (settings.max_tiles * side**2))
    # transformers' own threshold: a little too many features are let through
    if ratio > 1.1:
        down, across = (
            _taps(num_lines, int(num_lines // ratio)),
            _taps(num_columns, int(num_columns // ratio)),
        )
        # the four neighbours of each new feature, and the product of their shares along each axis
        taps = [lines[rows][:, columns] for rows, _ in down for columns, _ in across]
        parts = [
            np.outer(row_share, column_share) for _, row_share in down for _, column_share in across
        ]
        indices, shares = np.stack(taps, -1), np.stack(parts, -1).astype(np.float32)
    else:
        flat, ones = _single(lines.reshape(-1))
        indices, shares = flat.reshape(*lines.shape, 4), ones.reshape(*lines.shape, 4)
    # one more column: the newline behind each line
    end, one = _single(np.full(len(indices), newline))
    indices = np.concatenate([indices, end[:, None]], axis=1).reshape(-1, 4)
    shares = np.concatenate([shares, one[:, None]], axis=1).reshape(-1, 4)
    before, ones = _single(whole)
    return np.concatenate([before, indices]), np.concatenate([ones, shares])


def _single(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Features that are taken as they are."""
    taps, shares = np.zeros((len(indices), 4), np.int64), np.zeros((len(indices), 4), np.float32)
    taps[:, 0], shares[:, 0] = indices, 1
    return taps, shares


def _without_padding(lines: NDArray[np.int64], image_size: tuple[int, int]) -> NDArray[np.int64]:
    """The lines and columns that hold the image, which was fitted into the middle of the grid."""
    (height, width), (num_lines, num_columns) = image_size, lines.shape
    if width / height > num_columns / num_lines:
        # the image is wider than the grid: padding above and below, rounded as transformers does
        padding = (num_lines - int(round(height * (num_columns / width), 7))) // 2
        return lines[padding : num_lines - padding]
    padding = (num_columns - int(round(width * (num_lines / height), 7))) // 2
    return lines[:, padding : num_columns - padding]


def _taps(length: int, wanted: int) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Lines and shares of bilinear scaling between two lengths, by the middles of the lines."""
    # pixels are areas: the middle of new line i lies at (i + ½)·length/wanted − ½ of the old
    at = np.clip((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0, None)
    low = np.floor(at).astype(np.int64)
    return [(low, 1 - (at - low)), (np.minimum(low + 1, length - 1), at - low)]
