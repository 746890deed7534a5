"""Positions of padded rows by hand, on either side, with one position a token and with three."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ffr.models.positions import next_positions, token_positions

LEFT = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
RIGHT = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])


def vlm(**core: Any) -> Any:
    return SimpleNamespace(core=SimpleNamespace(**core))


@pytest.mark.parametrize(
    ("mask", "first"), [(LEFT, [0, 0, 0, 1]), (RIGHT, [0, 1, 1, 1])], ids=["left", "right"]
)
def test_padding_counts_for_nothing(mask: torch.Tensor, first: list[int]) -> None:
    positions = token_positions(vlm(), {"attention_mask": mask})
    assert positions.tolist() == [first, [0, 1, 2, 3]]
    assert next_positions(positions, mask).tolist() == [2, 4]


def test_words_alone_have_one_position_in_all_three_directions() -> None:
    def unasked(*_: Any, **__: Any) -> Any:
        raise AssertionError("words need no grid")

    positions = token_positions(vlm(get_rope_index=unasked), {"attention_mask": LEFT})
    assert positions.shape == (3, 2, 4)
    assert positions.tolist() == [[[0, 0, 0, 1], [0, 1, 2, 3]]] * 3
    assert next_positions(positions, LEFT).tolist() == [2, 4]


def test_pictures_are_placed_as_the_model_places_them() -> None:
    """A row with a picture of two columns: its width counts further than the word behind it."""
    inputs = {
        "input_ids": torch.tensor([[5, 9, 9, 6]]),
        "mm_token_type_ids": torch.tensor([[0, 1, 1, 0]]),
        "image_grid_thw": torch.tensor([[1, 1, 4]]),
        "attention_mask": torch.ones(1, 4),
    }
    grid = torch.tensor([[[0, 1, 1, 3]], [[0, 1, 1, 3]], [[0, 1, 7, 3]]])
    given: list[Any] = []

    def index(ids: torch.Tensor, **more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given.append((ids, more))
        return grid, torch.zeros(1, 1)

    assert token_positions(vlm(get_rope_index=index), inputs) is grid
    [(ids, more)] = given
    assert ids is inputs["input_ids"]
    assert more == {name: inputs[name] for name in inputs if name != "input_ids"}
    assert next_positions(grid, inputs["attention_mask"]).tolist() == [8]


def test_the_largest_of_the_padding_is_no_position() -> None:
    positions = torch.tensor([[0, 1, 99], [0, 1, 2]])
    assert next_positions(positions, torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist() == [2, 3]
