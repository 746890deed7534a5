"""What exported encoders are made of, against torch's own operators and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ffr.exports.layers import (
    as_linear,
    attention,
    cut_patches,
    linear_of,
    lowest_score,
    normalized,
    rotate,
)


def test_attention_by_hand_with_one_head() -> None:
    # two rows that point apart; scores of the first are ln 3 and 0, so the shares are 3/4 and 1/4
    query = torch.tensor([[[math.log(3) * math.sqrt(2), 0.0], [0.0, 0.0]]])
    key = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    value = torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    found = attention(query, key, value, 1)
    assert torch.allclose(found, torch.tensor([[[3.0, 2.0], [2.0, 4.0]]]), atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_that_of_torch_head_by_head(is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 12, generator=generator) for _ in range(3))
    bias = torch.zeros(1, 1, 5, 5)
    if is_causal:
        bias = bias.masked_fill(torch.ones(5, 5).triu(1).bool(), lowest_score(torch.float32))
    found = attention(query, key, value, 3, is_causal=is_causal)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        scores = query[..., part] @ key[..., part].mT / 2 + bias[0]
        expected = scores.softmax(-1) @ value[..., part]
        assert torch.allclose(found[..., part], expected, atol=1e-6)
    # as a bias it is the same
    masked = attention(query, key, value, 3, bias=bias)
    assert torch.allclose(masked, found, atol=1e-6)


def test_a_quarter_turn_of_each_head() -> None:
    # two heads of two numbers: a quarter turn makes (a, b) into (−b, a)
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    cos, sin = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]])
    assert rotate(rows, cos, sin, 2).tolist() == [[-2.0, 1.0, -4.0, 3.0], [1.0, 2.0, 3.0, 4.0]]


def test_patches_come_in_reading_order() -> None:
    # 0 1 | 2 3
    # 4 5 | 6 7      the second channel holds the same plus 100
    # ----+----
    # 8 …
    plane = torch.arange(16.0).reshape(4, 4)
    cut = cut_patches(torch.stack([plane, plane + 100])[None], 2)
    assert cut.shape == (1, 4, 8)
    assert cut[0, 0].tolist() == [0, 1, 4, 5, 100, 101, 104, 105]
    assert cut[0, 1].tolist() == [2, 3, 6, 7, 102, 103, 106, 107]
    assert cut[0, 2].tolist() == [8, 9, 12, 13, 108, 109, 112, 113]


def test_a_convolution_without_overlap_is_a_linear_on_patches() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 7, kernel_size=4, stride=4)
    pixels = torch.randn(2, 3, 8, 12)
    found = as_linear(convolution)(cut_patches(pixels, 4))
    expected = convolution(pixels).flatten(2).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_linear_of_given_weights_is_not_trained() -> None:
    weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    made = linear_of(weight, bias)
    assert made(torch.tensor([[10.0, 100.0]])).tolist() == [[213.0]]
    assert not any(one.requires_grad for one in made.parameters())
    assert linear_of(weight, None).bias is None


def test_what_is_seen_by_nothing_gives_no_nan() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        row = torch.full((1, 3), lowest_score(dtype), dtype=dtype)
        assert row.isfinite().all()
        assert row.softmax(-1).float().tolist()[0] == pytest.approx([1 / 3] * 3, abs=1e-2)


def test_vectors_have_length_one_and_an_empty_one_stays_empty() -> None:
    found = normalized(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float16))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
