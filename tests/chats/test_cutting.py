"""Where a chat is cut."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.chats.chat import Message
from ffr.chats.cutting import Cutting, cut_messages, cut_seconds
from ffr.errors import UsageError


@given(
    st.lists(st.none() | st.floats(0, 1e6), max_size=40),
    st.integers(0, 7),
    st.sampled_from([0.0, 1.0, 24.0]),
)
def test_every_message_is_in_one_dialogue_and_none_is_too_long(
    times: list[float | None], most: int, pause: float
) -> None:
    sizes = list(cut_seconds(times, Cutting(pause, most)))
    assert sum(sizes) == len(times)
    assert all(size > 0 for size in sizes)
    if most:
        assert all(size <= most for size in sizes)


def test_a_long_stretch_is_cut_at_its_longest_pause() -> None:
    start = datetime(2024, 1, 1)
    minutes = [0, 1, 2, 3, 33, 34, 35, 36]
    messages = [Message("a", str(at), start + timedelta(minutes=at)) for at in minutes]
    cut = list(cut_messages(messages, Cutting(max_messages=6)))
    assert [[message.text for message in part] for part in cut] == [
        ["0", "1", "2", "3"],
        ["33", "34", "35", "36"],
    ]
    assert len(list(cut_messages(messages, Cutting(pause_hours=0.5, max_messages=0)))) == 2
    assert len(list(cut_messages(messages, Cutting(0, 0)))) == 1


def test_time_that_runs_backwards_is_no_pause() -> None:
    assert list(cut_seconds([90_000.0, 0.0, 10.0], Cutting())) == [3]


@pytest.mark.parametrize("given_", [(-1, 0), (1, -1), (float("nan"), 0)])
def test_what_cannot_be_cut_is_refused(given_: tuple[float, int]) -> None:
    with pytest.raises(UsageError, match="give numbers from 0"):
        Cutting(*given_)
