"""Exports a vision tower or an encoder to ONNX.

It is checked against torch, and only then put in its place.

The steps: load the model (adapters merged), put the part into a module of ours
(`ffr.exports.plans`), trace it with sizes left open, save it beside
its place, open it as a user would, run it on inputs that it was not traced with, write what was
found, rename.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ffr import provenance
from ffr.embedding import SentenceEncoder, load_encoder
from ffr.errors import ModelError, UsageError
from ffr.exports.compose import write_fragment_graph
from ffr.exports.encoder import encoder_parts, load_dual
from ffr.exports.graph_file import read_graph_file
from ffr.exports.int8 import check_bytes, quantize_tables, store_as_bytes
from ffr.exports.parity import (
    REFERENCE_CASES,
    TOLERANCES,
    Call,
    Case,
    Figures,
    as_content,
    between_processors,
    check,
    compare,
)
from ffr.exports.plain import usage_without_ffr
from ffr.exports.plans import (
    PARTS,
    Part,
    Plan,
    plan_encoder,
    plan_fragment,
    plan_sentence_encoder,
    plan_vision,
)
from ffr.exports.reader_head import plan_reader
from ffr.exports.readme import PROCESSORS, readme_of
from ffr.exports.reference import write_reference
from ffr.exports.runtime import FORMAT, GRAPH_FILE, INFO_FILE, file_digest, open_session
from ffr.exports.vision_towers import QwenTower
from ffr.files import remove, replaced_folder, temporary_folder, write_json, write_text
from ffr.models.loading import load_vlm
from ffr.models.vlm import Vlm
from ffr.reader.model import Reader

DType = Literal["fp32", "fp16", "int8"]

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
"""Versions of the standard operators that torch's exporter writes, tried with these graphs."""

MAX_INLINE_BYTES = 1_900_000_000
"""Weights beyond this lie beside the graph: a protocol buffer ends at 2 GB."""


def export_onnx(
    model: str | Path,
    part: Part,
    out: Path,
    *,
    adapter: Path | None = None,
    dtype: DType = "fp32",
    device: str = "cpu",
    opset: int = DEFAULT_OPSET,
    replace: bool = False,
) -> dict[str, Any]:
    """Exports a part of a model into a folder.

    It appears whole, or not at all where the graph is not right.

    Args:
        model: A folder or a hub id; for `vision` also `tiny`, for encoders `tiny-clip`; for
            `reader` the folder of one.
        part: vision, text, image, fragment or reader.
        out: The folder to write.
        adapter: Folder of a peft adapter, merged into the model first; for `vision`.
        dtype: fp32; fp16 (weights and arithmetic); int8 (weights, and activations call by call).
        device: cpu, or cuda: where the graph is checked.
        opset: Version of the standard operators.
        replace: Whether a folder that is there may be written over.

    Returns:
        The content of `export.json`.

    Raises:
        ModelError: where the model lacks the part, or the graph differs from torch beyond its
            tolerance.
        UsageError: where an option is unknown, something is not installed, or the folder cannot be
            written.
    """
    _check_call(out, dtype, opset, replace)
    if part == "reader":
        return _export_reader(
            str(model), out, adapter, dtype, device=device, opset=opset, replace=replace
        )
    if part == "vision":
        vlm = load_vlm(model, adapter=adapter)
        if adapter is not None:
            vlm = _merged(vlm)
        return export_plan(
            plan_vision(vlm), out, dtype=dtype, device=device, opset=opset, replace=replace
        )
    if adapter is not None:
        raise UsageError(f"--adapter goes with --part vision; the {part} part has none")
    if part == "text":
        encoder = load_encoder(model)
        plan = (
            plan_sentence_encoder(encoder)
            if isinstance(encoder, SentenceEncoder)
            else plan_encoder(encoder, "text")
        )
    else:
        dual = load_dual(model, part=part)
        plan = plan_fragment(dual) if part == "fragment" else plan_encoder(dual, "image")
    return export_plan(plan, out, dtype=dtype, device=device, opset=opset, replace=replace)


def _export_reader(
    model: str, out: Path, adapter: Path | None, dtype: DType, **options: Any
) -> dict[str, Any]:
    """Exports the head of a reader's folder."""
    if adapter is not None or dtype != "fp32":
        raise UsageError(
            "the reader part, a small network, is exported in fp32 and has no adapter; leave "
            "--adapter and --dtype out (its encoder is exported with --part text --dtype int8)"
        )
    return export_plan(plan_reader(Reader.load(model), model), out, dtype=dtype, **options)


