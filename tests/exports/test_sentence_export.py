"""Sentence encoders as graphs: modules against transformers, exported folders at work, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from encoder_builds import SENTENCE_BUILDS, build_sentence_encoder, write_sentence_settings
from model_builds import random_picture

from ffr.cli.main import ffr
from ffr.embedding import load_encoder, load_sentence_encoder
from ffr.embedding.prefixes import Prefixes, prefixes_of
from ffr.encoders import open_encoder
from ffr.errors import ModelError, UsageError
from ffr.exports.encoder import OnnxSentenceEncoder, load_onnx_encoder
from ffr.exports.onnx import export_onnx, export_plan
from ffr.exports.parity import compare
from ffr.exports.plans import plan_sentence_encoder

SETTINGS = {"mean": "mean_tokens", "cls": "cls_token"}
TEXTS = ["a cat", "", "一只猫在垫子上", "x", "The CAT sat on the mat", "[PAD] [SEP]", "long " * 20]


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny sentence encoder with settings of its own."""
    root = tmp_path_factory.mktemp("sentence")

    def folder(kind: str, pooling: str = "mean", *, is_lowered: bool = False) -> Path:
        path = root / f"{kind}-{pooling}-{is_lowered}"
        if not path.is_dir():
            build_sentence_encoder(kind, path)
            write_sentence_settings(path, pooling=SETTINGS[pooling], max_seq_length=16)
            lowered = json.dumps({"max_seq_length": 16, "do_lower_case": is_lowered})
            (path / "sentence_bert_config.json").write_text(lowered, encoding="utf-8")
        return path

    return folder


@pytest.fixture(scope="module")
def bert_export(tmp_path_factory: pytest.TempPathFactory, sentence: Callable[..., Path]) -> Path:
    """A lower-casing BERT, exported; to be copied before anything in it is changed."""
    out = tmp_path_factory.mktemp("sentence-exports") / "bert"
    export_onnx(sentence("bert", is_lowered=True), "text", out)
    return out


