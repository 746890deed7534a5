"""The gate: its evidence by hand, what it learns, its place in a reader, on disk, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reader_builds import LetterEncoder
from safetensors.torch import load_file, save_file

from ffr.dialogue import Dialogue
from ffr.errors import ModelError
from ffr.files import CHECKSUMS_FILE
from ffr.reader.gate import NUM_EVIDENCE, Gate, evidence, fit_gate
from ffr.reader.likeness import (
    BESIDE_QUERIES,
    GATE_SUMMARIES,
    HAS_WORDS,
    NUM_FEATURES,
    NUM_SUMMARIES,
    OWN,
    Z_RAW,
)
from ffr.reader.model import Reader
from ffr.reader.network import NetworkInputs


def _inputs() -> NetworkInputs:
    """A query on three units, of which the third has no words, and a shorter one."""
    features = torch.zeros(3, NUM_FEATURES)
    features[:, OWN] = torch.tensor([1.8, 0.6, 9.0])
    features[:, Z_RAW] = torch.tensor([2.0, 1.0, 9.0])
    features[:, BESIDE_QUERIES] = torch.tensor([4.0, 1.0, 9.0])
    features[:2, HAS_WORDS] = 1
    between = torch.eye(3)
    between[0, 1] = between[1, 0] = 0.5
    long = (features, torch.arange(float(NUM_SUMMARIES)), between, torch.zeros(3).long())
    short = (features[:1], torch.zeros(NUM_SUMMARIES), between[:1, :1], torch.zeros(1).long())
    return NetworkInputs.padded([long, short])


def test_evidence_is_of_the_likely_units_with_words() -> None:
    units = torch.tensor([[0.0, 0.0, 5.0], [3.0, 7.0, 7.0]])
    seen = evidence(_inputs(), units, torch.tensor([-1.0, 2.0]))
    assert seen.shape == (2, NUM_EVIDENCE)
    assert seen[:, 0].tolist() == [-1.0, 2.0]
    # halves of two unit vectors at a cosine of ½: (1.8 + .6) / 2 over √¾
    assert seen[0, 1] == pytest.approx(1.2 / 0.75**0.5)
    assert seen[0, 2] == pytest.approx(1.5)
    # as likely as not, each of the two: no more of the one part than of the other
    assert seen[0, 3] == pytest.approx(0.0)
    assert seen[0, 4:].tolist() == [float(place) for place in GATE_SUMMARIES]
    assert seen[1, 1:4].tolist() == pytest.approx([1.8, 2.0, 0.0])


def test_evidence_has_how_far_the_likely_units_lead_the_others() -> None:
    likely, unlikely = torch.tensor([0.8, 0.3]), torch.tensor([0.2, 0.7])
    units = torch.cat([torch.logit(likely), torch.tensor([5.0])]).expand(2, -1)
    seen = evidence(_inputs(), units, torch.zeros(2))
    there = [(4 * row[0] + 1 * row[1]) / row.sum() for row in (likely, unlikely)]
    assert seen[0, 3] == pytest.approx(float(there[0] - there[1]), abs=1e-5)


def test_evidence_of_a_chat_without_words_is_finite() -> None:
    inputs = _inputs()
    inputs.features.zero_()
    inputs.between.zero_()
    seen = evidence(inputs, torch.zeros(2, 3), torch.zeros(2))
    assert bool(seen.isfinite().all())
    assert seen[:, :4].abs().sum() == 0


def test_units_learn_nothing_through_the_gate() -> None:
    units, nothing = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    evidence(_inputs(), units, nothing).sum().backward()
    assert units.grad is None
    assert nothing.grad is not None
    assert nothing.grad.tolist() == [1.0, 1.0]


def test_one_number_out_of_all_bounds_does_not_decide_but_the_networks_may() -> None:
    gate = Gate(torch.ones(NUM_EVIDENCE), torch.zeros(NUM_EVIDENCE), torch.ones(NUM_EVIDENCE))
    seen = torch.zeros(2, NUM_EVIDENCE)
    seen[0, 0], seen[1, 1] = 50.0, 50.0
    assert gate(seen).tolist() == [50.0, 3.0]


def test_it_learns_what_tells_and_a_rare_kind_counts_as_much() -> None:
    draw = torch.manual_seed(0)
    is_nothing = torch.arange(400) < 20
    seen = torch.randn(400, NUM_EVIDENCE, generator=draw)
    seen[:, 4] -= 3.0 * is_nothing
    gate = fit_gate(seen, is_nothing, ridge=0.05)
    assert int(gate.weights.abs().argmax()) == 4
    assert gate.weights[4] < 0
    said = gate(seen)
    assert said[is_nothing].min() > said[~is_nothing].median()
    stiff = fit_gate(seen, is_nothing, ridge=50.0)
    assert stiff.weights.abs().max() < gate.weights.abs().max() / 5


def test_what_fits_no_gate_is_refused() -> None:
    row = torch.ones(NUM_EVIDENCE)
    with pytest.raises(ValueError, match="three times"):
        Gate(row, row[1:], row)
    with pytest.raises(ValueError, match="not above 0"):
        Gate(row, row, row * 0)
    with pytest.raises(ValueError, match="NaN"):
        Gate(row * torch.nan, row, row)
    seen = torch.ones(4, NUM_EVIDENCE)
    with pytest.raises(ValueError, match="one kind"):
        fit_gate(seen, torch.ones(4).bool(), ridge=1.0)
    for rows, ridge in ((seen[:, 1:], 1.0), (seen[:3], 1.0), (seen, 0.0)):
        with pytest.raises(ValueError, match="at a penalty of"):
            fit_gate(rows, torch.arange(4) < 2, ridge=ridge)


def _gated(reader: Reader) -> Reader:
    weights, mean = torch.randn(2, NUM_EVIDENCE, generator=torch.manual_seed(1))
    gate = Gate(weights, mean, torch.full((NUM_EVIDENCE,), 0.7))
    return Reader(reader.networks, reader.background, reader.settings, gate=gate)


def test_a_reader_asks_its_gate_of_nothing_alone(
    reader: Reader, chat: Dialogue, encoder: LetterEncoder
) -> None:
    gated = _gated(reader)
    assert gated.gate is not None
    units, queries = reader.units(chat, encoder), reader.query_vectors(["soup", "x"], encoder)
    inputs = reader.inputs(units, queries)
    with torch.no_grad():
        (plain, nothing), (same, weighed) = reader.logits(inputs), gated.logits(inputs)
        assert torch.equal(plain, same)
        assert torch.equal(weighed, gated.gate(evidence(inputs, plain, nothing)))


def test_it_is_kept_on_disk_and_a_reader_without_one_is_itself(
    reader: Reader, tmp_path: Path
) -> None:
    gated = _gated(reader)
    assert gated.fingerprint != reader.fingerprint
    gated.save(tmp_path / "gated")
    again = Reader.load(tmp_path / "gated").gate
    assert again is not None
    assert gated.gate is not None
    assert torch.equal(again.weights, gated.gate.weights)
    assert torch.equal(again.deviation, gated.gate.deviation)
    reader.save(tmp_path / "plain")
    assert Reader.load(tmp_path / "plain").gate is None


def test_one_on_disk_that_does_not_fit_is_refused(reader: Reader, tmp_path: Path) -> None:
    _gated(reader).save(tmp_path / "r")
    (tmp_path / "r" / CHECKSUMS_FILE).unlink()
    path = tmp_path / "r" / "reader.safetensors"
    whole = load_file(path)
    for changes, said in (
        ({"gate.weights": torch.ones(3)}, "three times"),
        ({"gate.mean": torch.full((NUM_EVIDENCE,), torch.nan)}, "NaN"),
    ):
        save_file(whole | changes, path)
        with pytest.raises(ModelError, match=said):
            Reader.load(tmp_path / "r")
    for left_out in ("gate.mean", "gate.weights"):
        save_file({name: row for name, row in whole.items() if name != left_out}, path)
        with pytest.raises(ModelError, match="gate"):
            Reader.load(tmp_path / "r")
