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
    tokens = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>")
    )
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split("", "isolated"),
        ]
    )
    ends = [("<start>", 1), ("<end>", len(words) - 1)]
    tokens.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=ends
    )
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
        return config, {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 32, "width": 32},
        }
    config = Siglip2Config(
        text_config={**text, "projection_size": 24}, vision_config={**vision, "num_patches": 16}
    )
    return config, {
        "image_processor_type": "Siglip2ImageProcessor",
        "patch_size": 8,
        "max_num_patches": 16,
    }


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


# -- sentence encoders --------------------------------------------------------------------------------------------------------

SENTENCE_BUILDS = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert")
SENTENCE_POSITIONS = 40
"""Tokens of the longest text that a build has positions for."""


def build_sentence_encoder(kind: str, folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Writes a random-weight text model of a kind of `SENTENCE_BUILDS`; the settings of sentence-transformers are up to the test.

    `overrides` are fields of its configuration.
    """
    from transformers import AutoConfig

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["[CLS]", "[PAD]", *letters, "[SEP]"]
    tokens = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[PAD]")
    )
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split("", "isolated"),
        ]
    )
    ends = [("[CLS]", 0), ("[SEP]", len(words) - 1)]
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[PAD]",
        model_max_length=512, padding_side="right",
    )  # fmt: skip
    sizes: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    if kind == "distilbert":
        sizes = {"dim": 24, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
    sizes |= overrides
    counts_from_padding = kind in ("roberta", "xlm-roberta", "mpnet")
    config = AutoConfig.for_model(
        kind, vocab_size=len(words), pad_token_id=1, max_position_embeddings=SENTENCE_POSITIONS + 2 * counts_from_padding,
        **sizes,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)  # so that texts lie far apart
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_sentence_settings(
    folder: Path, *, pooling: str = "mean_tokens", max_seq_length: int = 24
) -> Path:
    """Writes the files of sentence-transformers into the folder of a text model."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    listed = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    modes = {
        f"pooling_mode_{name}": name == pooling
        for name in ("cls_token", "mean_tokens", "max_tokens")
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 24, **modes})
    )
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_seq_length, "do_lower_case": False})
    )
    return folder
