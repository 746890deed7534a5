"""Exact match and format validity."""

from __future__ import annotations

import pickle

import pytest

from ffr.metrics import AnswerFormatValidity, FragmentExactMatch
from ffr.metrics.functional import answer_format_validity, fragment_exact_match


def test_exact_match_takes_both_lists_as_sets():
    preds = [((2, 1), ()), ((1,), (0,)), ((), ()), ((1, 1), (0,))]
    targets = [((1, 2), ()), ((1,), ()), ((), ()), ((1,), (0,))]
    assert fragment_exact_match(preds, targets) == 0.75
    with pytest.raises(ValueError, match="2 predictions, 1 target: their"):
        fragment_exact_match(preds[:2], targets[:1])


def test_classes_accumulate_and_pickle():
    exact, valid = FragmentExactMatch(), AnswerFormatValidity()
    exact.update([((1,), ())], [((1,), ())])
    exact = pickle.loads(pickle.dumps(exact))
    exact.update([((1,), ()), ((2,), ())], [((3,), ()), ((4,), ())])
    assert exact.compute().item() == pytest.approx(1 / 3)
    valid.update([True])
    valid.update([False, False])
    assert valid.compute() == answer_format_validity([True, False, False])
