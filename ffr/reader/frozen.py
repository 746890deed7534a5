"""A network whose weights stay as they are, with its layers in ONNX Runtime: in half of torch's time.

A layer is a handful of products of a hundred rows with matrices of a few ten thousand numbers. ONNX
Runtime lays these matrices out anew when it opens the graph, and takes less time than torch around
each product; it keeps to the thread that asks.

Shapes: B queries, N units, R = B · N rows, A heads.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ffr.errors import ModelError
from ffr.reader.network import NetworkInputs, NetworkShape, ReaderNetwork
from ffr.text import one_line

WIDTH = NetworkShape().width
NUM_HEADS = NetworkShape().num_heads

SHAPES: dict[str, tuple[int, ...]] = {
    "before_attention.weight": (WIDTH,),
    "before_attention.bias": (WIDTH,),
    "query_key_value.weight": (3 * WIDTH, WIDTH),
    "query_key_value.bias": (3 * WIDTH,),
    "attended.weight": (WIDTH, WIDTH),
    "attended.bias": (WIDTH,),
    "before_inner.weight": (WIDTH,),
    "before_inner.bias": (WIDTH,),
    "inner.0.weight": (4 * WIDTH, WIDTH),
    "inner.0.bias": (4 * WIDTH,),
    "inner.3.weight": (WIDTH, 4 * WIDTH),
    "inner.3.bias": (WIDTH,),
}
"""The weights of a layer, under their names in the network; a linear layer's are (out, in)."""

_GRAPH = "network_layer.onnx"


def has_these_layers(shape: NetworkShape) -> bool:
    """Whether a network's layers are those of the graph that comes with ffr.

    >>> has_these_layers(NetworkShape()), has_these_layers(NetworkShape(width=48))
    (True, False)
    """
    return (shape.width, shape.num_heads) == (WIDTH, NUM_HEADS)


class FrozenNetwork:
    """A network as it is now, for questions alone: it gives no gradient.

    What its attention adds for the places and likenesses of a stretch is the same for every question on
    it, and kept for the next.

    Args:
        network: The network; what changes in its weights later does not count here.

    Raises:
        ModelError: where ONNX Runtime does not take its layers.
        ValueError: where its layers are not `has_these_layers`.
    """

    def __init__(self, network: ReaderNetwork) -> None:
        if not has_these_layers(network.shape):
            raise ValueError(
                f"layers of {network.shape} are not those of the graph; give {WIDTH} wide ones of "
                f"{NUM_HEADS} heads"
            )
        self._network = copy.deepcopy(network).eval()
        self._sessions = [_session(layer) for layer in self._network.layers]
        self._last: tuple[Tensor | None, list[Any]] = None, []

    @torch.no_grad()
    def __call__(self, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """As the network's, (B, N) and (B,), up to the last bits of sums."""
        states = self._network.begun(inputs)
        num_rows, length, width = states.shape
        sizes = [num_rows, length, 3, NUM_HEADS, width // NUM_HEADS]
        given = {"by head": np.array(sizes, dtype=np.int64)}
        rows = states.reshape(-1, width).numpy()
        for session, bias in zip(self._sessions, self._biases(inputs), strict=True):
            [rows] = session.run(None, {"states": rows, "bias": bias, **given})
        return self._network.ended(torch.from_numpy(rows).view_as(states), inputs)

    def _biases(self, inputs: NetworkInputs) -> list[Any]:
        """(B, A, N, N) of each layer, or (1, A, N, N) where all queries are on one stretch."""
        between, mask = inputs.between, inputs.mask
        if not bool(mask.all()) or (len(between) > 1 and between.stride(0)):
            return [bias.numpy() for bias in self._network.biases(inputs)]
        known, biases = self._last
        if known is None or not torch.equal(known, between[0]):
            place = dataclasses.replace(inputs, between=between[:1], mask=mask[:1])
            biases = [bias.numpy() for bias in self._network.biases(place)]
            # one pair, as another thread may ask about another stretch
            self._last = between[0], biases
        return biases


class FrozenNetworks:
    """All networks of a reader as they are now, for questions alone.

    Who asks once is answered by torch, for to open the layers takes as long as a dozen questions.

    Args:
        networks: The networks; those of other layers than the graph's stay with torch.
    """

    def __init__(self, networks: Sequence[ReaderNetwork]) -> None:
        self._networks: list[ReaderNetwork | FrozenNetwork] = [
            copy.deepcopy(network).eval() for network in networks
        ]
        self._was_asked = False

    @torch.no_grad()
    def __call__(self, inputs: NetworkInputs) -> list[tuple[Tensor, Tensor]]:
        """Of each network (B, N) and (B,), as it gives them."""
        if self._was_asked:
            self._networks = [_opened(network) for network in self._networks]
        self._was_asked = True
        return [network(inputs) for network in self._networks]


def _opened(network: ReaderNetwork | FrozenNetwork) -> ReaderNetwork | FrozenNetwork:
    if isinstance(network, FrozenNetwork) or not has_these_layers(network.shape):
        return network
    return FrozenNetwork(network)


def _session(layer: nn.Module) -> Any:
    """A layer, opened."""
    import onnxruntime as ort

    graph = resources.files(__package__).joinpath(_GRAPH).read_bytes()
    weights = layer.state_dict()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # a session reads what it is given where it lies: a copy, which stays as it is
    given = [ort.OrtValue.ortvalue_from_numpy(weights[name].clone().numpy()) for name in SHAPES]
    try:
        options.add_external_initializers(list(SHAPES), given)
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's exceptions have no common base below Exception
        raise ModelError(
            f"ONNX Runtime does not take a layer of a reader ({one_line(error, 300)}); "
            "see `ffr doctor`"
        ) from error
