"""Image features, computed once by a frozen tower and kept by content, in memory and on disk."""

from __future__ import annotations

import hashlib
import logging
import platform
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ffr.errors import UsageError
from ffr.files import cached_path, remove

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the vision tower gives for one image.

    Args:
        pooled: Projected features as the architecture shapes them, (…, H).
        deepstack: Features for deeper layers (Qwen3-VL), each (tokens, H); empty elsewhere.
        grid: (1, 3) patches in time, height and width, where positions need it (Qwen); None
            elsewhere.
        in_tuple: Whether the model takes a batch's features as a tuple, one item an image, or
            joined.
    """

    pooled: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]
    grid: torch.Tensor | None
    in_tuple: bool

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {"pooled": self.pooled, "in_tuple": torch.tensor(self.in_tuple)}
        found |= {f"deepstack.{number}": layer for number, layer in enumerate(self.deepstack)}
        return found if self.grid is None else {**found, "grid": self.grid}

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor]) -> ImageFeatures:
        # the model takes them in their order
        layers = sorted(
            (name for name in tensors if name.startswith("deepstack.")),
            key=lambda name: int(name[10:]),
        )
        return cls(
            tensors["pooled"],
            tuple(tensors[name] for name in layers),
            tensors.get("grid"),
            bool(tensors["in_tuple"]),
        )

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    def to(self, device: torch.device | str) -> ImageFeatures:
        return ImageFeatures.of(
            {name: tensor.to(device) for name, tensor in self.tensors().items()}
        )


def arithmetic(device: torch.device | None = None) -> str:
    """What of a machine decides the last bits of a sum, so that caches do not mix them.

    Args:
        device: Where it is computed; None for this machine's processor.

    >>> arithmetic() == arithmetic(torch.device("cpu"))
    True
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


_CHECKSUM = "sha256"


def _checksum(tensors: dict[str, torch.Tensor]) -> bytes:
    """SHA-256 over names, types, shapes and values: safetensors does not notice a changed value."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # as bytes: numpy knows no bfloat16
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


class ImageFeatureCache:
    """Keeps features up to a number of bytes.

    The least recently used go first. Safe to ask from several threads.

    Args:
        memory_bytes: Bound of what is kept in memory.
        disk_folder: Folder that keeps features between runs; None for none.
        disk_bytes: Bound of the folder's size; the oldest files go first.

    >>> cache = ImageFeatureCache(memory_bytes=1000)
    >>> cache.put("a", ImageFeatures(torch.ones(2, 3), (), None, True))
    >>> cache.get("a", "cpu").pooled.shape, cache.get("b", "cpu")
    (torch.Size([2, 3]), None)
    """

    def __init__(
        self, *, memory_bytes: int, disk_folder: Path | None = None, disk_bytes: int = 0
    ) -> None:
        self.memory_bytes = memory_bytes
        self.disk_folder = disk_folder
        self.disk_bytes = disk_bytes
        self.num_damaged_files = 0
        self._kept: OrderedDict[str, ImageFeatures] = OrderedDict()
        self._used_bytes = 0
        self._disk_used = -1
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        with self._lock:
            if key in self._kept:
                return True
        return self.disk_folder is not None and self._path(key).is_file()

    def get(self, key: str, device: torch.device | str) -> ImageFeatures | None:
        """The features kept under a key, on a device; None where there are none."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None and self.disk_folder is not None:
            found = self._read(key)
            if found is not None:
                self._remember(key, found)
        return None if found is None else found.to(device)

    def put(self, key: str, features: ImageFeatures) -> None:
        """Keeps features under a key, in memory and on disk."""
        # a GPU's memory is the model's
        on_host = features.to("cpu")
        self._remember(key, on_host)
        if self.disk_folder is not None:
            self._write(key, on_host)

    def _remember(self, key: str, features: ImageFeatures) -> None:
        with self._lock:
            if key in self._kept:
                self._used_bytes -= self._kept.pop(key).num_bytes
            self._kept[key] = features
            self._used_bytes += features.num_bytes
            # may leave nothing, not even what has just come: the bound is a bound
            while self._used_bytes > self.memory_bytes and self._kept:
                self._used_bytes -= self._kept.popitem(last=False)[1].num_bytes

    def _path(self, key: str) -> Path:
        assert self.disk_folder is not None
        return self.disk_folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> ImageFeatures | None:
        path = self._path(key)
        try:
            tensors = load_file(path)
            # a file without a checksum is as bad as one with a wrong one (LookupError)
            written = bytes(tensors.pop(_CHECKSUM).tolist())
            if written != _checksum(tensors):
                raise ValueError("its checksum is wrong")
            return ImageFeatures.of(tensors)
        except FileNotFoundError:
            return None
        except (
            OSError,
            SafetensorError,
            LookupError,
            ValueError,
            TypeError,
            RuntimeError,
        ) as error:
            self.num_damaged_files += 1
            _log.warning("%s: cannot be read (%s); its features are computed again", path, error)
            remove(path)
            return None

    def _write(self, key: str, features: ImageFeatures) -> None:
        path = self._path(key)
        tensors = {name: tensor.contiguous() for name, tensor in features.tensors().items()}
        tensors[_CHECKSUM] = torch.frombuffer(bytearray(_checksum(tensors)), dtype=torch.uint8)
        try:
            assert self.disk_folder is not None
            with cached_path(path, self.disk_folder) as scratch:
                save_file(tensors, scratch)
                size = scratch.stat().st_size
        except (OSError, SafetensorError) as error:
            raise UsageError(
                f"{self.disk_folder}: image features cannot be written there ({error}); free space "
                "or name another folder"
            ) from error
        with self._lock:
            self._disk_used = (
                self._disk_used + size if self._disk_used >= 0 else self._folder_size()
            )
            # counted from the first write on; other processes' files are seen at the next shrinking
            if self._disk_used > self.disk_bytes:
                self._shrink()

    def _files(self) -> list[tuple[int, int, Path]]:
        """Time, size and path of each file, the oldest first.

        Other processes may be deleting them.
        """
        assert self.disk_folder is not None
        found = []
        for path in self.disk_folder.glob("??/*.safetensors"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    def _folder_size(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrink(self) -> None:
        """Deletes the oldest files until a tenth is free, so that not every write has to look."""
        files = self._files()
        used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if used <= self.disk_bytes * 0.9:
                break
            remove(path)
            used -= size
        self._disk_used = used
