"""Training of the shipped reader's networks, on dialogues made on the fly, and their calibration.

Shapes: B queries of a batch, N units of the longest dialogue in it, Q queries.
"""

from __future__ import annotations

import copy
import math
import random
import time
from dataclasses import dataclass, replace

import torch
from synthesis import Made, Maker
from torch import Tensor
from torch.nn import functional

from ffr.progress import Say
from ffr.reader.decision import fit_temperature
from ffr.reader.gate import Gate, evidence, fit_gate
from ffr.reader.likeness import Background, likenesses
from ffr.reader.network import NetworkInputs, NetworkShape, ReaderNetwork

Row = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of one query: features (n, F), summaries (H,), between (n, n), speakers (n,), labels (n,), and ()
whether it is beyond doubt that it means something, or nothing."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a network is trained.

    Args:
        epochs: Each of `queries_per_epoch` queries on new dialogues.
        queries_per_epoch: Likewise.
        batch_size: Queries of a step.
        learning_rate: At its highest, after the warm-up; it falls to 0 as a cosine.
        warmup_steps: Steps until then.
        weight_decay: Of AdamW.
        jitter: Of features, so that the network leans on none of them exactly.
        nothing_weight: Of the loss of "nothing here".
        averaged: Share of the old in the running mean of weights, which is what is kept.
    """

    epochs: int = 5
    queries_per_epoch: int = 9000
    batch_size: int = 48
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    jitter: float = 0.15
    nothing_weight: float = 0.5
    averaged: float = 0.997


def rows_of(made: Made, background: Background) -> list[Row]:
    """One row a query of a dialogue."""
    seen = likenesses(made.units, made.queries, background)
    return [
        (
            seen.features[q],
            seen.summaries[q],
            seen.between,
            made.units.speakers,
            made.labels[q],
            made.is_sure[q],
        )
        for q in range(len(made.queries))
    ]


def train_network(
    maker: Maker,
    background: Background,
    shape: NetworkShape,
    plan: TrainingPlan,
    *,
    seed: int,
    say: Say = print,
) -> ReaderNetwork:
    """One network from random weights.

    Args:
        maker: Makes the dialogues.
        background: Of the same encoder.
        shape: Its sizes.
        plan: How it is trained.
        seed: Of weights, dialogues and noise.
        say: Is told of every epoch.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    network = ReaderNetwork(shape)
    kept = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    num_steps = plan.epochs * (plan.queries_per_epoch // plan.batch_size)
    step, start = 0, time.monotonic()
    for epoch in range(plan.epochs):
        rows: list[Row] = []
        while len(rows) < plan.queries_per_epoch:
            rows += rows_of(maker.make(rng), background)
        network.train()
        total, batches = 0.0, _batches(rows, plan.batch_size, rng)
        for batch in batches:
            rate = min(1.0, step / plan.warmup_steps) * 0.5
            rate *= 1 + math.cos(math.pi * min(1.0, step / num_steps))
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * rate
            loss = _loss(network, batch, plan)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
            total += float(loss.detach())
            _average(kept, network, min(plan.averaged, step / (step + 10)))
        say(
            f"seed {seed} epoch {epoch + 1} of {plan.epochs}: loss {total / len(batches):.4f}, "
            f"{time.monotonic() - start:.0f} s"
        )
    return kept


def _batches(rows: list[Row], size: int, rng: random.Random) -> list[list[Row]]:
    """Batches of rows of like length, in mixed order."""
    rng.shuffle(rows)
    batches = []
    for start in range(0, len(rows), 16 * size):
        some = sorted(rows[start : start + 16 * size], key=lambda row: len(row[0]))
        batches += [some[place : place + size] for place in range(0, len(some), size)]
    rng.shuffle(batches)
    return batches


def _loss(network: ReaderNetwork, rows: list[Row], plan: TrainingPlan) -> Tensor:
    """Cross-entropy of units, 1 − soft F1, and cross-entropy of "nothing here"."""
    inputs = NetworkInputs.padded([row[:4] for row in rows])
    labels = torch.zeros(inputs.mask.shape)
    for place, row in enumerate(rows):
        labels[place, : len(row[4])] = row[4].float()
    units, nothing = network(_jittered(inputs, plan.jitter))
    mask = inputs.mask.float()
    each = functional.binary_cross_entropy_with_logits(units, labels, reduction="none")
    # units are judged as if the query meant something: whether it does is the other head's
    is_there = (labels.sum(1) > 0).float()
    weight = is_there / is_there.sum().clamp(min=1)
    cross_entropy = ((each * mask).sum(1) / mask.sum(1) * weight).sum()
    chances = torch.sigmoid(units) * mask
    hits = (chances * labels).sum(1)
    soft_f1 = ((2 * hits + 1) / (chances.sum(1) + labels.sum(1) + 1) * weight).sum()
    is_sure = torch.stack([row[5] for row in rows]).float()
    absent = functional.binary_cross_entropy_with_logits(
        nothing, 1 - is_there, weight=is_sure / is_sure.sum().clamp(min=1), reduction="sum"
    )
    return cross_entropy + 1 - soft_f1 + plan.nothing_weight * absent


def _jittered(inputs: NetworkInputs, jitter: float) -> NetworkInputs:
    features, between = inputs.features, inputs.between
    num_rows, _, width = features.shape
    moved = (
        features * (1 + jitter * torch.randn(num_rows, 1, width))
        + 0.5 * jitter * torch.randn(num_rows, 1, width)
        + 0.3 * jitter * torch.randn(features.shape)
    )
    summaries = inputs.summaries + 0.3 * jitter * torch.randn(inputs.summaries.shape)
    return replace(
        inputs,
        features=moved,
        summaries=summaries,
        between=between + 0.7 * jitter * torch.randn(num_rows, 1, 1),
    )


@torch.no_grad()
def _average(kept: ReaderNetwork, network: ReaderNetwork, share: float) -> None:
    for mean, value in zip(kept.parameters(), network.parameters(), strict=True):
        mean.mul_(share).add_(value, alpha=1 - share)


@torch.no_grad()
def outputs_of(
    networks: list[ReaderNetwork], rows: list[Row], batch_size: int = 64
) -> tuple[list[Tensor], Tensor]:
    """Mean logits of units, (n,) a row, and the evidence on "nothing here", (rows, E)."""
    units: list[Tensor] = []
    seen: list[Tensor] = []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        inputs = NetworkInputs.padded([row[:4] for row in some])
        found = [network(inputs) for network in networks]
        mean, nothing = (torch.stack(each).mean(0) for each in zip(*found, strict=True))
        units += [mean[place, : len(row[0])] for place, row in enumerate(some)]
        seen.append(evidence(inputs, mean, nothing))
    return units, torch.cat(seen)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scales and shifts of logits, and from where on nothing is answered; as `ReaderSettings`."""

    scale: float
    shift: float
    nothing_scale: float
    nothing_shift: float
    nothing_from: float


def calibrate(
    networks: list[ReaderNetwork], rows: list[Row], *, wrongly_empty: float, ridge: float
) -> tuple[Calibration, Gate]:
    """Fits gate and calibration on held-out dialogues.

    Args:
        networks: Whose logits are averaged.
        rows: Queries, those that mean nothing among them. Doubtful ones count for nothing.
        wrongly_empty: Share of the others that may be answered with nothing.
        ridge: Penalty on the gate's weights.
    """
    rows = [row for row in rows if bool(row[5])]
    units, seen = outputs_of(networks, rows)
    is_nothing = torch.stack([~row[4].any() for row in rows])
    there = [place for place in range(len(rows)) if not is_nothing[place]]
    scale, shift = fit_temperature(
        torch.cat([units[place] for place in there]), torch.cat([rows[place][4] for place in there])
    )
    gate = fit_gate(seen, is_nothing, ridge=ridge)
    nothing = gate(seen)
    nothing_scale, nothing_shift = fit_temperature(nothing, is_nothing)
    chances = torch.sigmoid(nothing * nothing_scale + nothing_shift)
    nothing_from = float(chances[~is_nothing].quantile(1 - wrongly_empty))
    return Calibration(scale, shift, nothing_scale, nothing_shift, nothing_from), gate
