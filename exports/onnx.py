"""Exports a vision tower or an encoder to ONNX, checks it against torch, and only then puts it in its place.

The steps: load the model (adapters merged), put the part into a module of `ffr.exports.wrappers`, trace it with sizes left open, save it beside
its place, open it as a user would, run it on inputs that it was not traced with, write what was found, rename.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ffr.exports import wrappers
from ffr.exports.compose import write_fragment_graph
from ffr.exports.encoder import load_dual
from ffr.exports.graph_file import read_graph_file
from ffr.exports.parity import (
    FRAGMENTS,
    TEXTS,
    TOLERANCES,
    Call,
    Case,
    as_content,
    check,
    compare,
    draw_picture,
    picture_sizes,
)
from ffr.exports.runtime import FORMAT, GRAPH_FILE, INFO_FILE, file_digest, load_onnx, split_images
from torch import Tensor, nn

from ffr import provenance
from ffr.dialogue import FilePrompt
from ffr.embedding import DualEncoder, SentenceEncoder, load_encoder
from ffr.errors import DataError, ModelError, UsageError
from ffr.models.vlm import Vlm, load_vlm

_log = logging.getLogger(__name__)

Part = Literal["vision", "text", "image", "fragment"]
DType = Literal["fp32", "fp16", "int8"]

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
"""Versions of the standard operators that torch's exporter writes and that these graphs were tried with."""

MAX_INLINE_BYTES = 1_900_000_000
"""Weights beyond this lie beside the graph: a protocol buffer ends at 2 GB."""

QWEN_KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_MAX_BATCH = 65_536


@dataclass(slots=True)
class Plan:
    """What is to be exported.

    Args:
        part: vision, text, image or fragment.
        kind: The model's architecture, by transformers' name.
        name: What the user called the model.
        fingerprint: Names its weights.
        module: The part, ready to trace.
        example: Inputs to trace it with.
        open_axes: For each input its open axes, with the name of each.
        cases: What to check it with, computed when asked for.
        settings: What else the part needs at run time.
        save_preprocessing: Writes the model's preprocessing into a folder.
        usage: Lines of Python for the README.
        towers: For a fragment, the plans whose graphs are put together in the place of tracing the module.
        whole_weights: What the names of weights hold that int8 leaves in float32.
    """

    part: Part
    kind: str
    name: str
    fingerprint: str
    module: nn.Module
    example: dict[str, Tensor]
    open_axes: dict[str, dict[int, Any]]
    cases: Callable[[], Iterator[Case]]
    save_preprocessing: Callable[[Path], None]
    usage: str
    settings: dict[str, Any] = field(default_factory=dict)
    towers: tuple[Plan, ...] = ()
    whole_weights: tuple[str, ...] = ()


# -- vision towers ------------------------------------------------------------------------------------------------------------


