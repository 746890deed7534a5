"""What is wrong with a value, in our words: one sentence each, and what may have been meant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from ffr.settings.words import closest, fault, nearest, sentence, shown


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Annotated[int, Field(ge=1)], 0, "it: 0 is too small; it must be at least 1"),
        (Annotated[float, Field(gt=0)], 0.0, "it: 0.0 is too small; it must be more than 0"),
        (Annotated[float, Field(le=0.5)], 0.75, "it: 0.75 is too large; it must be at most 0.5"),
        (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "it: inf is not a finite number"),
        (int, 1.5, "it: 1.5 is not a whole number"),
        (int, "x\ny", "it: 'x\\ny' is not a whole number"),
        (float, "a", "it: 'a' is not a number"),
        (bool, "maybe", "it: 'maybe' is neither true nor false"),
        (str, 3, "it: 3 is not a text"),
        (dict[str, int], [], "it: [] cannot stand here"),
    ],
)  # fmt: skip
def test_sentences(kind: Any, value: Any, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert sentence(caught.value.errors()[0], "it") == expected


def test_one_of_few() -> None:
    choices = ("none", "group", "batch")
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Literal["none", "group", "batch"]).validate_python("groups")
    [details] = caught.value.errors()
    assert sentence(details, "setting x", choices) == (
        "setting x: 'groups' is not one of none, group, batch; did you mean group?"
    )
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Literal["none", "group", "batch"]).validate_python("zzzz")
    assert sentence(caught.value.errors()[0], "setting x", choices) == (
        "setting x: 'zzzz' is not one of none, group, batch"
    )


def test_our_own_words_stand_as_they_are() -> None:
    [details] = fault("{braces} and 100 % stay", "a", 1).errors()
    assert details["loc"] == ("a", 1)
    assert sentence(details, "ignored") == "{braces} and 100 % stay"


def test_what_others_call_it_goes_before_what_is_like_it() -> None:
    assert closest("lr", ["lora_rank", "learning_rate"]) == "learning_rate"
    assert closest("lr", ["lora_rank", "seed"]) is None, "its own name is not among the words"
    assert closest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("epoch", ["epochs", "seed"]) == "; did you mean epochs?"
    assert nearest("3", [4, 30]) == "; did you mean 30?"
    assert nearest("xyz", ["epochs"]) == ""
    assert closest("s" * 10_000, ["seed"]) is None


def test_values_are_shown_on_one_line_and_cut() -> None:
    assert shown("a" * 500) == "'" + "a" * 118 + "…"
    assert shown({"a": "\x1b[1m"}) == "{'a': '\\x1b[1m'}"
    assert len(shown(list(range(1000)))) == 120
