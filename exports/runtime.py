"""An exported folder at work.

Its graph in ONNX Runtime, on the provider that was asked for or not at all.

A folder holds `model.onnx`, perhaps `model.onnx.data`, `export.json` and the preprocessing of its
model. Nothing of it is trusted: the files must be those that `export.json` names, to the byte, and
the graph may read no file outside the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.errors import FfrError, ModelError, UsageError
from ffr.exports.graph_file import check_weight_files, read_graph_file
from ffr.exports.reference import check_once
from ffr.exports.tiles import TileSettings, tile_plan
from ffr.text import one_line

_log = logging.getLogger(__name__)

GRAPH_FILE = "model.onnx"
INFO_FILE = "export.json"
FORMAT = "ffr-onnx/3"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
MAX_INFO_BYTES = 4 * 2**20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What `export.json` says.

    Args:
        part: vision, text, image or fragment.
        kind: The model's architecture, by transformers' name.
        opset: Version of the standard operators.
        dtype: fp32, fp16 or int8.
        inputs: Of each input, its type and its shape, names for open lengths.
        outputs: Names of what comes out.
        warm_up: An input of each name to start with: its shape, type and, where they matter, its
            values.
        settings: What else the part needs, such as LLaVA-OneVision's tiles.
        files: SHA-256 of each file.
        fingerprint: Of the model's weights.
        content: All of the file.
    """

    part: str
    kind: str
    opset: int
    dtype: str
    inputs: dict[str, dict[str, Any]]
    outputs: list[str]
    warm_up: dict[str, dict[str, Any]]
    settings: dict[str, Any]
    files: dict[str, str]
    fingerprint: str
    content: dict[str, Any]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_info(folder: Path) -> ExportInfo:
    """Reads and checks what `export.json` says of a folder.

    Raises:
        ModelError: where the folder is no export, or one of another format.
    """
    path = folder / INFO_FILE
    if not path.is_file():
        raise ModelError(
            f"holds no {INFO_FILE}; name a folder that `ffr export onnx` wrote", str(folder)
        )
    try:
        if path.stat().st_size > MAX_INFO_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT}")
        info = ExportInfo(
            part=str(content["part"]),
            kind=str(content["kind"]),
            opset=int(content["opset"]),
            dtype=str(content["dtype"]),
            inputs=dict(content["inputs"]),
            outputs=list(content["outputs"]),
            warm_up=dict(content["warm_up"]),
            settings=dict(content["settings"]),
            files=dict(content["files"]),
            fingerprint=str(content["source"]["fingerprint"]),
            content=content,
        )
        _ = content["reference"]
        for entry in info.inputs.values():
            if np.dtype(entry["dtype"]).kind not in "iufb" or not isinstance(entry["shape"], list):
                raise ValueError("an input is of no known type and shape")
    except KeyError as error:
        raise ModelError(f"says nothing of {error}; export the model again", str(path)) from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"cannot be read ({one_line(error)}); export the model again", str(path)
        ) from None
    return info


def check_folder(folder: Path) -> ExportInfo:
    """Checks that a folder is whole and unchanged, and that its graph stays inside it.

    Raises:
        ModelError: with what is wrong.
    """
    info = read_info(folder)
    if GRAPH_FILE not in info.files:
        raise ModelError(f"names no {GRAPH_FILE}; export the model again", str(folder / INFO_FILE))
    for name, expected in info.files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(
                f"names {name!r}, outside its folder; do not use this export",
                str(folder / INFO_FILE),
            )
        if not path.is_file():
            raise ModelError(f"{name} is missing; fetch the folder again", str(folder))
        if file_digest(path) != expected:
            raise ModelError(
                f"{name} is not the file that was exported (its checksum is another); fetch it "
                "again",
                str(folder),
            )
    graph = read_graph_file(folder / GRAPH_FILE)
    check_weight_files(graph, folder / GRAPH_FILE)
    if extra := sorted(graph.weight_files - set(info.files)):
        raise ModelError(
            f"reads {extra[0]}, which {INFO_FILE} does not name; export the model again",
            str(folder),
        )
    if graph.opsets.get("", 0) != info.opset:
        raise ModelError(
            f"has operators of version {graph.opsets.get('', 0)} where {INFO_FILE} says "
            f"{info.opset}; export the model again",
            str(folder / GRAPH_FILE),
        )
    return info


