"""Tiny random-weight models of every architecture that is tested, saved to disk like real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from ffr.answer import format_answer
from ffr.dialogue import Fragment
from ffr.prompt import TEMPLATES

QWEN_SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def chat_template(image: str) -> str:
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + image + "' }}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def tokenizer(special: list[str], image: str, **attributes: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", *special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [template.query_first + template.query_last for template in TEMPLATES.values()]
    texts += [format_answer(Fragment(tuple(range(number)), (0, 1))) for number in range(12)]
    bpe.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=attributes,
    )
    fast.chat_template = chat_template(image)
    return fast


def _text(tokens: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokens), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **more,
    }  # fmt: skip


def _qwen_tokens(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    return {name: tokens.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen_processor(patch: int) -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": patch, "temporal_patch_size": 2, "merge_size": 2,
        "size": {"shortest_edge": (2 * patch) ** 2, "longest_edge": (8 * patch) ** 2},
        "min_pixels": (2 * patch) ** 2, "max_pixels": (8 * patch) ** 2,
    }  # fmt: skip


_MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}


def qwen2_vl() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import Qwen2VLConfig

    tokens = tokenizer(QWEN_SPECIAL, "<|vision_start|><|image_pad|><|vision_end|>")
    config = Qwen2VLConfig(
        text_config=_text(tokens, rope_parameters=_MROPE),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        **_qwen_tokens(tokens),
    )
    return config, tokens, _qwen_processor(14), {}


def qwen2_5_vl() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import Qwen2_5_VLConfig

    tokens = tokenizer(QWEN_SPECIAL, "<|vision_start|><|image_pad|><|vision_end|>")
    config = Qwen2_5_VLConfig(
        text_config=_text(tokens, rope_parameters=_MROPE),
        vision_config={
            "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1],
        },
        **_qwen_tokens(tokens),
    )  # fmt: skip
    return config, tokens, _qwen_processor(14), {}


def qwen3_vl() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import Qwen3VLConfig

    tokens = tokenizer(QWEN_SPECIAL, "<|vision_start|><|image_pad|><|vision_end|>")
    config = Qwen3VLConfig(
        text_config=_text(tokens, head_dim=8, rope_parameters=_MROPE),
        vision_config={
            "depth": 3, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
        },
        **_qwen_tokens(tokens),
    )  # fmt: skip
    return config, tokens, _qwen_processor(16), {}


def internvl() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import InternVLConfig

    special = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    tokens = tokenizer(
        special, "<IMG_CONTEXT>",
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokens)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [56, 56], "patch_size": [14, 14],
        },
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    processor = {
        "image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 56, "width": 56}, "crop_to_patches": True,
        "min_patches": 1, "max_patches": 4,
    }  # fmt: skip
    return config, tokens, processor, {"image_seq_length": 4}


def smolvlm() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import SmolVLMConfig

    grid = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    special = [
        "<|im_start|>",
        "<|im_end|>",
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        "<end_of_utterance>",
        *grid,
    ]
    tokens = tokenizer(special, "<image>")
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **_text(tokens)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = {
        "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 112},
        "max_image_size": {"longest_edge": 56}, "do_image_splitting": True,
    }  # fmt: skip
    return config, tokens, processor, {"image_seq_len": 4}


def llava_onevision() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    from transformers import LlavaOnevisionConfig

    tokens = tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], "<image>")
    pinpoints = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokens)},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "vision_use_head": False,
        },
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    processor = {
        "image_processor_type": "LlavaOnevisionImageProcessor", "size": {"height": 56, "width": 56},
        "image_grid_pinpoints": pinpoints,
    }  # fmt: skip
    return (
        config,
        tokens,
        processor,
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    )


BUILDS: dict[str, Callable[[], tuple[Any, Any, dict[str, Any], dict[str, Any]]]] = {
    "qwen2-vl": qwen2_vl,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "llava-onevision": llava_onevision,
}


def _beginning(
    tokens: PreTrainedTokenizerFast, template: str, **attributes: str
) -> PreTrainedTokenizerFast:
    """The same tokenizer with a begin token `<s>`, which it puts before every text by itself."""
    inner = tokens._tokenizer
    inner.add_special_tokens(["<s>"])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=attributes,
    )
    fast.chat_template = template
    return fast


def _begun_text(tokens: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return _text(tokens, **more) | {"bos_token_id": tokens.bos_token_id}


def llava() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """As LLaVA-1.5: the template leaves the begin token to the tokenizer."""
    from transformers import LlavaConfig

    template = (
        "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{{ '<|im_end|>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    tokens = _beginning(tokenizer(["<|im_start|>", "<|im_end|>", "<image>"], "<image>"), template)
    config = LlavaConfig(
        text_config={"model_type": "llama", **_begun_text(tokens)},
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
        },
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )  # fmt: skip
    processor = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56},
    }  # fmt: skip
    sizes = {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return config, tokens, processor, sizes


def gemma3() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """As Gemma 3: the template writes the begin token that the tokenizer would put there too."""
    from transformers import Gemma3Config

    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    template = "{{ bos_token }}" + chat_template("<start_of_image>")
    tokens = _beginning(
        tokenizer(["<|im_start|>", "<|im_end|>", *names.values()], "x", **names), template, **names
    )
    config = Gemma3Config(
        text_config={**_begun_text(tokens, head_dim=8), "sliding_window": 512},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14, "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        **{
            f"{name}_index": tokens.convert_tokens_to_ids(token)
            for name, token in (*names.items(),)
        },
    )  # fmt: skip
    processor = {
        "image_processor_type": "Gemma3ImageProcessor",
        "size": {"height": 56, "width": 56},
    }
    return config, tokens, processor, {"image_seq_length": 4}


def idefics3() -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """As Idefics 3: the template writes the begin token, pictures are cut into tiles."""
    from transformers import Idefics3Config

    grid = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *grid]
    template = "{{ bos_token }}" + chat_template("<image>")
    tokens = _beginning(tokenizer(["<|im_start|>", "<|im_end|>", *special], "<image>"), template)
    config = Idefics3Config(
        text_config={"model_type": "llama", **_begun_text(tokens)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    processor = {
        "image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 112},
        "max_image_size": {"longest_edge": 56}, "do_image_splitting": True,
    }  # fmt: skip
    return config, tokens, processor, {"image_seq_len": 4}


BEGUN_BUILDS = {"llava": llava, "gemma3": gemma3, "idefics3": idefics3}
"""Models with a begin token; what is tested of them is the ids of their prompts."""


def build_model(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Writes a random-weight model of an architecture, with all files a real one has."""
    config, tokens, image_processor, processor = (BUILDS | BEGUN_BUILDS)[name]()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4)  # so that attention and logits are far from uniform
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor), encoding="utf-8")
    if processor:
        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def random_picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
