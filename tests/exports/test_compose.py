"""A fragment's vector: the mean of its parts' vectors, normalised anew, whatever kind is missing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ffr.exports.compose import Fragments


class Rows(nn.Module):
    """A tower whose vectors are its input, times a factor; counts its calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.num_calls = factor, 0

    def forward(self, rows: Tensor, *others: Tensor) -> tuple[Tensor]:
        self.num_calls += 1
        return (self.factor * rows,)


NONE = torch.zeros(0, 2)


@pytest.mark.parametrize(
    ("texts", "images", "expected"),
    [
        # (1, 0) + (0, 1) and 2 · (1, 0): (3, 1), of length √10
        (torch.eye(2), torch.tensor([[1.0, 0.0]]), [3 / 10**0.5, 1 / 10**0.5]),
        (torch.tensor([[3.0, 4.0]]), NONE, [0.6, 0.8]),
        (NONE, torch.tensor([[3.0, 4.0]]), [0.6, 0.8]),
    ],
)
def test_the_mean_of_what_is_there(texts: Tensor, images: Tensor, expected: list[float]) -> None:
    text_tower, image_tower = Rows(1), Rows(2)
    (found,) = Fragments(text_tower, image_tower, 2)(texts, images)
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx(expected)
    # a kind without rows costs no pass
    assert (text_tower.num_calls, image_tower.num_calls) == (
        min(len(texts), 1),
        min(len(images), 1),
    )
