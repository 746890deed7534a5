"""Calibration of a reader on examples: its probabilities come true, and what cannot be fitted stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.reader.likeness import GATE_SUMMARIES, NUM_FEATURES, NUM_SUMMARIES, Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.training.common.calibration import best_gate, calibrate
from ffr.training.common.reader_items import ReaderItem, batch_of


class Fixed(torch.nn.Module):
    """Logits are the first feature of a unit, and of nothing the first summary."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs.features[..., 0], inputs.summaries[:, 0]  # type: ignore[attr-defined]


def a_reader() -> Reader:
    rows = torch.nn.functional.normalize(torch.ones(1, 2, WIDTH), dim=-1)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    reader = Reader.untrained(LetterEncoder(), Background(rows, rows), shape=shape)
    reader.networks = [Fixed(shape)]  # type: ignore[list-item]
    return reader


def item(logits: list[float], labels: list[bool], nothing: float) -> ReaderItem:
    n = len(logits)
    features, summaries = torch.zeros(n, NUM_FEATURES), torch.zeros(NUM_SUMMARIES)
    features[:, 0], summaries[0] = torch.tensor(logits), nothing
    return ReaderItem(
        features, summaries, torch.zeros(n, n), torch.zeros(n).long(), torch.tensor(labels)
    )


# of units at +4 three in four are true, of those at -4 one in four; of examples at +2 half are empty, at -2 one in five
ITEMS = [
    *[item([4.0, -4.0], labels, -2.0) for labels in ([True, False], [True, False], [True, True])],
    item([4.0, -4.0, -9.0], [False, False, True], -2.0),
    item([8.0], [False], -2.0),
    item([8.0], [False], 2.0),
    item([4.0, 4.0, 4.0, 4.0, -4.0, -4.0, -4.0, -4.0], [True] * 3 + [False] * 4 + [True], 2.0),
]


def test_what_is_said_comes_true() -> None:
    reader = a_reader()
    calibrate(reader, ITEMS)
    settings = reader.settings
    sigmoid = torch.sigmoid
    assert sigmoid(
        torch.tensor(2 * settings.nothing_scale + settings.nothing_shift)
    ) == pytest.approx(0.5, abs=0.01)
    assert sigmoid(
        torch.tensor(-2 * settings.nothing_scale + settings.nothing_shift)
    ) == pytest.approx(0.2, abs=0.01)
    assert 0 < settings.scale < 0.5
    # again, from numbers that are fitted already: the same
    calibrate(reader, ITEMS)
    assert reader.settings.scale == pytest.approx(settings.scale, rel=1e-2)
    assert reader.settings.shift == pytest.approx(settings.shift, abs=1e-2)


def test_the_gate_takes_what_pays() -> None:
    nothing = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.6, 0.7])
    is_empty = torch.tensor([False, False, False, False, True, True])
    f1 = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.0, 0.0])
    assert best_gate(nothing, is_empty, f1) == pytest.approx(0.45)
    # an empty truth below all others is not worth them, and may not cost a twentieth of them
    assert best_gate(nothing.flip(0), is_empty, f1) == 1.0
    assert best_gate(nothing.flip(0), is_empty, torch.zeros(6)) == 1.0


def test_the_gate_is_set_with_the_rest() -> None:
    reader = a_reader()
    reader.settings = replace(reader.settings, nothing_from=0.123)
    calibrate(reader, ITEMS)
    # of two examples at +2 one is empty, and to call both so costs a fifth of the others
    assert reader.settings.nothing_from == 1.0
    clear = [replace(item, summaries=item.summaries * 0 - 2) for item in ITEMS if item.labels.any()]
    empty = [replace(ITEMS[4], summaries=ITEMS[4].summaries * 0 + 2)] * 2
    calibrate(reader, [*clear, *empty])
    assert 0.1 < reader.settings.nothing_from < 0.9


def strange(lead: float, *, is_there: bool) -> ReaderItem:
    """A query whose best unit stands out so far; the network says the same of all."""
    found = item([4.0, -4.0], [is_there, False], 0.0)
    # the last number but one that the gate weighs
    found.summaries[GATE_SUMMARIES[-1]] = lead
    return found


def test_strangers_queries_fit_a_gate_that_tells_them() -> None:
    draw = torch.manual_seed(0)
    lead = torch.randn(200, generator=draw)
    there = [strange(float(x) + 2, is_there=True) for x in lead[:100]]
    strangers = [strange(float(x) - 2, is_there=False) for x in lead[100:]]
    reader = a_reader()
    calibrate(reader, there, strangers)
    assert reader.gate is not None
    empty = [
        [
            float(torch.sigmoid(reader.logits(batch_of([one])[0])[1]))
            >= reader.settings.nothing_from
            for one in some
        ]
        for some in (there, strangers)
    ]
    assert sum(empty[0]) <= 5
    assert sum(empty[1]) >= 90


def test_few_strangers_leave_the_gate_as_it_is() -> None:
    reader = a_reader()
    calibrate(reader, ITEMS, [strange(-2.0, is_there=False)] * 49)
    alone = a_reader()
    calibrate(alone, ITEMS)
    assert reader.gate is None
    assert reader.settings == alone.settings


@pytest.mark.parametrize(
    ("truths", "sentence"),
    [([True, True], "no gate follows"), ([True, False, True], "differ; give one each")],
)
def test_what_has_no_gate(truths: list[bool], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        best_gate(torch.tensor([0.1, 0.2]), torch.tensor(truths), torch.zeros(2))


def test_where_all_are_the_same_nothing_is_fitted() -> None:
    reader = a_reader()
    reader.settings = replace(reader.settings, scale=2.0, nothing_shift=0.5)
    calibrate(reader, [item([1.0, 2.0], [True, True], 1.0)])
    assert (reader.settings.scale, reader.settings.shift) == (2.0, 0.0)
    assert (reader.settings.nothing_scale, reader.settings.nothing_shift) == (1.0, 0.5)
    with pytest.raises(ValueError, match="no example to calibrate on"):
        calibrate(reader, [])
