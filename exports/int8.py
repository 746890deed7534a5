"""Whether a graph's products of bytes are the same on every processor.

Processors without VNNI (x86 with AVX2, or AVX-512 of the first years) multiply unsigned activations
by signed weights with `vpmaddubsw`: the products of two neighbours are summed in 16 bits, and what
does not fit is cut off at ±32,767 without a word. An activation is at most 255, so two neighbours'
weights of one sign must sum to at most 128; weights of 7 bits (−64 to 64) always do. ONNX Runtime
multiplies unsigned weights by other instructions, which lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.errors import ModelError

PRODUCTS = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
"""The operators that multiply bytes."""

MAX_PAIR = 32_767 // 255
"""What two neighbours' weights of one sign may sum to."""


def largest_pair(weights: NDArray[Any]) -> int:
    """The largest sum of two neighbours' weights of one sign, without its sign.

    Args:
        weights: (…, K, N) int8; neighbours lie along K.

    >>> opposed = np.array([[64], [64], [-64], [-64]], np.int8)
    >>> largest_pair(opposed), largest_pair(np.array([[127], [2]], np.int8))
    (128, 129)
    """
    wide = weights.astype(np.int32)
    found = 0
    for one_sign in (wide.clip(min=0), (-wide).clip(min=0)):
        # a row of zeros behind, so that a lone last one has a neighbour too
        rows = np.concatenate([one_sign, np.zeros_like(one_sign[..., :1, :])], axis=-2)
        # which neighbours meet depends on how the weights are packed, so all are looked at
        found = max(found, int((rows[..., 1:, :] + rows[..., :-1, :]).max(initial=0)))
    return found


MIN_TABLE_ROWS = 256
"""Smaller tables, such as those of positions, weigh nothing."""


def quantize_tables(model: Any) -> int:
    """Writes the tables of vectors that a graph looks ids up in as bytes, a scale for each row.

    A row is looked up as bytes and multiplied by its scale, so that the whole table is never held
    in float32: e5's has 96 of its 118 million numbers.

    Args:
        model: The graph (`onnx.ModelProto`), its weights in it; it is changed.

    Returns:
        How many tables there were.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    held = {item.name: item for item in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    num_tables = 0
    for name, tensor in held.items():
        is_table = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
        nodes = readers.get(name, [])
        if not is_table or tensor.dims[0] < MIN_TABLE_ROWS or tensor.dims[1] == 1 or not nodes:
            continue
        if not all(_looks_up(node, name) for node in nodes):
            continue
        rows = numpy_helper.to_array(tensor)
        # (V, 1): the largest number of a row is ±127
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-12)) / 127
        as_bytes = np.rint(rows / scales).astype(np.int8)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(as_bytes, f"{name}.bytes"))
        graph.initializer.append(
            numpy_helper.from_array(scales.astype(np.float32), f"{name}.scales")
        )
        for number, node in enumerate(nodes):
            ids, out, own = node.input[1], node.output[0], f"{name}.{number}"
            place = list(graph.node).index(node)
            graph.node.remove(node)
            for offset, made in enumerate(
                (
                    helper.make_node("Gather", [f"{name}.bytes", ids], [f"{own}.row"]),
                    helper.make_node("Gather", [f"{name}.scales", ids], [f"{own}.scale"]),
                    helper.make_node("Cast", [f"{own}.row"], [f"{own}.cast"], to=TensorProto.FLOAT),
                    helper.make_node("Mul", [f"{own}.cast", f"{own}.scale"], [out]),
                )
            ):
                graph.node.insert(place + offset, made)
        num_tables += 1
    return num_tables


def store_as_bytes(model: Any, names: Sequence[str]) -> int:
    """Stores weights as bytes that are multiplied in float32, a scale for each output.

    For products whose activations one scale would not hold: only the file gets smaller.

    Args:
        model: The graph (`onnx.ModelProto`), its weights in it; it is changed.
        names: What the names of these weights hold.

    Returns:
        How many weights there were.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    held = {item.name: item for item in graph.initializer}
    num_weights = 0
    for node in list(graph.node):
        name = node.input[1] if node.op_type in ("MatMul", "Gemm") else ""
        tensor = held.get(name)
        if tensor is None or not any(part in name for part in names):
            continue
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        # MatMul has its outputs along the second axis, Gemm with transB along the first
        is_turned = any(item.name == "transB" and item.i for item in node.attribute)
        weights, output_axis = numpy_helper.to_array(tensor), 0 if is_turned else 1
        # over all inputs of an output
        largest = np.abs(weights).max(axis=1 - output_axis, keepdims=True)
        scales = (np.maximum(largest, np.float32(1e-12)) / 127).astype(np.float32)
        graph.initializer.remove(tensor)
        del held[name]
        graph.initializer.append(
            numpy_helper.from_array(np.rint(weights / scales).astype(np.int8), f"{name}.bytes")
        )
        graph.initializer.append(numpy_helper.from_array(scales.ravel(), f"{name}.scales"))
        made = helper.make_node(
            "DequantizeLinear", [f"{name}.bytes", f"{name}.scales"], [name], axis=output_axis
        )
        graph.node.insert(list(graph.node).index(node), made)
        num_weights += 1
    return num_weights


def _looks_up(node: Any, name: str) -> bool:
    """Whether all that a node does with a table is to look rows up in it."""
    if node.op_type != "Gather" or node.input[0] != name or node.input[1] == name:
        return False
    return all(item.name != "axis" or item.i == 0 for item in node.attribute)


def check_bytes(path: Path) -> int:
    """Refuses a graph that would saturate on some processor.

    Returns:
        How many products of bytes it has.

    Raises:
        ModelError: where there are none, or naming a weight that could saturate or is not known.
    """
    import onnx

    products = list(_products(onnx.load(str(path)).graph))
    if not products:
        raise ModelError("its graph has no product of bytes; use --dtype fp32; nothing was written")
    for name, weights in products:
        if weights is None or weights.dtype not in (np.int8, np.uint8):
            raise ModelError(
                f"its graph multiplies bytes by {name}, which are no weights of bytes; nothing was "
                "written"
            )
        if weights.dtype == np.int8 and (pair := largest_pair(weights)) > MAX_PAIR:
            raise ModelError(
                f"its weights {name} saturate on processors without VNNI (two neighbours sum to "
                f"{pair}, more than {MAX_PAIR}); "
                "nothing was written"
            )
    return len(products)


def _products(graph: Any) -> Iterator[tuple[str, NDArray[Any] | None]]:
    """Name and values of the second factor of each product of bytes, in branches too."""
    from onnx import numpy_helper

    tensors = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type in PRODUCTS:
            held = tensors.get(node.input[1])
            yield node.input[1], None if held is None else numpy_helper.to_array(held)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _products(attribute.g)
