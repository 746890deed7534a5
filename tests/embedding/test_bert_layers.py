"""A layer in ONNX Runtime gives what the model gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encoder_builds import build_sentence_encoder, write_sentence_settings
from script_modules import script

from ffr.embedding import bert_layers, load_encoder
from ffr.embedding.bert_layers import BertLayers, has_these_layers
from ffr.embedding.question import QuestionEncoder
from ffr.errors import ModelError

SIZES = {
    "hidden_size": bert_layers.WIDTH,
    "num_attention_heads": bert_layers.NUM_HEADS,
    "intermediate_size": 1536,
}
TEXTS = ["where is the cat", "猫在哪里", "", "x" * 99]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = build_sentence_encoder("bert", tmp_path_factory.mktemp("bert"), **SIZES)
    return write_sentence_settings(made)


def _config(folder: Path) -> dict[str, object]:
    found: dict[str, object] = load_encoder(folder).model.config.to_dict()
    return found


def test_states_are_those_of_the_model(folder: Path) -> None:
    model = load_encoder(folder).model
    layers = BertLayers(model.state_dict().__getitem__, model.config.num_hidden_layers)
    with torch.no_grad():
        for length in (1, 2, 17):
            ids = torch.randint(3, 200, (1, length), generator=torch.manual_seed(length))
            found = layers(model.embeddings(ids)[0])
            expected = model(ids).last_hidden_state[0]
            assert found.shape == (length, bert_layers.WIDTH)
            torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_few_texts_have_the_vectors_of_many(tmp_path: Path, pooling: str) -> None:
    made = build_sentence_encoder("bert", tmp_path / "bert", **SIZES)
    encoder = load_encoder(write_sentence_settings(made, pooling=pooling, max_seq_length=38))
    expected = encoder.embed_each(TEXTS)
    assert encoder._layers is not None
    torch.testing.assert_close(encoder.embed_texts(TEXTS), expected, rtol=0, atol=1e-5)
    assert encoder.embed_texts([]).shape == (0, bert_layers.WIDTH)


def test_a_question_asked_again_has_the_same_vector(folder: Path) -> None:
    encoder = QuestionEncoder(folder)
    first, again = encoder.embed_texts(TEXTS), encoder.embed_texts(TEXTS)
    assert encoder._layers is not None
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "roberta"},
        {"hidden_size": 768},
        {"num_attention_heads": 6},
        {"intermediate_size": 768},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 1e-5},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
    ],
)
def test_other_layers_are_told_apart(folder: Path, other: dict[str, object]) -> None:
    config = _config(folder)
    assert has_these_layers(config)
    assert not has_these_layers(config | other)
    assert has_these_layers(config | {"layer_norm_eps": 9.999999960041972e-13})


def test_an_encoder_of_other_layers_goes_by_torch(tmp_path: Path) -> None:
    made = build_sentence_encoder("bert", tmp_path / "bert")
    encoder = load_encoder(write_sentence_settings(made))
    assert encoder._layers is None
    assert encoder.embed_texts(TEXTS).shape == (4, 24)


def test_weights_of_another_shape_are_named(folder: Path) -> None:
    weights = load_encoder(folder).model.state_dict()
    weights["encoder.layer.1.output.dense.weight"] = torch.zeros(3, 4)
    with pytest.raises(ModelError, match=r"outer\.weight in encoder\.layer\.1 has shape \(3, 4\)"):
        BertLayers(weights.__getitem__, 2)


def test_the_graph_is_the_scripts() -> None:
    pytest.importorskip("onnx")
    root = Path(__file__).parents[2]
    with script(root / "scripts" / "layer_graphs" / "bert_layer.py") as made:
        assert made.graph() == (root / "ffr" / "embedding" / "bert_layer.onnx").read_bytes()
