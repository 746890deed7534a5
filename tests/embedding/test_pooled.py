"""Pooled states of every architecture against plain passes of one prompt, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_builds import BUILDS

from ffr.dialogue import FilePrompt
from ffr.embedding import CachedEncoder, pooled
from ffr.embedding.pooled import PooledEncoder
from ffr.errors import DataError, UsageError
from ffr.models.loading import load_vlm


@pytest.mark.parametrize("kind", sorted(BUILDS))
def test_vectors_are_pooled_final_states(
    kind: str, model_folder: Callable[[str], Path], pictures: list[Path]
) -> None:
    folder = model_folder(kind)
    vlm = load_vlm(folder)
    last, mean = (
        PooledEncoder(vlm, name="vlm:x"),
        PooledEncoder(vlm, pooling="mean", name="vlm-mean:x"),
    )
    fragments = [
        ["a short one"], ["hello 你好", pictures[0], "and a longer text behind it"], [pictures[1]], [pictures[2], pictures[3], "two"],
    ]  # fmt: skip
    found = {"last": last.embed_fragments(fragments), "mean": mean.embed_fragments(fragments)}
    for number, parts in enumerate(fragments):
        user = "\n".join(part if isinstance(part, str) else "<image>" for part in parts)
        row = vlm.encode(FilePrompt(user), [part for part in parts if not isinstance(part, str)])
        with torch.no_grad():
            # alone, without padding
            states = vlm.core(
                **vlm.collate([row], padding_side="right").inputs, use_cache=False
            ).last_hidden_state[0]
        for pooling, vector in {"last": states[-1], "mean": states.mean(0)}.items():
            torch.testing.assert_close(
                found[pooling][number], vector / vector.norm(), atol=2e-5, rtol=0
            )
    assert found["last"].dtype == torch.float32
    # texts and pictures by themselves are fragments of one part
    torch.testing.assert_close(
        last.embed_texts(["a short one"])[0], found["last"][0], atol=2e-5, rtol=0
    )
    torch.testing.assert_close(
        last.embed_images([str(pictures[1])])[0], found["last"][2], atol=2e-5, rtol=0
    )
    assert last.embed_fragments([]).shape == (0, found["last"].shape[1])
    assert last.fingerprint != mean.fingerprint


@pytest.fixture(scope="module")
def encoder(model_folder) -> PooledEncoder:
    return PooledEncoder(load_vlm(model_folder("qwen2-vl")), name="vlm:x")


def test_batches_keep_to_their_tokens(
    encoder: PooledEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number} " * (1 + number * 5 % 7) for number in range(12)]
    expected = encoder.embed_texts(texts)
    sizes: list[int] = []
    embed = encoder._embed

    def watched(rows):
        sizes.append(len(rows) * max(row.num_tokens for row in rows))
        return embed(rows)

    monkeypatch.setattr(encoder, "_embed", watched)
    monkeypatch.setattr(pooled, "BATCH_TOKENS", 200)
    torch.testing.assert_close(encoder.embed_texts(texts), expected, atol=1e-5, rtol=0)
    assert len(sizes) > 2
    assert max(sizes) <= 200


def test_the_fingerprint_names_the_model(
    encoder: PooledEncoder, model_folder, tmp_path: Path
) -> None:
    from model_builds import build_model

    assert (
        PooledEncoder(load_vlm(model_folder("qwen2-vl")), name="other").fingerprint
        == encoder.fingerprint
    )
    other = build_model("qwen2-vl", tmp_path / "other", seed=1)
    assert PooledEncoder(load_vlm(other), name="x").fingerprint != encoder.fingerprint
    smaller = load_vlm(model_folder("qwen2-vl"), max_image_pixels=10_000)
    assert PooledEncoder(smaller, name="x").fingerprint != encoder.fingerprint


def test_the_cache_gives_the_same_bits(
    encoder: PooledEncoder, pictures: list[Path], tmp_path: Path
) -> None:
    fragments = [["a", pictures[0]], ["b"]]
    first = CachedEncoder(encoder, tmp_path, max_bytes=2**20).embed_fragments(fragments)
    assert torch.equal(
        CachedEncoder(encoder, tmp_path, max_bytes=2**20).embed_fragments(fragments), first
    )


def test_what_has_no_vector_is_refused(encoder: PooledEncoder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fragment 0 has neither text nor picture"):
        encoder.embed_fragments([[]])
    for text in ("an <image> here", "an <|image_pad|> here"):
        with pytest.raises(
            DataError, match="stands for a picture in the prompt of vlm:x; take it out"
        ):
            encoder.embed_texts([text])
    with pytest.raises(DataError, match=r"makes [\d,]+ tokens, more than the 4096 of vlm:x"):
        encoder.embed_texts(["long " * 5000])
    with pytest.raises(DataError, match="not found"):
        encoder.embed_images([tmp_path / "none.png"])
    with pytest.raises(UsageError, match="pooling 'max' is not known; there are last, mean"):
        PooledEncoder(encoder._vlm, pooling="max", name="x")  # type: ignore[arg-type]
