"""What the metrics take for fragments and sizes: every natural way counts alike, the rest is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffr.answer import format_answer
from ffr.dialogue import Fragment
from ffr.metrics import (
    AnswerFormatValidity,
    FragmentExactMatch,
    FragmentF1,
    FragmentMcc,
    FragmentOrderCoherence,
    FragmentPrecision,
    FragmentRecall,
    FragmentScores,
    QueryFragmentSimilarity,
)
from ffr.metrics.functional import (
    answer_format_validity,
    fragment_counts,
    fragment_elements,
    fragment_exact_match,
    fragment_f1,
    fragment_mcc,
    fragment_order_coherence,
    fragment_precision,
    fragment_recall,
    fragment_scores,
    query_fragment_similarity,
)

# TP 1, FP 1, FN 2 of 6 utterances, TP 1 of 2 images
PRED, TRUTH = ([0, 1], [1]), ([1, 2, 3], [1])
SIZES = ([6], [2])

WAYS = {
    "lists": list,
    "tuples": tuple,
    "sets": set,
    "tensors": torch.tensor,
    "int32 tensors": lambda ids: torch.tensor(ids, dtype=torch.int32),
    "arrays": np.array,
    "lists of 0-dim tensors": lambda ids: [torch.tensor(item) for item in ids],
    "lists of numpy numbers": lambda ids: [np.int64(item) for item in ids],
    "generators": lambda ids: (item for item in ids),
    "dict keys": lambda ids: dict.fromkeys(ids).keys(),
}
WHOLE = {
    "fragment": lambda pair: Fragment(tuple(pair[0]), tuple(pair[1])),
    "fragment of tensors": lambda pair: Fragment(torch.tensor(pair[0]), torch.tensor(pair[1])),
    "answer text": lambda pair: format_answer(Fragment(tuple(pair[0]), tuple(pair[1]))),
}
MAKERS = {
    **{f"tuple of {name}": lambda pair, way=way: (way(pair[0]), way(pair[1])) for name, way in WAYS.items()},
    **{f"list of {name}": lambda pair, way=way: [way(pair[0]), way(pair[1])] for name, way in WAYS.items()},
    **WHOLE,
}  # fmt: skip
FUNCTIONS = [fragment_precision, fragment_recall, fragment_f1, fragment_mcc]
CLASSES = [FragmentPrecision, FragmentRecall, FragmentF1, FragmentMcc]
EXPECTED = [1 / 2, 1 / 3, 2 / 5, (1 * 2 - 1 * 2) / 1]  # of the utterances


@pytest.mark.parametrize("name", MAKERS)
def test_every_natural_way_counts_alike(name):
    make = MAKERS[name]
    for function, metric_class, expected in zip(FUNCTIONS, CLASSES, EXPECTED, strict=True):
        found = function([make(PRED)], [make(TRUTH)], *SIZES, modality="utterance")
        assert found.item() == pytest.approx(expected), function.__name__
        metric = metric_class(modality="utterance")
        metric.update([make(PRED)], [make(TRUTH)], *SIZES)
        assert metric.compute().item() == pytest.approx(expected), metric_class.__name__
    counts = fragment_counts([make(PRED)], [make(TRUTH)], *SIZES)
    assert counts.tolist() == [[[1, 1, 2, 2], [1, 0, 0, 1]]]
    scores = FragmentScores()
    scores.update([make(PRED)], [make(TRUTH)], torch.tensor([6]), np.array([2]))
    assert scores.compute() == fragment_scores([PRED], [TRUTH], *SIZES)
    exact = FragmentExactMatch()
    exact.update([make(PRED), make(PRED)], [make(PRED), make(TRUTH)])
    assert exact.compute() == 0.5
    assert fragment_exact_match([make(PRED)], [make(PRED)]) == 1


def test_empty_lists_of_any_kind_are_empty():
    # an empty tensor or array is one of floats by default
    for nothing in ([], (), set(), torch.tensor([]), np.array([]), range(0)):
        assert fragment_exact_match([(nothing, nothing)], [Fragment()]) == 1


def test_an_object_with_ids_counts():
    class Row:
        utterance_ids = torch.tensor([0, 1])
        image_ids = np.array([1])

    assert fragment_f1([Row()], [PRED]) == 1


def test_a_single_text_is_one_answer():
    text = format_answer(Fragment((0, 1), (1,)))
    assert fragment_f1(text, text) == 1
    assert fragment_counts(text, [TRUTH], *SIZES).shape == (1, 2, 4)
    assert answer_format_validity(text) == 1


WRONG_FRAGMENTS = [
    (([0.0, 1.0], []), "utterance ids hold 0.0 \\(float\\); write whole numbers"),
    ((torch.tensor([0.0, 1.0]), []), "utterance ids hold 0.0 \\(float\\)"),
    (([], np.array([1.5])), "image ids hold 1.5 \\(float\\)"),
    (([True, False, True], []), "utterance ids hold True, as a mask does; write the places"),
    ((torch.tensor([True, False]), []), "as a mask does"),
    (([], np.array([True])), "image ids hold True, as a mask does"),
    (([torch.tensor(True)], []), "as a mask does"),
    ((["0", "1"], []), "utterance ids hold '0' \\(str\\)"),
    (([-1], []), "utterance ids hold -1; write whole numbers that count from 0"),
    (([None], []), "utterance ids hold None"),
    (([[0, 1]], []), "utterance ids hold \\[0, 1\\] \\(list\\)"),
    ([0, 1], "is \\[0, 1\\]; write a Fragment, an answer's text, or the pair"),
    (3, "is 3; write a Fragment"),
    (None, "is None; write a Fragment"),
    ({"utterance_ids": [0], "image_ids": []}, "write a Fragment, an answer's text, or the pair"),
    ({0, 1}, "write a Fragment, an answer's text, or the pair"),
    (("0, 1", ""), "write a Fragment, an answer's text, or the pair"),
    (torch.tensor([0, 1]), "write a Fragment, an answer's text, or the pair"),
    (([0], [1], [2]), "write a Fragment, an answer's text, or the pair"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG_FRAGMENTS)
def test_what_is_no_fragment_is_refused_everywhere(wrong, sentence):
    for function in (*FUNCTIONS, fragment_scores, fragment_counts):
        with pytest.raises(ValueError, match=f"prediction 1.*{sentence}"):
            function([PRED, wrong], [TRUTH, TRUTH], [6, 6], [2, 2])
        with pytest.raises(ValueError, match=f"target 0.*{sentence}"):
            function([PRED], [wrong], *SIZES)
    for metric_class in (*CLASSES, FragmentScores):
        with pytest.raises(ValueError, match=sentence):
            metric_class().update([wrong], [TRUTH], *SIZES)
    with pytest.raises(ValueError, match=sentence):
        fragment_exact_match([wrong], [TRUTH])
    with pytest.raises(ValueError, match=sentence):
        FragmentExactMatch().update([TRUTH], [wrong])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Fragment((0,)), "predictions are Fragment.*write a list with one entry a sample"),
        (None, "predictions are None"),
        (7, "predictions are 7"),
        ({"a": PRED}, "predictions are {'a'"),
        (PRED, "prediction 0 is \\[0, 1\\]; write a Fragment"),
        ([PRED, PRED], "2 predictions, 1 target, 1 and 1 dialogue sizes"),
    ],
)
def test_what_is_no_list_of_fragments_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        fragment_scores(wrong, [TRUTH], *SIZES)


def test_a_truth_must_be_in_the_format_and_a_prediction_need_not():
    text = "<|utt_ids_start|>[0, 1]"
    assert fragment_precision([text], [PRED], modality="utterance") == 1
    assert fragment_precision(["no idea"], [PRED], modality="utterance") == 0
    with pytest.raises(ValueError, match=r"target 0: the text .* is not in the answer format"):
        fragment_precision([PRED], [text])


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((6, 2), "num_utterances are 6 \\(int\\); write a list of numbers"),
        (([6.0], [2]), "num_utterances hold 6.0"),
        (([6], [True]), "num_images hold True"),
        (([6], None), "num_utterances and num_images go together"),
        ((None, [2]), "num_utterances and num_images go together"),
        (("6", "2"), "num_utterances are '6'"),
        (([6, 6], [2, 2]), "1 prediction, 1 target, 2 and 2 dialogue sizes"),
    ],
)
def test_what_are_no_sizes_is_refused(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        fragment_scores([PRED], [TRUTH], *sizes)


def test_sizes_are_needed_by_mcc_alone():
    whole, part = fragment_scores([PRED], [TRUTH], *SIZES), fragment_scores([PRED], [TRUTH])
    assert part == {name: value for name, value in whole.items() if not name.endswith("mcc")}
    assert len(part) == 18
    metric = FragmentScores()
    metric.update([PRED], [TRUTH], *SIZES)
    assert "joint_mcc" in metric.compute()
    metric.update([PRED], [TRUTH])
    assert metric.compute().keys() == part.keys()
    metric.reset()
    metric.update([PRED], [TRUTH], *SIZES)
    assert metric.compute() == whole
    with pytest.raises(ValueError, match=r"mcc counts true negatives.*pass num_utterances"):
        FragmentMcc().update([PRED], [TRUTH])


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([0.5], "answer 0 is 0.5 \\(float\\)"),
        ([True, None], "answer 1 is None"),
        (torch.tensor([1.0]), "answer 0 is 1.0"),
        ([1, 0], "answer 0 is 1 \\(int\\)"),
        (True, "answers are True"),
        (None, "answers are None"),
        ([Fragment()], "answer 0 is Fragment"),
    ],
)
def test_what_is_no_answer_is_refused(answers, sentence):
    with pytest.raises(ValueError, match=sentence):
        answer_format_validity(answers)
    with pytest.raises(ValueError, match=sentence):
        AnswerFormatValidity().update(answers)


def test_answers_may_be_texts_or_judged():
    well_formed = format_answer(Fragment((3,)))
    for answers in (
        [well_formed, "3"],
        [True, False],
        torch.tensor([True, False]),
        np.array([True, False]),
        [well_formed, False],
    ):
        assert answer_format_validity(answers) == 0.5
        metric = AnswerFormatValidity()
        metric.update(answers)
        assert metric.compute() == 0.5


ROWS = [[1.0, 0.0], [0.6, 0.8]]
RIGHT = {
    "utterance_ids": [3, 7],
    "utterance_embeddings": ROWS,
    "image_utterance_ids": [3],
    "image_embeddings": [[0.0, 1.0]],
}


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_vectors_of_any_kind_count_alike(make):
    arguments = {name: make(values) for name, values in RIGHT.items()}
    found = fragment_order_coherence(**arguments, is_target_empty=False)
    assert found.item() == pytest.approx(0.4)
    metric = FragmentOrderCoherence()
    metric.update(*arguments.values(), is_target_empty=False)
    assert metric.compute().item() == pytest.approx(0.4)
    found = query_fragment_similarity(make([0.0, 2.0]), make(ROWS), is_target_empty=False)
    assert found.item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"utterance_ids": [3.0, 7.0]}, "utterance ids hold 3.0"),
        ({"utterance_ids": [True, False]}, "as a mask does"),
        ({"utterance_ids": [3, 3]}, "an utterance id repeats"),
        ({"utterance_ids": [3]}, "1 utterance with 2 vectors"),
        ({"utterance_ids": "37"}, "utterance ids are '37'"),
        ({"image_utterance_ids": [-1]}, "the images' utterance ids hold -1"),
        ({"utterance_embeddings": [1.0, 0.0]}, "utterance embeddings: .*shape \\(2,\\)"),
        ({"utterance_embeddings": ["a", "b"]}, "utterance embeddings: \\['a', 'b'\\]"),
        ({"utterance_embeddings": None}, "utterance embeddings: None"),
        ({"image_embeddings": [[1.0]]}, "the vectors have widths \\[1, 2\\]"),
        ({"image_embeddings": torch.tensor([[True, False]])}, "image embeddings: torch.bool"),
    ],
)
def test_what_are_no_vectors_is_refused(change, sentence):
    arguments = {**RIGHT, **change}
    with pytest.raises(ValueError, match=sentence):
        fragment_elements(**arguments)
    with pytest.raises(ValueError, match=sentence):
        fragment_order_coherence(**arguments, is_target_empty=False)
    with pytest.raises(ValueError, match=sentence):
        FragmentOrderCoherence().update(*arguments.values(), is_target_empty=False)


@pytest.mark.parametrize(
    ("query", "elements", "is_empty", "sentence"),
    [
        ([1.0], ROWS, False, "width 1, the elements' 2"),
        (ROWS, ROWS, False, "the query's embedding: .*shape \\(2, 2\\)"),
        ("a query", ROWS, False, "the query's embedding: 'a query'"),
        ([1.0, 0.0], "a line", False, "elements: 'a line'"),
        ([1.0, 0.0], ROWS, None, "is_target_empty is None"),
        ([1.0, 0.0], ROWS, Fragment(), "is_target_empty is Fragment"),
    ],
)
def test_what_has_no_similarity_is_refused(query, elements, is_empty, sentence):
    with pytest.raises(ValueError, match=sentence):
        query_fragment_similarity(query, elements, is_target_empty=is_empty)
    with pytest.raises(ValueError, match=sentence):
        QueryFragmentSimilarity().update(query, elements, is_target_empty=is_empty)


@pytest.mark.parametrize("metric", [FragmentOrderCoherence, QueryFragmentSimilarity])
def test_vectors_without_finite_numbers_are_refused(metric):
    rows = torch.full((2, 2), float("nan"))
    given = ([0, 1], rows, [], []) if metric is FragmentOrderCoherence else ([1.0, 0.0], rows)
    with pytest.raises(ValueError, match="the figure is nan"):
        metric().update(*given, is_target_empty=False)
