"""Vectors of texts on their way from one machine to another: files of safetensors, each whole.

A file is named by its encoder and by the digest of what is in it: the same vectors have one name.
It may come from anybody, so that all it says of itself is seen to be so.

Shapes: n texts of a file, D width of the encoder's vectors, K = 16 bytes of a text's digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ffr.errors import DataError, UsageError
from ffr.files import make_private_folder, replaced_file
from ffr.text import one_line

AUTO = "auto"
MAX_SHARDS = 1_000_000
_FORM = "ffr-vectors/1"
_NAME = "vectors-*.safetensors"
_KEY_BYTES = 16
_ON_DISK = np.dtype("<f4")
_MOST_NUMBERS = 2**16
_SHARD = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,6})")
_HEX = re.compile(r"[0-9a-f]{32}")
_REMEDY = "delete it, and embed its shard again"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the parts into which all texts fall by their digests.

    Args:
        number: Which part, from 1.
        of: How many parts there are.

    >>> Shard.of_words("2/3").holds(bytes(7) + bytes([1]) + bytes(8))
    True
    """

    number: int
    of: int

    @classmethod
    def of_words(cls, words: str, environment: Mapping[str, str] | None = None) -> Shard:
        """The shard `I/N`; `auto` is what torchrun gives this process.

        Args:
            words: The words.
            environment: Holds `RANK` and `WORLD_SIZE`, of which the first counts from 0.

        Raises:
            UsageError: where it is neither, or I is more than N.
        """
        given = words
        if words == AUTO:
            known = environment or {}
            if "RANK" not in known or "WORLD_SIZE" not in known:
                raise UsageError(
                    "--shard auto takes RANK and WORLD_SIZE from torchrun, which did not start "
                    "this process; write --shard I/N"
                )
            rank = known["RANK"]
            first = str(int(rank) + 1) if rank.isascii() and rank.isdigit() else rank
            given = f"{first}/{known['WORLD_SIZE']}"
        found = _SHARD.fullmatch(given)
        if not found or int(found[1]) > int(found[2]) or int(found[2]) > MAX_SHARDS:
            raise UsageError(
                f"--shard {one_line(given, 40)}: write I/N, such as 1/4 for the first of four "
                f"parts (N at most {MAX_SHARDS:,})"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @staticmethod
    def number_of(key: bytes, of: int) -> int:
        """The number of the part, of so many, into which a text falls by its digest."""
        return int.from_bytes(key[:8], "big") % of + 1

    def holds(self, key: bytes) -> bool:
        """Whether a text falls into it, by the text's digest."""
        return self.number_of(key, self.of) == self.number


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file of vectors, seen to be as it was written.

    Args:
        path: The file.
        shard: Whose texts it holds.
        encoder: Names the encoder's weights and the prefix of its lines.
        keys: (n) digests of texts, as `S16`.
        width: D.
    """

    path: Path
    shard: Shard
    encoder: str
    keys: NDArray[np.bytes_]
    width: int

    def rows(self, places: NDArray[np.intp]) -> NDArray[np.float32]:
        """(m, D) the vectors at some places of the file; no other is read."""
        # safetensors: 8 bytes say how long the header is, and places in it count from its end
        with self.path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            start = json.loads(file.read(size))["vectors"]["data_offsets"][0]
        shape = (len(self.keys), self.width)
        matrix = np.memmap(self.path, _ON_DISK, mode="r", offset=8 + size + start, shape=shape)
        return np.asarray(matrix[places], np.float32)


def write_shard_file(
    folder: Path, shard: Shard, encoder: str, keys: Sequence[bytes], vectors: Tensor
) -> Path:
    """Writes vectors into a folder, for its owner alone to read, whole or not at all.

    Args:
        folder: The folder; made where it is missing.
        shard: Into which the texts fall.
        encoder: As in `ShardFile`.
        keys: n digests of texts, all different.
        vectors: (n, D) float32.

    Raises:
        DataError: where a vector has a number that is not finite, or the file cannot be written.
    """
    from safetensors.numpy import save

    if not bool(vectors.isfinite().all()):
        raise DataError("the encoder gave numbers that are not finite for a line of the chat")
    digests = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES)
    matrix: NDArray[np.float32] = np.ascontiguousarray(vectors.numpy().astype(_ON_DISK))
    checksum = _checksum(shard, encoder, digests, matrix)
    about = {
        "form": _FORM,
        "encoder": encoder,
        "shard": str(shard),
        "count": str(len(keys)),
        "width": str(vectors.shape[1]),
        "checksum": checksum,
    }
    path = folder / f"vectors-{encoder[:16]}-{checksum[:32]}.safetensors"
    make_private_folder(folder)
    with replaced_file(path, is_private=True) as write:
        write(save({"keys": digests, "vectors": matrix}, about))
    return path


def shard_files(paths: Sequence[Path]) -> Iterator[ShardFile]:
    """The files that are named, and those of folders that are named, in the order of their names.

    Raises:
        DataError: where one is not there, or not as it was written.
    """
    for path in paths:
        if path.is_dir():
            for inner in sorted(path.glob(_NAME)):
                yield read_shard_file(inner)
        else:
            yield read_shard_file(path)


def read_shard_file(path: Path) -> ShardFile:
    """Reads a file of vectors, seen to be as it was written.

    Raises:
        DataError: where it is not there, of another form, torn or changed.
    """
    from safetensors import SafetensorError, safe_open

    where = one_line(path)
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            if about.get("form") != _FORM:
                raise DataError(
                    "is no file of vectors that `ffr index add --shard` wrote; leave it out",
                    where=where,
                )
            _check_shapes(file, about, where)
            keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
    except FileNotFoundError:
        raise DataError("is not there; check the path", where=where) from None
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot be read as a file of vectors ({one_line(error, 120)}); {_REMEDY}", where=where
        ) from None
    shard = Shard.of_words(about["shard"])
    if _checksum(shard, about["encoder"], keys, vectors) != about["checksum"]:
        raise DataError(f"is not what was written (by its checksum); {_REMEDY}", where=where)
    texts = np.ascontiguousarray(keys).view(f"S{_KEY_BYTES}").reshape(-1)
    firsts = np.ascontiguousarray(keys[:, :8]).view(">u8").reshape(-1)
    is_of_shard = bool((firsts % shard.of == shard.number - 1).all())
    is_once = len(np.unique(texts)) == len(texts)
    if not (is_once and is_of_shard and np.isfinite(vectors).all()):
        raise DataError(
            "has a text twice or of another shard, or a number that is not finite; " + _REMEDY,
            where=where,
        )
    return ShardFile(path, shard, about["encoder"], texts, vectors.shape[1])


def _check_shapes(file: object, about: dict[str, str], where: str) -> None:
    """Sees that the tensors are those that a file of vectors has.

    Raises:
        DataError: where they are not.
    """
    found = {
        name: (part.get_dtype(), tuple(part.get_shape()))
        for name in file.keys()  # type: ignore[attr-defined] # noqa: SIM118 - it is no mapping
        for part in (file.get_slice(name),)  # type: ignore[attr-defined]
    }
    count, width = about.get("count", ""), about.get("width", "")
    is_told = count.isascii() and count.isdigit() and width.isascii() and width.isdigit()
    expected = (
        {
            "keys": ("U8", (int(count), _KEY_BYTES)),
            "vectors": ("F32", (int(count), int(width))),
        }
        if is_told and len(count) < 12 and len(width) < 6
        else None
    )
    is_sized = expected is not None and int(count) > 0 and 0 < int(width) <= _MOST_NUMBERS
    if found != expected or not is_sized or not _HEX.fullmatch(about.get("encoder", "")):
        raise DataError(
            f"does not hold what it says (count, width, encoder); {_REMEDY}", where=where
        )
    if "checksum" not in about or not _is_shard(about.get("shard", "")):
        raise DataError(f"has no checksum or no shard; {_REMEDY}", where=where)


def _is_shard(words: str) -> bool:
    try:
        Shard.of_words(words)
    except UsageError:
        return False
    return True


def _checksum(
    shard: Shard, encoder: str, keys: NDArray[np.uint8], vectors: NDArray[np.float32]
) -> str:
    digest = hashlib.sha256(f"{shard} {encoder} {keys.shape} {vectors.shape}".encode())
    digest.update(keys.tobytes())
    digest.update(vectors.astype(_ON_DISK, copy=False).tobytes())
    return digest.hexdigest()
