"""A graph of a layer that holds no weights: they are given to each session by name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper


def graph_of(
    name: str,
    nodes: Sequence[Any],
    *,
    given: Sequence[Any],
    made: Any,
    weights: Mapping[str, tuple[int, ...]],
    constants: Sequence[TensorProto],
) -> bytes:
    """The serialised graph.

    Args:
        name: Of the graph.
        nodes: In the order in which they run.
        given: What goes in.
        made: What comes out.
        weights: Shapes of the weights by the names under which they are given.
        constants: Tensors that the graph holds.
    """
    graph = helper.make_graph(
        nodes, name, given, [made], [_given(*item) for item in weights.items()] + list(constants)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _given(name: str, shape: tuple[int, ...]) -> TensorProto:
    """A tensor that whoever opens the graph gives: it says that it lies in a file, of no such name."""
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value="given by name")
    return made


def write(graph: bytes, description: str | None) -> None:
    """Writes a graph where the command line says (`--out FILE`)."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.write_bytes(graph)
    print(f"{out}: {out.stat().st_size} bytes")
