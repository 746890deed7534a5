"""Late interaction as `lines` sees it: each token of a question meets the likest one of each line.

    s(q, l) = Σ_t w_t z_t(l),   m_t(l) = max_{u in l} cos(h_t, h_u),   z_t = (m_t − mean_l) / std_l

over the question's tokens t, with weights w by rarity that sum to 1 (ColBERT, Khattab and Zaharia,
SIGIR 2020; deviating in that the encoder was never trained for it, so that its states are freed of
what the dialogue's tokens have in common, that each token's likenesses stand beside those of all
lines, and that rare tokens count more). States are kept by their 192 principal directions, each
divided by the square root of its deviation, so that the few that all tokens differ by do not drown
the others.

Shapes: N lines with words of a dialogue, U tokens of all of them, T tokens of a question, H width
of the encoder's states, D ≤ 192 directions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffr.embedding.interface import TokenStates
from ffr.retrieval.line_features import Numbers, by_rank, of_sessions, shifted, standing

Floats = NDArray[np.float32]

NUM_TOKEN_FEATURES = 13
_NUM_DIRECTIONS = 192
_SHIFTS = (-2, -1, 1, 2)
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class LineTokens:
    """The tokens of a dialogue's lines.

    Args:
        states: (U, D) of one line after the other, centred and L2-normalised.
        starts: (n,) where the tokens of each line begin that has any.
        places: (n,) which lines those are.
        num_lines: N.
        counts: In how many lines each token stands, by its id.
        mean: (H,) of all states.
        directions: (H, D) what they differ by most, as above.
    """

    states: Floats
    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    num_lines: int
    counts: Counter[int]
    mean: Floats
    directions: Floats


def line_tokens(lines: Sequence[TokenStates]) -> LineTokens:
    """The tokens of some lines.

    Args:
        lines: The tokens of N lines, one line at the least.
    """
    lengths = np.array([len(line.ids) for line in lines], dtype=np.int64)
    every = np.concatenate([line.states.numpy() for line in lines]).astype(np.float32)
    mean = every.mean(0) if len(every) else np.zeros(every.shape[1], np.float32)
    every -= mean
    variances, directions = np.linalg.eigh(every.T @ every / max(1, len(every)))
    kept = variances > variances[-1] * _LEAST  # as many as the tokens differ by
    kept[:-_NUM_DIRECTIONS] = False
    directions = (directions[:, kept] * variances[kept] ** -0.25).astype(np.float32)
    places = np.flatnonzero(lengths)
    return LineTokens(
        _normalised(every @ directions),
        (lengths.cumsum() - lengths)[places],
        places,
        len(lines),
        Counter(token for line in lines for token in {*line.ids}),
        mean,
        directions,
    )


def token_features(
    tokens: LineTokens, question: TokenStates, sessions: NDArray[np.int64]
) -> tuple[Floats, Numbers]:
    """What is seen of each line by its tokens' likeness to those of a question.

    Args:
        tokens: Of the lines.
        question: Of the question.
        sessions: (N,) the sitting of each line.

    Returns:
        (N, 13) numbers, and (N,) how each line stands, in deviations.

    >>> import torch
    >>> words = torch.eye(3).half()
    >>> lines = [TokenStates((7, 8), words[:2]), TokenStates((9,), words[2:])]
    >>> table = line_tokens(lines)
    >>> seen, standing = token_features(table, TokenStates((9,), words[2:]), np.zeros(2, np.int64))
    >>> seen.shape, standing.round(2).tolist()
    ((2, 13), [-1.0, 1.0])
    """
    best = _best(tokens, question)
    if not best.shape[1]:
        return np.zeros((tokens.num_lines, NUM_TOKEN_FEATURES), np.float32), np.zeros(len(best))
    weights = _weights(tokens, question)
    deviations = _standing(best)
    found = standing(deviations @ weights)
    likeness = best @ weights
    padded = np.pad(best, ((1, 1), (0, 0)), constant_values=-1.0)
    near = np.maximum(best, np.maximum(padded[:-2], padded[2:]))
    columns = [
        likeness,
        standing(likeness),
        found,
        *by_rank(found)[1:],
        standing(_standing(near) @ weights),
        deviations.min(1),
        likeness - likeness.max(),
        *(shifted(found, shift) for shift in _SHIFTS),
        *of_sessions(sessions, found),
    ]
    return np.stack(columns, axis=-1).astype(np.float32), found


def _best(tokens: LineTokens, question: TokenStates) -> Numbers:
    """(N, T) the cosine of each token of a question with the likest one of each line; −1 of none."""
    own: Floats = question.states.numpy().astype(np.float32)
    states = _normalised(np.asarray((own - tokens.mean) @ tokens.directions, dtype=np.float32))
    found = np.full((tokens.num_lines, len(states)), -1.0)
    if not len(tokens.places):
        return found
    cosines: Floats = tokens.states @ states.T
    found[tokens.places] = np.maximum.reduceat(cosines, tokens.starts, axis=0)
    return found


def _weights(tokens: LineTokens, question: TokenStates) -> Numbers:
    """(T,) how rare each token of a question is in the dialogue, as BM25 weighs it; sums to 1."""
    held = np.array([tokens.counts[token] for token in question.ids], dtype=np.float64)
    rarity = np.log1p((tokens.num_lines - held + 0.5) / (held + 0.5))
    return np.asarray(rarity / rarity.sum())


def _standing(best: Numbers) -> Numbers:
    """Each token's likenesses in deviations from their mean over the lines."""
    return np.asarray((best - best.mean(0)) / (best.std(0) + _LEAST))


def _normalised(states: Floats) -> Floats:
    lengths = np.linalg.norm(states, axis=-1, keepdims=True)
    return np.asarray(states / np.maximum(lengths, _LEAST), dtype=np.float32)
