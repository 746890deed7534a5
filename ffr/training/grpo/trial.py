"""A try before the first step: whether an update on the longest prompt with longest answers fits the memory."""

from __future__ import annotations

import torch

from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import GrpoConfig


def try_longest(vlm: Vlm, config: GrpoConfig, sharing: PrefixSharing, prompt: Encoded) -> None:
    """Takes a prompt through a backward pass with longest answers; changes nothing.

    Args:
        vlm: The model that will be trained.
        config: Settings.
        sharing: Scores answers behind their prompts.
        prompt: The longest prompt; as many copies are taken as go through the model at once.

    Raises:
        RuntimeError: where the memory does not suffice, as torch says it.
    """
    prompts = [prompt] * config.batch_size
    at_once = config.answers_per_pass or config.num_generations
    usable = next(item for item in range(len(vlm.tokenizer)) if item not in vlm.placeholder_ids)
    # B prompts, each with the answers of a pass, each of the greatest length
    branches = [[[usable] * config.max_new_tokens] * at_once] * len(prompts)
    if config.pack_queries:
        # all of a batch may be on one dialogue; what each has for itself is short beside its
        # answers
        prompts, branches = [prompt], [branches[0] * len(prompts)]
    vlm.train()
    # times 0: the memory of a backward pass, and gradients that move nothing
    torch.autograd.backward(sharing.score(prompts, branches).logprobs.sum() * 0)
    vlm.zero_grad(set_to_none=True)
