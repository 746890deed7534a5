"""Tags of thoughts: what a text leaves open, what closes it, what is said outside."""

from __future__ import annotations

import pytest

from ffr.thoughts import THOUGHT_TAGS, closed_thought, last_said, opened_thought, tags_of


@pytest.mark.parametrize(("start", "end"), THOUGHT_TAGS)
def test_every_pair_opens_closes_and_is_left_out(start: str, end: str) -> None:
    assert opened_thought(f"assistant\n{start}\nWell, ") == f"{start}\nWell, "
    assert opened_thought(f"assistant\n{start}\n{end}\n") == ""
    assert tags_of(f"{start}\nWell") == (start, end)
    assert closed_thought(start) == f"\n{end}\n\n"
    assert last_said(f"{start}[7]{end}[3]") == last_said(f"[7]{end}[3]") == "[3]"
    assert last_said(f"{start}[7]") == ""
    assert last_said(f"{start}[7]<answer>[3]</answer>") == "[3]"


def test_the_last_thought_counts() -> None:
    assert opened_thought("<think>a</think> and [THINK]b") == "[THINK]b"
    assert opened_thought("[THINK]a <think>b</think>") == ""
    assert opened_thought("no thought at all") == ""


def test_what_begins_with_no_tag_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'hm <think>' begins with no tag of a thought; there are <think>, "
    ):
        tags_of("hm <think>")