def test_what_stands_before_texts_is_exported(
    sentence: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(sentence("bert"), tmp_path / "bert"))
    prompts = json.dumps({"prompts": {"query": "query: ", "document": "passage: "}})
    (folder / "config_sentence_transformers.json").write_text(prompts)
    export_onnx(folder, "text", tmp_path / "out")
    encoder = load_onnx_encoder(tmp_path / "out")
    assert prefixes_of(encoder) == Prefixes("passage: ", "query: ")
    told = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "before a line" in told
    assert "`query: `" in told


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", SENTENCE_BUILDS)
def test_modules_equal_transformers_on_every_kind_of_text(
    kind: str, pooling: str, sentence: Callable[..., Path]
) -> None:
    plan = plan_sentence_encoder(load_sentence_encoder(sentence(kind, pooling)))
    module = plan.module.eval()

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            (found,) = module(
                **{name: torch.from_numpy(value.copy()) for name, value in inputs.items()}
            )
        return {"embeddings": found.numpy()}

    figures = [compare(case.name, case.calls, run, one_item=False) for case in plan.cases()]
    assert len(figures) == 6
    assert all(item.is_finite for item in figures)
    assert max(item.max_difference for item in figures) < 1e-5


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_padding_inside_a_text_has_no_position(kind: str, sentence: Callable[..., Path]) -> None:
    """A text may hold the padding's id as a word of its own; RoBERTa and its kin leave it out when they count."""
    encoder = load_sentence_encoder(sentence(kind))
    ids = torch.tensor([[0, 9, 1, 7, 258], [0, 9, 8, 258, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        (found,) = plan_sentence_encoder(encoder).module(**inputs)
        torch.testing.assert_close(found, encoder.vectors(inputs), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        pytest.param(
            kind, pooling, marks=() if (kind, pooling) == ("mpnet", "cls") else pytest.mark.slow
        )
        for kind in SENTENCE_BUILDS
        for pooling in SETTINGS
    ],
)
def test_exports_equal_torch(
    kind: str, pooling: str, sentence: Callable[..., Path], tmp_path: Path
) -> None:
    folder = sentence(kind, pooling)
    content = export_onnx(folder, "text", tmp_path / "out")
    assert max(item["max_difference"] for item in content["parity"]) < 1e-5
    assert content["inputs"]["input_ids"]["shape"] == ["texts", "length"]
    assert set(content["inputs"]) == {"input_ids", "attention_mask"}
    encoder = open_encoder(f"onnx:{tmp_path / 'out'}")
    torch.testing.assert_close(
        encoder.embed_texts(TEXTS), load_encoder(folder).embed_texts(TEXTS), atol=1e-5, rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_other_types_keep_their_tolerance(
    dtype: Any, sentence: Callable[..., Path], tmp_path: Path
) -> None:
    content = export_onnx(sentence("bert"), "text", tmp_path / "out", dtype=dtype)
    assert (
        min(item["min_cosine"] for item in content["parity"])
        >= {"fp16": 0.999, "int8": 0.99}[dtype]
    )
    # not the float32 graph under another name
    assert max(item["max_difference"] for item in content["parity"]) > 1e-5


def test_bytes_are_used_around_attention_alone(
    sentence: Callable[..., Path], tmp_path: Path
) -> None:
    """Two layers with four products of attention each and two of the perceptron."""
    import onnx

    export_onnx(sentence("distilbert"), "text", tmp_path / "out", dtype="int8")
    graph = onnx.load(str(tmp_path / "out" / "model.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("MatMul") + kinds.count("Gemm")) == (8, 4)


def test_the_encoder_of_an_export(
    bert_export: Path, sentence: Callable[..., Path], tmp_path: Path
) -> None:
    plain = load_sentence_encoder(sentence("bert", is_lowered=True))
    encoder = load_onnx_encoder(bert_export, device="cpu")
    assert isinstance(encoder, OnnxSentenceEncoder)
    assert (encoder.name, encoder.takes_images) == (f"onnx:{bert_export}", False)
    assert (encoder.pooling, encoder.max_text_tokens, encoder.is_lowered) == ("mean", 16, True)
    texts = [f"{'a Dog ' * (number % 4)}{number}" for number in range(70)]
    torch.testing.assert_close(
        encoder.embed_texts(texts), plain.embed_texts(texts), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        encoder.embed_texts(["A DOG"]), encoder.embed_texts(["a dog"]), atol=0, rtol=0
    )
    fragments = [["a dog", "a cat"], ["x"]]
    found = encoder.embed_fragments(fragments)
    torch.testing.assert_close(found, plain.embed_fragments(fragments), atol=1e-5, rtol=0)
    assert encoder.embed_texts([]).shape == encoder.embed_fragments([]).shape == (0, 24)
    assert len(encoder.fingerprint) == 64
    assert encoder.fingerprint != plain.fingerprint
    with pytest.raises(UsageError, match=r"onnx:.* encodes texts only and was asked for a picture"):
        encoder.embed_images([random_picture(tmp_path / "a.png", 40, 40)])


@pytest.mark.slow
def test_a_wrong_pooling_is_noticed(sentence: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_sentence_encoder(load_sentence_encoder(sentence("bert", is_lowered=True)))
    assert plan.module.pooling == "mean"
    plan.module.pooling = "cls"  # type: ignore[assignment]
    with pytest.raises(ModelError, match=r"its graph differs from torch by .* nothing was written"):
        export_plan(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "part", "sentence_of"),
    [
        ({"pooling": "max"}, "text", "its settings are not those of a sentence encoder"),
        ({"max_text_tokens": 2}, "text", "its settings are not those of a sentence encoder"),
        ({"max_text_tokens": "16"}, "text", "its settings are not those of a sentence encoder"),
        ({"is_lowered": None}, "text", "its settings are not those of a sentence encoder"),
        ({}, "fragment", "encodes texts only, but holds other parts than text"),
    ],
)
def test_hostile_settings(
    settings: dict[str, Any], part: str, sentence_of: str, bert_export: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bert_export, tmp_path / "copy"))
    content = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    content |= {"settings": {**content["settings"], **settings}, "part": part}
    (folder / "export.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=sentence_of) as caught:
        load_onnx_encoder(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["image", "fragment"])
def test_parts_that_it_does_not_have(
    part: Any, sentence: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ModelError, match=rf"encodes texts only and has no {part} part; export its text part"
    ):
        export_onnx(sentence("bert"), part, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_pads_on_the_left(sentence: Callable[..., Path]) -> None:
    encoder = load_sentence_encoder(sentence("bert"))
    encoder.tokenizer.padding_side = "left"
    with pytest.raises(ModelError, match="its tokenizer pads on the left"):
        plan_sentence_encoder(encoder)


@pytest.mark.parametrize(
    ("model", "sentence_of"),
    [
        ("vlm:tiny", "vlm:tiny: pooled states of a vision-language model are not exported; use it as it is, or export its vision "
         "tower with --model tiny --part vision"),
        ("vlm-mean:a/b", "tower with --model a/b --part vision"),
        ("onnx:exports/x", "onnx:exports/x is an export already; name the model that it came from"),
    ],
)  # fmt: skip
def test_names_of_encoders_that_are_not_exported(
    model: str, sentence_of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        ffr, ["export", "onnx", "--model", model, "--part", "text", "--out", "out"]
    )
    assert result.exit_code == 2
    assert sentence_of in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_benchmark(bert_export: Path) -> None:
    result = CliRunner().invoke(
        ffr,
        ["export", "bench", str(bert_export), "--rounds", "2", "--batch-size", "2"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "| 2 | onnx |" in result.output
    assert "| 2 | torch |" in result.output
