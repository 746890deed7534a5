"""A model's own features as an encoder, against the sums that define them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS

from ffr.dialogue import FilePrompt
from ffr.embedding.policy import PolicyEncoder
from ffr.errors import DataError, UsageError
from ffr.models.features import ImageFeatureCache
from ffr.models.loading import load_vlm


@pytest.fixture(scope="module")
def policy(model_folder: Callable[[str], Path]) -> PolicyEncoder:
    return PolicyEncoder(load_vlm(model_folder("qwen2-vl")))


@pytest.mark.parametrize("kind", sorted(BUILDS))
def test_vectors_are_the_means_that_define_them(
    kind: str, model_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    vlm = load_vlm(model_folder(kind))
    encoder = PolicyEncoder(vlm)
    weight = vlm.base.get_input_embeddings().weight.detach().double()
    texts = ["a", "你好 there", ""]
    # a text of nothing is a text of one end token
    of_texts = [vlm.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    of_texts[2] = [min(vlm.stop_ids)]
    images = [vlm.encode(FilePrompt("<image>"), [path]).images[0] for path in pictures[:2]]
    patches = [vlm.tower.features(image).pooled.double() for image in images]
    means = [weight[ids].mean(0) for ids in of_texts]
    means += [found.reshape(-1, found.shape[-1]).mean(0) for found in patches]
    centred = torch.stack(means) - weight.mean(0)
    expected = (centred / centred.norm(dim=1, keepdim=True)).float()
    found = torch.cat([encoder.embed_texts(texts), encoder.embed_images(pictures[:2])])
    assert found.shape == (5, 32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_fragment_is_the_mean_of_its_parts(policy: PolicyEncoder, pictures: list[Path]) -> None:
    total = policy.embed_texts(["a cat"])[0] + policy.embed_images([pictures[0]])[0]
    [found] = policy.embed_fragments([["a cat", pictures[0]]])
    torch.testing.assert_close(found, total / total.norm())
    with pytest.raises(UsageError, match="fragment 0 has neither text nor picture"):
        policy.embed_fragments([[]])


def test_nothing_gives_no_rows_of_the_right_width(policy: PolicyEncoder) -> None:
    empty = [policy.embed_texts([]), policy.embed_images([]), policy.embed_fragments([])]
    assert [vectors.shape for vectors in empty] == [(0, 32)] * 3


def test_it_is_known_as_its_model(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    vlm = load_vlm(model_folder("qwen2-vl"))
    policy = PolicyEncoder(vlm)
    assert (policy.name, policy.fingerprint, policy.takes_images) == (
        str(model_folder("qwen2-vl")), vlm.fingerprint, True,
    )  # fmt: skip
    with pytest.raises(DataError, match="not found"):
        policy.embed_images([tmp_path / "none.png"])


def test_features_in_the_cache_give_the_same_bits(
    model_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    vlm = load_vlm(model_folder("qwen3-vl"))
    policy = PolicyEncoder(vlm)
    expected = policy.embed_images(pictures)
    vlm.tower.cache = ImageFeatureCache(memory_bytes=10**7)
    policy.embed_images(pictures)
    assert torch.equal(policy.embed_images(pictures), expected)
