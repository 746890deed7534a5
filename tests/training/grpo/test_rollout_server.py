"""What a server sent, read: the groups that are one, and that nothing else is taken for one. What it is asked: test_server_sampling."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.retrieval.api_client import MalformedError
from ffr.training.grpo.rollout_server import ServedAnswer, ServedGroup, read_group

TOKENS = [{"token": "token_id:7", "logprob": -0.5}, {"token": "token_id:2", "logprob": -0.25}]
SENT: dict[str, Any] = {
    "choices": [
        {"index": 1, "finish_reason": "length", "logprobs": {"content": TOKENS[:1]}},
        {"index": 0, "finish_reason": "stop", "logprobs": {"content": TOKENS}},
    ],
    "usage": {"prompt_tokens": 11},
}


def test_answers_come_in_the_order_of_their_numbers() -> None:
    assert read_group(SENT, 2) == ServedGroup(
        11,
        [
            ServedAnswer((7, 2), (-0.5, -0.25), is_cut_off=False),
            ServedAnswer((7,), (-0.5,), is_cut_off=True),
        ],
    )


PLACES = [
    ("choices",), ("usage",), ("usage", "prompt_tokens"), ("choices", 0), ("choices", 1, "index"), ("choices", 0, "logprobs"),
    ("choices", 0, "logprobs", "content"), ("choices", 0, "logprobs", "content", 0), ("choices", 0, "finish_reason"),
    ("choices", 1, "logprobs", "content", 1, "token"), ("choices", 1, "logprobs", "content", 1, "logprob"),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("value", [None, "x", [], {}, float("nan")], ids=repr)
def test_what_is_of_another_kind_is_refused(place: tuple[Any, ...], value: Any) -> None:
    sent = copy.deepcopy(SENT)
    holder = sent
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    with pytest.raises(MalformedError):
        read_group(sent, 2)


def test_another_number_of_answers_is_refused() -> None:
    with pytest.raises(MalformedError, match="2 answers where 3 were asked for"):
        read_group(SENT, 3)
    twice = {**SENT, "choices": [SENT["choices"][0]] * 2}
    with pytest.raises(MalformedError, match="2 answers where 2"):
        read_group(twice, 2)


def test_an_error_in_the_place_of_an_answer_is_said() -> None:
    with pytest.raises(MalformedError, match=r"in the place of an answer \(no room\)"):
        read_group({"error": {"message": "no room"}}, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "usage", "index", "logprobs", "content", "error", "token"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(JSON, st.integers(min_value=1, max_value=2))
def test_any_json_is_read_or_refused_in_words(sent: Any, num: int) -> None:
    with suppress(MalformedError):
        read_group(sent, num)