def choose_providers(device: str, available: list[str]) -> list[str]:
    """The providers to ask ONNX Runtime for.

    Args:
        device: cpu, cuda, or auto: the GPU where there is one.
        available: What this ONNX Runtime was built with.

    Raises:
        UsageError: where the device is unknown, or this ONNX Runtime was built without it.

    >>> choose_providers("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    ['CUDAExecutionProvider', 'CPUExecutionProvider']
    """
    if device not in (*PROVIDERS, "auto"):
        raise UsageError(
            f"device {device!r} is unknown to ONNX Runtime here; use auto, cpu or cuda"
        )
    cuda = PROVIDERS["cuda"]
    if device == "cpu" or (device == "auto" and cuda not in available):
        return [PROVIDERS["cpu"]]
    if cuda not in available:
        raise UsageError(
            "device 'cuda' was asked for, but this ONNX Runtime was built without it; "
            "install onnxruntime-gpu and remove onnxruntime, which hides it"
        )
    return [cuda, PROVIDERS["cpu"]]


def check_running(device: str, wanted: list[str], running: list[str]) -> str:
    """The provider that runs; what ONNX Runtime lists as available says nothing of that.

    Args:
        device: As the user asked.
        wanted: What ONNX Runtime was asked for, the best first.
        running: What the session says.

    Raises:
        UsageError: where a device was asked for and does not run.
    """
    first = running[0] if running else "no provider"
    if first == wanted[0]:
        return first
    if device != "auto":
        raise UsageError(
            f"device {device!r} was asked for, but ONNX Runtime runs on {first}; "
            "see its message above (drivers and CUDA libraries must fit), or use cpu"
        )
    _log.warning(
        "NO GPU: ONNX Runtime could not start %s and runs on %s, which is slower", wanted[0], first
    )
    return first


