"""Vectors of many texts, kept in a folder part by part, so that a stop loses little.

Shapes: n texts, D width of the encoder's vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffr.files import replaced_file
from ffr.progress import Say
from ffr.reader.units import TextEncoder

PART = 2048
"""Texts that are embedded between two writes."""


class VectorFolder:
    """Vectors by text, of one encoder, in half precision.

    Args:
        folder: Where they are kept; its files are named by what is in them.
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
        different = sorted(set(texts))
        found: dict[str, Tensor] = {}
        num_parts = -(-len(different) // PART)
        for number in range(num_parts):
            part = different[number * PART : (number + 1) * PART]
            found |= zip(part, self._part(part), strict=True)
            say(f"vectors of {len(found)} of {len(different)} texts")
        return found

    def _part(self, texts: list[str]) -> Tensor:
        """(n, D) float16, read or made."""
        digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        path = self.folder / f"{digest[:32]}.npy"
        if path.is_file():
            return torch.from_numpy(np.load(path, allow_pickle=False))
        made = self.encoder.embed_texts(texts).half()
        with replaced_file(path) as write:
            write(_npy(made.numpy()))
        return made


def _npy(rows: np.ndarray) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()
