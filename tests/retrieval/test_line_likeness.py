"""How alike question and lines are, by hand, and what a network makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffr.answer import read_answer
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.retrieval.line_features import lines_of
from ffr.retrieval.line_likeness import NUM_LIKENESSES, likeness_features
from ffr.retrieval.lines import LinesRetriever, fit_lines

ALIKE = ["boat ship", "lamp light", "tent camp", "soup broth", "road street", "coat jacket"]


class Synonyms:
    """A space in which two words that mean the same are one place."""

    name = "synonyms"
    fingerprint = weights_digest = "s" * 64
    takes_images = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        rows = [
            [float(any(word in text for word in pair.split())) for pair in ALIKE] for text in texts
        ]
        found = torch.tensor(rows) + 0.01
        return torch.nn.functional.normalize(found, dim=-1)


def test_what_is_seen_by_hand() -> None:
    chat = lines_of(Dialogue.of([("a", "one"), ("b", "two"), ("a", "three")]), ["x", "x", "y"])
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    seen, cosines = likeness_features(chat, vectors, np.array([1.0, 0.0]))
    assert cosines == pytest.approx(np.array([1.0, 0.0, 0.6]))
    assert seen.shape == (3, NUM_LIKENESSES)
    mean, spread = 1.6 / 3, np.std([1.0, 0.0, 0.6])
    relative = (cosines - mean) / spread
    assert seen[:, 1] == pytest.approx(relative, abs=1e-6)
    assert seen[:, 3] == pytest.approx(np.array([1, 1 / 3, 1 / 2]))
    assert seen[:, 5] == pytest.approx(cosines - 1, abs=1e-6)
    halves = [relative[:2].mean(), relative.mean(), relative[1:].mean()]
    assert seen[:, 6] == pytest.approx(np.array(halves), abs=1e-6)
    assert seen[:, 7] == pytest.approx(np.zeros(3), abs=1e-6)
    own = seen[:, 2]
    assert seen[:, 9] == pytest.approx(np.array([own[1], own[2], 0]))
    assert seen[:, 10] == pytest.approx(np.array([0, own[0], own[1]]))
    # of two sessions the one with the best line stands one deviation above
    assert seen[:, 12].tolist() == [1, 1, -1]
    assert seen[:, 13].tolist() == [1, 1, 1]
    assert seen[:, 14].tolist() == [1, 1, 1]


def test_one_line_and_a_query_like_nothing() -> None:
    chat = lines_of(Dialogue.of([("a", "one")]))
    seen, cosines = likeness_features(chat, np.array([[0.0, 1.0]]), np.array([1.0, 0.0]))
    assert np.isfinite(seen).all()
    assert cosines.tolist() == [0.0]


def test_a_line_without_a_word_of_the_question_is_found() -> None:
    def asked(number: int) -> list[Example]:
        order = [ALIKE[(number + step * 5) % 6] for step in range(6)]
        chat = Dialogue.of([("Ann", f"a {pair.split()[0]}") for pair in order])
        return [
            Example(chat, f"{pair.split()[1]}?", Fragment((place,)))
            for place, pair in enumerate(order)
        ]

    encoder = Synonyms()
    networks, fit = fit_lines(
        [example for number in range(5) for example in asked(number) * 3],
        dataset="x",
        encoder=encoder,
    )
    told = LinesRetriever(networks, fit, name="lines+synonyms", encoder=encoder)
    encoder.asked.clear()
    questions = asked(5)
    answers = [read_answer(answer.response) for answer in told.answer(questions)]
    assert answers == [example.fragment for example in questions]
    assert len(encoder.asked) == 12  # six lines once, and six questions
    assert told.identity["encoder_fingerprint"] == encoder.fingerprint
