"""Bytes that multiply alike on every processor: the proof on weights, against a processor without VNNI worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ffr.cli.main import ffr
from ffr.errors import ModelError
from ffr.exports.int8 import MAX_PAIR, check_bytes, largest_pair, quantize_tables, store_as_bytes
from ffr.exports.onnx import export_onnx


def product_without_vnni(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """vpmaddubsw, vpmaddwd: (M, K) uint8 × (K, N) int8; two neighbours' products are summed in 16 bits, which saturate."""
    products = activations[:, :, None].astype(np.int64) * weights[None].astype(np.int64)
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.asarray(pairs.clip(-32_768, 32_767).sum(1))


def product(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(activations.astype(np.int64) @ weights.astype(np.int64))


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ((127, 127), 32_767),  # 64,770 is the truth
        ((-127, -127), -32_768),
        ((127, 2), 32_767),  # 32,895
        ((64, 64), 32_640),
        ((-64, -64), -32_640),
        ((127, 1), 32_640),
        ((127, -127), 0),
    ],
)
def test_the_largest_activations(pair: tuple[int, int], found: int) -> None:
    activations, weights = np.full((1, 2), 255, np.uint8), np.array([[pair[0]], [pair[1]]], np.int8)
    assert product_without_vnni(activations, weights).item() == found
    is_exact = bool(product(activations, weights).item() == found)
    assert (largest_pair(weights) <= MAX_PAIR) == is_exact


@given(arrays(np.uint8, (3, 8)), arrays(np.int8, (8, 4), elements=st.integers(-64, 64)))
def test_seven_bits_never_saturate(activations: np.ndarray, weights: np.ndarray) -> None:
    assert largest_pair(weights) <= MAX_PAIR == 128
    np.testing.assert_array_equal(
        product_without_vnni(activations, weights), product(activations, weights)
    )


def test_neighbours_along_the_sum_are_those_that_count() -> None:
    weights = np.zeros((4, 3), np.int8)
    weights[1, 0] = weights[2, 0] = (
        100  # in no pair from the start, but packing may begin elsewhere
    )
    assert largest_pair(weights) == 200
    assert largest_pair(weights.T.copy()) == 100
    assert largest_pair(np.full((1, 1), -128, np.int8)) == 128


def _products(graph: Any) -> list[Any]:
    """(zero point, weights) of each product of bytes, in branches too."""
    from onnx import numpy_helper

    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = []
    for node in graph.node:
        assert node.op_type not in ("DynamicQuantizeMatMul", "QLinearMatMul", "ConvInteger")
        if node.op_type == "MatMulInteger":
            found.append((held[node.input[3]], held[node.input[1]]))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _products(attribute.g)
    return found


def test_a_written_graph_has_weights_of_seven_bits(int8_export: Path) -> None:
    import onnx

    products = _products(onnx.load(str(int8_export / "model.onnx")).graph)
    # of each of two layers four around attention and two behind it, and the projection
    assert len(products) == check_bytes(int8_export / "model.onnx") == 13
    for zero, weights in products:
        assert weights.dtype == np.int8
        assert -64 <= weights.min() < weights.max() <= 64
        assert abs(weights).max(0).min() >= 63  # each output has its own scale and fills it
        assert not zero.any()
        activations = np.full((1, len(weights)), 255, np.uint8)
        if len(weights) % 2 == 0:
            for chosen in (
                activations,
                activations * (weights[:, :1].T > 0),
                activations * (weights[:, :1].T < 0),
            ):
                np.testing.assert_array_equal(
                    product_without_vnni(chosen, weights), product(chosen, weights)
                )


@pytest.mark.slow
def test_a_graph_of_fragments_too(built: Callable[[str], Path], tmp_path: Path) -> None:
    export_onnx(built("clip"), "fragment", tmp_path / "out", dtype="int8")
    assert check_bytes(tmp_path / "out" / "model.onnx") > 13


