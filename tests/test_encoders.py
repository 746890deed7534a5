"""Names of encoders and what they open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encoder_builds import build_encoder, build_sentence_encoder
from model_builds import build_model

from ffr.embedding import SHIPPED, DualEncoder, SentenceEncoder
from ffr.embedding.gme import GmeEncoder
from ffr.embedding.policy import PolicyEncoder
from ffr.embedding.pooled import PooledEncoder
from ffr.encoders import open_encoder
from ffr.errors import FfrError, ModelError, UsageError
from ffr.models.loading import load_vlm


def test_every_kind_of_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = build_encoder("clip", tmp_path / "clip")
    bert = build_sentence_encoder("bert", tmp_path / "bert")
    model = build_model("qwen2-vl", tmp_path / "qwen2-vl")
    policy = PolicyEncoder(load_vlm(model))
    assert open_encoder("policy", policy=policy) is policy
    assert isinstance(open_encoder(str(clip)), DualEncoder)
    assert isinstance(open_encoder(str(bert)), SentenceEncoder)
    for prefix, pooling in (("vlm:", "last"), ("vlm-mean:", "mean")):
        encoder = open_encoder(f"{prefix}{model}")
        assert isinstance(encoder, PooledEncoder)
        assert (encoder.pooling, encoder.name) == (pooling, f"{prefix}{model}")
    gme = open_encoder(f"gme:{model}")
    assert isinstance(gme, GmeEncoder)
    assert gme.name == f"gme:{model}"
    monkeypatch.setitem(SHIPPED, "small-clip", clip)
    shipped = open_encoder("small-clip")
    assert shipped.name == "small-clip"
    assert torch.equal(shipped.embed_texts(["a"]), open_encoder(str(clip)).embed_texts(["a"]))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "policy",
            UsageError,
            "encoder `policy` is the vision-language model that is trained or measured",
        ),
        ("onnx:", UsageError, "encoder 'onnx:' names nothing; write onnx:DIR"),
        ("vlm:", UsageError, "encoder 'vlm:' names nothing; write vlm:MODEL"),
        ("onnx:{tmp}", ModelError, "holds no text or image encoder"),
        ("vlm:{tmp}/nothing", UsageError, "no such model folder or run"),
        ("vlm:{tmp}", ModelError, "holds no config.json"),
        ("{tmp}/nothing", ModelError, "is no folder and no hub id"),
        ("{tmp}", ModelError, "holds no config.json"),
    ],
)
def test_names_that_open_nothing(
    name: str, kind: type[FfrError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message) as caught:
        open_encoder(name.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


def test_the_order_reward_refuses_an_encoder_of_texts(tmp_path: Path) -> None:
    from ffr.rewards.terms import reward_terms
    from ffr.settings import GrpoConfig

    bert = build_sentence_encoder("bert", tmp_path / "bert")
    policy = PolicyEncoder(load_vlm("tiny"))
    with pytest.raises(
        UsageError,
        match=r"setting encoder: .*bert encodes texts only, and the order reward compares",
    ):
        reward_terms(GrpoConfig(encoder=str(bert)), policy)
    without = reward_terms(GrpoConfig(encoder=str(bert), order_weight=0.0), policy)
    assert [term.name for term in without] == ["format", "f1"]