def plan_vision(vlm: Vlm) -> Plan:
    """The vision tower of a model with its projector.

    Raises:
        ModelError: where its architecture is not one of those that are exported.
    """
    core, kind = vlm.core, str(vlm.base.config.model_type)
    settings: dict[str, Any] = {}
    batch = torch.export.Dim("tiles", min=1, max=_MAX_BATCH)
    if kind in QWEN_KINDS:
        module: nn.Module = wrappers.QwenTower(core.visual)
        merged = int(core.visual.spatial_merge_size) ** 2
        open_axes: dict[str, dict[int, Any]] = {
            "pixel_values": {0: merged * torch.export.Dim("merged_patches", min=1, max=1 << 20)},
            "image_grid_thw": {},
        }
    elif kind == "internvl":
        module, open_axes = wrappers.InternVlTower(core), {"pixel_values": {0: batch}}
    elif kind == "smolvlm":
        module, open_axes = wrappers.SmolVlmTower(core), {"pixel_values": {1: batch}}
    elif kind == "llava_onevision":
        module = wrappers.LlavaTower(core)
        features = torch.export.Dim("features", min=1, max=1 << 20)
        open_axes = {"pixel_values": {1: batch}, "taps": {0: features}, "shares": {0: features}}
        vision = core.config.vision_config
        settings = {
            "pinpoints": [list(size) for size in core.config.image_grid_pinpoints],
            "tile_pixels": int(vision.image_size),
            "side": int(vision.image_size // vision.patch_size),
            "max_tiles": int(str(core.config.vision_aspect_ratio).removeprefix("anyres_max_")),
        }
    else:
        known = ", ".join((*QWEN_KINDS, "internvl", "smolvlm", "llava_onevision"))
        raise ModelError(f"is a {kind} model, whose vision tower is not exported; those of {known} are", vlm.name)

    def calls_of(paths: Sequence[Path]) -> list[Call]:
        found = []
        for path in paths:
            image = vlm.encode(FilePrompt("<image>"), [path]).images[0]
            assert image.inputs is not None
            features = vlm.image_features(image)
            layers = {f"deepstack.{number}": layer for number, layer in enumerate(features.deepstack)}
            expected = {"pooled": features.pooled, **layers}
            (inputs,) = split_images(kind, image.inputs, settings)
            found.append(Call(inputs, {name: value.float().cpu().numpy() for name, value in expected.items()}))
        return found

    with tempfile.TemporaryDirectory() as folder:
        # more than one tile, and a grid that is not square
        example = calls_of([draw_picture(Path(folder) / "example.png", 230, 90, seed=1)])[0].inputs
    processor = vlm.processor.image_processor
    return Plan(
        part="vision",
        kind=kind,
        name=vlm.name,
        fingerprint=vlm.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes=open_axes,
        cases=lambda: _picture_cases(calls_of, vlm.max_image_pixels),
        settings={**settings, "max_image_pixels": vlm.max_image_pixels},
        save_preprocessing=lambda folder: processor.save_pretrained(str(folder)),
        usage=_VISION_USAGE,
    )


def _picture_cases(calls_of: Callable[[Sequence[Path]], list[Call]], max_pixels: int) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, sizes) in enumerate(picture_sizes(max_pixels)):
            paths = [
                draw_picture(Path(folder) / f"{number}-{index}.png", *size, seed=100 * number + index)
                for index, size in enumerate(sizes)
            ]
            yield Case(name, _accepted(calls_of, paths, name))


def _accepted(calls_of: Callable[[Sequence[Path]], list[Call]], paths: Sequence[Path], name: str) -> list[Call]:
    """The calls of pictures, without those that the model's own image processor refuses; these are counted in the log."""
    try:
        return calls_of(paths)
    except DataError:
        found = []
        for path in paths:
            try:
                found += calls_of([path])
            except DataError as error:
                _log.warning("parity: a picture of %s is left out, since the model cannot take it: %s", name, error)
        return found


# -- encoders -----------------------------------------------------------------------------------------------------------------


_ENCODER_MODULES: dict[str, dict[str, Callable[[Any], nn.Module]]] = {
    "text": {
        "clip": wrappers.ClipTexts,
        "siglip": wrappers.SiglipTexts,
        "siglip2": wrappers.SiglipTexts,
        "chinese_clip": lambda model: wrappers.BertTexts(model.text_model, "cls", model.text_projection),
    },
    "image": {
        "clip": wrappers.ClipImages,
        "siglip": wrappers.SiglipImages,
        "siglip2": wrappers.Siglip2Images,
        "chinese_clip": wrappers.ClipImages,
    },
}


def plan_encoder(encoder: DualEncoder, part: Literal["text", "image"]) -> Plan:
    """The text or the image tower of a dual encoder with its projection.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    model = encoder._model
    kind = str(model.config.model_type)
    module = _ENCODER_MODULES[part][kind](model)
    saved = (model.config, encoder._tokenizer, encoder._image_processor)
    settings = {"pooling": "the model's own", "normalized": True}
    if part == "text":
        # SigLIP's texts all have one length
        length = None if kind.startswith("siglip") else int(model.config.text_config.max_position_embeddings)
        return _plan_texts(encoder, module, max_length=length, settings=settings, saved=saved)

    def calls_of(paths: Sequence[Path]) -> list[Call]:
        vectors = encoder.embed_images(paths)
        return [Call(_taken(module, encoder.image_inputs(paths)), {"embeddings": vectors.numpy()})]

    with tempfile.TemporaryDirectory() as folder:
        example = calls_of([draw_picture(Path(folder) / f"{n}.png", 90, 60, seed=n) for n in range(2)])[0].inputs
    batch = torch.export.Dim("images", min=1, max=_MAX_BATCH)
    return Plan(
        part="image",
        kind=kind,
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes={name: {0: batch} for name in example},
        cases=lambda: _picture_cases(calls_of, 512 * 512),
        settings=settings,
        save_preprocessing=_saves(saved),
        usage=_ENCODER_USAGE["image"],
    )


def plan_sentence_encoder(encoder: SentenceEncoder) -> Plan:
    """A sentence encoder with its pooling.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    model = encoder._model
    return _plan_texts(
        encoder,
        wrappers.BertTexts(model, encoder.pooling),
        max_length=int(model.config.max_position_embeddings),
        settings={
            "pooling": encoder.pooling,
            "normalized": True,
            "max_text_tokens": encoder.max_text_tokens,
            "is_lowered": encoder.is_lowered,
        },
        saved=(model.config, encoder._tokenizer),
        # a few activations of these are so large that one scale for all loses the others: MiniLM's cosine falls to 0.974
        whole_weights=(".perceptron.",),
    )