def test_full_bytes_are_not_written(
    built: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before: all 8 bits, signed. On this processor it may well be right."""
    import onnxruntime.quantization as quantization

    original = quantization.quantize_dynamic

    def full(*places: str, **options: Any) -> None:
        original(*places, **{**options, "reduce_range": False})

    monkeypatch.setattr(quantization, "quantize_dynamic", full)
    with pytest.raises(
        ModelError,
        match=r"saturate on processors without VNNI \(two neighbours sum to \d+, more than 128",
    ):
        export_onnx(built("clip"), "text", tmp_path / "out", dtype="int8")
    assert list(tmp_path.iterdir()) == []


def _graph(path: Path, operator: str, weights: np.ndarray | None) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(operator, ["x", "w"], ["y"])
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 2])]
    held = [] if weights is None else [numpy_helper.from_array(weights, "w")]
    output = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])
    onnx.save(helper.make_model(helper.make_graph([node], "g", inputs, [output], held)), str(path))
    return path


def test_graphs_that_cannot_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert check_bytes(_graph(path, "MatMulInteger", np.full((2, 1), 255, np.uint8))) == 1
    with pytest.raises(ModelError, match="weights w saturate"):
        check_bytes(_graph(path, "MatMulInteger", np.full((2, 1), 65, np.int8)))
    with pytest.raises(ModelError, match="multiplies bytes by w, which are no weights of bytes"):
        check_bytes(_graph(path, "MatMulInteger", None))
    with pytest.raises(ModelError, match="has no product of bytes"):
        check_bytes(_graph(path, "MatMul", np.ones((2, 1), np.float32)))


def test_the_export_says_where_it_is_right(
    built: Callable[[str], Path], int8_export: Path, tmp_path: Path
) -> None:
    words = "right on every processor, with VNNI and without: weights keep to 7 bits (-64 to 64)"
    content = json.loads((int8_export / "export.json").read_text(encoding="utf-8"))
    assert content["processors"].startswith(words)
    readme = (int8_export / "README.md").read_text(encoding="utf-8")
    assert words in readme
    assert "`reference.npz`" in readme
    worst = max(item["max_difference"] for item in content["parity"])
    assert content["reference"]["max_difference"] == max(0.02, worst)
    arguments = [
        "export",
        "onnx",
        "--model",
        str(built("clip")),
        "--part",
        "text",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(ffr, [*arguments, "--dtype", "int8"], catch_exceptions=False)
    assert result.exit_code == 0
    assert words in " ".join(result.output.split())


def test_word_tables_are_bytes_with_a_scale_a_row(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    rows = (draw.standard_normal((400, 8)) * 10.0 ** draw.integers(-4, 3, (400, 1))).astype("f4")
    rows[7] = 0
    small = draw.standard_normal((20, 8)).astype("f4")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["a"]),
            helper.make_node("Gather", ["words", "others"], ["b"], axis=0),
            helper.make_node("Gather", ["places", "others"], ["c"]),
            helper.make_node("Add", ["a", "b"], ["ab"]),
            helper.make_node("Add", ["ab", "c"], ["out"]),
        ],
        "tables",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n"])
            for name in ("ids", "others")
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(rows, "words"), numpy_helper.from_array(small, "places")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    before = model.ByteSize()
    assert quantize_tables(model) == 1
    assert model.ByteSize() < 0.5 * before
    onnx.checker.check_model(model)
    path = tmp_path / "a.onnx"
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids, others = np.array([7, 399, 0]), np.array([1, 19, 7])
    (found,) = session.run(None, {"ids": ids, "others": others})
    # a row is wrong by half a step of its own scale at most
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    off = np.abs(found - (rows[ids] + rows[others] + small[others]))
    assert (off <= (step[ids] + step[others]) / 2 + 1e-6).all()
    assert quantize_tables(model) == 0


def test_a_table_that_is_multiplied_with_too_stays(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rows = numpy_helper.from_array(np.ones((300, 4), "f4"), "words")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "ids"], ["a"]),
            helper.make_node("MatMul", ["words", "x"], ["b"]),
        ],
        "tied",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1]),
        ],
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [300, 1]),
        ],
        [rows],
    )
    model = helper.make_model(graph)
    before = model.SerializeToString()
    assert quantize_tables(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("is_turned", [False, True])
def test_weights_that_are_only_stored_as_bytes(is_turned: bool) -> None:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    weights = (draw.standard_normal((6, 5)) * 10.0 ** np.arange(-2, 3)).astype("f4")
    held = weights.T.copy() if is_turned else weights
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "block.perceptron.w"], ["a"], transB=1)
            if is_turned
            else helper.make_node("MatMul", ["x", "block.perceptron.w"], ["a"]),
            helper.make_node("MatMul", ["a", "other.w"], ["out"]),
        ],
        "stored",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5])],
        [
            numpy_helper.from_array(held, "block.perceptron.w"),
            numpy_helper.from_array(np.eye(5, dtype="f4"), "other.w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    assert store_as_bytes(model, [".perceptron."]) == 1
    onnx.checker.check_model(model)
    types = {item.name: item.data_type for item in model.graph.initializer}
    assert types["block.perceptron.w.bytes"] == TensorProto.INT8
    assert types["other.w"] == TensorProto.FLOAT
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = draw.standard_normal((3, 6)).astype("f4")
    (found,) = session.run(None, {"x": x})
    # each output is wrong by half a step of its own scale for each input at most
    step = np.abs(weights).max(axis=0) / 127
    assert (np.abs(found - x @ weights) <= np.abs(x).sum(1, keepdims=True) * step / 2 + 1e-4).all()
    assert store_as_bytes(model, [".perceptron."]) == 0
