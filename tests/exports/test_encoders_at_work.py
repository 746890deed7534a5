"""An exported encoder in the place of its torch model: retrieval and coherence on a part of the sample, and GRPO's reward encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ffr.data.catalog import load_dataset
from ffr.dialogue import Example
from ffr.embedding.policy import PolicyEncoder
from ffr.encoders import open_encoder
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.exports.onnx import export_onnx
from ffr.models.loading import load_vlm
from ffr.retrieval.embedding import EmbeddingRetriever, FragmentScorer, fit_selection
from ffr.rewards.terms import reward_terms
from ffr.settings import GrpoConfig

NUM_QUERIES = 24

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(
    tmp_path_factory: pytest.TempPathFactory, text_export: Path, built: Callable[[str], Path]
) -> Path:
    """Both parts of the tiny CLIP."""
    out = tmp_path_factory.mktemp("both") / "clip"
    shutil.copytree(text_export, out / "text")
    export_onnx(built("clip"), "image", out / "image")
    return out


def _measured(name: str, fit: list[Example], examples: list[Example], out: Path) -> Results:
    encoder = open_encoder(name)
    scorer = FragmentScorer(encoder)
    selection = fit_selection(scorer, fit, dataset="sample", split="train")
    retriever = EmbeddingRetriever(scorer, selection, name=f"embedding:{name}")
    return evaluate(examples, retriever, out, dataset="sample", encoder=encoder, baselines=())


def test_retrieval_and_coherence_equal_those_of_torch(
    export: Path, built: Callable[[str], Path], sample_home: Path, tmp_path: Path
) -> None:
    train, val = load_dataset("sample", split="train"), load_dataset("sample", split="val")
    fit, examples = ([data[index] for index in range(NUM_QUERIES)] for data in (train, val))
    torch_results = _measured(str(built("clip")), fit, examples, tmp_path / "torch")
    onnx_results = _measured(f"onnx:{export}", fit, examples, tmp_path / "onnx")
    for name, value in torch_results.summary["scores"].items():
        assert onnx_results.summary["scores"][name] == pytest.approx(value, abs=1e-3), name
    assert torch_results.summary["scores"]["utterance_f1"] > 0.1
    coherence = [results.summary["coherence"]["mean"] for results in (torch_results, onnx_results)]
    assert coherence[0] == pytest.approx(coherence[1], abs=1e-3)
    selections = [results.model["selection"] for results in (torch_results, onnx_results)]
    assert selections[0]["utterance"] == pytest.approx(selections[1]["utterance"], abs=1e-3)
    assert selections[0]["image"] == pytest.approx(selections[1]["image"], abs=1e-3)
    assert torch_results.model["fingerprint"] != onnx_results.model["fingerprint"]


def test_fragments_equal_those_of_torch(
    export: Path, built: Callable[[str], Path], sample_home: Path
) -> None:
    data = load_dataset("sample", split="val")
    fragments = [
        data[index].parts(data[index].fragment)
        for index in range(12)
        if data[index].fragment is not None and not data[index].fragment.is_empty
    ]
    assert any(isinstance(part, Path) for parts in fragments for part in parts)
    assert open_encoder(f"onnx:{export}").takes_images
    assert not open_encoder(f"onnx:{export / 'text'}").takes_images
    exported, plain = open_encoder(f"onnx:{export}"), open_encoder(str(built("clip")))
    torch.testing.assert_close(
        exported.embed_fragments(fragments), plain.embed_fragments(fragments), atol=1e-5, rtol=0
    )


def test_the_order_reward_takes_every_encoder_of_both(
    export: Path, built: Callable[[str], Path], sample_home: Path
) -> None:
    vlm = load_vlm("tiny")
    data = load_dataset("sample", split="val")
    example = next(item for item in data if item.fragment is not None and item.fragment.image_ids)
    fragment = example.fragment
    answer = f"<|utt_ids_start|>{list(fragment.utterance_ids)}<|utt_ids_end|>;<|img_ids_start|>{list(fragment.image_ids)}<|img_ids_end|>"
    columns = {
        "solution": [answer], "dialogue_id": ["d"], "utterances": [[line.text for line in example.dialogue.utterances]],
        "images": [list(map(str, example.image_locations()))], "image_utterance_ids": [list(example.dialogue.image_utterance_ids)],
    }  # fmt: skip

    def order(encoder: str) -> float:
        terms = reward_terms(GrpoConfig(encoder=encoder), PolicyEncoder(vlm))
        (term,) = [term for term in terms if term.name == "order"]
        return float(term.function([""], [answer], **columns)[0])

    assert order(f"onnx:{export}") == pytest.approx(order(str(built("clip"))), abs=1e-3)
    assert order("policy") != order(f"vlm:{built('qwen2-vl')}")
