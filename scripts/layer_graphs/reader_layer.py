"""Makes the graph of one layer of a reader's network that `ffr.reader.frozen` runs in ONNX Runtime.

    python scripts/layer_graphs/reader_layer.py --out ffr/reader/network_layer.onnx

The graph holds no weights: they are given to each session by name. Only its sizes are written down,
those of the networks that ffr trains unless it is told otherwise.
"""

from __future__ import annotations

from onnx import TensorProto, helper
from without_weights import graph_of, write

from ffr.reader.frozen import NUM_HEADS, SHAPES, WIDTH

EPSILON = 1e-5
"""Of torch's layer norm."""


def graph() -> bytes:
    """The serialised graph: rows (R, W) in and out, a bias of the scores, pre-layer-norm."""
    node = helper.make_node
    constants = [
        helper.make_tensor("as rows", TensorProto.INT64, [2], [-1, WIDTH]),
        helper.make_tensor("only", TensorProto.INT64, [1], [0]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [(WIDTH // NUM_HEADS) ** -0.5]),
    ]
    nodes = [
        _norm("states", "before_attention", "seen"),
        _linear("seen", "query_key_value", "parts"),
        node("Reshape", ["parts", "by head"], ["by unit"]),
        # (B, N, 3, A, d) → (3, B, A, N, d)
        node("Transpose", ["by unit"], ["stacked"], perm=[2, 0, 3, 1, 4]),
        node("Split", ["stacked"], ["one query", "one key", "one value"], axis=0, num_outputs=3),
        node("Squeeze", ["one query", "only"], ["queries"]),
        node("Squeeze", ["one key", "only"], ["keys"]),
        node("Squeeze", ["one value", "only"], ["values"]),
        node("Transpose", ["keys"], ["turned"], perm=[0, 1, 3, 2]),
        node("Mul", ["queries", "scale"], ["scaled"]),
        node("MatMul", ["scaled", "turned"], ["alike"]),
        node("Add", ["alike", "bias"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "values"], ["mixed"]),
        # (B, A, N, d) → (R, W)
        node("Transpose", ["mixed"], ["by place"], perm=[0, 2, 1, 3]),
        node("Reshape", ["by place", "as rows"], ["heads"]),
        _linear("heads", "attended", "attended"),
        node("Add", ["states", "attended"], ["middle"]),
        _norm("middle", "before_inner", "normed"),
        _linear("normed", "inner.0", "inner"),
        node("Gelu", ["inner"], ["bent"]),
        _linear("bent", "inner.3", "changed"),
        node("Add", ["middle", "changed"], ["out"]),
    ]
    value = helper.make_tensor_value_info
    return graph_of(
        "layer of a reader",
        nodes,
        given=[
            value("states", TensorProto.FLOAT, ["rows", WIDTH]),
            value("bias", TensorProto.FLOAT, ["queries", NUM_HEADS, "units", "units"]),
            value("by head", TensorProto.INT64, [5]),
        ],
        made=value("out", TensorProto.FLOAT, ["rows", WIDTH]),
        weights=SHAPES,
        constants=constants,
    )


def _linear(given: str, name: str, made: str) -> object:
    return helper.make_node("Gemm", [given, f"{name}.weight", f"{name}.bias"], [made], transB=1)


def _norm(given: str, name: str, made: str) -> object:
    return helper.make_node(
        "LayerNormalization",
        [given, f"{name}.weight", f"{name}.bias"],
        [made],
        axis=-1,
        epsilon=EPSILON,
    )


if __name__ == "__main__":
    write(graph(), __doc__)
