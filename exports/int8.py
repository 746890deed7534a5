"""Whether a graph's products of bytes are the same on every processor.

Processors without VNNI (x86 with AVX2, or AVX-512 of the first years) multiply unsigned activations
by signed weights with `vpmaddubsw`: the products of two neighbours are summed in 16 bits, and what
does not fit is cut off at ±32,767 without a word. An activation is at most 255, so two neighbours'
weights of one sign must sum to at most 128; weights of 7 bits (−64 to 64) always do. ONNX Runtime
multiplies unsigned weights by other instructions, which lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
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

    >>> largest_pair(np.array([[64], [64], [-64], [-64]], np.int8)), largest_pair(np.array([[127], [2]], np.int8))
    (128, 129)
    """
    wide = weights.astype(np.int32)
    found = 0
    for one_sign in (wide.clip(min=0), (-wide).clip(min=0)):
        rows = np.concatenate([one_sign, np.zeros_like(one_sign[..., :1, :])], axis=-2)
        # which neighbours meet depends on how the weights are packed, so all are looked at
        found = max(found, int((rows[..., 1:, :] + rows[..., :-1, :]).max(initial=0)))
    return found


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
