"""Opening exports: providers that do not run, and folders that are damaged, changed or hostile."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffr.errors import ModelError, UsageError
from ffr.exports import runtime
from ffr.exports.encoder import load_onnx_encoder
from ffr.exports.graph_file import GraphFile, check_weight_files, read_graph_file
from ffr.exports.runtime import check_running, choose_providers, file_digest, load_onnx

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_providers_are_chosen() -> None:
    assert choose_providers("cpu", [CUDA, CPU]) == [CPU]
    assert choose_providers("auto", [CPU]) == [CPU]
    assert choose_providers("cuda", ["TensorrtExecutionProvider", CUDA, CPU]) == [CUDA, CPU]
    with pytest.raises(UsageError, match="was built without it"):
        choose_providers("cuda", [CPU])
    with pytest.raises(UsageError, match="device 'tpu' is unknown"):
        choose_providers("tpu", [CPU])


def test_a_provider_that_does_not_run_is_an_error_or_said_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert check_running("cuda", [CUDA, CPU], [CUDA, CPU]) == CUDA
    with pytest.raises(
        UsageError, match=f"device 'cuda' was asked for, but ONNX Runtime runs on {CPU}"
    ):
        check_running("cuda", [CUDA, CPU], [CPU])
    with caplog.at_level(logging.WARNING):
        assert check_running("auto", [CUDA, CPU], [CPU]) == CPU
    assert caplog.messages == [
        f"NO GPU: ONNX Runtime could not start {CUDA} and runs on {CPU}, which is slower"
    ]


def test_cuda_runs_bound(text_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a session that says it is CUDA's, inputs and outputs are bound to the GPU."""
    calls: list[tuple[Any, ...]] = []

    class Binding:
        def bind_ortvalue_input(self, name: str, value: Any) -> None:
            calls.append(("in", name, value))

        def bind_output(self, name: str, device: str, number: int) -> None:
            calls.append(("out", name, device, number))

        def copy_outputs_to_cpu(self) -> list[Any]:
            return [np.ones((1, 2), np.float32)]

    class Session:
        def get_inputs(self) -> list[Any]:
            return [type("Input", (), {"name": "input_ids", "type": "tensor(int64)"})()]

        def io_binding(self) -> Binding:
            return Binding()

        def run_with_iobinding(self, binding: Binding) -> None:
            calls.append(("run",))

    import onnxruntime

    class Value:
        ortvalue_from_numpy = staticmethod(
            lambda value, device, number: (device, number, value.shape)
        )

    monkeypatch.setattr(onnxruntime, "OrtValue", Value)
    model = runtime.OnnxModel(text_export, runtime.read_info(text_export), Session(), CUDA)
    found = model.run({"input_ids": np.zeros((1, 3), np.int64), "attention_mask": np.ones((1, 3))})
    assert calls == [
        ("in", "input_ids", ("cuda", 0, (1, 3))),
        ("out", "embeddings", "cuda", 0),
        ("run",),
    ]
    assert found["embeddings"].tolist() == [[1.0, 1.0]]


def test_inputs_that_the_graph_cannot_take(text_export: Path) -> None:
    model = load_onnx(text_export, device="cpu")
    assert model.provider == CPU
    with pytest.raises(ModelError, match="its graph needs input_ids"):
        model.run({})
    with pytest.raises(ModelError, match="its graph cannot take this input"):
        model.run({"input_ids": np.zeros((1, 3), np.float32)})


# -- folders ------------------------------------------------------------------------------------------------------------------


def _edit_info(folder: Path, **changes: Any) -> None:
    path = folder / "export.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def _reseal(folder: Path) -> None:
    """Makes the checksums right again, as somebody hostile would."""
    names = json.loads((folder / "export.json").read_text(encoding="utf-8"))["files"]
    _edit_info(folder, files={name: file_digest(folder / name) for name in names})