def _plan_texts(
    encoder: DualEncoder | SentenceEncoder,
    module: nn.Module,
    *,
    max_length: int | None,
    settings: dict[str, Any],
    saved: Sequence[Any],
    whole_weights: tuple[str, ...] = (),
) -> Plan:
    """A part that takes texts.

    Args:
        encoder: What it must equal.
        module: The part.
        max_length: Positions of the longest text; None where all have one length.
        settings: What else it needs at run time.
        saved: What lies beside it: configuration, tokenizer, image processor.
        whole_weights: As `Plan` has it.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    if encoder._tokenizer.padding_side != "right":
        raise ModelError(
            "its tokenizer pads on the left; texts of an exported part are padded on the right", encoder.name
        )

    def call_of(texts: Sequence[str]) -> Call:
        vectors = encoder.embed_texts(texts)
        return Call(_taken(module, encoder.text_inputs(texts)), {"embeddings": vectors.numpy()})

    example = call_of(["a cat on a mat", "a long text about the sea", "x"]).inputs
    open_axes: dict[int, Any] = {0: torch.export.Dim("texts", min=1, max=_MAX_BATCH)}
    if max_length is not None:
        open_axes[1] = torch.export.Dim("length", min=1, max=max_length)
    return Plan(
        part="text",
        kind=str(encoder._model.config.model_type),
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes={name: dict(open_axes) for name in example},
        cases=lambda: (Case(name, [call_of(texts)]) for name, texts in TEXTS.items()),
        settings=settings,
        save_preprocessing=_saves(saved),
        usage=_ENCODER_USAGE["text"],
        whole_weights=whole_weights,
    )


def _taken(module: nn.Module, given: dict[str, Tensor]) -> dict[str, Any]:
    """What the part takes of an encoder's inputs."""
    return {name: given[name].cpu().numpy() for name in inspect.signature(module.forward).parameters if name in given}


