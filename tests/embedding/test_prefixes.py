"""What stands before lines and queries: where it is read, and who puts it there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ffr.dialogue import Dialogue, Example
from ffr.embedding import CachedEncoder, load_sentence_encoder
from ffr.embedding.prefixes import Prefixes, prefixes_of, trained_prefixes
from ffr.errors import ModelError
from ffr.retrieval.embedding import FragmentScorer
from ffr.retrieval.fusion import FusionRetriever
from ffr.retrieval.lines import LineReading

FILE = "config_sentence_transformers.json"


@pytest.fixture
def folder(encoder_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))


def _with(folder: Path, prompts: object) -> Path:
    (folder / FILE).write_text(json.dumps({"prompts": prompts}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, Prefixes("d: ", "q: ")),
        ({"passage": "p: ", "corpus": "c: "}, Prefixes("p: ", "")),
        ({"corpus": "c: ", "clustering": "x"}, Prefixes("c: ", "")),
        ({}, Prefixes()),
        (None, Prefixes()),
    ],
)
def test_they_are_the_prompts_of_queries_and_documents(
    prompts: object, expected: Prefixes, folder: Path
) -> None:
    encoder = load_sentence_encoder(_with(folder, prompts))
    assert encoder.prefixes == prefixes_of(encoder) == trained_prefixes(encoder) == expected


@pytest.mark.parametrize("prompts", [["query: "], {"query": 1}, {"other": "x" * 1_001}, "query"])
def test_prompts_that_are_none_are_refused(prompts: object, folder: Path) -> None:
    with pytest.raises(ModelError, match="has prompts that are no texts of up to 1000 characters"):
        load_sentence_encoder(_with(folder, prompts))


def test_they_name_the_encoder_and_not_its_weights(folder: Path, tmp_path: Path) -> None:
    plain = load_sentence_encoder(folder)
    other = load_sentence_encoder(_with(folder, {"query": "q: "}))
    assert plain.weights_digest == other.weights_digest
    assert plain.fingerprint != other.fingerprint
    assert torch.equal(plain.embed_texts(["q: a"]), other.embed_texts(["q: a"]))
    assert prefixes_of(CachedEncoder(other, tmp_path / "kept", max_bytes=1 << 20)).query == "q: "


def test_an_encoder_out_of_a_package_is_known_by_its_name(folder: Path) -> None:
    encoder = load_sentence_encoder(folder)
    encoder.name = "e5"
    assert prefixes_of(encoder) == Prefixes()
    assert trained_prefixes(encoder) == Prefixes("passage: ", "query: ")


class Seen:
    """Keeps what it is asked for."""

    name, fingerprint, takes_images = "seen", "f" * 64, False
    prefixes = Prefixes("line: ", "query: ")

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts += texts
        return torch.ones(len(texts), 2) / 2**0.5


@pytest.mark.parametrize(
    ("ask", "lines"),
    [
        (
            lambda encoder, example: FragmentScorer(encoder, 0).scores([example]),
            ["line: a bus", "line: tea"],
        ),
        (
            lambda encoder, example: FusionRetriever(encoder, name="x").answer([example]),
            ["line: a bus", "line: tea", "line: a bus tea", "line: a bus tea"],
        ),
        (
            lambda encoder, example: LineReading(encoder).seen(example),
            ["line: a bus", "line: tea"],
        ),
    ],
)
def test_whoever_compares_lines_with_queries_puts_them_there(
    ask: Callable[[Any, Example], object], lines: list[str]
) -> None:
    encoder = Seen()
    ask(encoder, Example(Dialogue.of([("a", "a bus"), ("b", "tea")]), "trams"))
    assert sorted(encoder.texts) == sorted([*lines, "query: trams"])
