"""Segments by what is said and by pauses: each line in one, whatever the vectors are."""

from __future__ import annotations

import numpy as np
import pytest
from chat_builds import Letters
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ffr.corpus.segmentation import VectorSegmenter, by_vectors
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import UsageError

_TOPICS = np.repeat(np.eye(3, 8, dtype=np.float32), 6, axis=0)


@settings(deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(0, 30), st.just(4)),
           elements=st.floats(-1, 1, width=32)),
    st.lists(st.none() | st.floats(0, 1e6), min_size=30, max_size=30),
)  # fmt: skip
def test_each_line_is_in_one_segment_whatever_the_vectors(
    vectors: np.ndarray, times: list[float | None]
) -> None:
    numbers = by_vectors(vectors, times[: len(vectors)])
    assert len(numbers) == len(vectors)
    # they count up one by one: segments by vectors do not interleave
    assert list(numbers) == sorted(numbers)
    assert set(numbers) == set(range(len(set(numbers))))


def test_segments_lie_where_what_is_said_changes() -> None:
    assert by_vectors(_TOPICS) == (0,) * 6 + (1,) * 6 + (2,) * 6
    # neither a common part of all lines nor their scale counts
    assert by_vectors(_TOPICS * 0.1 + 1) == by_vectors(_TOPICS)
    assert by_vectors(np.ones((9, 4), np.float32)) == (0,) * 9


def test_a_line_without_words_lies_with_those_around_it() -> None:
    pictured = _TOPICS.copy()
    pictured[[0, 2, 8, 17]] = 0
    assert by_vectors(pictured) == by_vectors(_TOPICS)
    assert by_vectors(np.zeros((9, 4), np.float32)) == (0,) * 9


def test_a_pause_cuts_and_a_short_one_does_not() -> None:
    same = np.ones((4, 2), np.float32)
    assert by_vectors(same, [0, 60, 7200, 7260]) == (0, 0, 1, 1)
    assert by_vectors(same, [0, 60, 7200, 7260], pause_hours=3) == (0, 0, 0, 0)
    assert by_vectors(same, [0, 60, 7200, 7260], pause_hours=0) == (0, 0, 0, 0)
    assert by_vectors(same, [None] * 4) == (0, 0, 0, 0)


def test_what_is_too_long_for_the_kernel_is_cut_at_its_longest_pause_first() -> None:
    same = np.ones((500, 2), np.float32)
    times = [float(line) for line in range(250)] + [float(line + 60) for line in range(250, 500)]
    assert by_vectors(same, times, pause_hours=0) == (0,) * 250 + (1,) * 250


@pytest.mark.parametrize(
    ("setting", "error"),
    [({"penalty": 0}, UsageError), ({"penalty": float("nan")}, UsageError),
     ({"min_lines": 0}, UsageError), ({"pause_hours": -1}, UsageError),
     ({"times": [0.0]}, ValueError)],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(setting: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        by_vectors(_TOPICS, **setting)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        by_vectors(np.full((3, 2), np.nan, np.float32))


def test_dialogues_are_cut_by_the_vectors_of_their_words() -> None:
    lines = [Utterance("a", (word,)) for word in ("aaa", "aab", "aba", "xyz", "xxy", "yyz")]
    shown = Utterance("a", (Image("a.png"),))
    letters = Letters()
    segmenter = VectorSegmenter(letters, "p: ")  # type: ignore[arg-type]
    found = segmenter.cut(
        [Example(Dialogue("d", (shown, *lines)), "x"), Example(Dialogue("e", (shown,)), "x")]
    )
    assert [cut.numbers for cut in found] == [(0, 0, 0, 0, 1, 1, 1), (0,)]
    assert all(text.startswith("p: ") for text in letters.asked)
    assert segmenter.identity["encoder"] == "letters"
