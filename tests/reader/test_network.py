"""The network: padding, symmetry, bounds."""

from __future__ import annotations

import pytest
import torch

from ffr.reader.likeness import NUM_FEATURES, NUM_SUMMARIES
from ffr.reader.network import MAX_DISTANCE, NetworkInputs, NetworkShape, ReaderNetwork

SHAPE = NetworkShape(width=24, num_heads=3, num_layers=2)
Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _row(length: int, seed: int) -> Row:
    made = torch.Generator().manual_seed(seed)
    return (
        torch.randn(length, NUM_FEATURES, generator=made),
        torch.randn(NUM_SUMMARIES, generator=made),
        torch.randn(length, length, generator=made),
        torch.randint(0, 9, (length,), generator=made),
    )


@pytest.fixture
def network() -> ReaderNetwork:
    torch.manual_seed(0)
    return ReaderNetwork(SHAPE).eval()


@torch.no_grad()
def test_a_query_has_the_same_logits_alone_and_beside_longer_ones(network: ReaderNetwork) -> None:
    rows = [_row(5, 1), _row(40, 2), _row(1, 3)]
    units, nothing = network(NetworkInputs.padded(rows))
    for place, row in enumerate(rows):
        alone, alone_nothing = network(NetworkInputs.padded([row]))
        assert torch.allclose(units[place, : len(row[0])], alone[0], atol=1e-5)
        assert nothing[place].item() == pytest.approx(alone_nothing.item(), abs=1e-5)


@torch.no_grad()
def test_order_counts_and_likeness_counts(network: ReaderNetwork) -> None:
    for layer in network.layers:
        torch.nn.init.normal_(layer.distance)
    features, summaries, between, speakers = _row(6, 1)
    speakers = torch.zeros_like(speakers)
    first, _ = network(NetworkInputs.padded([(features, summaries, between, speakers)]))
    turned = (features.flip(0), summaries, between.flip(0, 1), speakers)
    other, _ = network(NetworkInputs.padded([turned]))
    assert not torch.allclose(first, other.flip(1), atol=1e-3)
    unlike, _ = network(NetworkInputs.padded([(features, summaries, between * 0, speakers)]))
    assert not torch.allclose(first, unlike, atol=1e-3)


@torch.no_grad()
def test_far_units_are_equally_far(network: ReaderNetwork) -> None:
    for layer in network.layers:
        torch.nn.init.normal_(layer.distance)
    features, _, between, _ = _row(MAX_DISTANCE + 9, 1)
    swapped = torch.arange(len(features))
    swapped[-1], swapped[-2] = swapped[-2].item(), swapped[-1].item()
    layer = network.layers[0]
    place = torch.arange(len(features))
    distances = (place[None] - place[:, None]).clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
    bias = layer.bias(between[None] * 0, distances, torch.zeros(1, 1, 1, len(features)))
    states = network.features(features)[None]
    before, after = layer(states, bias), layer(states[:, swapped], bias)
    assert torch.allclose(before[0, 0], after[0, 0], atol=1e-5)
    assert not torch.allclose(before[0, -9], after[0, -9], atol=1e-5)


@torch.no_grad()
def test_attention_is_biased_by_distance_and_likeness(network: ReaderNetwork) -> None:
    for layer in network.layers:
        torch.nn.init.normal_(layer.distance)
    rows = [_row(MAX_DISTANCE + 9, 1), _row(3, 2)]
    inputs = NetworkInputs.padded(rows)
    for layer, bias in zip(network.layers, network.biases(inputs), strict=True):
        for row, i, j in ((0, 0, 0), (0, 1, 7), (0, 7, 1), (0, 40, 2), (1, 2, 0)):
            step = min(max(j - i, -MAX_DISTANCE), MAX_DISTANCE) + MAX_DISTANCE
            wanted = layer.distance[:, step] + layer.likeness * rows[row][2][i, j]
            assert torch.allclose(bias[row, :, i, j], wanted, atol=1e-6)
        # what is no unit is not looked at
        assert bool((bias[1, :, :, 3:] < -1e8).all())


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    network = ReaderNetwork(SHAPE)
    units, nothing = network(NetworkInputs.padded([_row(5, 1), _row(9, 2)]))
    (units.sum() + nothing.sum()).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 25}, "no multiple"),
        ({"num_heads": True}, "num_heads is True"),
        ({"num_layers": 99}, "num_layers is 99"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_sizes_out_of_bounds_are_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NetworkShape(**sizes)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no queries"):
        NetworkInputs.padded([])
