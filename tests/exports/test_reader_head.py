"""A reader's head as ONNX: equal to the reader, with sizes left open, by name and folder, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from encoder_builds import build_sentence_encoder
from reader_builds import build_reader

from ffr.cli.main import ffr
from ffr.dialogue import Dialogue, Image
from ffr.embedding import load_encoder
from ffr.exports.reader_head import plan_reader
from ffr.exports.runtime import open_session
from ffr.reader.gate import NUM_EVIDENCE, Gate
from ffr.reader.model import Reader
from ffr.reader.query import QueryMap, plain_words


def export(*words: object) -> Result:
    return CliRunner().invoke(ffr, ["export", *map(str, words)])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a query map, a gate and a weight of pictures' words, as the one that ships has."""
    folder = tmp_path_factory.mktemp("readers")
    encoder = build_sentence_encoder("bert", folder / "bert")
    made = Reader.load(build_reader(folder / "plain", encoder))
    width = made.background.lines.shape[2]
    matrix = torch.randn(width, width, generator=torch.manual_seed(2)) / 20
    made.query_map = QueryMap(matrix, torch.full((width,), 0.01))
    draw = torch.manual_seed(3)
    weights, mean = torch.randn(2, NUM_EVIDENCE, generator=draw)
    made.gate = Gate(weights, mean / 4, torch.rand(NUM_EVIDENCE, generator=draw) + 0.5)
    made.settings = dataclasses.replace(made.settings, picture_weight=0.5, picture_usual=2.5)
    made.save(folder / "mapped")
    return folder / "mapped"


@pytest.fixture(scope="module")
def exported(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "head"
    done = export("onnx", "--model", reader, "--part", "reader", "--out", out)
    assert done.exit_code == 0, done.output
    assert "reader reader, fp32" in done.output
    return out


def test_it_equals_the_reader_within_a_ten_thousandth(exported: Path) -> None:
    content = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert [case["name"] for case in content["parity"]] == [
        "one unit", "a dialogue", "several queries", "a dialogue without words", "a long dialogue",
    ]  # fmt: skip
    assert all(case["max_difference"] < 1e-4 for case in content["parity"])
    assert len(content["settings"]["encoder_weights"]) == 64


def test_it_gives_a_real_dialogues_probabilities(exported: Path, reader: Path) -> None:
    """From the encoder's own vectors to what the reader says, the query map in the graph."""
    made = Reader.load(reader)
    encoder = load_encoder(made.settings.encoder_name)
    chat = Dialogue.of([("a", "the bus"), ("b", ["look", Image("b.png")]), ("a", ""), ("b", "tea")])
    units = made.units(chat, encoder, ["a bus"])  # type: ignore[arg-type]
    (said,) = made.predict(units, made.query_vectors(["find the bus"], encoder))  # type: ignore[arg-type]
    session = open_session(exported, device="cpu")
    found = session.run(
        {
            "vectors": units.vectors.numpy(),
            "is_picture": units.is_picture.numpy(),
            "speakers": units.speakers.numpy(),
            "num_chars": units.num_chars.numpy(),
            "queries": encoder.embed_texts([plain_words("find the bus")]).numpy(),
        }
    )
    assert np.allclose(1 / (1 + np.exp(-found["units"][0])), said.probabilities, atol=1e-5)
    assert 1 / (1 + np.exp(-found["nothing"][0])) == pytest.approx(said.nothing, abs=1e-5)


def test_the_snippet_of_its_readme_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert "export of its own" in text
    assert "ffr export bench" not in text
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(exported)
    names: dict[str, object] = {}
    exec(code, names)
    probabilities = names["probabilities"]
    assert isinstance(probabilities, np.ndarray)
    assert probabilities.shape == (1, 4)


def test_the_plan_names_encoder_and_decision(reader: Path) -> None:
    made = Reader.load(reader)
    plan = plan_reader(made, "mine")
    assert plan.settings["encoder_weights"] == made.settings.encoder
    assert plan.settings["nothing_from"] == made.settings.nothing_from
    assert plan.fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "READER", "--part", "text"], "has no part text: a reader has the part reader"),
        (["--model", "READER", "--part", "all"], "has no part all: a reader has the part reader"),
        (["--model", "tiny-clip", "--part", "reader"], "tiny-clip has no part reader"),
        (["--model", "READER", "--part", "reader", "--dtype", "int8"], "is exported in fp32"),
        (["--model", "READER", "--part", "reader", "--adapter", "x"], "has no adapter"),
    ],
)
def test_what_is_no_part_of_it(
    reader: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    given = [str(reader) if word == "READER" else word for word in words]
    done = export("onnx", *given, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_its_time_is_its_encoders(exported: Path) -> None:
    done = export("bench", exported)
    assert done.exit_code == 2
    assert "is the head of a reader, whose time is its encoder's" in " ".join(done.output.split())
