"""What a reader says made true on examples: its probabilities, and when an answer is empty.

Shapes: V examples, n units of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ffr.reader.decision import best_set, fit_temperature
from ffr.reader.model import Reader
from ffr.training.common.reader_items import ReaderItem, batch_of

MAX_LOST_SHARE = 0.05
"""Share of the queries with a fragment that may be answered by nothing."""


def calibrate(reader: Reader, items: Sequence[ReaderItem]) -> None:
    """Sets scale and shift of a reader's logits so that its probabilities are those that come true.

    Of the units' logits on examples that have a fragment, of "nothing here" on all. Then it sets
    from which probability of nothing an answer is empty (`best_gate`). Where all labels of a kind
    are the same, which calibrates nothing, its numbers stay.

    Args:
        reader: The reader; its settings are replaced.
        items: V examples with their truths.

    Raises:
        ValueError: where there are no examples.
    """
    if not items:
        raise ValueError("there is no example to calibrate on; give some")
    is_empty = torch.tensor([not bool(item.labels.any()) for item in items])
    logits, nothing = _logits(reader, items)
    settings = reader.settings
    if not bool(is_empty.all()):
        full = [number for number, empty in enumerate(is_empty.tolist()) if not empty]
        scale, shift = _fitted(
            torch.cat([logits[number] for number in full]),
            torch.cat([items[number].labels for number in full]),
            settings.scale,
            settings.shift,
        )
        settings = replace(settings, scale=scale, shift=shift)
    scale, shift = _fitted(nothing, is_empty, settings.nothing_scale, settings.nothing_shift)
    reader.settings = replace(settings, nothing_scale=scale, nothing_shift=shift)
    if bool(is_empty.any()) and not bool(is_empty.all()):
        logits, nothing = _logits(reader, items)
        pairs = zip(logits, items, strict=True)
        f1 = torch.tensor([_f1(torch.sigmoid(row), item.labels) for row, item in pairs])
        gate = best_gate(torch.sigmoid(nothing), is_empty, f1)
        reader.settings = replace(reader.settings, nothing_from=gate)


def best_gate(nothing: Tensor, is_empty: Tensor, f1: Tensor) -> float:
    """From which probability of nothing an answer is empty, so that answers earn most.

    An empty answer earns 1 where the truth is empty and 0 elsewhere; another one earns its F1, and
    0 where the truth is empty. No more than a twentieth of the others are lost to it.

    Args:
        nothing: (V,) probabilities of nothing.
        is_empty: (V,) bool, whether the truth is empty.
        f1: (V,) of the answers that are given else.

    Returns:
        The probability, halfway between two that occur; 1 where no gate pays.

    Raises:
        ValueError: where shapes differ, or truths are all empty or all not.

    >>> is_empty = torch.tensor([False, False, True, True])
    >>> nothing, f1 = torch.tensor([0.1, 0.2, 0.4, 0.3]), torch.tensor([1.0, 0.5, 0.0, 0.0])
    >>> round(best_gate(nothing, is_empty, f1), 2)
    0.25
    """
    if nothing.ndim != 1 or not nothing.shape == is_empty.shape == f1.shape:
        raise ValueError(
            f"probabilities {tuple(nothing.shape)}, truths {tuple(is_empty.shape)} and F1 "
            f"{tuple(f1.shape)} differ; give one each"
        )
    if bool(is_empty.all()) or not bool(is_empty.any()):
        raise ValueError("truths are all empty or all not, of which no gate follows")
    values = torch.unique(nothing.double())
    gates = torch.cat([(values[1:] + values[:-1]) / 2, torch.ones(1, dtype=torch.float64)])
    empties = nothing.double() >= gates[:, None]  # (gates, V)
    earned = torch.where(empties, is_empty.double(), f1.double() * ~is_empty).sum(1)
    lost = (empties & ~is_empty).sum(1) / (~is_empty).sum()
    earned = earned.masked_fill(lost > MAX_LOST_SHARE, -1.0)
    # of equal ones the highest, which is the most careful
    return float(gates[len(gates) - 1 - int(earned.flip(0).argmax())])


@torch.no_grad()
def _logits(reader: Reader, items: Sequence[ReaderItem]) -> tuple[list[Tensor], Tensor]:
    """Calibrated logits of each item's units (n,), and of nothing (V,)."""
    rows, nothing = [], []
    for item in items:
        logits, absent = reader.logits(batch_of([item])[0])
        rows.append(logits[0])
        nothing.append(absent[0])
    return rows, torch.stack(nothing)


def _f1(probabilities: Tensor, labels: Tensor) -> float:
    """F1 of the units that are chosen by their probabilities."""
    chosen, _ = best_set(probabilities)
    hits = int(labels[chosen].sum())
    return 2 * hits / max(1, len(chosen) + int(labels.sum()))


def _fitted(logits: Tensor, labels: Tensor, scale: float, shift: float) -> tuple[float, float]:
    """Scale and shift of raw logits, from logits that have some already."""
    if bool(labels.all()) or not bool(labels.any()):
        return scale, shift
    factor, addend = fit_temperature(logits, labels)
    # a (s z + t) + b = (a s) z + (a t + b)
    return factor * scale, factor * shift + addend
