"""A reader on disk: settings as JSON, networks and background as safetensors, both checked.

Nothing in it can run code; sizes are bounded, and names, shapes and numbers are those that the
settings say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ffr.errors import ModelError
from ffr.files import write_bytes, write_checksums, write_json
from ffr.model_files import check_checksums, check_weights_finite
from ffr.reader.gate import Gate
from ffr.reader.likeness import Background
from ffr.reader.network import NetworkShape, ReaderNetwork
from ffr.reader.query import QueryMap
from ffr.reader.settings import ReaderSettings
from ffr.text import one_line

SETTINGS_FILE = "reader.json"
WEIGHTS_FILE = "reader.safetensors"
FORM = 2
"""Of the two files; raised where an older reader could not be read any more."""

MAX_WEIGHTS_BYTES = 256 * 2**20
"""Weights beyond this are not opened: a reader has some megabytes."""

_MAX_SETTINGS_BYTES = 2**16
_GATE = ("weights", "mean", "deviation")

_SMALL = 1 << 21


def write_parts(
    folder: Path,
    networks: Sequence[ReaderNetwork],
    background: Background,
    settings: ReaderSettings,
    query_map: QueryMap | None,
    gate: Gate | None,
) -> None:
    """Writes a reader's files into a folder that appears whole by other means.

    Background and query map are kept in half precision: it is averages of them that count.
    """
    weights = {
        name: value.contiguous() for name, value in nn.ModuleList(networks).state_dict().items()
    }
    weights |= _halves(background, query_map) | _whole(gate)
    write_bytes(folder / WEIGHTS_FILE, save(weights))
    write_json(folder / SETTINGS_FILE, {"form": FORM, **asdict(settings)})
    write_checksums(folder, [WEIGHTS_FILE, SETTINGS_FILE])


def _halves(background: Background, query_map: QueryMap | None) -> dict[str, Tensor]:
    """What a file keeps in half precision, by its names there."""
    kept = {"background.lines": background.lines, "background.queries": background.queries}
    if query_map is not None:
        kept |= {"query_map.matrix": query_map.matrix, "query_map.mean": query_map.mean}
    return {name: value.half().contiguous() for name, value in kept.items()}


def _whole(gate: Gate | None) -> dict[str, Tensor]:
    """A gate's numbers by their names in a file."""
    return {} if gate is None else {f"gate.{name}": getattr(gate, name) for name in _GATE}


def parts_digest(
    networks: Sequence[ReaderNetwork],
    background: Background,
    settings: ReaderSettings,
    query_map: QueryMap | None,
    gate: Gate | None,
) -> str:
    """SHA-256 over all of a reader that decides what it says.

    Args:
        networks: Its networks.
        background: As a file keeps it, in half precision.
        settings: Its settings; the notes decide nothing.
        query_map: What its query vectors go through; likewise in half precision.
        gate: What weighs whether a query means nothing.
    """
    told = {**asdict(settings), "notes": None}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    weights = [value for network in networks for value in network.state_dict().values()]
    kept = _halves(background, query_map) | _whole(gate)
    for value in [*weights, *kept.values()]:
        digest.update(str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_parts(
    folder: Path,
) -> tuple[list[ReaderNetwork], Background, ReaderSettings, QueryMap | None, Gate | None]:
    """Networks, background, settings, query map and gate of a reader's folder.

    Raises:
        ModelError: where files are missing, damaged, or hold anything else.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise ModelError(f"holds no {SETTINGS_FILE}; name the folder of a reader", str(folder))
    check_checksums(folder)
    settings = _read_settings(folder / SETTINGS_FILE)
    found = _read_tensors(folder / WEIGHTS_FILE)
    try:
        background = Background(found.pop("background.lines"), found.pop("background.queries"))
        query_map = None
        if "query_map.matrix" in found:
            query_map = QueryMap(found.pop("query_map.matrix"), found.pop("query_map.mean"))
            if len(query_map.mean) != background.lines.shape[2]:
                raise ValueError("its query map has another width than its background")
        gate = None
        if "gate.weights" in found:
            gate = Gate(*(found.pop(f"gate.{name}") for name in _GATE))
        # large ones of no memory, until the file's weights take their place; but whoever fills that
        # device imports torch's compiler, which takes a second
        size = settings.shape.width**2 * settings.shape.num_layers * settings.num_networks
        device = "cpu" if size < _SMALL else "meta"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            networks = [ReaderNetwork(settings.shape) for _ in range(settings.num_networks)]
        joined = nn.ModuleList(networks)
        joined.load_state_dict(found, strict=True, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"holds other weights than {SETTINGS_FILE} says ({one_line(error)}); fetch both again",
            str(folder / WEIGHTS_FILE),
        ) from None
    check_weights_finite(joined, str(folder))
    if not bool(background.lines.isfinite().all() and background.queries.isfinite().all()):
        raise ModelError(
            "its background holds NaN or infinite numbers; fetch it again", str(folder)
        )
    joined.eval()
    return networks, background, settings, query_map, gate


def _read_settings(path: Path) -> ReaderSettings:
    try:
        if path.stat().st_size > _MAX_SETTINGS_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        form = content.pop("form", None) if isinstance(content, dict) else None
        if type(form) is int and 0 < form < FORM:
            raise ModelError(
                f"is of form {form}, which an earlier ffr wrote, and this one reads form {FORM}; "
                "train the reader again (`ffr train reader`)",
                str(path),
            )
        if form != FORM:
            raise ValueError(f"it is not of form {FORM}")
        if unknown := sorted(content.keys() - {known.name for known in fields(ReaderSettings)}):
            raise ValueError(f"it has {unknown[0]!r}, which is not known")
        shape = NetworkShape(**content.pop("shape"))
        settings = ReaderSettings(**content, shape=shape)
        if not isinstance(settings.notes, dict):
            raise ValueError("its notes are no object")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(
            f"cannot be read as a reader's settings ({one_line(error)}); fetch it again",
            str(path),
        ) from None
    return settings


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ValueError("they are too large")
        found: dict[str, Tensor] = load(path.read_bytes())
        if any(not value.is_floating_point() for value in found.values()):
            raise ValueError("they are no floats")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"weights cannot be read ({one_line(error)}); fetch them again", str(path)
        ) from None
    return {name: value.float() for name, value in found.items()}
