"""The networks of `lines`: from what is seen of a line to the chance that it answers the question.

Each network is fitted on a part of the dialogues and tried on the others, so that all that is told
of probabilities is told by dialogues that the network did not see.

Shapes: R questions, M lines that come into question, F numbers a line.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ffr.progress import Progress
from ffr.reader.decision import best_gate, best_set, fit_temperature

WIDTH, NUM_NETWORKS, DROPOUT = 48, 5, 0.2
NUM_EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 20, 32, 3e-3, 0.02
_SUREST = 1 - 1e-6
"""No chance of nothing is above this: a gate of 1 lets every answer pass."""
_MOST = 6.0
"""Deviations beyond which a number counts no further, so that none decides alone."""


@dataclass(frozen=True, slots=True, eq=False)
class FitRow:
    """A question to fit on.

    Args:
        features: (M, F) float32 of the lines that come into question.
        labels: (M,) bool, which of them answer it.
        num_true: How many lines do, those that do not come into question among them.
        dialogue: Which dialogue it is asked of, numbered from 0.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.bool_]
    num_true: int
    dialogue: int


class _Network(nn.Module):
    """A line's logit: a linear part, and what two layers add to it."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.inner = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(num_features, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(…) logits of (…, F)."""
        logits: Tensor = (self.linear(features) + self.inner(features))[..., 0]
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class LineNetworks:
    """Networks whose logits are averaged, and what makes an answer of them.

    Args:
        networks: The networks.
        mean: (F,) of what they were fitted on.
        deviation: (F,) likewise, above 0; infinite of what never differed.
        scale: Of the logits, for calibration.
        shift: Likewise.
        nothing_from: From this chance that no line answers upwards the answer is empty; infinite
            where every question was answered by something.
    """

    networks: nn.ModuleList
    mean: Tensor
    deviation: Tensor
    scale: float = 1.0
    shift: float = 0.0
    nothing_from: float = math.inf

    @property
    def digest(self) -> str:
        """SHA-256 over all that decides what they say."""
        told = f"{self.scale!r} {self.shift!r} {self.nothing_from!r}"
        digest = hashlib.sha256(told.encode())
        for value in (self.mean, self.deviation, *self.networks.state_dict().values()):
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def probabilities(self, features: NDArray[np.float32]) -> Tensor:
        """(M,) that each line answers the question, of (M, F)."""
        seen = _scaled(torch.from_numpy(features), self.mean, self.deviation)
        logits = torch.stack([network(seen) for network in self.networks]).mean(0)
        return torch.sigmoid(logits * self.scale + self.shift)

    def choose(self, probabilities: Tensor) -> tuple[list[int], float]:
        """The places of the lines of highest expected F1, and that; none where nothing answers.

        Args:
            probabilities: (M,).
        """
        nothing = chance_of_nothing(probabilities)
        if nothing >= self.nothing_from or not len(probabilities):
            return [], nothing
        return best_set(probabilities, may_be_empty=False)


def chance_of_nothing(probabilities: Tensor) -> float:
    """That none of some lines answers, their chances being independent.

    >>> chance_of_nothing(torch.tensor([0.5, 0.5]))
    0.25
    """
    return min(_SUREST, float((1 - probabilities.double()).prod()))


