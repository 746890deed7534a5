"""A reader's head as exported: from vectors of a dialogue and of queries to calibrated logits.

Shapes: N units of a stretch, Q queries, D width of the encoder's vectors, G groups of the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffr.exports.parity import Call, Case
from ffr.exports.plans import Plan
from ffr.reader.likeness import seen_of
from ffr.reader.model import Reader
from ffr.reader.network import NetworkInputs
from ffr.reader.units import Units

MAX_UNITS = 4_096
"""Units of the longest stretch, and queries, of a call."""

_CASES = {
    "one unit": (1, 1, 1.0),
    "a dialogue": (40, 1, 0.9),
    "several queries": (25, 7, 0.8),
    "a dialogue without words": (9, 2, 0.0),
    "a long dialogue": (192, 3, 0.95),
}
"""What the graph is tried with: units, queries, and the share of units that have words."""

_USAGE = """\
from pathlib import Path
import numpy as np
from ffr.exports.runtime import open_session

head = open_session(Path("{folder}"), device="cpu")
units = np.random.default_rng(0).normal(size=(4, WIDTH)).astype("float32")  # an encoder's vectors
units /= np.linalg.norm(units, axis=1, keepdims=True)
found = head.run({{
    "vectors": units,                            # zeros where a unit has no words
    "is_picture": np.zeros(4, dtype=bool),
    "speakers": np.array([0, 1, 0, 1]),
    "num_chars": np.array([12, 7, 30, 5]),       # of what a vector was made of
    "queries": units[:1],                        # vectors of queries
}})
probabilities = 1 / (1 + np.exp(-found["units"]))  # if there is anything, which "nothing" says
"""


class ReaderHead(nn.Module):
    """Likenesses, networks and calibration of a reader in one graph; the encoder stands before it.

    Args:
        reader: The reader.
    """

    output_names = ("units", "nothing")

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.networks = nn.ModuleList(reader.networks)
        self.lines = nn.Buffer(reader.background.lines)
        self.strangers = nn.Buffer(reader.background.queries)
        # as `Background.group_of` has them
        self.means = nn.Buffer(functional.normalize(self.lines.mean(1), dim=-1))
        self.reader = reader

    def forward(
        self,
        vectors: Tensor,
        is_picture: Tensor,
        speakers: Tensor,
        num_chars: Tensor,
        queries: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(Q, N) logits of units, on the condition that there is anything, and (Q,) of nothing.

        Args:
            vectors: (N, D) float32, L2-normalised; zeros where there are no words.
            is_picture: (N,) bool.
            speakers: (N,) int64, from 0 in order of appearance.
            num_chars: (N,) int64; 0 without words.
            queries: (Q, D) float32, L2-normalised, as the encoder gives them.
        """
        if self.reader.query_map is not None:
            queries = self.reader.query_map(queries)
        group = (self.means @ vectors.sum(0)).argmax()
        features, summaries, between = seen_of(
            vectors, is_picture, num_chars, queries, self.lines[group], self.strangers[group]
        )
        num_queries = queries.shape[0]
        return self.reader.logits(
            NetworkInputs(
                features,
                summaries,
                between.expand(num_queries, -1, -1),
                speakers.expand(num_queries, -1),
                torch.ones(features.shape[:2], dtype=torch.bool),
            )
        )


def plan_reader(reader: Reader, name: str) -> Plan:
    """A reader's head, ready to be traced and checked against the reader itself.

    Args:
        reader: The reader.
        name: What the user called it.
    """
    settings = reader.settings
    units = torch.export.Dim("units", min=1, max=MAX_UNITS)
    example = _inputs_of(*_drawn(reader, 12, 3, 0.8, seed=0))
    return Plan(
        part="reader",
        kind="reader",
        name=name,
        fingerprint=reader.fingerprint,
        module=ReaderHead(reader),
        example=example,
        open_axes={
            field: {0: torch.export.Dim("queries", min=1, max=MAX_UNITS)}
            if field == "queries"
            else {0: units}
            for field in example
        },
        cases=lambda: _cases(reader),
        settings={
            "encoder": settings.encoder_name,
            "encoder_weights": settings.encoder,
            "line_prefix": settings.line_prefix,
            "query_prefix": settings.query_prefix,
            "has_plain_queries": settings.has_plain_queries,
            "nothing_from": settings.nothing_from,
            "stretch": settings.stretch,
            "overlap": settings.overlap,
        },
        save_preprocessing=_saves_nothing,
        usage=_USAGE.replace("WIDTH", str(reader.background.lines.shape[2])),
    )


def _saves_nothing(folder: Path) -> None:
    """What stands before a head is an encoder's export."""


def _drawn(
    reader: Reader, num_units: int, num_queries: int, word_share: float, *, seed: int
) -> tuple[Units, Tensor]:
    """Units and queries of random numbers."""
    draw = torch.Generator().manual_seed(seed)
    width = reader.background.lines.shape[2]
    vectors = functional.normalize(torch.randn(num_units, width, generator=draw), dim=-1)
    num_chars = torch.randint(1, 200, (num_units,), generator=draw)
    num_chars[torch.rand(num_units, generator=draw) >= word_share] = 0
    vectors[num_chars == 0] = 0
    places = torch.arange(num_units)
    units = Units(
        vectors,
        torch.rand(num_units, generator=draw) < 0.2,
        torch.randint(0, 6, (num_units,), generator=draw),
        num_chars,
        places,
        places,
        reader.settings.encoder,
    )
    return units, functional.normalize(torch.randn(num_queries, width, generator=draw), dim=-1)


def _inputs_of(units: Units, queries: Tensor) -> dict[str, Tensor]:
    return {
        "vectors": units.vectors,
        "is_picture": units.is_picture,
        "speakers": units.speakers,
        "num_chars": units.num_chars,
        "queries": queries,
    }


def _cases(reader: Reader) -> Iterator[Case]:
    for seed, (name, sizes) in enumerate(_CASES.items(), start=1):
        units, queries = _drawn(reader, *sizes, seed=seed)
        mapped = queries if reader.query_map is None else reader.query_map(queries)
        with torch.no_grad():
            logits, nothing = reader.logits(reader.inputs(units, mapped))
        inputs: dict[str, Any] = {
            field: value.numpy() for field, value in _inputs_of(units, queries).items()
        }
        expected = {"units": logits.numpy(), "nothing": nothing.numpy()}
        yield Case(name, [Call(inputs, expected)])
