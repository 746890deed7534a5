"""Makes the tiny model from nothing: its tokenizer, its configuration, its untrained weights, and its folder on disk.

The tokenizer is a byte-level BPE, lossless for any text, in which the task's markers, the numbers 0–199, the words of the
sample's topics and the sentences of the task's instruction are single tokens.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from ffr.prompt import TEMPLATES
from ffr.world.lexicon import TOPICS, WORDINGS

PAD, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
MARKERS = tuple(
    f"<|{name}_{end}|>"
    for name in ("query", "utt_id", "img_id", "utt_ids", "img_ids")
    for end in ("start", "end")
)
SPEAKERS = tuple(f" user{number}: " for number in range(1, 5))
NUM_NUMBERS = 200
MIN_PIXELS, MAX_PIXELS = 50 * 50, 60 * 60

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, the same one every time: it depends on the lexicon and the prompt templates alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"\p{N}{1,3}| ?\p{L}+|\n| ?[^\s\p{L}\p{N}]|\s+"), behavior="isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD, *MARKERS]
    trainer = trainers.BpeTrainer(
        vocab_size=2_600,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=14,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    # ordinary added tokens: trainers decode without special tokens, and would cut them out
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKERS])
    chinese = [word for topic in TOPICS for word in (*topic.zh_names, *topic.zh_words)]
    tokenizer.add_tokens(
        [AddedToken(word, normalized=False) for word in sorted(chinese, key=lambda w: (-len(w), w))]
    )
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in _instruction_pieces()])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in (", ", *SPEAKERS)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=8_192,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _instruction_pieces() -> list[str]:
    """The unchanging sentences of the prompts, cut at the markers; the markers stay tokens of their own."""
    pieces: list[str] = []
    for template in TEMPLATES.values():
        for text in (template.system, template.query_first, template.query_last):
            for piece in re.split(r"\{query\}|\{dialogue\}|<\|[a-z_]+\|>|\n", text):
                if len(piece) > 2 and piece not in pieces:
                    pieces.append(piece)
    return sorted(pieces, key=lambda piece: (-len(piece), piece))


def _corpus() -> list[str]:
    """What the merges are learned from: every number and topic word often enough to become one token, then all sentences."""
    lines: list[str] = []
    for number in range(NUM_NUMBERS):
        lines += [str(number)] * 400
    for topic in TOPICS:
        for word in (*topic.en_names, *topic.en_words):
            lines += [word, f" {word}"] * 200
    for wording in WORDINGS.values():
        for line in (
            *wording.lines,
            *wording.follow_ups,
            *wording.fillers,
            *wording.queries,
            *wording.names,
        ):
            clean = re.sub(r"\{.\}", " ", line)
            lines += [clean, " " + clean] * 4
    lines += [
        "user1: ",
        " user1: ",
        "user2: ",
        "system\n",
        "user\n",
        "assistant\n",
        ", ",
        "[",
        "]",
        ";",
    ] * 200
    return lines


def make_config(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int = 64,
    layers: int = 4,
    heads: int = 2,
    vision_dim: int = 64,
    vision_depth: int = 2,
) -> Qwen2VLConfig:
    """The configuration: Qwen2-VL as transformers has it, only smaller."""
    half = hidden // heads // 2
    temporal = half // 4
    height = (half - temporal) // 2
    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 8_192,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [temporal, height, half - temporal - height],
            },
            "bos_token_id": None,
            "eos_token_id": token(IM_END),
            "pad_token_id": token(PAD),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": vision_depth,
            "embed_dim": vision_dim,
            "hidden_size": hidden,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=token(IMAGE_PAD),
        video_token_id=token(VIDEO_PAD),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        tie_word_embeddings=True,
    )


def make_model(config: Qwen2VLConfig, *, seed: int) -> Qwen2VLForConditionalGeneration:
    """Untrained weights with the scales that let matching be learned: embeddings of deviation 0.1, other matrices 0.05."""
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.1 if "embed_tokens" in name else 0.05)
    return model


def image_processor_config() -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        # a little room on both sides of 56·56, so that rounding never gives a picture another number of patches
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
    }


def save_folder(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    provenance: dict[str, Any],
) -> None:
    """Writes the folder that `--model` and plain transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(image_processor_config(), indent=2) + "\n", encoding="utf-8"
    )
    (folder / "ffr.json").write_text(
        json.dumps(
            {"prompt": {"template": "zh", "query_position": "last"}, **provenance},
            ensure_ascii=False,
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
