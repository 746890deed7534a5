"""BM25 and an encoder fused by ranks: the sums by hand, and which lines are taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ffr.answer import parse_strict
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.retrieval.fusion import FusionRetriever, reciprocal_ranks


class Topics:
    """A text's vector counts its words of two topics."""

    name, fingerprint, takes_images = "topics", "f" * 64, False
    calls = 0

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        rows = [
            [sum(word in text for word in topic) + 1e-3 for topic in (("bus", "tram"), ("tea",))]
            for text in texts
        ]
        return torch.nn.functional.normalize(torch.tensor(rows).reshape(-1, 2), dim=-1)


def fused(lines: Sequence[tuple[str | Image, ...]], *queries: str) -> list[Any]:
    encoder: Any = Topics()
    chat = Dialogue("d", tuple(Utterance("a", line) for line in lines))
    answers = FusionRetriever(encoder, name="x").answer([Example(chat, item) for item in queries])
    assert encoder.calls == (2 if any(line.text for line in chat.utterances) else 0)
    return [(parse_strict(answer.response), answer.score) for answer in answers]


def test_ranks_by_hand() -> None:
    # ties share the better rank, and the one behind them does not move up
    assert reciprocal_ranks([[3.0, 3.0, 1.0, None]]) == [1 / 61, 1 / 61, 1 / 63, 0.0]
    assert reciprocal_ranks([[1.0, 2.0], [5.0, None]]) == [1 / 62 + 1 / 61, 1 / 61]
    assert reciprocal_ranks([]) == []


@pytest.mark.parametrize(
    ("rankings", "sentence"),
    [([[1.0], [1.0, 2.0]], "rankings of"), ([[math.nan]], "ranking 0 has a score that is not")],
)
def test_what_is_no_ranking(rankings: list[list[float]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        reciprocal_ranks(rankings)


def test_the_best_of_all_four_rankings_scores_1() -> None:
    (found, score), (again, _) = fused([("tram",)], "tram", "tea")
    assert found == again == Fragment((0,))
    assert score == pytest.approx(1.0)


def test_meaning_finds_what_words_do_not_and_ten_lines_are_taken() -> None:
    lines = [(f"tea {number}",) for number in range(20)]
    lines[7], lines[8] = ("the tram",), (Image("tram.png"),)
    ((found, score),) = fused(lines, "bus")
    assert len(found.utterance_ids) == 11  # ten lines with words, and the picture's behind one
    assert {6, 7, 8, 9} <= set(found.utterance_ids)
    assert found.image_ids == (0,)
    # neither kind of BM25 ranks any line here: half is all that can be earned
    assert 0.4 < score < 0.5


def test_a_dialogue_without_words_has_no_answer() -> None:
    ((found, score),) = fused([(Image("a.png"),)], "bus")
    assert (found, score) == (Fragment(), 0.0)


def test_queries_on_several_dialogues_come_back_in_order() -> None:
    encoder: Any = Topics()
    chats = [Dialogue.of([("a", text)]) for text in ("tea", "bus")]
    examples = [Example(chats[number % 2], f"q{number}") for number in range(5)]
    answers = FusionRetriever(encoder, name="x").answer(examples)
    assert [parse_strict(answer.response) for answer in answers] == [Fragment((0,))] * 5
    assert encoder.calls == 4


def test_what_decides_its_answers_is_told() -> None:
    encoder: Any = Topics()
    assert FusionRetriever(encoder, name="x").identity == {
        "kind": "fusion", "name": "x", "fingerprint": "f" * 64, "num_neighbours": 1,
        "num_lines": 10, "rank_constant": 60,
    }  # fmt: skip
