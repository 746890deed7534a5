"""A reader of random weights over an encoder of letters, for all tests of the reader."""

from __future__ import annotations

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue, Image
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape


@pytest.fixture
def encoder() -> LetterEncoder:
    return LetterEncoder()


@pytest.fixture
def background() -> Background:
    rows = torch.randn(4, 40, WIDTH, generator=torch.Generator().manual_seed(5))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    return Background(rows[:2], rows[2:])


@pytest.fixture
def reader(encoder: LetterEncoder, background: Background) -> Reader:
    return Reader.untrained(
        encoder,
        background,
        shape=NetworkShape(width=24, num_heads=2, num_layers=2),
        num_networks=2,
        stretch=16,
        overlap=8,
        query_prefix="? ",
        nothing_from=0.99,
    )


@pytest.fixture
def chat() -> Dialogue:
    return Dialogue.of(
        [
            ("Ann", "shall we cook tonight"),
            ("Bob", ["yes look", Image("soup.png")]),
            ("ann", [Image("bread.png"), Image("salt.png")]),
            ("Cy", ""),
            ("Bob", "the train leaves at nine"),
        ]
    )
