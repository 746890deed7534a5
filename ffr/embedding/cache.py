"""Vectors kept by content, in memory and in a folder, so that each is computed once.

Shapes: n texts, images or fragments of a call, H width of the space.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffr.embedding.interface import Encoder
from ffr.errors import UsageError
from ffr.files import cached_path, remove, write_bytes
from ffr.images import LoadedPicture, Location, image_digest
from ffr.models.features import arithmetic
from ffr.parts import (
    FragmentParts,
    Parts,
    Pictures,
    Texts,
    as_fragments,
    as_pictures,
    as_texts,
)
from ffr.text import counted

_log = logging.getLogger(__name__)

_DIGEST_BYTES = 32
_ON_DISK = np.dtype("<f4")


class CachedEncoder:
    """An encoder whose vectors are kept by content, in memory and on disk: each is computed once.

    A vector is named by the encoder's fingerprint, the kind of processor, and the text's or the
    picture file's bytes, of a fragment by those of all its parts in order; it comes back to the
    bit. Each file is written beside its place and moved there, and holds its checksum: a torn one
    is counted, logged and computed again. Several processes may share a folder, and several
    threads an encoder.

    Args:
        encoder: Makes the vectors.
        folder: Folder that keeps vectors between runs.
        max_bytes: Bound of what the folder's files hold; the oldest go first. Processes that write
            at once see each other's files now and then, and may exceed it by a tenth for a while.
        memory_bytes: Bound of the vectors in memory; the least recently used go first.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: str | Path,
        *,
        max_bytes: int,
        memory_bytes: int = 64 * 2**20,
    ) -> None:
        self._encoder = encoder
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.memory_bytes = memory_bytes
        self.num_damaged_files = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._kept_bytes = 0
        self._folder_bytes: int | None = None
        self._bytes_since_look = 0
        self._digests: dict[tuple[str, int, int], str] = {}
        self._lock = threading.RLock()

    @property
    def cached_encoder(self) -> Encoder:
        """That which makes the vectors."""
        return self._encoder

    @property
    def name(self) -> str:
        return self._encoder.name

    @cached_property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    @property
    def weights_digest(self) -> str:
        """The encoder's own, where it has one; else its fingerprint."""
        return str(getattr(self._encoder, "weights_digest", None) or self.fingerprint)

    @property
    def takes_images(self) -> bool:
        return self._encoder.takes_images

    @cached_property
    def _width(self) -> int:
        return int(self._encoder.embed_texts(["a"]).shape[-1])

    def embed_texts(self, texts: Texts) -> Tensor:
        """As the encoder's, (n, H) float32 on the CPU.

        Raises:
            UsageError: where the folder cannot be written.
        """
        read = as_texts(texts)
        keys = [self._key("text", text.encode("utf-8", "surrogatepass")) for text in read]
        return self._embed(keys, read, self._encoder.embed_texts)

    def embed_images(self, images: Pictures) -> Tensor:
        """As the encoder's, (n, H) float32 on the CPU.

        A picture is known by its file's bytes, wherever it lies.

        Raises:
            DataError: where a picture's file cannot be read, or as the encoder raises it.
            UsageError: where the folder cannot be written.
        """
        read = as_pictures(images)
        keys = [self._key("image", self._digest(location).encode()) for location in read]
        return self._embed(keys, read, self._encoder.embed_images)

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """As the encoder's, (n, H) float32 on the CPU.

        Raises:
            DataError: where a picture's file cannot be read, or as the encoder raises it.
            UsageError: where the folder cannot be written, or as the encoder raises it.
        """
        read = as_fragments(fragments)
        keys = [self._key("fragment", self._content(parts)) for parts in read]
        return self._embed(keys, read, self._encoder.embed_fragments)

    def _content(self, parts: Parts) -> bytes:
        """Names a fragment's parts by kinds and digests of one length: no two lists are alike."""
        return b"".join(
            b"text  " + hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest().encode()
            if isinstance(part, str)
            else b"image " + self._digest(part).encode()
            for part in parts
        )

    def _key(self, kind: str, content: bytes) -> str:
        name = f"{self.fingerprint} {arithmetic()} {kind} "
        return hashlib.sha256(name.encode() + content).hexdigest()

    def _digest(self, location: Location) -> str:
        if isinstance(location, LoadedPicture):
            return location.digest
        try:
            status = Path(location).stat()
        except (OSError, ValueError):
            return image_digest(location)  # says what is wrong
        known = (str(location), status.st_mtime_ns, status.st_size)
        if known not in self._digests:
            self._digests[known] = image_digest(location)
        return self._digests[known]

    def _embed(
        self, keys: list[str], items: Sequence[Any], embed: Callable[[Sequence[Any]], Tensor]
    ) -> Tensor:
        if not keys:
            return torch.zeros((0, self._width))
        with self._lock:
            found: dict[str, Tensor] = {}
            missing: dict[str, Any] = {}
            for key, item in zip(keys, items, strict=True):
                if key in found or key in missing:
                    continue
                vector = self._recall(key)
                if vector is None:
                    missing[key] = item
                else:
                    found[key] = vector
            if missing:
                made = embed(list(missing.values())).detach().float().cpu()
                for key, vector in zip(missing, made, strict=True):
                    # of its own memory: a row would keep its whole batch alive
                    found[key] = vector.clone()
                    self._remember(key, found[key])
                    self._write(key, found[key])
            return torch.stack([found[key] for key in keys])

    def _recall(self, key: str) -> Tensor | None:
        vector = self._kept.get(key)
        if vector is not None:
            self._kept.move_to_end(key)
            return vector
        vector = self._read(key)
        if vector is not None:
            self._remember(key, vector)
        return vector

    def _remember(self, key: str, vector: Tensor) -> None:
        self._kept[key] = vector
        self._kept_bytes += vector.nbytes
        while self._kept_bytes > self.memory_bytes:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.vector"

    def _read(self, key: str) -> Tensor | None:
        path = self._path(key)
        try:
            status = path.lstat()
            return _stored(path, status, key, self._width)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.num_damaged_files += 1
            _log.warning("%s: cannot be read (%s); its vector is computed again", path, error)
            with suppress(OSError):
                remove(path)
            return None

    def _write(self, key: str, vector: Tensor) -> None:
        path = self._path(key)
        values = vector.numpy().astype(_ON_DISK).tobytes()
        try:
            with cached_path(path, self.folder) as scratch:
                write_bytes(scratch, _checksum(key, values) + values)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: vectors cannot be written there ({error}); free space or name "
                "another folder"
            ) from error
        self._bytes_since_look += _DIGEST_BYTES + len(values)
        if (
            self._folder_bytes is None
            or self._folder_bytes + self._bytes_since_look > self.max_bytes
            or self._bytes_since_look > self.max_bytes // 10
        ):
            self._folder_bytes, self._bytes_since_look = _shrunk(self.folder, self.max_bytes), 0