def export_all(
    model: str | Path,
    out: Path,
    *,
    dtype: DType = "fp32",
    device: str = "cpu",
    opset: int = DEFAULT_OPSET,
    replace: bool = False,
) -> dict[Part, dict[str, Any]]:
    """Exports every part that a model has, each into a folder of its name; all of them, or none.

    An encoder of texts and images has text, image and fragment; one of texts has text; any other
    model has vision. Arguments and errors as of `export_onnx`.

    Returns:
        The content of each part's `export.json`.
    """
    _check_call(out, dtype, opset, replace)
    parts: Sequence[Part] = [part for part in PARTS if part in encoder_parts(model)] or ["vision"]
    with _put_in_place(out) as scratch:
        return {
            part: export_onnx(model, part, scratch / part, dtype=dtype, device=device, opset=opset)
            for part in parts
        }


def _merged(vlm: Vlm) -> Vlm:
    """The model with its adapter's update in the weights."""
    plain = vlm.model.merge_and_unload()
    return Vlm(
        plain,
        vlm.tokenizer,
        vlm.processor,
        name=vlm.name,
        max_image_pixels=vlm.tower.max_image_pixels,
    )


def _check_call(out: Path, dtype: str, opset: int, replace: bool) -> None:
    if dtype not in TOLERANCES:
        raise UsageError(f"dtype {dtype!r} is unknown; use {', '.join(TOLERANCES)}")
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not written; use {OPSETS[0]} to {OPSETS[-1]}")
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise UsageError(f"exporting needs {package}; pip install 'ffr-vlm[onnx]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not replace:
            raise UsageError(f"{out} is there already; name another folder or pass --replace")
        if not any(
            (place / INFO_FILE).is_file() for place in (out, *(out / part for part in PARTS))
        ):
            raise UsageError(f"{out} is no export, so it is not replaced; name another folder")


def export_plan(
    plan: Plan,
    out: Path,
    *,
    dtype: DType = "fp32",
    device: str = "cpu",
    opset: int = DEFAULT_OPSET,
    replace: bool = False,
) -> dict[str, Any]:
    """Exports a part that is in memory; arguments and errors as of `export_onnx`."""
    _check_call(out, dtype, opset, replace)
    with _put_in_place(out) as scratch:
        plan.save_preprocessing(scratch)
        _write_graph(plan, scratch / GRAPH_FILE, dtype=dtype, opset=opset)
        _write_info(plan, scratch, dtype=dtype, opset=opset, figures=[], providers=[])
        session = open_session(scratch, device=device)
        figures: list[Figures] = []
        cases: list[Case] = []
        reference: Call | None = None
        for case in plan.cases():
            if plan.part in ("text", "fragment"):
                cases.append(case)
            figures.append(
                compare(case.name, case.calls, session.run, one_item=plan.part == "vision")
            )
            if case.calls and (reference is None or case.name == REFERENCE_CASES[plan.part]):
                reference = case.calls[-1]
        try:
            if dtype == "int8":
                check_bytes(scratch / GRAPH_FILE)
            check(figures, TOLERANCES[dtype])
        except ModelError as error:
            raise ModelError(error.message, plan.name) from None
        assert reference is not None, "a plan has something to check it with"
        write_reference(
            scratch,
            {name: reference.inputs[name] for name in session.info.inputs},
            session.run(reference.inputs),
        )
        plain = usage_without_ffr(plan.part, plan.kind, scratch, cases)
        content = _write_info(
            plan,
            scratch,
            dtype=dtype,
            opset=opset,
            figures=figures,
            providers=[session.provider],
            is_prepared_plainly=plain is not None,
        )
        write_text(scratch / "README.md", readme_of(plan, content, scratch, plain))
        del session
    return content


@contextlib.contextmanager
def _put_in_place(out: Path) -> Iterator[Path]:
    """The folder that the export is made in before it takes its place."""
    try:
        with replaced_folder(out) as scratch:
            yield scratch
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror or error}); free space or name another "
            "folder"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its remarks on operators of packages not here."""
    names = ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _write_graph(plan: Plan, path: Path, *, dtype: str, opset: int) -> None:
    """Writes the part's graph, traced or put together from those of its towers."""
    if plan.towers:
        with temporary_folder(path) as folder:
            places = [folder / f"{tower.part}.onnx" for tower in plan.towers]
            for tower, place in zip(plan.towers, places, strict=True):
                _write_graph(tower, place, dtype=dtype, opset=opset)
            texts, images = places
            width = plan.module.width
            assert isinstance(width, int)
            size = sum(file.stat().st_size for file in folder.iterdir())
            write_fragment_graph(texts, images, path, width, external_data=size > MAX_INLINE_BYTES)
        return
    _trace(plan, path, is_half=dtype == "fp16", opset=opset)
    if dtype == "int8":
        _quantize(path, plan.whole_weights)


