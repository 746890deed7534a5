"""Fragment order coherence against hand-worked values and an independent reference."""

from __future__ import annotations

import pickle

import fragment_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.metrics import FragmentOrderCoherence
from ffr.metrics.functional import (
    fragment_elements,
    fragment_order_coherence,
    query_fragment_similarity,
)

NONE = torch.zeros(0, 2)


@pytest.mark.parametrize(
    ("is_pred_empty", "is_target_empty", "expected"),
    [(True, True, 1.0), (True, False, 0.0), (False, True, 0.0)],
)
def test_empty_cases(is_pred_empty, is_target_empty, expected):
    utterance_ids, vectors = ([], NONE) if is_pred_empty else ([0, 1], torch.eye(2))
    assert (
        fragment_order_coherence(utterance_ids, vectors, [], NONE, is_target_empty=is_target_empty)
        == expected
    )
    elements = fragment_elements(utterance_ids, vectors, [], NONE)
    assert (
        query_fragment_similarity(torch.ones(2), elements, is_target_empty=is_target_empty)
        == expected
    )


def test_single_element_counts_half():
    assert fragment_order_coherence([4], torch.ones(1, 2), [], NONE, is_target_empty=False) == 0.5
    # two images on one utterance are one element
    assert fragment_order_coherence([], NONE, [4, 4], torch.eye(2), is_target_empty=False) == 0.5


def test_order_is_the_dialogues_and_images_follow_their_utterance():
    # dialogue order: utterance 1 (1,0) · mean of images on 1 (1/2,1/2) · image on 2 (0,1) · utterance 5 (0,1)
    words = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pictures = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    elements = fragment_elements([5, 1], words, [2, 1, 1], pictures)
    assert elements.tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]
    value = fragment_order_coherence([5, 1], words, [2, 1, 1], pictures, is_target_empty=False)
    assert value.item() == pytest.approx((0.5**0.5 + 0.5**0.5 + 1) / 3)


def test_text_alone_counts_as_defined():
    words = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8]])
    assert fragment_order_coherence(
        [0, 1, 2], words, [], NONE, is_target_empty=False
    ).item() == pytest.approx(0.8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 7), unique=True, max_size=6),
    st.lists(st.integers(0, 7), max_size=6),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_parity_with_reference(utterance_ids, hosts, is_target_empty, seed):
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(len(utterance_ids), 5, generator=generator, dtype=torch.float64)
    pictures = torch.randn(len(hosts), 5, generator=generator, dtype=torch.float64)
    ours = fragment_order_coherence(
        utterance_ids, words, hosts, pictures, is_target_empty=is_target_empty
    )
    theirs = reference.coherence(
        8,
        dict(zip(utterance_ids, words.tolist(), strict=True)),
        list(zip(hosts, pictures.tolist(), strict=True)),
        is_target_empty,
    )
    assert ours.item() == pytest.approx(theirs, abs=1e-9)


def test_class_is_the_mean_and_pickles():
    metric = FragmentOrderCoherence()
    metric.update([0, 1], torch.eye(2), [], NONE, is_target_empty=False)
    metric = pickle.loads(pickle.dumps(metric))
    metric.update([], NONE, [], NONE, is_target_empty=True)
    metric.update([3], torch.ones(1, 2), [], NONE, is_target_empty=False)
    assert metric.compute() == 0.5


def test_wrong_calls():
    with pytest.raises(ValueError, match="2 utterances with 1 vector and 0 images with 0 vectors"):
        fragment_elements([0, 1], torch.ones(1, 2), [], NONE)
    with pytest.raises(ValueError, match="an utterance id repeats"):
        fragment_elements([1, 1], torch.ones(2, 2), [], NONE)