def _shrunk(folder: Path, max_bytes: int) -> int:
    """Bytes of a folder's vectors; beyond nine tenths of the bound the oldest go, down to eight."""
    files = []
    for path in folder.glob("??/*.vector"):
        with suppress(OSError):
            status = path.lstat()
            files.append((status.st_mtime_ns, status.st_size, path))
    used = sum(size for _, size, _ in files)
    if used > 0.9 * max_bytes:
        for _, size, path in sorted(files):
            if used <= 0.8 * max_bytes:
                break
            with suppress(OSError):
                remove(path)
                used -= size
    return used


def _stored(path: Path, status: os.stat_result, key: str, width: int) -> Tensor:
    """A file's vector; ValueError where it is none."""
    size = _DIGEST_BYTES + 4 * width
    # looked at before it is opened: a pipe would never end, and a huge file would fill the memory
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        raise ValueError(f"it is no file of {counted(size, 'byte')}")
    content = path.read_bytes()
    values = content[_DIGEST_BYTES:]
    if content[:_DIGEST_BYTES] != _checksum(key, values):
        raise ValueError("its checksum is wrong")
    vector = torch.from_numpy(np.frombuffer(values, _ON_DISK).astype(np.float32))
    if not bool(vector.isfinite().all()):
        raise ValueError("it holds numbers that are not finite")
    return vector


def _checksum(key: str, values: bytes) -> bytes:
    return hashlib.sha256(key.encode() + values).digest()
