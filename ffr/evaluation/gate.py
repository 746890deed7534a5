"""A gate for CI: rules on a result's figures beside a baseline; JUnit XML and Markdown of it."""

from __future__ import annotations

import dataclasses
import difflib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ffr.errors import DataError, UsageError
from ffr.evaluation.compare import check_comparable
from ffr.evaluation.figures import FIGURE_NAMES, STRICT_PREFIX
from ffr.evaluation.results import Results
from ffr.markup import markdown_text, xml_text

RuleKind = Literal["max-drop", "min"]

DEFAULT_RULES = ("joint_f1=0.01",)
"""Greatest drops where no rule is given."""

_ROUNDING = 1e-9  # 0.60 - 0.59 is a little over 0.01 in binary


@dataclass(frozen=True, slots=True)
class Rule:
    """What one figure must keep to.

    Args:
        kind: `max-drop`: the figure may be at most `bound` below the baseline's. `min`: it must be
            at least `bound`.
        figure: One of `ffr.evaluation.figures.FIGURE_NAMES`.
        bound: As a share, not in percent.
    """

    kind: RuleKind
    figure: str
    bound: float

    def __str__(self) -> str:
        return f"--{self.kind} {self.figure}={self.bound:g}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a rule.

    Args:
        rule: The rule.
        value: The figure in the result.
        baseline: The figure in the baseline; None where there is none.
        interval: The figure's interval, where the result has one.
        is_passed: Whether the rule is kept.
    """

    rule: Rule
    value: float
    baseline: float | None
    interval: tuple[float, float] | None
    is_passed: bool

    @property
    def against(self) -> tuple[str, str]:
        """The baseline's figure and the change since, for tables; dashes where there is none."""
        if self.baseline is None:
            return "-", "-"
        return f"{self.baseline:.4f}", f"{self.value - self.baseline:+.4f}"

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        shown = f"{self.rule.figure} is {self.value:.4f}"
        if self.rule.kind == "min":
            return (
                f"{shown}, which is {'at least' if self.is_passed else 'under'} {self.rule.bound:g}"
            )
        assert self.baseline is not None, "a drop is from something"
        change = self.value - self.baseline
        if self.is_passed:
            allowed = f"a drop of {self.rule.bound:g} is allowed"
            return f"{shown}, {change:+.4f} against the baseline's {self.baseline:.4f}; {allowed}"
        allowed = f"only {self.rule.bound:g} is allowed"
        return f"{shown}, {-change:.4f} below the baseline's {self.baseline:.4f}; {allowed}"


def parse_rule(kind: RuleKind, text: str) -> Rule:
    """Reads `FIGURE=NUMBER`.

    Raises:
        UsageError: where it is something else, or no such figure exists (the nearest right name is
            told).

    >>> parse_rule("min", "joint_f1=0.7")
    Rule(kind='min', figure='joint_f1', bound=0.7)
    """
    figure, equals, number = text.partition("=")
    figure = figure.strip()
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not equals or not math.isfinite(bound):
        raise UsageError(f"--{kind} {text!r} is not FIGURE=NUMBER, such as joint_f1=0.01")
    if figure not in FIGURE_NAMES:
        nearest = difflib.get_close_matches(figure.lower(), FIGURE_NAMES, 1, 0)[0]
        raise UsageError(f"--{kind}: no figure {figure!r}; did you mean {nearest}?")
    low = 0.0 if kind == "max-drop" else -1.0
    if not low <= bound <= 1:
        raise UsageError(
            f"--{kind} {text}: figures are shares, so the number is from {low:g} to 1; one percent "
            "is written 0.01"
        )
    return Rule(kind, figure, bound)


def check_rules(
    results: Results, baseline: Results | None, rules: Sequence[Rule], names: tuple[str, str]
) -> list[Outcome]:
    """Holds a result against the rules.

    Args:
        results: The result.
        baseline: What it must not fall behind; None where all rules are of the kind `min`.
        rules: The rules; one at least.
        names: What the user called result and baseline.

    Raises:
        UsageError: where the two cannot be compared, a rule is given twice, or a figure was not
            measured: what nobody knows neither passes nor falls.
        DataError: where either lacks a figure.
    """
    if baseline is not None:
        check_comparable(results, baseline, names)
    elif any(rule.kind == "max-drop" for rule in rules):
        raise UsageError("--max-drop is held against a --baseline; name one")
    seen: set[tuple[str, str]] = set()
    for rule in rules:
        if (rule.kind, rule.figure) in seen:
            raise UsageError(f"--{rule.kind} {rule.figure} is given twice; give it once")
        seen.add((rule.kind, rule.figure))
    outcomes = []
    for rule in rules:
        value = _figure(results, rule.figure, names[0])
        base = None if baseline is None else _figure(baseline, rule.figure, names[1])
        least = rule.bound if rule.kind == "min" or base is None else base - rule.bound
        outcomes.append(
            Outcome(
                rule,
                value,
                base,
                _interval(results, rule.figure),
                is_passed=value >= least - _ROUNDING,
            )
        )
    return outcomes