def _truncate(folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def _truncate_and_reseal(folder: Path) -> None:
    _truncate(folder)
    _reseal(folder)


def _outside(folder: Path) -> None:
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../etc/passwd"), ("offset", "0"), ("length", "4")):
        weight.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _reseal(folder)


def _by_link(folder: Path) -> None:
    (folder / "weights.bin").symlink_to("/etc/passwd")
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _reseal(folder)


def _other_graph(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    _reseal(folder)


def _other_opset(folder: Path) -> None:
    _edit_info(folder, opset=18)


def _unknown_opset(folder: Path) -> None:
    """A graph of operators that no ONNX Runtime has, with everything that stands beside it in accord."""
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    next(item for item in model.opset_import if not item.domain).version = 99
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _reseal(folder)
    _edit_info(folder, opset=99)


def _climbing_name(folder: Path) -> None:
    content = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    _edit_info(folder, files={**content["files"], "../../secret": "0" * 64})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_truncate, "model.onnx is not the file that was exported"),
        (_truncate_and_reseal, "is no whole ONNX graph"),
        (_outside, r"wants weights from '../../../etc/passwd', outside its folder"),
        (_by_link, r"wants weights from 'weights.bin', outside its folder"),
        (_other_graph, "its graph has other inputs or outputs than export.json says"),
        (_other_opset, "has operators of version 20 where export.json says 18"),
        (_unknown_opset, "cannot be opened by ONNX Runtime"),
        (_climbing_name, "names '../../secret', outside its folder"),
        (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda folder: (folder / "export.json").unlink(), "holds no export.json"),
        (lambda folder: (folder / "export.json").write_text("[" * 100_000), "cannot be read"),
        (lambda folder: (folder / "export.json").write_text("{}"), "says nothing of 'format'"),
        (lambda folder: _edit_info(folder, format="ffr-onnx/9"), "its format is 'ffr-onnx/9'"),
    ],
)
def test_damaged_and_hostile_folders(
    damage: Callable[[Path], Any], sentence: str, text_export: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(text_export, folder)
    damage(folder)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_onnx(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_parts_of_different_models_are_no_encoder(text_export: Path, tmp_path: Path) -> None:
    for part in ("text", "image"):
        shutil.copytree(text_export, tmp_path / "pair" / part)
    content = json.loads((text_export / "export.json").read_text(encoding="utf-8"))
    source = {**content["source"], "fingerprint": "0" * 64}
    _edit_info(tmp_path / "pair" / "image", part="image", source=source)
    with pytest.raises(ModelError, match="holds parts of different models; export all from one"):
        load_onnx_encoder(tmp_path / "pair", device="cpu")
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="holds no text or image encoder"):
        load_onnx_encoder(tmp_path / "none", device="cpu")


def test_a_graph_file_says_what_it_is(text_export: Path) -> None:
    found = read_graph_file(text_export / "model.onnx")
    assert found.opsets == {"": 20, "com.microsoft": 1}
    assert found.weight_files == set()


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_get_past_with_anything_but_a_sentence(
    seed: int, text_export: Path, tmp_path: Path
) -> None:
    content = bytearray((text_export / "model.onnx").read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, 400, 3):
        content[place] = int(rng.integers(256))
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(content[: int(rng.integers(1, len(content)))]))
    with pytest.raises(ModelError, match="is no whole ONNX graph"):
        read_graph_file(path)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/b", "..\\x", "c:x"])
def test_weights_lie_beside_the_graph_or_nowhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="outside its folder"):
        check_weight_files(GraphFile({"": 20}, {name}), tmp_path / "model.onnx")


def test_threads_follow_omp(text_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen: list[int] = []
    original = onnxruntime.InferenceSession

    def watched(path: str, options: Any, **more: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return original(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "2")
    load_onnx(text_export, device="cpu")
    load_onnx(text_export, device="cpu", num_threads=1)
    assert seen == [2, 1]
