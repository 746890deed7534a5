"""Tiny random-weight text–image encoders of every kind that is tested, saved to disk like real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

CONTEXT = {"clip": 20, "siglip": 16, "siglip2": 16, "chinese_clip": 24}


def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Byte-level, one token a byte, with a start and an end around each text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<start>", *letters, "<end>"]  # CLIP looks for its end as the largest id
    tokens = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), pre_tokenizers.Split("", "isolated")]
    )
    ends = [("<start>", 1), ("<end>", len(words) - 1)]
    tokens.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<pad>",
        model_max_length=CONTEXT[kind], padding_side="right",
    )  # fmt: skip


def _config(kind: str, tokens: PreTrainedTokenizerFast) -> tuple[Any, dict[str, Any]]:
    from transformers import ChineseCLIPConfig, CLIPConfig, Siglip2Config, SiglipConfig

    text = {
        "vocab_size": len(tokens), "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": CONTEXT[kind], "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": len(tokens) - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8,
    }  # fmt: skip
    cut = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    if kind == "clip":
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        return config, {"image_processor_type": "CLIPImageProcessor", **cut}
    if kind == "chinese_clip":
        config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
        return config, {"image_processor_type": "ChineseCLIPImageProcessor", **cut}
    if kind == "siglip":
        config = SiglipConfig(text_config={**text, "projection_size": 24}, vision_config=vision)
        return config, {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
    config = Siglip2Config(text_config={**text, "projection_size": 24}, vision_config={**vision, "num_patches": 16})
    return config, {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16}


def build_encoder(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Writes a random-weight encoder of a kind of `CONTEXT`."""
    tokens = _tokenizer(kind)
    config, image_processor = _config(kind, tokens)
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)  # so that texts and images lie far apart
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor), encoding="utf-8")
    return folder
