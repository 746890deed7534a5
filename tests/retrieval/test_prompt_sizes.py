"""Sizes of prompts by hand: a token is a letter, and the queries on a dialogue share all before their line."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ffr.dialogue import Dialogue, Example, FilePrompt
from ffr.errors import DataError
from ffr.prompt import QUERY_START
from ffr.retrieval.prompt_sizes import PromptSizes, query_line


def query(head: int, line: int) -> Example:
    """A prompt with so many letters before the query's line, and so many in it."""
    user = "." * (head - 1) + "\n" + QUERY_START.ljust(line, "q")
    return Example(Dialogue("d", ()), "q", prompt=FilePrompt(user))


def sizes(max_context: int | None = None) -> PromptSizes:
    def encode(prompt: FilePrompt, images: Sequence[Any], **_: Any) -> Any:
        return SimpleNamespace(num_tokens=len(prompt.user))

    def tokenizer(text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=list(text))

    vlm: Any = SimpleNamespace(encode=encode, tokenizer=tokenizer, max_context=max_context)
    builder: Any = SimpleNamespace(prompt=lambda example: example.prompt)
    return PromptSizes(vlm, builder, max_new_tokens=15)


def test_where_the_line_of_the_query_begins() -> None:
    assert query_line(f"one\ntwo\n{QUERY_START}x") == 8
    assert query_line(f"{QUERY_START}x\ntwo") == 0
    assert query_line("no query") == 0
    assert query_line(f"a\n{QUERY_START}b\n{QUERY_START}c") == len(f"a\n{QUERY_START}b\n")


def test_each_further_query_adds_its_line() -> None:
    assert sizes().of_unit([query(50, 20)]) == 70
    assert sizes().of_unit([query(50, 20), query(50, 30), query(50, 40)]) == 50 + 20 + 30 + 40


def test_each_query_must_fit_as_if_it_were_alone() -> None:
    """85 of 100 are left before the answer; together they may take more."""
    fits, just, over = query(50, 20), query(50, 35), query(50, 36)
    assert sizes(100).of_unit([fits, just]) == 105
    assert sizes(100).fitting([fits, just]) == [0, 1]
    with pytest.raises(DataError, match="'d': its prompt of 86 tokens and an answer of up to 15"):
        sizes(100).of_unit([fits, over])
    assert sizes(100).fitting([over, fits, over, just]) == [1, 3]
    assert sizes(100).fitting([over]) == []
    assert sizes(None).fitting([over]) == [0]
