"""What a reader says made true on examples: its probabilities, and when an answer is empty.

Shapes: V examples, n units of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ffr.reader.decision import best_gate, best_set, fit_temperature
from ffr.reader.gate import RIDGE, evidence, fit_gate
from ffr.reader.model import Reader
from ffr.training.common.reader_items import ReaderItem, batch_of

_LEAST = 50
"""So many examples that mean something, and as many queries that do not, fit a gate."""


def calibrate(
    reader: Reader, items: Sequence[ReaderItem], strangers: Sequence[ReaderItem] = ()
) -> None:
    """Sets scale and shift of a reader's logits so that its probabilities are those that come true.

    Of the units' logits on examples that have a fragment, of "nothing here" on all. Then it sets
    from which probability of nothing an answer is empty (`best_gate`). Where all labels of a kind
    are the same, which calibrates nothing, its numbers stay.

    Strangers' queries, where enough are given, fit the gate anew first: what the networks have seen
    they take for something more easily than what they have not. They count when it is chosen from
    where an answer is empty, and a quarter of their number among the probabilities of nothing.

    Args:
        reader: The reader; its settings and gate are replaced.
        items: V examples with their truths.
        strangers: Queries that mean nothing in the dialogues that they are put to, in any order.

    Raises:
        ValueError: where there are no examples.
    """
    if not items:
        raise ValueError("there is no example to calibrate on; give some")
    is_empty = _is_empty(items)
    if len(strangers) >= _LEAST and int((~is_empty).sum()) >= _LEAST:
        _fit_gate(reader, [*items, *strangers])
    else:
        strangers = ()
    logits, _ = _logits(reader, items)
    settings = reader.settings
    if not bool(is_empty.all()):
        full = [number for number, empty in enumerate(is_empty.tolist()) if not empty]
        scale, shift = _fitted(
            torch.cat([logits[number] for number in full]),
            torch.cat([items[number].labels for number in full]),
            settings.scale,
            settings.shift,
        )
        reader.settings = settings = replace(settings, scale=scale, shift=shift)
    some = [*items, *strangers[: len(items) // 4]]
    scale, shift = _fitted(
        _logits(reader, some)[1], _is_empty(some), settings.nothing_scale, settings.nothing_shift
    )
    reader.settings = replace(settings, nothing_scale=scale, nothing_shift=shift)
    everything = [*items, *strangers]
    is_empty = _is_empty(everything)
    if bool(is_empty.any()) and not bool(is_empty.all()):
        logits, nothing = _logits(reader, everything)
        pairs = zip(logits, everything, strict=True)
        f1 = torch.tensor([_f1(torch.sigmoid(row), item.labels) for row, item in pairs])
        gate = best_gate(torch.sigmoid(nothing), is_empty, f1)
        reader.settings = replace(reader.settings, nothing_from=gate)


def _is_empty(items: Sequence[ReaderItem]) -> Tensor:
    """(V,) bool: which have no true unit."""
    return torch.tensor([not bool(item.labels.any()) for item in items])


@torch.no_grad()
def _fit_gate(reader: Reader, items: Sequence[ReaderItem]) -> None:
    """Fits the gate on examples, those that mean nothing among them."""
    seen = []
    for item in items:
        inputs = batch_of([item])[0]
        seen.append(evidence(inputs, *reader.mean_logits(inputs)))
    with torch.enable_grad():
        reader.gate = fit_gate(torch.cat(seen), _is_empty(items), ridge=RIDGE)
    reader.settings = replace(reader.settings, nothing_scale=1.0, nothing_shift=0.0)


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
