"""What readers collect of a record: each fault with what was found and what to do."""

from __future__ import annotations

import pytest

from ffr.data.findings import FaultyError, Finding, Findings, all_texts, shown


def test_a_value_that_is_there_and_right_is_given_back() -> None:
    findings = Findings()
    assert findings.require_key({"lines": [1]}, "lines", list, "write a list") == [1]
    assert findings.require(3, int, "it", "write a number") == 3
    assert findings == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, 'the record has no "speaker"; name who speaks'),
        ({"from": "a"}, 'the record has no "speaker"; did you mean "from"? rename it to "speaker"'),
        ({"Role": "a"}, 'the record has no "speaker"; did you mean "Role"? rename it to "speaker"'),
        ({"speeker": "a"}, 'the record has no "speaker"; did you mean "speeker"? rename it to "speaker"'),
    ],
)  # fmt: skip
def test_a_missing_key_names_the_one_that_may_be_meant(
    record: dict[str, str], message: str
) -> None:
    findings = Findings()
    with pytest.raises(FaultyError):
        findings.require_key(record, "speaker", str, "name who speaks")
    assert findings == [Finding("missing-key", message)]


def test_a_part_of_a_record_is_named_as_its_owner() -> None:
    findings = Findings()
    with pytest.raises(FaultyError):
        findings.require_key({}, "speaker", str, "name who speaks", "line 3")
    with pytest.raises(FaultyError):
        findings.require_key({"speaker": 5}, "speaker", str, "name who speaks", "line 3")
    assert [finding.message for finding in findings] == [
        'line 3 has no "speaker"; name who speaks',
        "the speaker of line 3 is a number; name who speaks",
    ]


@pytest.mark.parametrize("value", [True, 1.5, "1", None, [1]])
def test_a_truth_value_is_no_number(value: object) -> None:
    findings = Findings()
    with pytest.raises(FaultyError):
        findings.require(value, int, '"n"', "write a number")
    [found] = findings
    assert (found.kind, found.is_error) == ("wrong-type", True)
    assert found.message.startswith('"n" is ')
    assert found.message.endswith("; write a number")


def test_unknown_keys_are_warned_of() -> None:
    findings = Findings()
    findings.unknown("answer", ("query_text", "gt_turns"))
    findings.unknown("mood\n", ("query_text",), "line 2: ")
    assert findings == [
        Finding("unknown-key", 'unknown key "answer"; did you mean "gt_turns"?', is_error=False),
        Finding("unknown-key", r'line 2: unknown key "mood\n"; it is kept but not used', is_error=False),
    ]  # fmt: skip


def test_what_is_shown_is_json_on_one_line_and_cut() -> None:
    assert shown({"a": [None, True, "猫"]}) == '{"a": [null, true, "猫"]}'
    assert "\u202e" not in shown("\u202eabc")
    assert len(shown("x" * 500)) == 80
    assert all_texts([])
    assert all_texts(["a", ""])
    assert not all_texts(["a", None])
