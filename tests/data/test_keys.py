"""What others call our keys and columns: what is asked about, and what is taken without asking."""

from __future__ import annotations

import pytest

from ffr.data.keys import COLUMNS, LINE_COLUMNS, QUERY_COLUMNS, columns_taken, meant_key, other_name


@pytest.mark.parametrize(
    ("wanted", "given", "found"),
    [
        ("utterance", ["text", "content"], "text"),  # the likeliest of two
        ("utterance", ["content", "text"], "text"),
        ("speaker", ["Role"], "Role"),  # letter case does not matter
        ("dialogue", ["dialoque"], "dialoque"),  # a slip of the pen
        ("gt_turns", ["mood", "weather"], None),
        ("speaker", ["s" * 51], None),
    ],
)
def test_another_name(wanted: str, given: list[str], found: str | None) -> None:
    assert other_name(wanted, given) == found


def test_what_is_meant_is_the_first_that_it_may_be() -> None:
    assert meant_key("labels", ["query_text", "gt_turns", "solution"]) == "gt_turns"
    assert meant_key("weather", COLUMNS) is None


@pytest.mark.parametrize(
    ("given", "wanted", "taken"),
    [
        (
            ["dialogue", "author", "message", "image"],
            LINE_COLUMNS,
            {
                "dialogue_id": "dialogue",
                "speaker": "author",
                "text": "message",
                "picture": "image",
            },
        ),
        (
            ["Chat_ID", "question", "answer", "image_ids"],
            QUERY_COLUMNS,
            {"dialogue_id": "Chat_ID", "query": "question", "utterance_ids": "answer"},
        ),
        # what is there is not looked for
        (["dialogue_id", "dialogue", "speaker", "text"], LINE_COLUMNS, {}),
        # two that may be meant: neither is
        (["conversation", "chat", "speaker", "text"], LINE_COLUMNS, {}),
        # asked about, but not taken
        (["dialogue_id", "name", "value"], LINE_COLUMNS, {}),
        (["dialogue_id", "autor", "text"], LINE_COLUMNS, {}),
        # of another letter case only
        (["DIALOGUE_ID", "Speaker", "Text"], LINE_COLUMNS[:3], {
            "dialogue_id": "DIALOGUE_ID", "speaker": "Speaker", "text": "Text",
        }),
    ],
)  # fmt: skip
def test_columns_that_are_taken(
    given: list[str], wanted: tuple[str, ...], taken: dict[str, str]
) -> None:
    assert columns_taken(given, wanted) == taken
