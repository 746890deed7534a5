"""Intervals: against a plain loop, against the closed form, by coverage, by seed; and where there is none."""

from __future__ import annotations

import dataclasses
import math
import random

import bootstrap_reference
import fragment_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.answer import format_answer
from ffr.dialogue import Fragment
from ffr.evaluation.bootstrap import (
    ALL,
    draw_dialogues,
    interval_table,
    number_dialogues,
    percentile_interval,
    resample_figures,
    undefined_note,
)
from ffr.evaluation.figures import FIGURE_NAMES, SCORE_NAMES
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.evaluation.scoring import SLICES, ScoredRows, ScoreTable


def made_answers(num_dialogues, seed):
    """(response, truth, sizes, dialogue, language) of one to four queries a dialogue: empty, wrong, malformed and right ones."""
    chance = random.Random(seed)
    found = []
    for number in range(num_dialogues):
        sizes = chance.choice([12, 20, 50, 80]), chance.choice([0, 3, 5])
        skill, language = chance.random(), chance.choice(["zh", "en"])
        for _ in range(chance.randint(1, 4)):
            truth = Fragment()
            if chance.random() < 0.8:
                utterances = chance.sample(range(sizes[0]), chance.randint(1, sizes[0] // 2))
                truth = Fragment.of(
                    utterances, chance.sample(range(sizes[1]), min(sizes[1], chance.randint(0, 2)))
                )
            pred = Fragment.of(
                [
                    item
                    for item in range(sizes[0] + 1)
                    if (item in truth.utterance_ids) == (chance.random() < skill)
                ],
                [
                    item
                    for item in range(sizes[1])
                    if (item in truth.image_ids) == (chance.random() < skill)
                ],
            )
            pred = Fragment() if chance.random() < 0.1 else truth if chance.random() < 0.2 else pred
            response = (
                format_answer(pred) if chance.random() < 0.9 else f"Here: {format_answer(pred)}"
            )
            found.append((response, truth, sizes, f"d{number}", language))
    return found


def rows_of(answers):
    table = ScoreTable()
    for response, truth, sizes, dialogue, language in answers:
        table.add(
            response,
            truth,
            num_utterances=sizes[0],
            num_images=sizes[1],
            dialogue=dialogue,
            language=language,
        )
    return table.rows()


def test_draws_are_those_of_drawing_with_replacement():
    for num_dialogues in (2, 3, 700, 20_001):
        draws = np.concatenate(list(draw_dialogues(num_dialogues, 300, seed=1)))
        assert draws.shape == (300, num_dialogues)
        assert (draws.sum(1) == num_dialogues).all()
        assert (draws >= 0).all()
        assert (draws == draws.round()).all()
    # multinomial with n = G, p = 1/G: mean 1, variance 1 - 1/G, covariance -1/G, no draw with (1 - 1/G)^G
    draws = np.concatenate(list(draw_dialogues(8, 200_000, seed=2)))
    covariance = np.cov(draws.T)
    assert np.abs(draws.mean(0) - 1).max() < 0.01
    assert np.abs(np.diag(covariance) - 7 / 8).max() < 0.02
    assert np.abs(covariance[~np.eye(8, dtype=bool)] + 1 / 8).max() < 0.01
    assert np.abs((draws == 0).mean(0) - (7 / 8) ** 8).max() < 0.005


def test_every_figure_of_every_resample_is_that_of_the_repeated_answers():
    """Each resample written out, answer by answer, and scored anew by the table and by the slow reference."""
    answers = made_answers(9, seed=3)
    rows = rows_of(answers)
    figures = resample_figures(rows, seed=5, num_resamples=12)
    numbers = number_dialogues(rows)
    assert sorted(numbers.values()) == list(range(9))
    draws = np.concatenate(list(draw_dialogues(9, 12, seed=5)))
    num_compared = 0
    for index, draw in enumerate(draws):
        repeated = [answer for answer in answers for _ in range(int(draw[numbers[answer[3]]]))]
        written_out = rows_of(repeated)
        for (table, name), values in figures.items():
            part = written_out if (table, name) == ALL else written_out.of(table, name)
            if not len(part):
                assert np.isnan(values[index]).all()
                continue
            expected = part.all_scores()
            assert tuple(expected) == FIGURE_NAMES
            assert values[index].tolist() == list(expected.values())
            num_compared += 1
        # lenient reading of these answers is what was meant; the reference never saw our counts
        preds = [table_pred(response) for response, *_ in repeated]
        truths = [(truth.utterance_ids, truth.image_ids) for _, truth, *_ in repeated]
        sizes = [item[2] for item in repeated]
        reference = fragment_reference.scores(
            preds, truths, [item[0] for item in sizes], [item[1] for item in sizes]
        )
        for name, value in reference.items():
            assert figures[ALL][index, FIGURE_NAMES.index(name)] == pytest.approx(value, abs=1e-11)
    assert num_compared > 80


def table_pred(response):
    lists = [part.split("]")[0] for part in response.split("[")[1:]]
    return tuple([int(item) for item in part.split(",") if item.strip()] for part in lists)


def test_intervals_agree_with_a_plain_loop():
    answers = made_answers(40, seed=7)
    rows = rows_of(answers)
    table = interval_table(rows, seed=0, num_resamples=20_000)
    counts = [
        bootstrap_reference.counts_of(
            table_pred(response), (truth.utterance_ids, truth.image_ids), sizes
        )
        for response, truth, sizes, *_ in answers
    ]
    expected = bootstrap_reference.intervals(counts, [item[3] for item in answers], 3000, seed=11)
    for name, (low, high) in zip(SCORE_NAMES, expected, strict=False):
        width = high - low
        # a 2.5 % end of 3,000 resamples moves by about a twentieth of the width
        assert table["scores"][name] == pytest.approx([low, high], abs=0.12 * width), name


def test_the_spread_of_a_mean_is_the_clustered_standard_error():
    rows = rows_of(made_answers(300, seed=9))
    column = FIGURE_NAMES.index("exact_match")
    spread = resample_figures(rows, seed=1)[ALL][:, column].std()
    mean = float(rows.exact.mean())
    sums = {}
    for name, value in zip(rows.dialogues, rows.exact.tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + value - mean
    expected = math.sqrt(sum(item * item for item in sums.values())) / len(rows)
    assert spread == pytest.approx(expected, rel=0.03)


def test_seed_decides():
    rows = rows_of(made_answers(30, seed=4))
    first = interval_table(rows, seed=3, num_resamples=500)
    assert interval_table(rows, seed=3, num_resamples=500) == first
    assert interval_table(rows, seed=4, num_resamples=500)["scores"] != first["scores"]
    interval_table(rows, seed=-1, num_resamples=10)


def test_layout_and_bounds():
    rows = rows_of(made_answers(30, seed=4))
    table = interval_table(rows, num_resamples=200)
    assert (table["level"], table["num_resamples"], table["seed"], table["num_dialogues"]) == (
        0.95,
        200,
        0,
        30,
    )
    assert tuple(table["scores"]) == tuple(table["strict_scores"]) == SCORE_NAMES
    for name, slices in SLICES.items():
        assert tuple(table[name]) == slices
    for low, high in [*table["scores"].values(), *table["strict_scores"].values()]:
        assert -1 <= low <= high <= 1
    whole = rows.scores()
    assert all(
        table["scores"][name][0] <= whole[name] <= table["scores"][name][1] for name in SCORE_NAMES
    )
    assert table["by_language"]["mixed"] is None
    assert tuple(table["by_language"]["zh"]) == FIGURE_NAMES
    # a slice that is all of the data has the intervals of the data
    same = dataclasses.replace(rows, slices={**rows.slices, "by_language": ("en",) * len(rows)})
    table = interval_table(same, num_resamples=200)
    assert {name: table["by_language"]["en"][name] for name in SCORE_NAMES} == table["scores"]


def test_identical_answers_have_an_interval_of_one_point():
    """Means of thirds, whose sum in fixed point is no sum of thirds: the two once differed."""
    answer = (format_answer(Fragment((0,))), Fragment((0, 1)), (4, 0))
    rows = rows_of([(*answer, f"d{number}", "en") for number in range(3)])
    point = rows.scores()["sample_utterance_f1"]
    assert point == pytest.approx(2 / 3, abs=1e-11)
    assert interval_table(rows, num_resamples=50)["scores"]["sample_utterance_f1"] == [point, point]


ids = st.lists(st.integers(0, 5), max_size=5, unique=True).map(tuple)
fragments = st.builds(Fragment, ids, ids)
answered = st.lists(
    st.tuples(fragments, fragments, st.booleans(), st.integers(0, 6)), min_size=2, max_size=24
)


@settings(max_examples=100, deadline=None)
@given(answered, st.integers(0, 9))
def test_every_figure_lies_within_its_interval(drawn, seed):
    answers = [
        (
            format_answer(pred) if is_valid else f"Here: {format_answer(pred)}",
            truth,
            (6, 6),
            f"d{dialogue}",
            "en",
        )
        for pred, truth, is_valid, dialogue in drawn
    ]
    rows = rows_of(answers)
    table = interval_table(rows, seed=seed, num_resamples=40)
    parts = {"scores": rows.scores(), "strict_scores": rows.strict_scores()}
    tables = {name: table[name] for name in parts}
    for name, slices in SLICES.items():
        parts |= {(name, its): rows.of(name, its).all_scores() for its in slices}
        tables |= {(name, its): table[name][its] for its in slices}
    for place, ends in tables.items():
        for figure, (low, high) in (ends or {}).items():
            assert low <= parts[place][figure] <= high, (place, figure)


@settings(max_examples=60, deadline=None)
@given(answered)
def test_a_resample_of_each_dialogue_once_is_the_data_to_the_bit(drawn):
    answers = [
        (format_answer(pred), truth, (6, 6), f"d{dialogue}", "en")
        for pred, truth, _, dialogue in drawn
    ]
    rows = rows_of(answers)
    point = np.array(list(rows.all_scores().values()))
    figures = resample_figures(rows, seed=0, num_resamples=300).get(
        ALL, np.empty((0, len(FIGURE_NAMES)))
    )
    num_dialogues = len(set(rows.dialogues))
    draws = np.concatenate(list(draw_dialogues(num_dialogues, 300, seed=0)))
    is_once = (draws == 1).all(1)[: len(figures)]
    assert (figures[is_once] == point).all()


def test_one_dialogue_has_no_interval_and_says_so(examples, fake_retriever, tmp_path):
    one = rows_of(made_answers(1, seed=0) * 2)
    table = interval_table(one)
    assert table["scores"] is table["strict_scores"] is table["by_truth"]["empty"] is None
    assert table["num_dialogues"] == 1
    assert "one dialogue" in undefined_note(one)[0]
    none = ScoreTable().rows()
    assert interval_table(none)["scores"] is None
    assert undefined_note(none) == []
    results = evaluate(examples[:2], fake_retriever(), tmp_path / "one", dataset="made")
    assert Results.load(tmp_path / "one").interval("scores", "joint_f1") is None
    assert any(
        note.startswith("No intervals: all scored queries are on one dialogue")
        for note in results.notes
    )
    results = evaluate(examples, fake_retriever(), tmp_path / "all", dataset="made")
    low, high = results.interval("scores", "joint_f1")
    assert low <= results.summary["scores"]["joint_f1"] <= high
    assert results.interval("by_length", "joint_f1", "<35") is not None
    assert results.interval("by_length", "joint_f1", ">65") is None
    assert results.intervals["seed"] == 0
    assert not any("No intervals" in note for note in results.notes)


def test_a_slice_on_one_dialogue_has_none():
    answers = made_answers(6, seed=2)
    changed = [(*item[:4], "mixed" if item[3] == "d0" else "en") for item in answers]
    table = interval_table(rows_of(changed), num_resamples=50)
    assert table["by_language"]["mixed"] is None
    assert table["by_language"]["en"] is not None


def test_percentiles_leave_out_what_is_undefined():
    values = np.concatenate([np.arange(101.0), [np.nan, np.nan]])
    assert percentile_interval(values, 0.9).tolist() == pytest.approx([5.0, 95.0])


def simulated_rows(chance, num_dialogues):
    """Two or four queries a dialogue on 10 utterances, 3 of them true; how many are found depends on the dialogue."""
    counts, names = [], []
    for dialogue in range(num_dialogues):
        skill = chance.uniform(0.2, 1.0)
        for _ in range(chance.choice([2, 4])):
            tp, fp = chance.binomial(3, skill), chance.binomial(7, 0.3 * (1 - skill))
            counts.append([[tp, fp, 3 - tp, 7 - fp], [0, 0, 0, 1]])
            names.append(str(dialogue))
    counts = np.array(counts)
    slices = {table: (None,) * len(names) for table in SLICES}
    return ScoredRows(counts, counts, np.ones(len(names), dtype=np.bool_), tuple(names), slices)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    """500 data sets of 60 dialogues from a population whose global F1 is known in closed form."""
    skill = 0.6
    truth = 2 * 3 * skill / (2 * 3 * skill + 7 * 0.3 * (1 - skill) + 3 * (1 - skill))
    chance = np.random.default_rng(0)
    num_held = {"by dialogue": 0, "by query": 0}
    for number in range(500):
        rows = simulated_rows(chance, 60)
        alone = dataclasses.replace(rows, dialogues=tuple(map(str, range(len(rows)))))
        for way, its_rows in (("by dialogue", rows), ("by query", alone)):
            low, high = interval_table(its_rows, seed=number, num_resamples=1000)["scores"][
                "utterance_f1"
            ]
            num_held[way] += low <= truth <= high
    assert 0.92 <= num_held["by dialogue"] / 500 <= 0.975, num_held
    # as if queries on one dialogue were independent: too sure
    assert num_held["by query"] / 500 < 0.9, num_held