class OnnxModel:
    """An exported graph in a session. Made by `load_onnx`.

    Args:
        folder: Where it lies.
        info: What `export.json` says.
        session: ONNX Runtime's session.
        provider: What runs it.
    """

    def __init__(self, folder: Path, info: ExportInfo, session: Any, provider: str) -> None:
        self.folder = folder
        self.info = info
        self.provider = provider
        self._session = session
        self._types = {item.name: item.type for item in session.get_inputs()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """One call of the graph; inputs that it does not have are left out.

        Raises:
            ModelError: where an input is missing or of another shape than the graph takes.
        """
        if missing := sorted(set(self._types) - set(inputs)):
            raise ModelError(f"its graph needs {missing[0]}, which was not given", str(self.folder))
        given = {name: np.ascontiguousarray(inputs[name]) for name in self._types}
        try:
            values = (
                self._run_bound(given)
                if self.provider == PROVIDERS["cuda"]
                else self._session.run(None, given)
            )
        except FfrError:
            raise
        except Exception as error:
            # ONNX Runtime's exceptions have no common base below Exception
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise ModelError(
                f"its graph cannot take this input ({one_line(error, 300)})", str(self.folder)
            ) from error
        return dict(zip(self.info.outputs, values, strict=True))

    def _run_bound(self, inputs: Arrays) -> list[NDArray[Any]]:
        """With inputs copied to the GPU once and outputs left there until the end."""
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for name in self.info.outputs:
            binding.bind_output(name, "cuda", 0)
        self._session.run_with_iobinding(binding)
        found: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
        return found

    def warm_up(self) -> Arrays:
        """Runs a small input, so that no later call has to allocate and, on a GPU, compile."""
        return self.run({name: example_array(entry) for name, entry in self.info.warm_up.items()})

    # -- vision towers -----------------------------------------------------------------------------

    def image_features(self, inputs: Mapping[str, Any]) -> list[Arrays]:
        """The features of each image, from what the image processor gives for one or several.

        Args:
            inputs: The processor's output, as tensors or arrays.

        Returns:
            For each image `pooled` as the language model receives it, and Qwen3-VL's `deepstack.0`
            and so on.
        """
        return [self.run(call) for call in split_images(self.info.kind, inputs, self.info.settings)]


def example_array(entry: Mapping[str, Any]) -> NDArray[Any]:
    """An array that `export.json` describes: values, or zeros of a shape."""
    if "values" in entry:
        return np.array(entry["values"], dtype=entry["dtype"]).reshape(entry["shape"])
    return np.zeros(entry["shape"], dtype=entry["dtype"])


def split_images(kind: str, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Arrays]:
    """Cuts an image processor's output into calls of one image, with what else the graph takes.

    Args:
        kind: The model's architecture, by transformers' name.
        inputs: The processor's output.
        settings: The export's.

    Raises:
        ModelError: where tiles are filled in part, which no graph here takes, or patches and grids
            do not fit.
    """
    pixels = np.asarray(inputs["pixel_values"])
    calls: list[Arrays] = []
    if "image_grid_thw" in inputs:
        grids = np.asarray(inputs["image_grid_thw"])
        # the patches of all images lie one after the other, as many of each as its grid has
        ends = np.cumsum(grids.prod(-1))
        if (grids < 1).any() or ends[-1] != len(pixels):
            raise ModelError(
                f"was given {len(pixels)} patches for grids of {grids.tolist()}; hand on what its "
                "image processor gives"
            )
        for grid, end in zip(grids, ends, strict=True):
            if grid[0] != 1:
                raise ModelError("its graph takes images, not videos")
            calls.append(
                {"pixel_values": pixels[end - grid.prod() : end], "image_grid_thw": grid[None]}
            )
    elif kind == "internvl":
        counts = (
            np.asarray(inputs["num_patches"])
            if "num_patches" in inputs
            else np.ones(len(pixels), np.int64)
        )
        # likewise the tiles
        ends = np.cumsum(counts)
        calls = [
            {"pixel_values": pixels[end - count : end]}
            for count, end in zip(counts, ends, strict=True)
        ]
    elif kind == "llava_onevision":
        tiles = TileSettings(
            [(int(height), int(width)) for height, width in settings["pinpoints"]],
            settings["tile_pixels"],
            settings["side"],
            settings["max_tiles"],
        )
        for image, size in zip(pixels, np.asarray(inputs["image_sizes"]), strict=True):
            # one of several is not cut; the rows behind an image's own tiles are the batch's
            # padding
            several = int(np.asarray(inputs.get("batch_num_images", [1]))[0]) > 1
            count = (
                1 if several or len(image) == 1 else num_tiles((int(size[0]), int(size[1])), tiles)
            )
            taps, shares = tile_plan(count, (int(size[0]), int(size[1])), tiles)
            calls.append({"pixel_values": image[None, :count], "taps": taps, "shares": shares})
    else:
        masks = inputs.get("pixel_attention_mask")
        for number, image in enumerate(pixels):
            # tiles of nothing but zeros fill the batch up; of a black picture the first stays
            kept = image.reshape(len(image), -1).any(-1)
            kept[0] |= not kept.any()
            if masks is not None and not np.asarray(masks)[number][kept].all():
                raise ModelError(
                    "its graph takes tiles that are filled to their edges; these are padded"
                )
            calls.append({"pixel_values": image[None, kept]})
    return calls


def num_tiles(image_size: tuple[int, int], settings: TileSettings) -> int:
    """Tiles that LLaVA-OneVision cuts an image into, the whole image among them."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = (
        int(length) for length in select_best_resolution(image_size, settings.pinpoints)
    )
    # rounded up
    return -(-height // settings.tile_pixels) * -(-width // settings.tile_pixels) + 1


def load_onnx(
    folder: str | Path,
    *,
    device: str = "auto",
    num_threads: int | None = None,
    warm_up: bool = True,
) -> OnnxModel:
    """Opens an exported folder.

    On a processor that it meets for the first time it looks whether it is right there.

    Args:
        folder: What `ffr export onnx` wrote.
        device: cpu, cuda, or auto.
        num_threads: Threads inside an operator; None for ONNX Runtime's own choice.
        warm_up: Whether to run a small input at once.

    Raises:
        ModelError: where the folder is damaged, changed, or reaches outside itself, or its graph
            gives other outputs here than where it was written.
        UsageError: where the device does not run.
    """
    model = open_session(folder, device=device, num_threads=num_threads)
    check_once(model)
    if warm_up:
        model.warm_up()
    return model


def open_session(
    folder: str | Path, *, device: str = "auto", num_threads: int | None = None
) -> OnnxModel:
    """Opens an exported folder without looking whether its graph is right on this processor.

    Else as `load_onnx`.
    """
    import onnxruntime as ort

    folder = Path(folder)
    info = check_folder(folder)
    wanted = choose_providers(device, ort.get_available_providers())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if num_threads is None and (setting := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        num_threads = int(setting)  # as torch does; ONNX Runtime itself would take every core
    if num_threads:
        options.intra_op_num_threads = num_threads
    try:
        session = ort.InferenceSession(str(folder / GRAPH_FILE), options, providers=wanted)
    except Exception as error:
        # ONNX Runtime's exceptions have no common base below Exception
        if not type(error).__module__.startswith("onnxruntime") and not isinstance(
            error, RuntimeError | ValueError
        ):
            raise
        raise ModelError(
            f"cannot be opened by ONNX Runtime ({one_line(error, 300)}); export it again",
            str(folder),
        ) from error
    names = (
        {item.name for item in session.get_inputs()},
        [item.name for item in session.get_outputs()],
    )
    if names != (set(info.inputs), info.outputs):
        raise ModelError(
            f"its graph has other inputs or outputs than {INFO_FILE} says; export it again",
            str(folder),
        )
    return OnnxModel(folder, info, session, check_running(device, wanted, session.get_providers()))


# -- encoders --------------------------------------------------------------------------------------

ENCODER_PARTS = ("text", "image", "fragment")


def open_parts(
    folder: Path, *, device: str = "auto", num_threads: int | None = None
) -> dict[str, OnnxModel]:
    """The exported parts of an encoder, by name.

    Args:
        folder: One that holds one part, or folders `text`, `image` and `fragment`, or some of them.
        device: As `load_onnx` takes it.
        num_threads: Likewise.

    Raises:
        ModelError: where no part of an encoder lies there, or the parts are of different models.
        UsageError: where the device does not run.
    """
    places = (
        [folder] if (folder / INFO_FILE).is_file() else [folder / part for part in ENCODER_PARTS]
    )
    models = [
        load_onnx(place, device=device, num_threads=num_threads)
        for place in places
        if place.is_dir()
    ]
    parts = {model.info.part: model for model in models}
    if not parts or set(parts) - set(ENCODER_PARTS):
        raise ModelError(
            "holds no text or image encoder; name what `ffr export onnx --part text`, `image` or "
            "`fragment` wrote",
            str(folder),
        )
    if len({model.info.fingerprint for model in models}) > 1:
        raise ModelError("holds parts of different models; export all from one", str(folder))
    return parts


def empty_rows(entry: Mapping[str, Any]) -> Any:
    """No rows of an input that `export.json` describes.

    >>> empty_rows({"dtype": "int64", "shape": ["texts", "length"]}).shape
    (0, 1)
    """
    return np.zeros(
        [0, *(1 if isinstance(length, str) else length for length in entry["shape"][1:])],
        entry["dtype"],
    )
