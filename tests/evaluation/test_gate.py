"""The gate's rules, its refusals, and what it writes."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from ffr.errors import DataError, UsageError
from ffr.evaluation.gate import Rule, check_rules, junit_xml, markdown_summary, parse_rule
from ffr.evaluation.results import Results

NAMES = ("new", "old.json")


def results(fingerprint="f", controls=False, label="m", intervals=None, **scores):
    scores = {"joint_f1": 0.6, "image_recall": 0.5, **scores}
    return Results(
        model={"label": label},
        data={"dataset": "made", "num_examples": 3, "fingerprint": fingerprint},
        settings={"wrong_pictures": controls},
        summary={
            "scores": scores,
            "strict_scores": {name: value - 0.1 for name, value in scores.items()},
        },
        intervals=intervals or {},
    )


def outcome_of(rule, value):
    (found,) = check_rules(results(joint_f1=value), results(), [rule], NAMES)
    return found


def test_max_drop_and_min():
    drop = Rule("max-drop", "joint_f1", 0.01)
    assert outcome_of(drop, 0.6).is_passed
    assert outcome_of(drop, 0.9).is_passed
    assert outcome_of(drop, 0.59).is_passed, (
        "a drop of just what is allowed; 0.6 - 0.59 > 0.01 in binary"
    )
    assert not outcome_of(drop, 0.5899).is_passed
    assert outcome_of(Rule("min", "joint_f1", 0.7), 0.7).is_passed
    fallen = outcome_of(Rule("min", "joint_f1", 0.7), 0.6999)
    assert not fallen.is_passed
    assert fallen.sentence == "joint_f1 is 0.6999, which is under 0.7"
    assert (
        outcome_of(drop, 0.5).sentence
        == "joint_f1 is 0.5000, 0.1000 below the baseline's 0.6000; only 0.01 is allowed"
    )


def test_strict_figures_and_intervals():
    intervals = {"strict_scores": {"joint_f1": [0.4, 0.55]}, "scores": None}
    rules = [Rule("max-drop", "strict_joint_f1", 0.0), Rule("min", "joint_f1", 0.1)]
    found = check_rules(results(intervals=intervals), results(), rules, NAMES)
    assert [(item.value, item.interval) for item in found] == [(0.5, (0.4, 0.55)), (0.6, None)]


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("min", "joint_f=0.5", r"--min: no figure 'joint_f'; did you mean joint_f1\?"),
        ("max-drop", "JointF1=0.5", "did you mean joint_f1"),
        ("min", "stric_image_mcc=0.5", "did you mean strict_image_mcc"),
        ("min", "=0.5", "no figure ''; did you mean"),
        ("min", "joint_f1", "is not FIGURE=NUMBER"),
        ("min", "joint_f1=", "is not FIGURE=NUMBER"),
        ("min", "joint_f1=high", "is not FIGURE=NUMBER"),
        ("min", "joint_f1=nan", "is not FIGURE=NUMBER"),
        ("max-drop", "joint_f1=inf", "is not FIGURE=NUMBER"),
        ("max-drop", "joint_f1=-0.1", "the number is from 0 to 1"),
        ("min", "joint_f1=70", "one percent is written 0.01"),
    ],
)
def test_rules_that_are_none(kind, text, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse_rule(kind, text)


def test_a_correlation_may_have_to_be_at_least_a_negative_number():
    assert parse_rule("min", "image_mcc=-0.5") == Rule("min", "image_mcc", -0.5)
    assert parse_rule("min", "image_mcc=-1") == Rule("min", "image_mcc", -1.0)
    assert parse_rule("max-drop", " joint_f1 =0") == Rule("max-drop", "joint_f1", 0.0)
    with pytest.raises(UsageError, match="the number is from -1 to 1"):
        parse_rule("min", "image_mcc=-1.01")


def test_refusals():
    rules = [Rule("min", "joint_f1", 0.1)]
    with pytest.raises(UsageError, match=r"new and old\.json were measured on different data"):
        check_rules(results("other"), results(), rules, NAMES)
    with pytest.raises(UsageError, match=r"old\.json does not say what data it was measured on"):
        check_rules(results(), results(None), rules, NAMES)
    with pytest.raises(UsageError, match="new is a control with wrong pictures"):
        check_rules(results(controls=True), results(), rules, NAMES)
    with pytest.raises(UsageError, match="--min joint_f1 is given twice"):
        check_rules(results(), results(), [*rules, Rule("min", "joint_f1", 0.2)], NAMES)
    assert (
        len(check_rules(results(), results(), [*rules, Rule("max-drop", "joint_f1", 0.2)], NAMES))
        == 2
    )
    with pytest.raises(DataError, match="new: has no figure image_mcc"):
        check_rules(results(), results(image_mcc=0.3), [Rule("min", "image_mcc", 0)], NAMES)
    unknown = dataclasses.replace(results(), summary={"scores": {"joint_f1": None}})
    with pytest.raises(
        UsageError,
        match=r"^old\.json: nothing was scored, so joint_f1 was not measured; evaluate on",
    ):
        check_rules(results(), unknown, rules, NAMES)
    with pytest.raises(DataError, match="has no figure"):
        check_rules(dataclasses.replace(results(), summary={}), results(), rules, NAMES)


def test_junit_and_markdown():
    rules = [Rule("max-drop", "joint_f1", 0.01), Rule("min", "image_recall", 0.4)]
    intervals = {"scores": {"joint_f1": [0.45, 0.55]}}
    outcomes = check_rules(results(joint_f1=0.5, intervals=intervals), results(), rules, NAMES)
    root = ElementTree.fromstring(junit_xml(outcomes, label='<a> & "b" \x00|'))
    assert root.attrib["tests"] == "2"
    assert root.attrib["failures"] == "1"
    cases = root.findall("testsuite/testcase")
    assert [case.attrib["name"] for case in cases] == ["joint_f1", "image_recall"]
    assert [case.find("properties/property").attrib["value"] for case in cases] == ["0.01", "0.4"]
    assert cases[0].find("failure").attrib["message"] == outcomes[0].sentence
    assert cases[1].find("failure") is None
    assert root.find("testsuite").attrib["name"] == '<a> & "b" \ufffd|'
    text = markdown_summary(outcomes, label="a|b <script>", baseline_label="old\nname")
    assert text.startswith("### ffr gate: ❌ 1 of 2 fell\n")
    assert r"a\|b \<script\> against old name" in text
    assert (
        "| ❌ | `--max-drop joint_f1=0.01` | 0.5000 | 0.4500 to 0.5500 | 0.6000 | -0.1000 |" in text
    )
    assert "| ✅ | `--min image_recall=0.4` | 0.5000 | - | 0.5000 | +0.0000 |" in text
    text = markdown_summary(outcomes[1:], label="a", baseline_label="b")
    assert text.startswith("### ffr gate: ✅ all 1 passed\n")


def test_least_values_need_no_baseline():
    rules = [Rule("min", "joint_f1", 0.5), Rule("min", "image_recall", 0.9)]
    outcomes = check_rules(results(joint_f1=0.6), None, rules, NAMES)
    assert [outcome.is_passed for outcome in outcomes] == [True, False]
    assert [outcome.against for outcome in outcomes] == [("-", "-")] * 2
    text = markdown_summary(outcomes, label="a", baseline_label=None)
    assert "\na\n" in text
    assert "| ✅ | `--min joint_f1=0.5` | 0.6000 | - | - | - |" in text
    with pytest.raises(UsageError, match="--max-drop is held against a --baseline; name one"):
        check_rules(results(), None, [Rule("max-drop", "joint_f1", 0.1)], NAMES)