def _scaled(features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return ((features - mean) / deviation).clamp(-_MOST, _MOST)


def fit_networks(
    rows: Sequence[FitRow], *, seed: int = 0, progress: Progress | None = None
) -> LineNetworks:
    """Fits the networks by the likelihood of every line's label.

        ℓ = 1/R Σ_r Σ_i BCE(σ(z_ri), y_ri)

    Each line's own probability is learned, not a ranking, so that the decision can weigh how many
    lines to name. Of five networks (of as many as there are dialogues, where they are fewer) each
    leaves every fifth dialogue out. On what they left out their logits are calibrated, and it is
    found from which chance of nothing an answer is empty, where the data has such questions.

    Args:
        rows: The questions.
        seed: Of first weights, order and dropout.
        progress: Is told how far the work is.

    Raises:
        ValueError: where there is no question, or none has a line that answers it.
    """
    if not any(row.labels.any() for row in rows):
        raise ValueError(f"{len(rows)} questions and no line that answers one; give some")
    features, labels, mask = _padded(rows)
    mean = features[mask].mean(0)
    deviation = features[mask].std(0, correction=0)
    # of what never differed nothing is learned, whatever it is where it is asked
    deviation = torch.where(deviation > 0, deviation + 1e-3, math.inf)
    seen = _scaled(features, mean, deviation)
    dialogues = torch.tensor([row.dialogue for row in rows])
    num_networks = min(NUM_NETWORKS, len({row.dialogue for row in rows}))
    networks = []
    tried = torch.zeros(labels.shape)
    with torch.random.fork_rng(devices=[]):
        for number in range(num_networks):
            torch.manual_seed(seed * NUM_NETWORKS + number)
            left_out = (dialogues % num_networks == number) & (num_networks > 1)
            network = _fitted(seen[~left_out], labels[~left_out], mask[~left_out])
            networks.append(network)
            with torch.no_grad():
                tried[left_out] = network(seen[left_out])
            if progress is not None:
                progress(len(rows) * (number + 1) // num_networks, len(rows))
    found = LineNetworks(nn.ModuleList(networks).eval(), mean, deviation)
    if num_networks == 1:
        return found  # one dialogue tells nothing of others
    return _calibrated(found, rows, tried, labels, mask)


def _calibrated(
    found: LineNetworks, rows: Sequence[FitRow], tried: Tensor, labels: Tensor, mask: Tensor
) -> LineNetworks:
    """The networks with scale, shift and gate by what each said of dialogues that it left out."""
    scale, shift = fit_temperature(tried[mask], labels[mask].bool())
    chances = torch.sigmoid(tried * scale + shift)
    is_empty = torch.tensor([row.num_true == 0 for row in rows])
    gate = math.inf
    if bool(is_empty.any()):
        own = [chances[place, : len(row.labels)] for place, row in enumerate(rows)]
        nothing = torch.tensor([chance_of_nothing(each) for each in own])
        f1 = torch.tensor([_f1(*pair) for pair in zip(own, rows, strict=True)])
        gate = best_gate(nothing, is_empty, f1)
    return replace(found, scale=scale, shift=shift, nothing_from=gate)


def _f1(probabilities: Tensor, row: FitRow) -> float:
    """F1 of the lines that are chosen by their probabilities."""
    chosen, _ = best_set(probabilities, may_be_empty=False)
    return 2 * int(row.labels[chosen].sum()) / max(1, len(chosen) + row.num_true)


def _padded(rows: Sequence[FitRow]) -> tuple[Tensor, Tensor, Tensor]:
    """(R, M, F) features, (R, M) labels as floats, and (R, M) bool which lines are there."""
    most = max(len(row.labels) for row in rows)
    features = torch.zeros(len(rows), most, rows[0].features.shape[1])
    labels, mask = torch.zeros(len(rows), most), torch.zeros(len(rows), most, dtype=torch.bool)
    for place, row in enumerate(rows):
        size = len(row.labels)
        features[place, :size] = torch.from_numpy(row.features)
        labels[place, :size] = torch.from_numpy(row.labels)
        mask[place, :size] = True
    return features, labels, mask


def _fitted(seen: Tensor, labels: Tensor, mask: Tensor) -> _Network:
    network = _Network(seen.shape[-1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    num_steps = NUM_EPOCHS * -(-len(seen) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=num_steps)
    for _ in range(NUM_EPOCHS):
        order = torch.randperm(len(seen))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            each = functional.binary_cross_entropy_with_logits(
                network(seen[batch]), labels[batch], weight=mask[batch].float(), reduction="sum"
            )
            optimiser.zero_grad()
            (each / len(batch)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()
