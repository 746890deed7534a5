"""GME's vectors on random weights against its published way, written out in plain transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import torch
from model_builds import build_model

from ffr.embedding import pooled
from ffr.embedding.gme import GmeEncoder
from ffr.embedding.pooled import PooledEncoder
from ffr.encoders import open_encoder
from ffr.errors import DataError, ModelError
from ffr.models.loading import load_vlm

_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL whose template begins with the system's turn, as that of GME does."""
    made = build_model("qwen2-vl", tmp_path_factory.mktemp("gme") / "model")
    template = made / "chat_template.jinja"
    template.write_text(_SYSTEM + template.read_text())
    return made


@pytest.fixture(scope="module")
def encoder(folder: Path) -> GmeEncoder:
    found = open_encoder(f"gme:{folder}")
    assert isinstance(found, GmeEncoder)
    return found


def _published(folder: Path, text: str, picture: Path | None) -> torch.Tensor:
    """The vector of one prompt, as `gme_inference.py` computes it."""
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration.from_pretrained(folder).eval().model
    marks, pixels = "", None
    if picture is not None:
        cut = AutoImageProcessor.from_pretrained(folder, backend="pil")
        pixels = cut(PIL.Image.open(picture).convert("RGB"), return_tensors="pt")
        num_tokens = int(pixels["image_grid_thw"].prod()) // cut.merge_size**2
        marks = f"<|vision_start|>{'<|image_pad|>' * num_tokens}<|vision_end|>"
    ids = AutoTokenizer.from_pretrained(folder)(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{marks}{text}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
        return_tensors="pt",
    )["input_ids"]
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        if pixels is not None:
            seen = model.visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])
            embeds[ids == model.config.image_token_id] = getattr(seen, "pooler_output", seen)
        # without positions the decoder counts them itself, one by one
        states = model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return torch.nn.functional.normalize(states[0, -1], dim=-1)


def test_vectors_are_those_of_the_published_way(
    folder: Path, encoder: GmeEncoder, pictures: list[Path]
) -> None:
    asked = [("a short one", None), ("", pictures[0]), ("a boat 在湖上", pictures[1]), ("b", None)]
    found = encoder.embed_fragments(
        [[*([picture] if picture else []), *([text] if text else [])] for text, picture in asked]
    )
    expected = torch.stack([_published(folder, text, picture) for text, picture in asked])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(encoder.embed_texts(["b"])[0], expected[3], atol=2e-5, rtol=0)
    torch.testing.assert_close(
        encoder.embed_images([pictures[0]])[0], expected[1], atol=2e-5, rtol=0
    )


def test_it_is_another_way_than_the_last_state(
    folder: Path, encoder: GmeEncoder, pictures: list[Path]
) -> None:
    last = PooledEncoder(load_vlm(folder), name="x")
    assert last.fingerprint != encoder.fingerprint
    for found in (encoder, last):
        assert found.embed_fragments([[pictures[0], "a"]]).shape == (1, 32)
    assert not torch.allclose(last.embed_texts(["a"]), encoder.embed_texts(["a"]), atol=1e-3)


def test_parts_beyond_a_picture_and_a_text(encoder: GmeEncoder, pictures: list[Path]) -> None:
    assert encoder._joined(["one", "two", "<image>", "three"], ["one", "two", pictures[0], "three"]) == (
        "one\ntwo<image>three"
    )  # fmt: skip


def test_vectors_hang_on_nothing_beside_them(
    encoder: GmeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number} " * (1 + number) for number in range(5)]
    together = encoder.embed_texts(texts)
    monkeypatch.setattr(pooled, "MAX_BATCH", 1)
    torch.testing.assert_close(encoder.embed_texts(texts), together, atol=2e-5, rtol=0)


def test_a_prompt_with_its_end_must_fit(
    encoder: GmeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = encoder._encode(("fits",)).num_tokens
    monkeypatch.setattr(type(encoder._vlm), "max_context", property(lambda _: rows))
    assert encoder.embed_texts(["fits"]).shape == (1, 32)
    monkeypatch.setattr(type(encoder._vlm), "max_context", property(lambda _: rows - 1))
    with pytest.raises(DataError, match=rf"makes {rows} tokens, more than the {rows - 1}"):
        encoder.embed_texts(["fits"])


def test_what_is_no_gme_model_is_refused(model_folder: Callable[[str], Path]) -> None:
    with pytest.raises(
        ModelError, match=r"is a qwen3_vl model, and GME's are qwen2_vl; write vlm:"
    ):
        open_encoder(f"gme:{model_folder('qwen3-vl')}")
