"""Networks that stay as they are: ONNX Runtime gives what torch gives, and nothing goes stale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reader_builds import LetterEncoder
from script_modules import script

from ffr.dialogue import Dialogue
from ffr.reader.frozen import NUM_HEADS, WIDTH, FrozenNetwork, FrozenNetworks, has_these_layers
from ffr.reader.likeness import NUM_FEATURES, NUM_SUMMARIES, Background
from ffr.reader.model import Reader, ReaderPrediction
from ffr.reader.network import NetworkInputs, NetworkShape, ReaderNetwork

SHAPE = NetworkShape(num_layers=2)


def _network(seed: int = 0, **sizes: int) -> ReaderNetwork:
    torch.manual_seed(seed)
    network = ReaderNetwork(NetworkShape(**{"num_layers": 2, **sizes})).eval()
    for layer in network.layers:
        torch.nn.init.normal_(layer.distance)
    return network


def _on_one_stretch(num_queries: int, length: int, seed: int) -> NetworkInputs:
    made = torch.Generator().manual_seed(seed)
    return NetworkInputs(
        torch.randn(num_queries, length, NUM_FEATURES, generator=made),
        torch.randn(num_queries, NUM_SUMMARIES, generator=made),
        torch.randn(length, length, generator=made).expand(num_queries, -1, -1),
        torch.randint(0, 9, (length,), generator=made).expand(num_queries, -1),
        torch.ones(num_queries, length, dtype=torch.bool),
    )


def _padded(lengths: list[int], seed: int) -> NetworkInputs:
    single = [_on_one_stretch(1, length, seed) for length in lengths]
    return NetworkInputs.padded(
        [(one.features[0], one.summaries[0], one.between[0], one.speakers[0]) for one in single]
    )


@torch.no_grad()
def test_logits_are_those_of_the_network() -> None:
    network = _network()
    frozen = FrozenNetwork(network)
    asked = [
        _on_one_stretch(1, 1, 1),
        _on_one_stretch(1, 70, 2),
        _on_one_stretch(3, 70, 2),  # the stretch before it, with more queries
        _on_one_stretch(2, 70, 3),  # another one, as long
        _padded([5, 40, 40], 4),
        _padded([70, 70], 2),
        _on_one_stretch(1, 70, 2),
    ]
    for inputs in asked:
        for found, wanted in zip(frozen(inputs), network(inputs), strict=True):
            assert found.shape == wanted.shape
            mask = inputs.mask if wanted.ndim == 2 else torch.ones(len(wanted), dtype=torch.bool)
            torch.testing.assert_close(found[mask], wanted[mask], rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_is_frozen_stays() -> None:
    network, inputs = _network(), _on_one_stretch(1, 9, 1)
    for frozen in (FrozenNetwork(network), FrozenNetworks([network, _network(1)])):
        found = frozen(inputs)
        before = found if isinstance(found, tuple) else found[0]
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        for weight in network.parameters():
            weight.add_(1.0)
        found = frozen(inputs)
        after = found if isinstance(found, tuple) else found[0]
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
        network.load_state_dict(kept)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{"width": 48}, {"num_heads": 4}])
def test_networks_of_other_layers_stay_with_torch(sizes: dict[str, int]) -> None:
    other, inputs = _network(**sizes), _on_one_stretch(1, 9, 1)
    assert not has_these_layers(other.shape)
    with pytest.raises(ValueError, match=f"give {WIDTH} wide ones of {NUM_HEADS} heads"):
        FrozenNetwork(other)
    frozen = FrozenNetworks([other])
    for _ in range(3):
        torch.testing.assert_close(frozen(inputs)[0], other(inputs), rtol=0, atol=0)


def test_a_frozen_reader_answers_as_before(background: Background, encoder: LetterEncoder) -> None:
    reader = Reader.untrained(encoder, background, shape=SHAPE, num_networks=2, nothing_from=0.99)
    chats = [
        reader.units(Dialogue.of([("Ann", f"{name} {n}") for n in range(length)]), encoder)
        for name, length in (("line", 40), ("soup", 40), ("train", 300))
    ]
    queries = reader.query_vectors(["soup", "a train", "line 7"], encoder)
    wanted = [reader.predict(units, queries) for units in chats]
    reader.freeze()
    for _ in range(2):  # by torch, and then by ONNX Runtime
        for units, before in zip(chats, wanted, strict=True):
            for one, other in zip(reader.predict(units, queries), before, strict=True):
                assert _difference(one, other) < 1e-5


def _difference(one: ReaderPrediction, other: ReaderPrediction) -> float:
    moved = (one.probabilities - other.probabilities).abs().max()
    return max(float(moved), abs(one.nothing - other.nothing), abs(one.score - other.score))


def test_the_graph_is_the_scripts() -> None:
    pytest.importorskip("onnx")
    root = Path(__file__).parents[2]
    with script(root / "scripts" / "layer_graphs" / "reader_layer.py") as made:
        assert made.graph() == (root / "ffr" / "reader" / "network_layer.onnx").read_bytes()
