"""The call that an export brings with it.

It is compared on every processor that the export meets for the first time.

What an export gives where it was made is known to be right. Sums are made by other instructions on
another processor, and one that makes them wrong says nothing of it; so one call and its outputs lie
in the folder, and are compared once on each processor.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import platform
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ffr import provenance
from ffr.data.home import data_home
from ffr.errors import DataError, ModelError, UsageError
from ffr.exports.parity import Call, Tolerance, compare
from ffr.files import replace_text, write_bytes
from ffr.text import one_line

_log = logging.getLogger(__name__)

REFERENCE_FILE = "reference.npz"
"""In numpy's own format: whoever runs an export has numpy."""
MAX_REFERENCE_BYTES = 256 * 2**20

_OF_A_PROCESSOR = (
    "model name",
    "flags",
    "Features",
    "CPU implementer",
    "CPU part",
    "CPU variant",
    "isa",
    "cpu",
)
"""The lines of /proc/cpuinfo that say what a processor is and can do.

Others change by the moment.
"""


class Opened(Protocol):
    """An opened export, as `ffr.exports.runtime.OnnxModel` is one."""

    folder: Path
    info: Any
    provider: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


def write_reference(
    folder: Path, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
) -> None:
    """Writes a call and what came out of it."""
    given = {f"input.{name}": np.ascontiguousarray(value) for name, value in inputs.items()}
    found = {f"output.{name}": np.ascontiguousarray(value) for name, value in outputs.items()}
    packed = io.BytesIO()
    np.savez(packed, **given, **found)  # type: ignore[arg-type]
    write_bytes(folder / REFERENCE_FILE, packed.getvalue())


def processor() -> str:
    """What of this machine can change a sum.

    What its processor and its GPUs are, in lines of text.
    """
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        lines = [
            line
            for line in first.splitlines()
            if line.partition("\t")[0].strip(": ") in _OF_A_PROCESSOR
        ]
    except OSError:
        lines = [platform.processor(), platform.node()]
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return "\n".join(
        [platform.machine(), *lines, *(path.read_text().partition("\n")[0] for path in gpus)]
    )


def check_once(model: Opened) -> bool:
    """Compares the reference unless these files have passed on this processor.

    That they have is kept in the user's cache.

    Returns:
        Whether it was compared now.

    Raises:
        ModelError: where the vectors are not those of the machine that wrote the export.
    """
    import onnxruntime

    tolerance = _tolerance(model)
    identity = {
        "files": model.info.files,
        "tolerance": [tolerance.max_difference, tolerance.min_cosine],
        "processor": processor(),
        "provider": model.provider,
        "onnxruntime": onnxruntime.__version__,
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = _kept_as(name)
    if path is not None and path.is_file():
        return False
    figures = _compare(model, tolerance)
    content = {
        **figures,
        "provider": model.provider,
        "processor": identity["processor"],
        "time": provenance.now(),
    }
    if path is not None:
        try:
            replace_text(path, json.dumps(content, indent=2) + "\n")
        except DataError as error:
            _log.debug("%s; so it is compared each time", error)
    return True


def _kept_as(name: str) -> Path | None:
    """Where a comparison that went well is kept; None where no place is known."""
    try:
        return data_home().parent / "export-checks" / f"{name}.json"
    except UsageError:
        return None


def _tolerance(model: Opened) -> Tolerance:
    entry = model.info.content["reference"]
    try:
        found = Tolerance(float(entry["max_difference"]), float(entry["min_cosine"]))
    except (KeyError, TypeError, ValueError):
        found = Tolerance(math.nan, math.nan)
    if not (0 <= found.max_difference < 1 and 0 < found.min_cosine <= 1):
        raise ModelError(
            "says nothing usable of its reference; export the model again", str(model.folder)
        )
    return found


_UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error,
    NotImplementedError, SyntaxError,
)  # fmt: skip
"""What numpy and zipfile raise of a file that is none of theirs."""


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_REFERENCE_BYTES:
            raise ValueError("it is too large")
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in file.files}


def _compare(model: Opened, tolerance: Tolerance) -> dict[str, float]:
    where = str(model.folder)
    path = model.folder / REFERENCE_FILE
    try:
        if REFERENCE_FILE not in model.info.files:
            raise ValueError("export.json does not name it")
        arrays = _arrays(path)
        parts = {
            kind: {
                name.removeprefix(kind): value
                for name, value in arrays.items()
                if name.startswith(kind)
            }
            for kind in ("input.", "output.")
        }
        if set(parts["output."]) != set(model.info.outputs):
            raise ValueError("it has other outputs than the graph")
        call = Call(parts["input."], parts["output."])
    except _UNREADABLE as error:
        raise ModelError(
            f"{REFERENCE_FILE} cannot be used ({one_line(error)}); export the model again", where
        ) from None
    try:
        figures = compare("its reference", [call], model.run, one_item=model.info.part == "vision")
        found = (
            f"difference {figures.max_difference:.2g}, allowed {tolerance.max_difference:.2g}; "
            f"cosine {figures.min_cosine:.5f}, allowed {tolerance.min_cosine:.5f}"
            if figures.is_finite
            else "some are no finite numbers"
        )
        is_right = (
            figures.is_finite
            and figures.max_difference <= tolerance.max_difference
            and figures.min_cosine >= tolerance.min_cosine
        )
    except ModelError as error:
        is_right, found = False, error.message
    if not is_right:
        raise ModelError(
            "its graph does not give on this processor what it gave where it was exported "
            f"({found}); "
            "export the model again on this machine, or with --dtype fp32",
            where,
        )
    return {"max_difference": figures.max_difference, "min_cosine": figures.min_cosine}
