"""Coherence of answers with an encoder whose vectors are known."""

from __future__ import annotations

import pytest
import torch

from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.evaluation.coherence import CoherenceMeter

VECTORS = {"left": [1.0, 0.0], "both": [0.6, 0.8], "p.png": [0.0, 1.0]}


class KnownVectors:
    name = "known"
    fingerprint = "f" * 64

    def embed_texts(self, texts):
        return torch.tensor([VECTORS.get(text, [1.0, 1.0]) for text in texts])

    def embed_images(self, images):
        return torch.tensor([VECTORS[image.name] for image in images])


CHAT = Dialogue(
    "d",
    (
        Utterance("a", ("left", Image("p.png"))),
        Utterance("b", ("aside",)),
        Utterance("b", ("both",)),
    ),
)


def test_mean_over_answers():
    meter = CoherenceMeter(KnownVectors())
    truth = Fragment((0, 2), (0,))
    meter.add(
        Example(CHAT, "q", truth), Fragment((0, 2, 99), (0, 7))
    )  # left · p.png · both: (0 + 0.8) / 2
    meter.add(Example(CHAT, "q", truth), Fragment())  # 0
    meter.add(Example(CHAT, "q", Fragment()), Fragment())  # 1
    meter.add(Example(CHAT, "q", truth), Fragment((), (0,)))  # a single element: 0.5
    summary = meter.summary()
    assert summary["mean"] == pytest.approx((0.4 + 0 + 1 + 0.5) / 4)
    # the query lies at (1, 1): left 0.7071, p.png 0.7071, both 1.4 / sqrt 2 = 0.98995
    first = (2 * 0.5**0.5 + 1.4 * 0.5**0.5) / 3
    assert summary["query_similarity"] == pytest.approx((first + 0 + 1 + 0.5**0.5) / 4)
    assert (summary["num_answers"], summary["encoder"]) == (4, "known")
    assert summary["encoder_fingerprint"] == KnownVectors.fingerprint
    assert CoherenceMeter(KnownVectors()).summary()["mean"] is None
    assert CoherenceMeter(KnownVectors()).summary()["query_similarity"] is None
