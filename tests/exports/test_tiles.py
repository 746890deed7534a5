"""Where the features of tiles go, by hand: which are taken, in which shares, and the newlines."""

from __future__ import annotations

import numpy as np

from ffr.exports.tiles import TileSettings, tile_plan

ONE_BY_TWO = TileSettings([(4, 8)], tile_pixels=4, side=2, max_tiles=9)
"""Two tiles beside each other, of 2 × 2 patches."""


def test_an_image_among_several_is_the_whole_and_a_newline() -> None:
    indices, shares = tile_plan(1, (4, 8), ONE_BY_TWO)
    assert indices.tolist() == [[number, 0, 0, 0] for number in (0, 1, 2, 3, 4)]
    assert shares.tolist() == [[1, 0, 0, 0]] * 5


def test_lines_run_across_tiles_and_end_with_a_newline() -> None:
    # the whole image has 0…3, the left tile 4…7, the right one 8…11, the newline is 12
    indices, shares = tile_plan(3, (4, 8), ONE_BY_TWO)
    assert indices[:4, 0].tolist() == [0, 1, 2, 3]
    assert indices[4:, 0].tolist() == [4, 5, 8, 9, 12, 6, 7, 10, 11, 12]
    assert shares.tolist() == [[1, 0, 0, 0]] * 14


def test_padding_beside_the_image_is_cut_off() -> None:
    indices, _ = tile_plan(5, (8, 2), TileSettings([(8, 8)], tile_pixels=4, side=2, max_tiles=9))
    # four tiles make 4 × 4 patches; an image of 8 × 2 keeps the middle columns alone
    assert indices[4:, 0].tolist() == [
        5, 8, 20, 7, 10, 20, 13, 16, 20, 15, 18, 20,
    ]  # fmt: skip


def test_too_many_features_are_scaled_down_between_their_neighbours() -> None:
    settings = TileSettings([(8, 8)], tile_pixels=4, side=2, max_tiles=1)
    indices, shares = tile_plan(5, (8, 8), settings)
    # 4 × 4 features become 2 × 2, each the mean of four; two newlines
    assert len(indices) == 4 + 2 * 3
    first, second, newline = indices[4:7]
    assert sorted(first.tolist()) == [4, 5, 6, 7]
    assert sorted(second.tolist()) == [8, 9, 10, 11]
    assert np.allclose(shares[4:6], 0.25)
    assert (newline.tolist()[0], shares[6].tolist()) == (20, [1, 0, 0, 0])