def _trace(plan: Plan, path: Path, *, is_half: bool, opset: int) -> None:
    """Traces the part and writes its graph."""
    module = plan.module.eval().requires_grad_(False)
    if is_half:
        whole, module = module, copy.deepcopy(module).half()
        if isinstance(module, QwenTower) and isinstance(whole, QwenTower):
            # positions are computed in float32 and rounded last, as the towers do it
            module.inv_freq.data = whole.inv_freq.data
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.cpu(),
            (),
            kwargs=dict(plan.example),
            dynamo=True,
            dynamic_shapes=plan.open_axes,
            opset_version=opset,
            output_names=list(module.output_names),  # type: ignore[arg-type, union-attr]
        )
        assert program is not None
        size = sum(
            weight.numel() * weight.element_size() for weight in module.state_dict().values()
        )
        program.save(str(path), external_data=size > MAX_INLINE_BYTES)


def _quantize(path: Path, whole_weights: Sequence[str]) -> None:
    """Weights of matrix products as signed bytes of 7 bits, each output with its own scale.

    Activations are rounded call by call; word tables, and weights that stay
    whole in products, are stored as 8 bits with a scale for each row or output.

    All 8 bits would saturate on processors without VNNI (`ffr.exports.int8`), and unsigned bytes
    take twice the time on those that have it (benchmarks/int8.py).

    Args:
        path: The graph, which is written over.
        whole_weights: As `Plan` has it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    model = onnx.load(str(path), load_external_data=False)
    # the quantizer turns weights round and then takes their noted shapes for an error
    weights = {item.name for item in model.graph.initializer}
    kept = [item for item in model.graph.value_info if item.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    left_alone = [
        name
        for node in model.graph.node
        if any(part in weight for weight in node.input for part in whole_weights)
        for name in (
            node.name,
            f"{node.name}_MatMul",
        )  # the quantizer names products with a bias anew
    ]
    remove(path)
    onnx.save(model, str(whole))
    data = path.with_name(f"{path.name}.data")
    is_large = data.is_file()
    with _quiet():
        quantize_dynamic(
            str(whole), str(path), weight_type=QuantType.QInt8, reduce_range=True, per_channel=True,
            use_external_data_format=is_large,
            op_types_to_quantize=["MatMul", "Gemm"], nodes_to_exclude=left_alone,
        )  # fmt: skip
    remove(whole)
    if is_large and data.name not in read_graph_file(path).weight_files:
        remove(data)
    _store_rest_as_bytes(path, whole_weights)


def _store_rest_as_bytes(path: Path, whole_weights: Sequence[str]) -> None:
    """Word tables, and weights that stay whole in products, as bytes in the file."""
    import onnx

    model = onnx.load(str(path))
    if not quantize_tables(model) + store_as_bytes(model, whole_weights):
        return
    for name in read_graph_file(path).weight_files:
        remove(path.with_name(name))
    remove(path)
    onnx.save(
        model,
        str(path),
        save_as_external_data=model.ByteSize() > MAX_INLINE_BYTES,
        location=f"{path.name}.data",
    )


def _write_info(
    plan: Plan,
    folder: Path,
    *,
    dtype: str,
    opset: int,
    figures: list[Figures],
    providers: list[str],
    is_prepared_plainly: bool = False,
) -> dict[str, Any]:
    tolerance = TOLERANCES[dtype]
    between = between_processors(dtype, figures) if figures else tolerance
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (INFO_FILE, "README.md")
    )
    content: dict[str, Any] = {
        "format": FORMAT,
        "part": plan.part,
        "kind": plan.kind,
        "source": {"model": plan.name, "fingerprint": plan.fingerprint},
        "dtype": dtype,
        "opset": opset,
        "inputs": {
            name: {"dtype": str(value.numpy().dtype), "shape": _shape(value, plan.open_axes[name])}
            for name, value in plan.example.items()
        },
        "outputs": list(plan.module.output_names),  # type: ignore[arg-type]
        "warm_up": {name: _warm_up(value) for name, value in plan.example.items()},
        "settings": plan.settings,
        "is_prepared_plainly": is_prepared_plainly,
        "tolerance": {
            "max_difference": tolerance.max_difference,
            "min_cosine": tolerance.min_cosine,
        },
        "parity": as_content(figures),
        "providers_tried": providers,
        "processors": PROCESSORS[dtype],
        "reference": {"max_difference": between.max_difference, "min_cosine": between.min_cosine},
        "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
        "versions": {**provenance.versions(), **_exporter_versions()},
        "command": provenance.command(),
        "time": provenance.now(),
    }
    write_json(folder / INFO_FILE, content)
    return content


def _exporter_versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("onnx", "onnxscript")}


def _shape(value: Tensor, open_axes: dict[int, Any]) -> list[int | str]:
    return [
        open_axes[axis].__name__ if axis in open_axes else length
        for axis, length in enumerate(value.shape)
    ]


def _warm_up(value: Tensor) -> dict[str, Any]:
    """An example's shape and type, with its values where zeros would not do."""
    entry: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.numpy().dtype)}
    if value.dtype != torch.float32:
        entry["values"] = value.flatten().tolist()
    return entry
