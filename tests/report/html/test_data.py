"""What a page holds: cut into parts, and safe inside a script element."""

from __future__ import annotations

import json

import pytest

from ffr.report.html.data import ReportData, parts_of, scatter_cell, to_json


def _data() -> ReportData:
    """Three dialogues; the first and the last show the same picture, the second another."""
    dialogues = [
        {"id": "a", "l": [["ann", ["hi", [1, "a cat"]]]]},
        {"id": "b", "l": [["bob", [[0, ""]]]]},
        {"id": "c", "l": [["ann", [[1, "a cat"], "again"]]]},
    ]
    queries = [{"n": n, "d": d, "q": "?"} for n, d in enumerate((0, 2, 1, 0))]
    data = ReportData()
    data.dialogues, data.queries = dialogues, queries
    data.pictures = [["data:,zero", 1, 1], ["data:,one", 2, 2]]
    return data


def test_a_part_holds_whole_dialogues_and_numbers_its_own_pictures() -> None:
    data = _data()
    whole = list(parts_of(data, 10**6))
    assert [item["id"] for item in whole[0]["dialogues"]] == ["a", "b", "c"]
    assert len(whole) == 1
    assert whole[0]["pictures"] == [data.pictures[1], data.pictures[0]]
    assert whole[0]["dialogues"][0]["l"] == [["ann", ["hi", [0, "a cat"]]]]
    assert whole[0]["dialogues"][2]["l"] == [["ann", [[0, "a cat"], "again"]]]
    assert [(query["n"], query["d"]) for query in whole[0]["queries"]] == [
        (0, 0), (1, 2), (2, 1), (3, 0),
    ]  # fmt: skip
    # of one byte each: a dialogue is never cut, and each brings what it shows
    parts = list(parts_of(data, 1))
    assert [[item["id"] for item in part["dialogues"]] for part in parts] == [["a"], ["b"], ["c"]]
    assert [part["pictures"] for part in parts] == [
        [data.pictures[1]],
        [data.pictures[0]],
        [data.pictures[1]],
    ]
    assert [[query["n"] for query in part["queries"]] for part in parts] == [[0, 3], [2], [1]]
    assert all(query["d"] == 0 for part in parts for query in part["queries"])


def test_a_part_is_full_where_one_more_dialogue_would_be_too_much() -> None:
    data = _data()
    # 16 bytes beside each picture's address, and the JSON of dialogue and queries
    costs = [
        len(to_json(dialogue))
        + sum(len(to_json(query)) for query in data.queries if query["d"] == number)
        for number, dialogue in enumerate(data.dialogues)
    ]
    two = costs[0] + len("data:,one") + 16 + costs[1] + len("data:,zero") + 16
    assert [len(part["dialogues"]) for part in parts_of(data, two)] == [2, 1]
    assert [len(part["dialogues"]) for part in parts_of(data, two - 1)] == [1, 2]


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "\u2028\u2029", 'quote " \\'])
def test_nothing_ends_the_script_and_all_comes_back(text: str) -> None:
    written = to_json({"t": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"t": text}


def test_a_share_falls_on_the_nearest_step() -> None:
    assert [scatter_cell(share) for share in (0, 0.024, 0.026, 1 / 3, 1)] == [0, 0, 1, 7, 20]
