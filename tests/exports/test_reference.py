"""The call that an export brings with it: compared once on each processor, and never silently wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.errors import ModelError
from ffr.exports import reference
from ffr.exports.encoder import load_onnx_encoder
from ffr.exports.parity import Figures, between_processors
from ffr.exports.reference import check_once
from ffr.exports.runtime import OnnxModel, file_digest, load_onnx, open_session


@pytest.fixture
def export(int8_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy on a machine that has opened none."""
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home" / "data"))
    return Path(shutil.copytree(int8_export, tmp_path / "copy"))


def _reseal(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    content["files"] = {name: file_digest(folder / name) for name in content["files"]}
    (folder / "export.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")


def _change(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    arrays = dict(np.load(folder / "reference.npz"))
    change(arrays)
    np.savez(folder / "reference.npz", **arrays)
    _reseal(folder)


def _count(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose graphs ran from now on."""
    calls: list[str] = []
    run = OnnxModel.run

    def counted(self: OnnxModel, inputs: Any) -> Any:
        calls.append(self.folder.name)
        return run(self, inputs)

    monkeypatch.setattr(OnnxModel, "run", counted)
    return calls


def test_the_reference_is_what_the_graph_gives(int8_export: Path) -> None:
    arrays = dict(np.load(int8_export / "reference.npz"))
    assert set(arrays) == {"input.input_ids", "output.embeddings"}
    assert len(arrays["input.input_ids"]) == len(arrays["output.embeddings"]) == 5
    found = open_session(int8_export, device="cpu").run({"input_ids": arrays["input.input_ids"]})
    np.testing.assert_array_equal(found["embeddings"], arrays["output.embeddings"])
    assert "reference.npz" in json.loads((int8_export / "export.json").read_text())["files"]


def test_the_check_is_made_once_on_each_processor(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count(monkeypatch)
    load_onnx(export, device="cpu", warm_up=False)
    assert calls == ["copy"]
    load_onnx(export, device="cpu", warm_up=False)
    shutil.copytree(export, tmp_path / "elsewhere")  # the same files in another place
    load_onnx(tmp_path / "elsewhere", device="cpu", warm_up=False)
    assert calls == ["copy"]
    (kept,) = (tmp_path / "home" / "export-checks").iterdir()
    content = json.loads(kept.read_text(encoding="utf-8"))
    assert content["max_difference"] == 0.0
    assert str(tmp_path) not in kept.read_text(encoding="utf-8")
    monkeypatch.setattr(reference, "processor", lambda: "another processor")
    load_onnx(export, device="cpu", warm_up=False)
    load_onnx(export, device="cpu", warm_up=False)
    assert calls == ["copy", "copy"]
    monkeypatch.setattr("onnxruntime.__version__", "9.9")
    load_onnx(export, device="cpu", warm_up=False)
    assert calls == ["copy", "copy", "copy"]


def test_a_processor_that_sums_otherwise_is_refused_each_time(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a graph of full signed bytes does without VNNI."""
    run = OnnxModel.run

    def saturated(self: OnnxModel, inputs: Any) -> Any:
        vectors = run(self, inputs)["embeddings"]
        return {"embeddings": np.clip(vectors, -0.25, 0.25)}

    monkeypatch.setattr(OnnxModel, "run", saturated)
    for _ in range(2):
        with pytest.raises(
            ModelError,
            match=r"copy: its graph does not give on this processor what it gave where it was exported \(difference 0\.\d+, "
            r"allowed 0\.\d+; .*\); export the model again on this machine, or with --dtype fp32$",
        ):
            load_onnx(export, device="cpu")
    assert not (tmp_path / "home" / "export-checks").exists()


def _other_vectors(arrays: dict[str, Any]) -> None:
    arrays["output.embeddings"] = arrays["output.embeddings"][:, ::-1].copy()


def _no_numbers(arrays: dict[str, Any]) -> None:
    arrays["output.embeddings"][0, 0] = np.nan


def _other_shape(arrays: dict[str, Any]) -> None:
    arrays["output.embeddings"] = arrays["output.embeddings"][:2].copy()


def _other_input(arrays: dict[str, Any]) -> None:
    arrays["input.input_ids"] = arrays["input.input_ids"].astype(np.float32)


def _no_input(arrays: dict[str, Any]) -> None:
    del arrays["input.input_ids"]


def _no_output(arrays: dict[str, Any]) -> None:
    del arrays["output.embeddings"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_other_vectors, r"does not give on this processor what it gave .* \(difference"),
        (_no_numbers, "does not give on this processor what it gave"),
        (_other_shape, r"does not give on this processor .*of shape \(5, 16\)"),
        (_other_input, r"does not give on this processor .*cannot take this input"),
        (_no_input, r"does not give on this processor .*needs input_ids"),
        (_no_output, "reference.npz cannot be used .it has other outputs than the graph"),
    ],
)
def test_a_tampered_reference(
    change: Callable[[dict[str, Any]], Any], sentence: str, export: Path
) -> None:
    _change(export, change)
    with pytest.raises(ModelError, match=sentence) as caught:
        load_onnx(export, device="cpu")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_files_that_are_no_reference(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export / "reference.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(ModelError, match=r"reference.npz is not the file that was exported"):
        load_onnx(export, device="cpu")
    _reseal(export)
    with pytest.raises(ModelError, match=r"reference\.npz cannot be used"):
        load_onnx(export, device="cpu")
    with path.open("wb") as file:  # an object of Python's would be run where it is read
        np.savez(file, **{"input.input_ids": np.array([{}], object)})
    _reseal(export)
    with pytest.raises(
        ModelError, match=r"reference\.npz cannot be used \(Object arrays cannot be"
    ):
        load_onnx(export, device="cpu")
    path.write_bytes(content)
    _reseal(export, reference={"max_difference": float("inf"), "min_cosine": 0.9})
    with pytest.raises(ModelError, match="says nothing usable of its reference"):
        load_onnx(export, device="cpu")
    _reseal(export, reference={"max_difference": 0.1, "min_cosine": 0.9})
    monkeypatch.setattr(reference, "MAX_REFERENCE_BYTES", 100)
    with pytest.raises(ModelError, match=r"cannot be used \(it is too large\)"):
        load_onnx(export, device="cpu")
    files = json.loads((export / "export.json").read_text(encoding="utf-8"))["files"]
    del files["reference.npz"]
    path.unlink()
    content = json.loads((export / "export.json").read_text(encoding="utf-8"))
    (export / "export.json").write_text(json.dumps({**content, "files": files}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"export.json does not name it\); export the model again"):
        load_onnx(export, device="cpu")


def test_exports_from_before_are_refused(export: Path) -> None:
    content = json.loads((export / "export.json").read_text(encoding="utf-8"))
    (export / "export.json").write_text(
        json.dumps({**content, "format": "ffr-onnx/1"}), encoding="utf-8"
    )
    with pytest.raises(
        ModelError, match=r"its format is 'ffr-onnx/1', not ffr-onnx/3\); export the model again"
    ):
        load_onnx(export, device="cpu")
    del content["reference"]
    (export / "export.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="says nothing of 'reference'; export the model again"):
        load_onnx(export, device="cpu")


def test_without_a_place_to_keep_it_each_opening_compares(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def no_home() -> Path:
        raise RuntimeError("no home")

    (tmp_path / "home").write_text("no folder")
    model = open_session(export, device="cpu")
    assert check_once(model)
    assert check_once(model)
    monkeypatch.delenv("FFR_DATA_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert check_once(model)
    assert check_once(model)


def test_the_command_line_says_it_in_one_sentence(export: Path, sample_home: Path) -> None:
    _change(export, _other_vectors)
    arguments = [
        "eval",
        "--model",
        f"embedding:onnx:{export}",
        "--dataset",
        str(sample_home / "sample"),
    ]
    result = CliRunner().invoke(ffr, [*arguments, "--fit-dataset", str(sample_home / "sample")])
    assert result.exit_code == 1
    assert (
        "its graph does not give on this processor what it gave where it was exported"
        in " ".join(result.output.split())
    )


def test_the_processor_is_named_without_what_changes_by_the_moment() -> None:
    found = reference.processor()
    assert found == reference.processor()
    assert "MHz" not in found
    assert "bogomips" not in found


def test_what_processors_may_differ_by() -> None:
    figures = [Figures("a", 1, 0.06, 0.998, True), Figures("b", 1, 0.01, 0.9999, True)]
    found = between_processors("int8", figures)
    assert (found.max_difference, found.min_cosine) == (0.06, 0.998)
    nearly = between_processors("int8", figures[1:])
    assert (nearly.max_difference, nearly.min_cosine) == (0.02, 0.9995)
    assert between_processors("fp32", figures).max_difference == 1e-4


def test_an_encoder_checks_its_parts(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(export, _other_vectors)
    with pytest.raises(ModelError, match="does not give on this processor"):
        load_onnx_encoder(export, device="cpu")
