"""Vectors of many texts, kept in a folder part by part, so that a stop loses little.

Shapes: n texts, D width of the encoder's vectors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ffr.files import replaced_file
from ffr.progress import Say
from ffr.reader.units import TextEncoder

PART = 2048
"""Texts that are embedded between two writes."""

_KEY_BYTES = 16


class VectorFolder:
    """Vectors by text, of one encoder, in half precision.

    A part holds keys (n, 16), the beginnings of the texts' SHA-256, and vectors (n, D).

    Args:
        folder: Where they are kept, under the encoder's digest.
        encoder: Makes those that are missing.
    """

    def __init__(self, folder: Path, encoder: TextEncoder) -> None:
        self.folder = folder / encoder.weights_digest[:16]
        self.encoder = encoder

    def of(self, texts: Sequence[str], say: Say = lambda line: None) -> dict[str, Tensor]:
        """(D,) float16 of each text.

        Args:
            texts: The texts; each different one is embedded once.
            say: Is told of every part.

        Raises:
            DataError: where the folder cannot be written.
        """
        kept: dict[bytes, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            part = load_file(path)
            keys = [bytes(key.tolist()) for key in part["keys"]]
            kept |= zip(keys, part["vectors"], strict=True)
        different = sorted(set(texts))
        missing = [text for text in different if _key(text) not in kept]
        for start in range(0, len(missing), PART):
            some = missing[start : start + PART]
            vectors = self.encoder.embed_texts(some).half()
            self.add(some, vectors)
            kept |= zip(map(_key, some), vectors, strict=True)
            say(f"vectors of {start + len(some)} of {len(missing)} new texts")
        return {text: kept[_key(text)] for text in different}

    def add(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Keeps vectors (n, D) float16 of texts that were embedded elsewhere."""
        keys = torch.tensor([list(_key(text)) for text in texts], dtype=torch.uint8)
        path = self.folder / f"{os.urandom(8).hex()}.safetensors"
        with replaced_file(path) as write:
            write(save({"keys": keys, "vectors": vectors.contiguous()}))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]
