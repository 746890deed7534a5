"""What a reader is besides its weights: encoder, sizes, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ffr.reader.network import NetworkShape

_MAX_NETWORKS = 16


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What a reader is besides its weights.

    Args:
        encoder_name: What the encoder is called, for people.
        encoder: Names the encoder's weights (`TextEncoder.weights_digest`).
        line_prefix: Stands before each line, as the encoder was trained.
        query_prefix: Likewise before each query.
        has_plain_queries: Whether words that only ask are left out of queries (`plain_words`).
        has_picture_words: Whether it learned with words on pictures; one that did not would be misled
            by them.
        shape: Of each network.
        num_networks: Whose logits are averaged.
        picture_weight: How much it counts for a picture, beside where it stands, that its words are
            more like the query than strangers' lines; 0 leaves it to the networks.
        picture_usual: −ln of the share of strangers' lines that lie as close to the query, at which a
            picture's words speak neither for nor against it.
        scale: Of the units' logits, for calibration.
        shift: Likewise.
        nothing_scale: Of the logit of "nothing here".
        nothing_shift: Likewise.
        nothing_from: From this probability of "nothing here" upwards the answer is empty.
        stretch: Units that go through the network at once.
        overlap: Units that neighbouring stretches share.
        notes: What it was made of, JSON-ready; decides nothing.

    Raises:
        ValueError: where a number is out of bounds.
    """

    encoder_name: str
    encoder: str
    line_prefix: str = ""
    query_prefix: str = ""
    has_plain_queries: bool = True
    has_picture_words: bool = True
    shape: NetworkShape = field(default_factory=NetworkShape)
    num_networks: int = 1
    picture_weight: float = 0.0
    picture_usual: float = 2.0
    scale: float = 1.0
    shift: float = 0.0
    nothing_scale: float = 1.0
    nothing_shift: float = 0.0
    nothing_from: float = 0.5
    stretch: int = 192
    overlap: int = 64
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("encoder_name", "encoder", "line_prefix", "query_prefix"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a text"[:160])
        for name in ("has_plain_queries", "has_picture_words"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give true or false"[:160])
        for name, least, most in (
            ("num_networks", 1, _MAX_NETWORKS),
            ("stretch", 8, 4096),
            ("overlap", 0, self.stretch // 2 if type(self.stretch) is int else 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(
                    f"{name} is {value!r}; give a whole number from {least} to {most}"[:160]
                )
        for name in (
            "picture_weight",
            "picture_usual",
            "scale",
            "shift",
            "nothing_scale",
            "nothing_shift",
            "nothing_from",
        ):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}; give a finite number"[:160])
        if self.picture_weight < 0:
            raise ValueError("picture_weight is below 0; give 0 or more")
        if self.scale <= 0 or self.nothing_scale <= 0:
            raise ValueError("a scale of logits is not above 0; give one that keeps their order")