def _saves(parts: Sequence[Any]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(str(folder))

    return save


def plan_fragment(encoder: DualEncoder) -> Plan:
    """Both towers of a dual encoder in one graph that gives the vector of a whole fragment.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    texts, images = towers = plan_encoder(encoder, "text"), plan_encoder(encoder, "image")

    def call_of(lines: Sequence[str], paths: Sequence[Path]) -> Call:
        given = {**(encoder.text_inputs(lines) if lines else {}), **(encoder.image_inputs(paths) if paths else {})}
        inputs = {
            name: (given[name] if name in given else rows[:0]).cpu().numpy()
            for tower in towers
            for name, rows in tower.example.items()
        }
        return Call(inputs, {"embeddings": encoder.embed_fragments([[*lines, *paths]]).numpy()})

    return Plan(
        part="fragment",
        kind=texts.kind,
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=wrappers.Fragments(texts.module, images.module, encoder.embed_texts([""]).shape[-1]),
        example={**texts.example, **images.example},
        open_axes={**texts.open_axes, **images.open_axes},
        cases=lambda: _fragment_cases(call_of),
        settings={"pooling": "mean of the normalised vectors of texts and images, normalised anew", "normalized": True},
        save_preprocessing=texts.save_preprocessing,
        usage=_ENCODER_USAGE["fragment"],
        towers=towers,
    )


def _fragment_cases(call_of: Callable[[Sequence[str], Sequence[Path]], Call]) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, fragments) in enumerate(FRAGMENTS.items()):
            calls = []
            for index, (texts, sizes) in enumerate(fragments):
                paths = [
                    draw_picture(Path(folder) / f"{number}-{index}-{place}.png", *size, seed=1000 * number + place)
                    for place, size in enumerate(sizes)
                ]
                calls.append(call_of(texts, paths))
            yield Case(name, calls)


# -- export -------------------------------------------------------------------------------------------------------------------


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
    """Exports a part of a model into a folder, which appears whole, or not at all where the graph is not right.

    Args:
        model: A folder or a hub id; for `vision` also `tiny`, for the others `tiny-clip`.
        part: vision, text, image or fragment.
        out: The folder to write.
        adapter: Folder of a peft adapter, merged into the model first; for `vision`.
        dtype: fp32; fp16 (weights and arithmetic); int8 (weights, and activations call by call).
        device: cpu, or cuda: where the graph is checked.
        opset: Version of the standard operators.
        replace: Whether a folder that is there may be written over.

    Returns:
        The content of `export.json`.

    Raises:
        ModelError: where the model lacks the part, or the graph differs from torch beyond its tolerance.
        UsageError: where an option is unknown, something is not installed, or the folder cannot be written.
    """
    _check_call(out, dtype, opset, replace)
    if part == "vision":
        vlm = load_vlm(model, adapter=adapter)
        if adapter is not None:
            vlm = _merged(vlm)
        return export_plan(plan_vision(vlm), out, dtype=dtype, device=device, opset=opset, replace=replace)
    if adapter is not None:
        raise UsageError(f"--adapter goes with --part vision; the {part} part has none")
    if part == "text":
        encoder = load_encoder(model)
        plan = plan_sentence_encoder(encoder) if isinstance(encoder, SentenceEncoder) else plan_encoder(encoder, "text")
    else:
        dual = load_dual(model, part=part)
        plan = plan_fragment(dual) if part == "fragment" else plan_encoder(dual, "image")
    return export_plan(plan, out, dtype=dtype, device=device, opset=opset, replace=replace)


def _merged(vlm: Vlm) -> Vlm:
    """The model with its adapter's update in the weights."""
    plain = vlm.model.merge_and_unload()
    return Vlm(plain, vlm.tokenizer, vlm.processor, name=vlm.name, max_image_pixels=vlm.max_image_pixels)


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
        if not (out / INFO_FILE).is_file():
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
    scratch = out.parent / f".{out.name}.{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}); name another folder") from error
    try:
        plan.save_preprocessing(scratch)
        _write_graph(plan, scratch / GRAPH_FILE, dtype=dtype, opset=opset)
        _write_info(plan, scratch, dtype=dtype, opset=opset, figures=[], providers=[])
        session = load_onnx(scratch, device=device)
        one_item = plan.part == "vision"
        figures = [compare(case.name, case.calls, session.run, one_item=one_item) for case in plan.cases()]
        try:
            check(figures, TOLERANCES[dtype])
        except ModelError as error:
            raise ModelError(error.message, plan.name) from None
        content = _write_info(
            plan, scratch, dtype=dtype, opset=opset, figures=as_content(figures), providers=[session.provider]
        )
        (scratch / "README.md").write_text(_readme(plan, content), encoding="utf-8")
        del session
        if out.exists():
            shutil.rmtree(out)
        scratch.replace(out)
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written ({error.strerror or error}); free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress, and without its remarks on operators of packages that are not here."""
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
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            places = [Path(folder) / f"{tower.part}.onnx" for tower in plan.towers]
            for tower, place in zip(plan.towers, places, strict=True):
                _write_graph(tower, place, dtype=dtype, opset=opset)
            texts, images = places
            width = plan.module.width
            assert isinstance(width, int)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
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
        if isinstance(module, wrappers.QwenTower) and isinstance(whole, wrappers.QwenTower):
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
        size = sum(weight.numel() * weight.element_size() for weight in module.state_dict().values())
        program.save(str(path), external_data=size > MAX_INLINE_BYTES)


def _quantize(path: Path, whole_weights: Sequence[str]) -> None:
    """Weights of matrix products as bytes, each output with its own scale; activations are rounded call by call.

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
        for name in (node.name, f"{node.name}_MatMul")  # the quantizer names products with a bias anew
    ]
    path.unlink()
    onnx.save(model, str(whole))
    data = path.with_name(f"{path.name}.data")
    is_large = data.is_file()
    with _quiet():
        quantize_dynamic(
            str(whole), str(path), weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=is_large,
            op_types_to_quantize=["MatMul", "Gemm"], nodes_to_exclude=left_alone,
        )  # fmt: skip
    whole.unlink()
    if is_large and data.name not in read_graph_file(path).weight_files:
        data.unlink()