def renew_baseline(results: Results, baseline: Path, *, name: str) -> None:
    """Writes a result as a baseline that can be kept: what no rule asks for is left out.

    That is intervals, baselines of its own, and of the provenance times and machine.

    Args:
        results: The result.
        baseline: The file to write.
        name: What the user called the result.

    Raises:
        UsageError: where nothing was scored, or the data are not known, so that no rule could hold.
        DataError: where the file cannot be written.
    """
    check_comparable(results, results, (name, name))
    if not results.num_scored:
        raise UsageError(f"{name}: nothing was scored; evaluate on data with true answers")
    versions = results.provenance.get("versions", {})
    kept = {
        "command": results.provenance.get("command"),
        "versions": {name: its for name, its in versions.items() if name != "platform"},
    }
    dataclasses.replace(results, intervals={}, baselines={}, provenance=kept).save_as(baseline)


def junit_xml(outcomes: Sequence[Outcome], *, label: str) -> bytes:
    """The outcomes as a JUnit file, one test case for each rule.

    Args:
        outcomes: The outcomes.
        label: What was measured.
    """
    label = xml_text(label)
    num_failures = sum(not outcome.is_passed for outcome in outcomes)
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(num_failures),
        "errors": "0",
        "skipped": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "ffr gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": label, **counts})
    for outcome in outcomes:
        rule = outcome.rule
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": f"ffr.gate.{rule.kind}",
                # without the bound, so that a case keeps its history where that is changed
                "name": rule.figure,
                "time": "0",
            },
        )
        bounds = ElementTree.SubElement(case, "properties")
        ElementTree.SubElement(bounds, "property", {"name": "bound", "value": f"{rule.bound:g}"})
        if not outcome.is_passed:
            ElementTree.SubElement(
                case, "failure", {"message": outcome.sentence, "type": rule.kind}
            )
        else:
            ElementTree.SubElement(case, "system-out").text = outcome.sentence
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def markdown_summary(outcomes: Sequence[Outcome], *, label: str, baseline_label: str | None) -> str:
    """The outcomes as GitHub shows them.

    Args:
        outcomes: The outcomes.
        label: What was measured.
        baseline_label: What the baseline measured; None where there is none.
    """
    num_fallen = sum(not outcome.is_passed for outcome in outcomes)
    verdict = (
        f"❌ {num_fallen} of {len(outcomes)} fell"
        if num_fallen
        else f"✅ all {len(outcomes)} passed"
    )
    lines = [
        f"### ffr gate: {verdict}",
        "",
        markdown_text(label)
        + ("" if baseline_label is None else f" against {markdown_text(baseline_label)}"),
        "",
        "| | rule | value | 95 % interval | baseline | change |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for outcome in outcomes:
        interval = (
            "-"
            if outcome.interval is None
            else f"{outcome.interval[0]:.4f} to {outcome.interval[1]:.4f}"
        )
        lines.append(
            f"| {'✅' if outcome.is_passed else '❌'} | `{outcome.rule}` | {outcome.value:.4f} | "
            f"{interval} | {' | '.join(outcome.against)} |"
        )
    return "\n".join(lines) + "\n"


def _figure(results: Results, name: str, path: str) -> float:
    table = "strict_scores" if name.startswith(STRICT_PREFIX) else "scores"
    scores: Any = results.summary.get(table)
    key = name.removeprefix(STRICT_PREFIX)
    if not isinstance(scores, dict) or key not in scores:
        raise DataError(f"has no figure {name}; evaluate again", where=path)
    value = scores[key]
    if value is None:
        raise UsageError(
            f"{path}: nothing was scored, so {name} was not measured; evaluate on data with true "
            "answers"
        )
    return float(value)


def _interval(results: Results, name: str) -> tuple[float, float] | None:
    table = "strict_scores" if name.startswith(STRICT_PREFIX) else "scores"
    return results.interval(table, name.removeprefix(STRICT_PREFIX))
