"""Encoders and readers that are built in no time: of letters, and of random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ffr.embedding import load_encoder
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape

WIDTH = 32


class LetterEncoder:
    """Vectors of the counts of a text's characters: like texts lie close."""

    name = "letters"
    weights_digest = "letters-1"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.seen += texts
        rows = torch.full((len(texts), WIDTH), 0.1)
        for row, text in enumerate(texts):
            for char in text:
                rows[row, ord(char) % WIDTH] += 1
        return torch.nn.functional.normalize(rows, dim=-1)


def build_reader(folder: Path, encoder: Path, *, seed: int = 0, nothing_from: float = 0.9) -> Path:
    """Writes a reader of random weights over a sentence encoder's folder."""
    found = load_encoder(encoder)
    vectors = torch.nn.functional.normalize(
        torch.randn(2, 1, 40, found.embed_texts(["a"]).shape[1], generator=torch.manual_seed(1)),
        dim=-1,
    )
    reader = Reader.untrained(
        found,
        Background(vectors[0], vectors[1]),
        seed=seed,
        shape=NetworkShape(width=16, num_heads=2, num_layers=1, dropout=0.0),
        nothing_from=nothing_from,
    )
    reader.save(folder)
    return folder
