"""Word vectors from generated dialogues, to start the embeddings from: words of one topic begin close to each other.

Co-occurrence within a line and its neighbour, and between a query and its answer, as positive pointwise mutual information, then a
truncated singular value decomposition (Levy & Goldberg 2014). It saves the model the slowest part of learning by example.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from dialogues import World
from stages import Stage

NUM_DIALOGUES, MIN_COUNT, NOISE, EMBEDDING_DEVIATION = 3_000, 20, 0.5, 0.1


def word_vectors(world: World, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors (vocabulary, size), and which tokens were seen often enough to have one (vocabulary,)."""
    stage = Stage(
        "vectors",
        repeats=True,
        lines_per_topic=(2, 5),
        sentences=0.5,
        query_sentences=0.5,
        other_language=0.3,
    )
    vocabulary = len(world.tokenizer)
    counts = np.zeros((vocabulary, vocabulary), np.float32)

    def tokens(text: str) -> set[int]:
        return {*world.ids(text), *world.ids(f" {text}")}

    def meet(some: set[int], others: set[int]) -> None:
        for one in some:
            counts[one, list(others)] += 1
            counts[list(others), one] += 1

    for _ in range(NUM_DIALOGUES):
        drawn = world.draw(stage)
        lines = [(topic, tokens(text)) for topic, text in drawn.lines]
        for index, (_, found) in enumerate(lines):
            for _, other in lines[index : index + 2]:
                meet(found, other)
        for query, topic in drawn.queries:
            asked = tokens(query)
            for owner, found in lines:
                if owner == topic:
                    meet(asked, found)
    total, sums = counts.sum(), counts.sum(1, keepdims=True) + 1e-9
    information = np.maximum(np.log(np.maximum(counts * total / (sums * sums.T), 1e-9)), 0) * (
        counts > 0
    )
    left, strength, _ = np.linalg.svd(information, full_matrices=False)
    vectors = left[:, :size] * np.sqrt(strength[:size])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    return torch.tensor(vectors, dtype=torch.float32), torch.tensor(counts.sum(1) > MIN_COUNT)


def start_embeddings(weights: torch.Tensor, world: World) -> None:
    """Sets the embeddings (vocabulary, size) of the tokens seen to their vectors with noise, at the length of the others."""
    vectors, seen = word_vectors(world, weights.shape[1])
    length = EMBEDDING_DEVIATION * math.sqrt(weights.shape[1])
    with torch.no_grad():
        known = weights[: len(seen)][seen]
        weights[: len(seen)][seen] = length * F.normalize(
            vectors[seen] + NOISE * known / length, dim=-1
        )
