"""The training material of the shipped reader: what becomes of pieces, and of our own."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from ffr.data.catalog import load_dataset
from ffr.data.forms.formats import write_examples
from ffr.shipped.reader import READER_FOLDER

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "reader"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules; they import each other by name, as scripts of one folder do."""
    found = {}
    names = ("material", "synthesis", "train", "vectors", "make", "open_dialogues")
    before = {name: sys.modules.pop(name, None) for name in names}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


def _lines(*texts: str) -> list[dict[str, str]]:
    return [{"speaker": "ab"[n % 2], "text": text} for n, text in enumerate(texts)]


def test_fragments_and_translated_queries(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    topic = [{"kind": "topic", "text": "酒店"}, {"kind": "topic", "text": "关于酒店的聊天"}]
    fragments = [
        {
            "source": "crosswoz",
            "language": "zh",
            "lines": _lines("一", "二", "三"),
            "queries": topic,
        },
        {"source": "irc", "language": "en", "lines": _lines("a", "b"), "queries": topic},
    ]
    parts = [{"utterances": [0, 1, 2], "queries": topic}]
    goal = [{"kind": "goal", "text": "find a hotel"}, {"kind": "keyword", "text": "two"}]
    dialogues = [
        {"id": "crosswoz7", "source": "crosswoz", "language": "zh", "lines": _lines("一", "二", "三"),
         "fragments": parts},
        {"id": "crosswoz_en7", "source": "crosswoz_en", "language": "en",
         "lines": _lines("one", "two", "three", "four"),
         "fragments": [{"utterances": [0, 1, 2, 3], "queries": goal}]},
    ]  # fmt: skip
    for name, records in (("fragments", fragments), ("dialogues", dialogues)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    pieces = [
        piece for piece in scripts["material"].read_pieces(tmp_path) if piece.source != "everyday"
    ]
    # two lines are no piece; each translation has the other's queries
    assert [(piece.source, piece.subject) for piece in pieces] == [
        ("crosswoz", "hotel"),
        ("crosswoz", "hotel"),
        ("crosswoz_en", ""),
    ]
    assert pieces[0].queries == {"topic": ["酒店", "关于酒店的聊天"]}
    assert pieces[1].queries["cross"] == ["find a hotel"]
    assert pieces[2].queries["cross"] == ["酒店", "关于酒店的聊天"]
    assert pieces[0].lines == ((0, "一"), (1, "二"), (0, "三"))


def test_our_own_pieces_stand_in_both_languages(scripts: dict[str, ModuleType]) -> None:
    pieces = scripts["material"].read_everyday(SCRIPTS / "everyday.txt")
    assert len(pieces) >= 70
    for english, chinese in zip(pieces[::2], pieces[1::2], strict=True):
        assert (english.language, chinese.language) == ("en", "zh")
        assert english.queries["human"] == chinese.queries["cross"]
        assert [speaker for speaker, _ in english.lines] == [who for who, _ in chinese.lines]
        assert 6 <= len(english.lines) <= 10
        assert all(any("一" <= char <= "鿿" for char in text) for _, text in chinese.lines)
        assert not any("一" <= char <= "鿿" for _, text in english.lines for char in text)
    with_plus = next(piece for piece in pieces if piece.subject == "lost cat")
    assert [speaker for speaker, _ in with_plus.lines] == [0, 1, 0, 1, 0, 1, 1, 0]


def _maker(scripts: dict[str, ModuleType], **options: Any) -> Any:
    material, synthesis = scripts["material"], scripts["synthesis"]
    words = ["apple", "brick", "cloud", "drums", "eagle", "flame"]
    pieces = [
        material.Piece(
            "s", "en" if n < 6 else "zh",
            tuple((k % 2, f"{words[n % 6]} {k} {n}") for k in range(3 + n % 6)),
            {"goal": [f"about {words[n % 6]} {n}"]}, words[n % 6],
        )
        for n in range(12)
    ]  # fmt: skip
    made = torch.Generator().manual_seed(0)
    texts = {text for piece in pieces for _, text in piece.lines}
    texts |= {text for piece in pieces for some in piece.queries.values() for text in some}
    texts |= {"concept"}
    vectors = {
        text: torch.nn.functional.normalize(torch.randn(16, generator=made), dim=0)
        for text in sorted(texts)
    }
    nothing_fits = synthesis.Concepts(torch.zeros(12, 1), [["concept"]])
    shown = synthesis.Shown(torch.eye(16)[:5], torch.zeros(12, 3, dtype=torch.long))
    return synthesis.Maker(pieces, vectors, "e", nothing_fits, shown, prefixes=("", ""), **options)


def test_made_dialogues_have_the_labels_of_their_pieces(scripts: dict[str, ModuleType]) -> None:
    maker = _maker(scripts, noise=0.0)
    by_vector = {tuple(value.tolist()): text for text, value in maker.vectors.items()}
    rng, kinds = random.Random(0), {"present": 0, "absent": 0, "pictures": 0, "interleaved": 0}
    for _ in range(60):
        made = maker.make(rng)
        said = [by_vector.get(tuple(row.tolist()), "") for row in made.units.vectors]
        assert len(said) == made.labels.shape[1]
        for vector, labels in zip(made.queries, made.labels, strict=True):
            subject = by_vector[tuple(vector.tolist())].split()[1]
            marked = [text for text, label in zip(said, labels.tolist(), strict=True) if label]
            spoken = [text for text in marked if text]
            own = [text for text in said if text.startswith(subject)]
            assert spoken == own
            kinds["present" if spoken else "absent"] += 1
            places = [place for place, text in enumerate(said) if text.startswith(subject)]
            kinds["interleaved"] += bool(places) and places[-1] - places[0] > 2 * len(places)
        kinds["pictures"] += int(made.units.is_picture.sum())
        assert bool((made.units.has_words | made.units.is_picture).all())
    assert all(number > 5 for number in kinds.values()), kinds


def test_a_concept_that_hardly_fits_is_doubtful(scripts: dict[str, ModuleType]) -> None:
    """Its lines are learned, but not that the query means something here."""
    maker = _maker(scripts, noise=0.0, kinds={"concept": 1.0})
    for fit, is_sure in ((scripts["synthesis"].SURE_FIT + 0.1, True), (2.0, False)):
        maker.concepts.fit[:] = -1.0
        maker.concepts.fit[3] = fit
        asked = [maker.make(random.Random(seed)) for seed in range(60)]
        there = [
            bool(sure)
            for made in asked
            for labels, sure in zip(made.labels, made.is_sure, strict=True)
            if bool(labels.any())
        ]
        assert len(there) > 5
        assert set(there) == {is_sure}


def test_doubtful_queries_teach_nothing_of_nothing(scripts: dict[str, ModuleType]) -> None:
    from ffr.reader.likeness import Background
    from ffr.reader.network import NetworkShape, ReaderNetwork

    train = scripts["train"]
    maker = _maker(scripts, noise=0.0)
    vectors = torch.stack([maker.vectors[text] for text in sorted(maker.vectors)])
    background = Background(vectors[None, :30], vectors[None, 30:60])
    rows = train.rows_of(maker.make(random.Random(1)), background)
    network = ReaderNetwork(NetworkShape(width=16, num_heads=2, num_layers=1)).eval()
    plan = train.TrainingPlan(jitter=0.0)
    doubtful = [(*row[:5], torch.tensor(False)) for row in rows]
    train._loss(network, doubtful, plan).backward()
    assert all(float(value.grad.abs().sum()) == 0 for value in network.nothing.parameters())
    assert float(network.unit.weight.grad.abs().sum()) > 0
    train._loss(network, rows, plan).backward()
    assert float(network.nothing[0].weight.grad.abs().sum()) > 0


def test_a_piece_that_fits_a_name_stands_out(scripts: dict[str, ModuleType]) -> None:
    material, synthesis = scripts["material"], scripts["synthesis"]
    pieces = [
        material.Piece("s", "en", ((0, name),) * 3, {}) for name in ("apple", "brick", "cloud")
    ]
    vectors = {name: torch.eye(3)[n] for n, name in enumerate(("apple", "brick", "cloud"))}
    fit = synthesis.fits(pieces, vectors, "", torch.eye(3))
    assert torch.equal(fit.argmax(1), torch.arange(3))
    two = synthesis.fits(pieces, vectors, "", torch.eye(3)[[0, 0, 1]], wordings=[0, 0, 1])
    assert two.shape == (3, 2)
    assert two[0, 0] > two[1, 0]


def test_training_lowers_the_loss_and_is_seeded(scripts: dict[str, ModuleType]) -> None:
    from ffr.reader.likeness import Background
    from ffr.reader.network import NetworkShape

    train = scripts["train"]
    maker = _maker(scripts, noise=0.0)
    rows = torch.stack([maker.vectors[text] for text in sorted(maker.vectors)])
    background = Background(rows[None, :30], rows[None, 30:60])
    plan = train.TrainingPlan(epochs=2, queries_per_epoch=96, batch_size=16, warmup_steps=2)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    torch.set_num_threads(1)
    one, same = (
        train.train_network(maker, background, shape, plan, seed=3, say=lambda line: None)
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    rng = random.Random(5)
    held = [row for _ in range(40) for row in train.rows_of(maker.make(rng), background)]
    held = [(*row[:5], row[5] & torch.tensor(rng.random() < 0.9)) for row in held]
    found, gate = train.calibrate([one], held, wrongly_empty=0.1, ridge=0.1)
    assert found.scale > 0
    assert 0 < found.nothing_from < 1
    held = [row for row in held if bool(row[5])]  # doubtful ones count for nothing
    _, seen = train.outputs_of([one], held)
    chances = torch.sigmoid(gate(seen) * found.nothing_scale + found.nothing_shift)
    there = torch.stack([row[4].any() for row in held])
    assert float((chances[there] >= found.nothing_from).float().mean()) <= 0.12


def test_bare_options_are_the_plan_of_the_weights_that_ship(scripts: dict[str, ModuleType]) -> None:
    """What `reader.json` tells of them is what the script does when it is told nothing."""
    asked = scripts["make"].options().parse_args(["--data", "d", "--cache", "c", "--out", "o"])
    plan = scripts["train"].TrainingPlan(epochs=asked.epochs)
    notes = json.loads((READER_FOLDER / "reader.json").read_text(encoding="utf-8"))["notes"]
    assert dataclasses.asdict(plan) == notes["plan"]
    assert asked.seeds == notes["seeds"]


def _piece(scripts: dict[str, ModuleType], number: int, subject: str, **queries: str) -> Any:
    lines = tuple((place % 2, f"line {place} of {number}") for place in range(3))
    asked = {kind: [text] for kind, text in queries.items()}
    return scripts["material"].Piece("multiwoz", "en", lines, asked, subject)


def test_pieces_of_the_same_lines_are_one(scripts: dict[str, ModuleType]) -> None:
    once = _piece(scripts, 0, "taxi", goal="a taxi to the station", topic="taxi")
    again = _piece(scripts, 0, "taxi", goal="a taxi to the station", cross="去车站的出租车")
    (found,) = scripts["open_dialogues"].merged([once, again])
    assert found.queries == {
        "goal": ["a taxi to the station"], "topic": ["taxi"], "cross": ["去车站的出租车"]
    }  # fmt: skip


def test_open_dialogues_are_a_data_set(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    subjects = ("taxi", "hotel", "train", "")
    pieces = [
        _piece(scripts, n, subjects[n % 4], goal=f"the {n}th wish", topic=subjects[n % 4] or "x")
        for n in range(40)
    ]
    made = scripts["open_dialogues"]
    examples = list(made.examples_of(pieces, 0))
    assert examples == list(made.examples_of(pieces, 0))
    assert examples != list(made.examples_of(pieces, 1))
    said = {line.text for its in examples for line in its.dialogue.utterances}
    assert said == {text for piece in pieces for _, text in piece.lines}
    for example in examples:
        assert example.fragment is not None
        own = {example.dialogue.utterances[place].text for place in example.fragment.utterance_ids}
        (piece,) = [its for its in pieces if own == {text for _, text in its.lines}]
        assert example.query in (piece.queries["goal"] + piece.queries["topic"])
        # of no other piece of its dialogue is it asked: a subject stands alone among others
        texts = {line.text for line in example.dialogue.utterances}
        beside = [its for its in pieces if {text for _, text in its.lines} <= texts]
        assert [
            its for its in beside if any(example.query in asked for asked in its.queries.values())
        ] == [piece]
    asked = [(its.dialogue.fingerprint, its.query) for its in examples]
    assert len(asked) == len(set(asked))
    assert {its.meta["query_kind"] for its in examples} == {"goal", "topic"}
    path = tmp_path / "open.jsonl"
    write_examples(path, examples, format="raw")
    assert len(load_dataset(path)) == len(examples)
