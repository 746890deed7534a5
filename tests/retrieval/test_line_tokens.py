"""Late interaction by hand, on states that are given; and what `lines` makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ffr.answer import read_answer
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.embedding import CachedEncoder
from ffr.embedding.interface import TokenStates, token_encoder_of
from ffr.retrieval.line_tokens import NUM_TOKEN_FEATURES, line_tokens, token_features
from ffr.retrieval.lines import LinesRetriever, fit_lines

ALIKE = ["boat ship", "lamp light", "tent camp", "soup broth", "road street", "coat jacket"]


def states(*rows: list[float], ids: tuple[int, ...]) -> TokenStates:
    return TokenStates(ids, torch.tensor(rows).half())


def by_hand(lines: list[TokenStates], question: TokenStates) -> np.ndarray:
    """Token by token in float64, from the formula in the module's first words."""
    every = np.array([row for line in lines for row in line.states.double().tolist()])
    mean = every.mean(0)
    centred = every - mean
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(every))
    kept = variances > variances.max() * 1e-6
    scaled = vectors[:, kept] / np.sqrt(np.sqrt(variances[kept]))

    def place(row: list[float]) -> np.ndarray:
        moved = (np.array(row) - mean) @ scaled
        return moved / np.linalg.norm(moved)

    total, weights = np.zeros(len(lines)), []
    for token, row in zip(question.ids, question.states.double().tolist(), strict=True):
        best = np.array(
            [
                max(float(place(row) @ place(other)) for other in line.states.double().tolist())
                for line in lines
            ]
        )
        held = sum(token in line.ids for line in lines)
        weight = np.log(1 + (len(lines) - held + 0.5) / (held + 0.5))
        weights.append(weight)
        total += weight * (best - best.mean()) / best.std()
    total /= sum(weights)
    return (total - total.mean()) / total.std()


def test_what_is_seen_by_hand() -> None:
    draw = torch.Generator().manual_seed(0)
    lines = [
        TokenStates(ids, torch.randn(len(ids), 5, generator=draw).half())
        for ids in [(1, 2), (2, 3, 4), (5,), (1, 6)]
    ]
    question = TokenStates((2, 9), torch.randn(2, 5, generator=draw).half())
    seen, found = token_features(line_tokens(lines), question, np.array([0, 0, 1, 1]))
    expected = by_hand(lines, question)
    assert found == pytest.approx(expected, abs=2e-4)
    assert seen.shape == (4, NUM_TOKEN_FEATURES)
    assert seen[:, 2] == pytest.approx(expected, abs=2e-4)
    assert seen[expected.argmax(), 3] == 1
    assert seen[1:, 10] == pytest.approx(expected[:-1], abs=2e-4)  # of the line before
    # of two sittings the one with the best line stands one deviation above
    assert seen[:, 12].tolist() == ([1, 1, -1, -1] if expected.argmax() < 2 else [-1, -1, 1, 1])


def test_where_there_is_no_token() -> None:
    nothing = TokenStates((), torch.zeros(0, 3).half())
    one = states([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], ids=(1, 2))
    sessions = np.zeros(2, dtype=np.int64)
    seen, found = token_features(line_tokens([one, nothing]), one, sessions)
    assert np.isfinite(seen).all()
    assert found[0] > found[1]
    for lines, question in (([one, nothing], nothing), ([nothing, nothing], one)):
        seen, found = token_features(line_tokens(lines), question, sessions)
        assert seen.shape == (2, NUM_TOKEN_FEATURES)
        assert found.tolist() == [0, 0]


class Words:
    """A space in which each word is a token, near to the one that means the same; texts are all alike."""

    name = "words"
    fingerprint = weights_digest = "w" * 64
    takes_images = False

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 1)

    def token_states(self, texts: list[str]) -> list[TokenStates]:
        found = []
        for text in texts:
            places = [
                number for number, pair in enumerate(ALIKE) for word in pair.split() if word in text
            ]
            rows = torch.eye(len(ALIKE) + 1)[[*places, len(ALIKE)]]
            found.append(TokenStates((*places, len(ALIKE)), rows.half()))
        return found


def test_a_line_is_found_by_a_token_that_means_the_same(tmp_path: Path) -> None:
    def asked(number: int) -> list[Example]:
        order = [ALIKE[(number + step * 5) % 6] for step in range(6)]
        chat = Dialogue.of([("Ann", f"a {pair.split()[0]}") for pair in order])
        return [
            Example(chat, f"{pair.split()[1]}?", Fragment((place,)))
            for place, pair in enumerate(order)
        ]

    encoder = Words()
    # through a cache of vectors tokens are found too
    cached = CachedEncoder(encoder, tmp_path, max_bytes=1 << 20)
    assert token_encoder_of(cached) is token_encoder_of(encoder) is encoder
    networks, fit = fit_lines(
        [example for number in range(5) for example in asked(number) * 3],
        dataset="x",
        encoder=cached,
    )
    questions = asked(5)
    told = LinesRetriever(networks, fit, name="lines+words", encoder=cached)
    answers = [read_answer(answer.response) for answer in told.answer(questions)]
    assert answers == [example.fragment for example in questions]
