"""Single lines: what is seen of them by hand, what the networks learn, and how they answer."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from ffr.answer import read_answer
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Dialogue, Example, Fragment, Image
from ffr.errors import DataError
from ffr.retrieval.line_features import line_features, lines_of
from ffr.retrieval.line_network import FitRow, chance_of_nothing, fit_networks
from ffr.retrieval.lines import LineReading, LinesRetriever, fit_lines

THINGS = [
    "lamp",
    "boat",
    "piano",
    "tent",
    "kettle",
    "ladder",
    "violin",
    "carpet",
    "mirror",
    "engine",
    "basket",
    "candle",
]
PLACES = ["garden", "cellar", "harbour", "kitchen", "attic", "market", "station", "museum"]


def talk(number: int, *, has_nothing: bool = True) -> list[Example]:
    """A talk of two people about things in places, with questions on some of them."""
    draw = random.Random(number)
    things = draw.sample(THINGS, 8)
    rows = [(draw.choice(("Ann", "Bob")), thing, draw.choice(PLACES)) for thing in things]
    chat = Dialogue.of([(who, f"I saw the {thing} in the {place}") for who, thing, place in rows])
    asked = [
        Example(chat, f"Where did {who} see the {thing}?", Fragment((place,)))
        for place, (who, thing, _) in enumerate(rows)
    ]
    if has_nothing:
        missing = [thing for thing in THINGS if thing not in things][:3]
        asked += [Example(chat, f"Where is the {thing}?", Fragment()) for thing in missing]
    return asked


def talks(numbers: range, *, has_nothing: bool = True) -> list[Example]:
    return [example for one in numbers for example in talk(one, has_nothing=has_nothing)]


def f1(example: Example, response: str) -> float:
    truth, found = example.fragment, read_answer(response)
    assert truth is not None
    if truth.is_empty:
        return float(found.is_empty)
    hits = len({*truth.utterance_ids} & {*found.utterance_ids})
    return 2 * hits / (len(truth.utterance_ids) + len(found.utterance_ids))


def test_it_learns_which_line_answers_and_that_none_does() -> None:
    networks, fit = fit_lines(talks(range(8)), dataset="made")
    assert (fit.num_queries, fit.dataset, fit.seed) == (88, "made", 0)
    asked = talks(range(100, 104))
    answers = LinesRetriever(networks, fit, name="lines").answer(asked)
    worth = [f1(*pair) for pair in zip(asked, (a.response for a in answers), strict=True)]
    assert sum(worth) / len(worth) > 0.95
    assert all(answer.score is not None and 0 <= answer.score <= 1 for answer in answers)


def test_where_every_question_is_answered_no_answer_is_empty() -> None:
    networks, fit = fit_lines(talks(range(4), has_nothing=False), dataset="made")
    assert networks.nothing_from == math.inf
    chat = talk(100)[0].dialogue
    (answer,) = LinesRetriever(networks, fit, name="lines").answer([Example(chat, "zebra")])
    assert not read_answer(answer.response).is_empty


def test_so_many_lines_are_named_and_wordless_ones_follow() -> None:
    networks, fit = fit_lines(talks(range(3)), dataset="made")
    asked = LinesRetriever(networks, fit, name="lines@2", num_lines=2)
    chat = Dialogue.of(
        [("Ann", "the lamp"), ("Ann", Image("x.png")), ("Bob", "the boat"), ("Bob", "no tent")]
    )
    (answer,) = asked.answer([Example(chat, "Where are lamp and boat?")])
    assert read_answer(answer.response) == Fragment((0, 1, 2), (0,))
    empty = Example(Dialogue.of([("Ann", Image("x.png"))]), "lamp")
    assert [read_answer(a.response).is_empty for a in asked.answer([empty])] == [True]


def test_a_seed_gives_the_same_and_another_one_does_not() -> None:
    examples = talks(range(3))
    one, two, other = (fit_lines(examples, dataset="x", seed=seed)[0] for seed in (1, 1, 2))
    assert one.digest == two.digest != other.digest
    asked = LinesRetriever(one, fit_lines(examples, dataset="x")[1], name="lines")
    assert asked.identity["fingerprint"] == one.digest
    assert dataclasses.replace(one, shift=0.5).digest != one.digest


def test_it_is_planned_and_counted_by_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = talks(range(3))
    networks, fit = fit_lines(examples, dataset="x")
    asked = LinesRetriever(networks, fit, name="lines")
    mixed = [examples[0], examples[11], examples[1]]
    assert asked.plan(mixed) == [[0, 2], [1]]
    counted = []
    from ffr.retrieval import lines as module

    monkeypatch.setattr(module, "lines_of", lambda *a: counted.append(a) or lines_of(*a))
    asked.answer(examples)
    assert len(counted) == 3


def test_what_nothing_can_be_learned_of() -> None:
    with pytest.raises(DataError, match=r"x: has no question whose true answer names a line"):
        fit_lines([Example(Dialogue.of([("a", "b")]), "q", Fragment())], dataset="x")
    with pytest.raises(ValueError, match="1 questions and no line that answers one"):
        fit_networks([FitRow(np.zeros((2, 3), np.float32), np.zeros(2, bool), 0, 0)])


def test_who_is_named_counts_as_a_speaker_and_not_as_a_word() -> None:
    chat = lines_of(Dialogue.of([("Ann Lee", "tea"), ("Bob", "tea"), ("Bob", "Ann, hello")]))
    features, likely = line_features(chat, "Does Ann like tea?")
    assert likely[2] < likely[:2].min()
    assert features[:, 27:29].tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    assert not line_features(chat, "tea?")[0][:, 27:29].any()


def test_stems_meet_and_sessions_part() -> None:
    lines = [("a", "we painted"), ("b", "a psychologist"), ("a", "soup"), ("b", "bread")]
    chat = Dialogue.of(lines)
    assert line_features(lines_of(chat), "painting?")[1].argmax() == 0
    assert lines_of(chat, ["x", "x", "y", "y"]).sessions.tolist() == [0, 0, 1, 1]
    assert lines_of(chat).sessions.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="1 sessions beside 4 utterances; give one each"):
        lines_of(chat, ["x"])
    features, _ = line_features(lines_of(Dialogue("d", ())), "q")
    assert len(features) == 0


def test_sessions_of_the_data_are_seen() -> None:
    example = talk(0)[0]
    about = [{"session": number // 4} for number in range(8)]
    told = dataclasses.replace(example, meta={EXTRA_LINE_KEYS: about})
    silent = dataclasses.replace(example, meta={EXTRA_LINE_KEYS: [{}] * 8})
    reading = LineReading()
    _, _, plain = reading.seen(example)
    assert np.array_equal(reading.seen(silent)[2], plain)
    assert not np.array_equal(reading.seen(told)[2], plain)


def test_days_of_the_data_are_seen() -> None:
    """Of two lines that say the same the one of the day that is named is found."""

    def dated(number: int) -> list[Example]:
        chat = Dialogue.of([("Ann", "a walk"), ("Bob", "soup"), ("Ann", "a walk"), ("Bob", "tea")])
        days = [f"2023-{month:02}-{number + 1:02}" for month in (3, 3, 9, 9)]
        meta = {EXTRA_LINE_KEYS: [{"session": day, "time": day} for day in days]}
        return [
            Example(chat, f"Who had a walk in {month} 2023?", Fragment((place,)), meta=meta)
            for place, month in ((0, "March"), (2, "September"))
        ]

    networks, fit = fit_lines([one for day in range(8) for one in dated(day) * 4], dataset="x")
    asked = dated(20)
    answers = LinesRetriever(networks, fit, name="lines").answer(asked)
    assert [read_answer(answer.response).utterance_ids for answer in answers] == [(0,), (2,)]
    with pytest.raises(ValueError, match="1 days beside 4 utterances; give one each"):
        lines_of(asked[0].dialogue, None, [None])


def test_what_never_differed_counts_for_nothing() -> None:
    labels = np.array([True, False])
    rows = [FitRow(np.array([[1, 5], [0, 5]], np.float32), labels, 1, place) for place in (0, 1)]
    networks = fit_networks(rows)
    usual, other = (
        networks.probabilities(np.array([[1, value], [0, value]], np.float32)) for value in (5, 9)
    )
    assert torch.equal(usual, other)


def test_chances_of_nothing_by_hand() -> None:
    assert chance_of_nothing(torch.tensor([])) == pytest.approx(1.0, abs=1e-5)
    assert chance_of_nothing(torch.tensor([0.5, 0.2])) == pytest.approx(0.4)
