"""The network: a bidirectional transformer over the units of a stretch.

Shapes: B queries of a batch, N units of the longest stretch, F numbers a unit, H numbers a query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffr.reader.likeness import NUM_FEATURES, SEEN_SUMMARIES

MAX_DISTANCE = 32
"""Units further from each other than this are equally far to the attention."""

NUM_SPEAKERS = 4
"""Speakers that are told apart; further ones share a number with the first."""


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """The sizes of a network.

    Args:
        width: Of a unit's state.
        num_heads: Of the attention; `width` is a multiple.
        num_layers: Of the transformer.
        dropout: Share of numbers left out in training.

    Raises:
        ValueError: where a size is out of bounds.
    """

    width: int = 96
    num_heads: int = 6
    num_layers: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        bounds = {"width": (8, 1024), "num_heads": (1, 32), "num_layers": (1, 24)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}; give a whole number from {least} to {most}")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is no multiple of {self.num_heads} heads; change one of them"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; give a number from 0 to below 1")


@dataclass(frozen=True, slots=True, eq=False)
class NetworkInputs:
    """A padded batch.

    Args:
        features: (B, N, F) float32.
        summaries: (B, H) float32.
        between: (B, N, N) float32, likeness between units.
        speakers: (B, N) int64.
        mask: (B, N) bool, which units are there.
    """

    features: Tensor
    summaries: Tensor
    between: Tensor
    speakers: Tensor
    mask: Tensor

    @classmethod
    def padded(cls, rows: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> NetworkInputs:
        """One batch of queries on stretches of different lengths.

        Args:
            rows: Of each query its features (n, F), summaries (H,), between (n, n), speakers (n,).

        Raises:
            ValueError: where there is no row.

        >>> row = (torch.ones(2, 30), torch.ones(14), torch.eye(2), torch.tensor([0, 1]))
        >>> long = (torch.ones(3, 30), torch.ones(14), torch.eye(3), torch.tensor([0, 1, 0]))
        >>> NetworkInputs.padded([row, long]).mask.tolist()
        [[True, True, False], [True, True, True]]
        """
        if not rows:
            raise ValueError("a batch of no queries; give at least one")
        num_rows, longest = len(rows), max(len(row[0]) for row in rows)
        batch = cls(
            torch.zeros(num_rows, longest, rows[0][0].shape[1]),
            torch.stack([row[1] for row in rows]),
            torch.zeros(num_rows, longest, longest),
            torch.zeros(num_rows, longest, dtype=torch.long),
            torch.zeros(num_rows, longest, dtype=torch.bool),
        )
        for place, (features, _, between, speakers) in enumerate(rows):
            n = len(features)
            batch.features[place, :n] = features
            batch.between[place, :n, :n] = between
            batch.speakers[place, :n] = speakers
            batch.mask[place, :n] = True
        return batch


class Layer(nn.Module):
    """One layer of the transformer, layer norms first (Xiong et al. 2020).

    Args:
        shape: The network's sizes.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width, heads = shape.width, shape.num_heads
        self.num_heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_inner = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(shape.dropout)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * MAX_DISTANCE + 1))
        # some heads begin by looking at like units, some wherever they want
        self.likeness = nn.Parameter(torch.linspace(0, 6, heads))

    def bias(self, between: Tensor, distances: Tensor, hidden: Tensor) -> Tensor:
        """(B, heads, N, N) what attention adds to its scores, by distance and by likeness.

        Args:
            between: (B, N, N) likeness between units.
            distances: (N, N) from 0 to 2 `MAX_DISTANCE`, of column from row.
            hidden: (B, 1, 1, N) 0, and very low at padding.
        """
        # (heads, N, N): the same in every row, and sooner found so than by `[:, distances]`
        apart = self.distance.index_select(1, distances.flatten()).view(-1, *distances.shape)
        return torch.addcmul(apart, self.likeness[:, None, None], between[:, None]) + hidden

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """(B, N, width) states of the next layer; `bias` as above."""
        num_rows, length, width = states.shape
        heads = self.query_key_value(self.before_attention(states))
        heads = heads.view(num_rows, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(num_rows, length, width)
        states = states + self.dropout(self.attended(mixed))
        changed: Tensor = self.dropout(self.inner(self.before_inner(states)))
        return states + changed


class ReaderNetwork(nn.Module):
    """Likenesses in; out a logit for each unit, and one for "nothing here".

    Args:
        shape: Its sizes.

    >>> network = ReaderNetwork(NetworkShape(width=16, num_heads=2, num_layers=1))
    >>> row = (torch.ones(2, 30), torch.ones(14), torch.eye(2), torch.tensor([0, 1]))
    >>> units, nothing = network(NetworkInputs.padded([row, row, row]))
    >>> tuple(units.shape), tuple(nothing.shape)
    ((3, 2), (3,))
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.features = nn.Linear(NUM_FEATURES, shape.width)
        self.speakers = nn.Embedding(NUM_SPEAKERS, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.last = nn.LayerNorm(shape.width)
        self.unit = nn.Linear(shape.width, 1)
        self.nothing = nn.Sequential(
            nn.Linear(2 * shape.width + SEEN_SUMMARIES, shape.width),
            nn.GELU(),
            nn.Linear(shape.width, 1),
        )

    def forward(self, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """Logits of units (B, N), of no meaning at padding, and of "nothing here" (B,)."""
        states = self.begun(inputs)
        for layer, bias in zip(self.layers, self.biases(inputs), strict=True):
            states = layer(states, bias)
        return self.ended(states, inputs)

    def begun(self, inputs: NetworkInputs) -> Tensor:
        """(B, N, width) states before the first layer."""
        states: Tensor = self.features(inputs.features)
        states = states + self.speakers(inputs.speakers % NUM_SPEAKERS)
        return states

    def biases(self, inputs: NetworkInputs) -> Iterator[Tensor]:
        """(B, heads, N, N) of each layer in turn, as `Layer.bias`."""
        mask = inputs.mask
        place = torch.arange(mask.shape[1], device=mask.device)
        distances = (place[None] - place[:, None]).clamp(-MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE
        hidden = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -1e9)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            yield layer.bias(inputs.between, distances, hidden[:, None, None])

    def ended(self, states: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """The logits, as `forward` gives them, of the states behind the last layer."""
        mask = inputs.mask
        states = self.last(states)
        units: Tensor = self.unit(states)[..., 0]
        weight = torch.softmax(units.masked_fill(~mask, -1e9), dim=1)
        share = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        # the likely units, and all of them
        pooled = (torch.stack([weight, share], dim=1) @ states).flatten(1)
        seen = inputs.summaries[:, :SEEN_SUMMARIES]
        nothing: Tensor = self.nothing(torch.cat([pooled, seen], dim=1))[:, 0]
        return units, nothing
