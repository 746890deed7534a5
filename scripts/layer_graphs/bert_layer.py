"""Makes the graph of one BERT layer that `ffr.embedding.bert_layers` runs in ONNX Runtime.

    python scripts/layer_graphs/bert_layer.py --out ffr/embedding/bert_layer.onnx

The graph holds no weights: they are given to each session by name. Only its sizes are written down,
those that multilingual-e5-small and all-MiniLM-L6 share.
"""

from __future__ import annotations

from onnx import TensorProto, helper
from without_weights import graph_of, write

from ffr.embedding.bert_layers import EPSILON, NUM_HEADS, SHAPES, WIDTH


def graph() -> bytes:
    """The serialised graph: (n, H) in and out, post-layer-norm, GELU by erf (Devlin et al. 2019)."""
    node = helper.make_node
    head = WIDTH // NUM_HEADS
    constants = [
        helper.make_tensor("by head", TensorProto.INT64, [4], [-1, 3, NUM_HEADS, head]),
        helper.make_tensor("joined", TensorProto.INT64, [2], [-1, WIDTH]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [head**-0.5]),
    ]
    nodes = [
        node("Gemm", ["hidden", "parts.weight", "parts.bias"], ["parts"], transB=1),
        node("Reshape", ["parts", "by head"], ["by token"]),
        # (n, 3, A, d) → (3, A, n, d)
        node("Transpose", ["by token"], ["stacked"], perm=[1, 2, 0, 3]),
        node("Split", ["stacked"], ["queries", "keys", "values"], axis=0, num_outputs=3),
        node("Transpose", ["keys"], ["turned"], perm=[0, 1, 3, 2]),
        node("Mul", ["queries", "scale"], ["scaled"]),
        node("MatMul", ["scaled", "turned"], ["scores"]),
        node("Softmax", ["scores"], ["seen"], axis=-1),
        node("MatMul", ["seen", "values"], ["mixed"]),
        # (1, A, n, d) → (n, H)
        node("Transpose", ["mixed"], ["by place"], perm=[0, 2, 1, 3]),
        node("Reshape", ["by place", "joined"], ["heads"]),
        node("Gemm", ["heads", "attended.weight", "attended.bias"], ["attended"], transB=1),
        node("Add", ["attended", "hidden"], ["attended sum"]),
        node(
            "LayerNormalization",
            ["attended sum", "attended norm.weight", "attended norm.bias"],
            ["middle"],
            axis=-1,
            epsilon=EPSILON,
        ),
        node("Gemm", ["middle", "inner.weight", "inner.bias"], ["inner"], transB=1),
        node("Gelu", ["inner"], ["bent"]),
        node("Gemm", ["bent", "outer.weight", "outer.bias"], ["outer"], transB=1),
        node("Add", ["outer", "middle"], ["outer sum"]),
        node(
            "LayerNormalization",
            ["outer sum", "outer norm.weight", "outer norm.bias"],
            ["out"],
            axis=-1,
            epsilon=EPSILON,
        ),
    ]
    value = helper.make_tensor_value_info
    return graph_of(
        "bert layer",
        nodes,
        given=[value("hidden", TensorProto.FLOAT, ["n", WIDTH])],
        made=value("out", TensorProto.FLOAT, ["n", WIDTH]),
        weights=SHAPES,
        constants=constants,
    )


if __name__ == "__main__":
    write(graph(), __doc__)
