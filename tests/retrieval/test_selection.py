"""Rules that choose by scores: by hand, row by row against a plain loop, and fitted with a gate."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.retrieval.embedding import FragmentScorer, fit_selection
from ffr.retrieval.selection import Scores, Selection, chosen, prominence


def by_loop(rule: str, number: float, scores: list[float]) -> list[bool]:
    """The rules as their words say, one part after another."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    above = [
        (score - mean) / deviation - number if deviation > 1e-9 else -number for score in scores
    ]
    if rule == "z-score":
        return [item >= 0 for item in above]
    stretches = [
        (sum(above[start:end]), start, end)
        for start in range(len(above))
        for end in range(start + 1, len(above) + 1)
    ]
    total, start, end = max(stretches, key=lambda item: item[0])
    return [total > 0 and start <= place < end for place in range(len(above))]


# quarters: no sum of theirs is in doubt by rounding
SCORES = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=7)


@settings(max_examples=150, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=4), st.sampled_from([-0.4, 0.13, 0.7, 1.9]))
def test_rules_of_one_dialogue_against_a_loop(rows: list[list[float]], number: float) -> None:
    width = max(map(len, rows))
    table = torch.full((len(rows), width), -math.inf, dtype=torch.float64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = torch.tensor(row)
    for rule in ("z-score", "stretch"):
        found = chosen(rule, number, table)  # type: ignore[arg-type]
        for place, row in enumerate(rows):
            expected = by_loop(rule, number, row)
            mine = found[place, : len(row)].tolist()
            assert not found[place, len(row) :].any()
            if rule == "z-score" or mine == expected:
                assert mine == expected
                continue
            # of several best stretches either may be taken
            total = sum(
                score for score, is_in in zip(centred(row, number), mine, strict=True) if is_in
            )
            best = sum(
                score for score, is_in in zip(centred(row, number), expected, strict=True) if is_in
            )
            assert total == pytest.approx(best, abs=1e-9)


def centred(scores: list[float], number: float) -> list[float]:
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    return [
        (score - mean) / deviation - number if deviation > 1e-9 else -number for score in scores
    ]


def test_by_hand() -> None:
    # mean 0.5, deviation 0.5: z = -1, 1, 1, -1
    scores = Scores(torch.tensor([0.0, 1.0, 1.0, 0.0]).double(), None, torch.tensor([1, 3]))
    assert Selection("z-score", 0.9, None).choose(scores) == Fragment((1, 2), (0,))
    assert Selection("stretch", 0.9, None).choose(scores) == Fragment((1, 2), (0,))
    assert Selection("stretch", 1.0, None).choose(scores) == Fragment()
    assert Selection("stretch", 0.9, None, gate=0.5).choose(scores) == Fragment((1, 2), (0,))
    assert Selection("stretch", 0.9, None, gate=0.51).choose(scores) == Fragment()
    # pictures of their own: by deviations, also where lines go by stretches
    pictures = torch.tensor([0.9, 0.1, 0.9]).double()
    both = Scores(scores.utterances, pictures, torch.tensor([1, 2, 3]))
    assert Selection("stretch", 0.0, 0.0).choose(both) == Fragment((1, 2), (0, 2))


def test_nothing_to_choose_from() -> None:
    empty = torch.zeros(0, dtype=torch.float64)
    for rule in ("z-score", "stretch"):
        assert chosen(rule, 0.0, empty).shape == (0,)  # type: ignore[arg-type]
        alike = torch.full((3,), 0.7, dtype=torch.float64)
        assert not chosen(rule, 0.1, alike).any()  # type: ignore[arg-type]
    assert float(prominence(empty)) == 0.0


class Angles:
    """A text is an angle in degrees; another query's cosines lie on another level."""

    name, fingerprint, takes_images = "angles", "a" * 64, False

    def embed_texts(self, texts: list[str]) -> torch.Tensor:
        angles = torch.tensor([math.radians(float(text)) for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_fit_finds_number_and_gate() -> None:
    """Queries on two levels, where no one cosine is right, and one that means nothing."""

    def example(name: str, query: str, lines: str, *truth: int) -> Example:
        utterances = tuple(Utterance("a", (line,)) for line in lines.split())
        return Example(Dialogue(name, utterances), query, Fragment(tuple(truth)))

    data = [
        example("near", "0", "40 41 5 6 40 42", 2, 3),
        example("far", "0", "89 60 61 62 88 89", 1, 2, 3),
        example("absent", "0", "70 70.1 70 70.2 70.1 70"),
    ]
    scorer = FragmentScorer(Angles(), num_neighbours=0)  # type: ignore[arg-type]
    fitted = fit_selection(scorer, data, "stretch", dataset="d")
    assert fitted.fit is not None
    assert (fitted.fit.utterance_f1, fitted.fit.num_queries) == (1.0, 3)
    answers = [fitted.choose(scores) for scores in scorer.scores(data)]
    assert answers == [Fragment((2, 3)), Fragment((1, 2, 3)), Fragment()]
    one_cosine = fit_selection(scorer, data, "threshold", dataset="d")
    assert one_cosine.fit is not None
    assert one_cosine.fit.utterance_f1 < 1.0
    assert one_cosine.gate == 0.0
