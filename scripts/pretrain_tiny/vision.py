"""Teaches the vision tower its topics before the language model sees a picture: pictures land where their topic's words are."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from build import image_processor_config
from dialogues import World

from ffr.world.lexicon import TOPICS
from ffr.world.pictures import draw

NUM_STEPS, BATCH, LEARNING_RATE = 4_200, 96, 2e-3
PATCHES = 16


def draw_pool(num_drawings: int, seed: int) -> torch.Tensor:
    """Processed drawings of every topic: (topics, drawings, 16 patches, values of a patch)."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    settings = image_processor_config()
    settings.pop("image_processor_type")
    processor = Qwen2VLImageProcessorPil(**settings)
    chance = random.Random(seed)
    rows = []
    for topic in TOPICS:
        pictures = [
            draw(topic.key, chance, width=chance.randint(84, 96), height=chance.randint(84, 96))
            for _ in range(num_drawings)
        ]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        rows.append(pixels.view(num_drawings, PATCHES, -1))
    return torch.stack(rows)


def features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """(pictures, 16, values) → (pictures, 4, hidden)."""
    number = len(pixels)
    grid = torch.tensor([[1, 4, 4]]).expand(number, 3)
    output = model.model.visual(pixels.reshape(number * PATCHES, -1), grid_thw=grid).pooler_output
    return output.view(number, 4, -1)


def topic_means(model: Any, world: World) -> torch.Tensor:
    """Mean embedding of each topic's words: (topics, hidden)."""
    weights = model.model.language_model.embed_tokens.weight.detach()
    rows = []
    for topic in TOPICS:
        ids = {world.ids(word)[0] for word in (*topic.zh_words, *topic.en_words)}
        ids |= {world.ids(f" {word}")[0] for word in topic.en_words}
        rows.append(weights[sorted(ids)].mean(0))
    return torch.stack(rows)


def train_vision(
    model: Any, world: World, log: Callable[[dict[str, Any]], None], *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Trains tower and projector on (picture → topic): every token near the mean of its topic's words, by angle and by place.

    Returns:
        Features of the training drawings and of drawings never trained on: (topics, drawings, 4, hidden) each.
    """
    pool, unseen = draw_pool(world.drawings_per_topic, seed + 1), draw_pool(20, seed + 2)
    means = topic_means(model, world)
    centre = means.mean(0)
    directions = F.normalize(means - centre, dim=-1)
    generator = torch.Generator().manual_seed(seed)
    weights = list(model.model.visual.parameters())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    started = time.process_time()
    for step in range(NUM_STEPS):
        topic = torch.randint(len(TOPICS), (BATCH,), generator=generator)
        drawing = torch.randint(world.drawings_per_topic, (BATCH,), generator=generator)
        found = features(model, pool[topic, drawing])
        logits = 12 * F.normalize(found - centre, dim=-1) @ directions.T
        loss = F.cross_entropy(logits.flatten(0, 1), topic.repeat_interleave(4))
        loss = loss + 2 * F.mse_loss(found, means[topic][:, None].expand_as(found)) / means.var()
        rate = min(1, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / NUM_STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0 or step == NUM_STEPS - 1:
            with torch.no_grad():
                right = [
                    ((F.normalize(features(model, unseen[number]) - centre, dim=-1).mean(1) @ directions.T).argmax(-1) == number)
                    .float().mean().item()
                    for number in range(len(TOPICS))
                ]  # fmt: skip
            log({
                "stage": "vision", "step": step + 1, "loss": round(loss.item(), 4), "unseen_right": round(sum(right) / len(right), 4),
                "worst_topic": round(min(right), 2), "seconds": round(time.process_time() - started),
            })  # fmt: skip
    with torch.no_grad():
        return (
            torch.stack([features(model, pool[number]) for number in range(len(TOPICS))]),
            torch.stack([features(model, unseen[number]) for number in range(len(TOPICS))]),
        )
