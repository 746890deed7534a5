"""The model of a training: loaded from its files, made trainable, with what builds its input."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ffr.errors import UsageError
from ffr.models.compiled import compile_layers
from ffr.models.features import ImageFeatureCache
from ffr.models.loading import load_skeleton, load_vlm
from ffr.models.lora import add_lora
from ffr.models.prompts import PromptBuilder
from ffr.models.rules import VlmRules
from ffr.models.vlm import Vlm
from ffr.settings import StageConfig, VlmStageConfig

KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
"""How many kernels, one a shape, oneDNN keeps on a CPU where the environment says nothing: it reads
this at its first kernel. Of its own it keeps 1,024, and steps of ever new lengths fill the memory
with them."""


def prepare_process(config: StageConfig) -> None:
    """Threads and kernels of this process, as the settings and the environment say."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    os.environ.setdefault(*KERNELS_KEPT)


def load_base(config: VlmStageConfig, location: str) -> Vlm:
    """The model as its files have it, frozen, with its feature cache."""
    device = (
        "cuda" if config.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"
    )
    # weights that are trained themselves stay in float32: steps of 1e-5 are lost in bfloat16;
    # autocast computes in it all the same
    is_half = precision_of(config) == "bf16" and bool(config.lora_rank)
    vlm = load_vlm(
        location,
        dtype="bfloat16" if is_half else "float32",
        device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
        max_image_pixels=config.max_image_pixels,
    )
    if config.feature_cache_mb:
        vlm.tower.cache = ImageFeatureCache(
            memory_bytes=config.feature_cache_mb * 2**20,
            disk_folder=Path(config.feature_cache_dir) if config.feature_cache_dir else None,
            disk_bytes=config.feature_cache_dir_mb * 2**20,
        )
    return vlm


def model_rules(config: VlmStageConfig, location: str) -> VlmRules:
    """What the model cannot take of the data, from its files without its weights.

    Raises:
        ModelError: where they cannot be used.
    """
    skeleton = load_skeleton(
        location,
        trust_remote_code=config.trust_remote_code,
        max_image_pixels=config.max_image_pixels,
    )
    # the answers of GRPO are the model's own
    return VlmRules(make_prompt_builder(config, skeleton), with_answer=config.stage == "sft")


def make_trainable(config: VlmStageConfig, vlm: Vlm) -> None:
    """Adds the adapter, drawn from the seed, or frees the language model's own weights."""
    torch.manual_seed(config.seed)
    if config.lora_rank:
        add_lora(vlm, r=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    else:
        vlm.train_language_model()
    if config.gradient_checkpointing:
        vlm.enable_gradient_checkpointing()
    if config.compile:
        compile_layers(vlm)


def precision_of(config: StageConfig) -> str:
    """`fp32` or `bf16`: what the settings say, or what suits the device."""
    if config.precision != "auto":
        return config.precision
    on_gpu = (
        config.accelerator in ("auto", "gpu")
        and torch.cuda.is_available()
        and torch.cuda.is_bf16_supported()
    )
    return "bf16" if on_gpu else "fp32"


def make_prompt_builder(config: VlmStageConfig, vlm: Vlm) -> PromptBuilder:
    """What turns examples into the model's input, as the settings say."""
    return PromptBuilder(
        vlm,
        template=config.template,
        query_position=config.query_position,
        max_tokens=config.max_tokens,
        # SFT counts the true answer; what GRPO's policy will write has to fit as well
        answer_tokens=config.max_new_tokens if config.stage == "grpo" else 0,
        answer_style=getattr(config, "answer_style", None),
    )


def check_packing(builder: PromptBuilder) -> None:
    """Sees that queries stand behind their dialogues, so that these can be shared.

    Raises:
        UsageError: where they do not.
    """
    if builder.query_position != "last":
        found = "first" if builder.query_position else "whatever the data file has"
        raise UsageError(
            "setting pack_queries: queries share a dialogue that stands before them, but the "
            "model's query position is "
            f"{found}; set query_position=last"
        )
