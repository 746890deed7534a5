"""Guesses against a slow search, written from the sentence that says what they are."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ffr.models.decoding.drafts import _LONGEST_MATCH, NONE, MetBefore

Text = list[int]
text = st.lists(st.integers(1, 3), max_size=9)


def guessed(texts: list[Text], answer: Text, num_drafts: int) -> Text:
    """What stood behind the longest end of an answer that was met, where that goes on; of several the last."""
    best, guesses = 0, []
    for known in texts:
        for end in range(1, len(known)):
            # with what stands before a beginning: nothing, once
            mine, theirs = [NONE, *answer], [NONE, *known[:end]]
            alike = 0
            while alike < min(len(mine), len(theirs), _LONGEST_MATCH) and (
                mine[-1 - alike] == theirs[-1 - alike]
            ):
                alike += 1
            if alike >= max(best, 1):
                best, guesses = alike, known[end : end + num_drafts]
    return guesses + [NONE] * (num_drafts - len(guesses))


@given(
    given_texts=st.lists(st.lists(text, max_size=3), min_size=2, max_size=2),
    written=st.lists(text.filter(len), min_size=6, max_size=6),
    num_drafts=st.integers(1, 4),
    left=st.sampled_from([None, [0], [1], [0, 1]]),
)
def test_guesses_are_what_stood_behind_the_longest_match(
    given_texts: list[list[Text]], written: list[Text], num_drafts: int, left: list[int] | None
) -> None:
    """Two prompts with three answers each; in the first, later ones of what was let go."""
    guess = MetBefore(given_texts, num_samples=3, num_drafts=num_drafts, device=torch.device("cpu"))
    there = [0, 1] if left is None else left
    rows = [3 * prompt + number for prompt in there for number in range(3)]
    # behind an answer's end stands anything
    tokens = torch.tensor([(written[row] + [3] * 9)[:9] for row in rows])
    count = torch.tensor([len(written[row]) for row in rows])
    found = guess(tokens, count, None if left is None else torch.tensor(rows)).tolist()
    for row, mine in zip(rows, found, strict=True):
        prompt = row // 3
        texts = given_texts[prompt] + written[3 * prompt : 3 * prompt + 3]
        assert mine == guessed(texts, written[row], num_drafts), row


def test_guesses_end_where_a_text_does() -> None:
    guess = MetBefore([[[1, 2, 3], [7]]], num_samples=1, num_drafts=4, device=torch.device("cpu"))
    assert guess(torch.tensor([[1, 5]]), torch.tensor([1]), None).tolist() == [[2, 3, NONE, NONE]]
    assert guess(torch.tensor([[9, 5]]), torch.tensor([1]), None).tolist() == [[NONE] * 4]