def _write_info(
    plan: Plan, folder: Path, *, dtype: str, opset: int, figures: list[dict[str, Any]], providers: list[str]
) -> dict[str, Any]:
    tolerance = TOLERANCES[dtype]
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (INFO_FILE, "README.md"))
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
        "tolerance": {"max_difference": tolerance.max_difference, "min_cosine": tolerance.min_cosine},
        "parity": figures,
        "providers_tried": providers,
        "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
        "versions": {**provenance.versions(), **_exporter_versions()},
        "command": provenance.command(),
        "time": provenance.now(),
    }
    (folder / INFO_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def _exporter_versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("onnx", "onnxscript")}


def _shape(value: Tensor, open_axes: dict[int, Any]) -> list[int | str]:
    return [open_axes[axis].__name__ if axis in open_axes else length for axis, length in enumerate(value.shape)]


def _warm_up(value: Tensor) -> dict[str, Any]:
    """An example's shape and type, with its values where zeros would not do."""
    entry: dict[str, Any] = {"shape": list(value.shape), "dtype": str(value.numpy().dtype)}
    if value.dtype != torch.float32:
        entry["values"] = value.flatten().tolist()
    return entry


# -- README -------------------------------------------------------------------------------------------------------------------

_VISION_USAGE = """\
from pathlib import Path
from PIL import Image
from transformers import AutoImageProcessor
from ffr.exports.runtime import load_onnx

model = load_onnx(Path("{folder}"), device="cpu")
processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil")
inputs = processor(images=[Image.open("picture.jpg").convert("RGB")], return_tensors="np")
features = model.image_features(inputs)[0]["pooled"]
"""
_ENCODER_USAGE = {
    part: f"""\
from pathlib import Path
from ffr.exports.runtime import load_onnx_encoder

encoder = load_onnx_encoder(Path("{{folder}}"), device="cpu")
vectors = encoder.{call}
"""
    for part, call in {
        "text": 'embed_texts(["a cat on a mat"])',
        "image": 'embed_images(["picture.jpg"])',
        "fragment": 'embed_fragments([["a cat on a mat", Path("picture.jpg")]])',
    }.items()
}


def _readme(plan: Plan, content: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {item['name']} | {item['num_calls']} | {item['max_difference']:.1e} | {item['min_cosine']:.6f} |"
        for item in content["parity"]
    )
    inputs = "\n".join(
        f"- `{name}` {entry['dtype']} ({', '.join(str(length) for length in entry['shape'])})"
        for name, entry in content["inputs"].items()
    )
    a_call = {
        "vision": "A call takes one image.",
        "fragment": "A call takes the texts and images of one fragment; one kind may have no rows.",
    }.get(plan.part, "A call takes any number of items.")
    return f"""# {plan.part} part of {plan.name} as ONNX

{plan.kind}, {content["dtype"]}, opset {content["opset"]}, written by `ffr export onnx`. {a_call}
It needs ONNX Runtime: attention and rotary positions are operators of its own.

Inputs:
{inputs}

Outputs: {", ".join(f"`{name}`" for name in content["outputs"])}, float32.

```python
{plan.usage.format(folder=".")}```

Against torch, on inputs that it was not traced with ({", ".join(content["providers_tried"])}; allowed: difference
{content["tolerance"]["max_difference"]}, cosine {content["tolerance"]["min_cosine"]}):

| input | calls | largest difference / largest value | smallest cosine |
|---|---|---|---|
{rows}

Measure its speed with `ffr export bench` on this folder. Versions and checksums stand in `{INFO_FILE}`.
"""
