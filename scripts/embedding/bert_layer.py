"""Makes the graph of one BERT layer that `ffr.embedding.bert_layers` runs in ONNX Runtime.

    python scripts/embedding/bert_layer.py --out ffr/embedding/bert_layer.onnx

The graph holds no weights: they are given to each session by name. Only its sizes are written down,
those that multilingual-e5-small and all-MiniLM-L6 share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onnx import TensorProto, helper

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
    rows = ["n", WIDTH]
    made = helper.make_graph(
        nodes,
        "bert layer",
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, rows)],
        [_given(name, shape) for name, shape in SHAPES.items()] + constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _given(name: str, shape: tuple[int, ...]) -> TensorProto:
    """A tensor that whoever opens the graph gives: it says that it lies in a file, of no such name."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="given by name")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.write_bytes(graph())
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
