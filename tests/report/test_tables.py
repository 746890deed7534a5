"""The table of a result on a screen of 80 columns, and the line that it ends with."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.metrics.functional.figures import figure_names
from ffr.report.tables import headline, print_report
from ffr.retrieval.lexical import BaselineRetriever
from ffr.terminal import Label, PlainConsole


def measured(folder: Path, *, has_pictures: bool) -> Results:
    """`everything`, beside the three other baselines, on three dialogues of four lines."""
    examples = []
    for number in range(3):
        lines = [Utterance("a", (f"line {index} of {number}",)) for index in range(3)]
        picture = Utterance("b", (Image(f"{number}.png"),))
        images = (0,) if has_pictures else ()
        examples.append(
            Example(
                Dialogue(f"d{number}", (*lines, picture)), f"of {number}", Fragment((0, 3), images)
            )
        )
    return evaluate(examples, BaselineRetriever("everything"), folder, dataset="made")


def shown(
    results: Results, width: int, monkeypatch: pytest.MonkeyPatch, *, with_slices: bool = False
) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    console = PlainConsole()
    console.file = io.StringIO()
    print_report(results, console, with_slices=with_slices)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_labels_give_way_and_figures_never(tmp_path, monkeypatch, width):
    results = measured(tmp_path, has_pictures=True)
    results.model["label"] = "embedding:/a/very/long/path/" + "deep/" * 20 + "to/the/model"
    for name in figure_names():
        results.summary["scores"][name] = 1.0  # as wide as a figure gets
    for summary in results.baselines.values():
        summary["scores"] |= {
            name: -0.1234 if "mcc" in name else 0.987654 for name in figure_names()
        }
    text = shown(results, width, monkeypatch)
    rows = [line for line in text.splitlines() if "model" in line and "100" in line]
    assert len(rows) == 1
    assert max(map(len, text.splitlines()[:9])) <= width
    assert re.findall(r"\S+", rows[0])[-12:] == ["100"] * 12
    last = r"98\.8 +-12\.3" if width == 80 else r"98\.77 +-12\.34"
    kept = [
        line
        for line in text.splitlines()
        if re.search(rf"(?:everything|nothing|random-third|overlap|bm25) .*{last} *$", line)
    ]
    assert len(kept) == len(results.baselines)


def test_one_table_and_slices_on_demand(tmp_path, monkeypatch):
    results = measured(tmp_path, has_pictures=True)
    plain, sliced = (
        shown(results, 80, monkeypatch, with_slices=wanted) for wanted in (False, True)
    )
    assert "In percent; bold: the best of a column" in plain
    assert "length <35" not in plain
    assert "length <35" in sliced
    assert "Joint F1 by turns" in sliced
    assert "…" not in sliced


def test_the_best_of_a_column_is_bold(tmp_path, monkeypatch):
    results = measured(tmp_path, has_pictures=True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    text = shown(results, 80, monkeypatch)
    line = next(line for line in text.splitlines() if "everything" in line and "100" in line)
    # all is found, so recall is the best there is; four lines for two true ones: precision is 50
    assert "\x1b[1m100\x1b[0m" in line


def test_the_last_line_says_what_came_out(tmp_path):
    results = measured(tmp_path / "pictures", has_pictures=True)
    # utterances: 2 of 4 right, all found: 2/3; images 1; joint F1 is their mean
    line = headline(results, "ffr report out")
    assert re.fullmatch(
        r"joint F1 83\.3 \(83\.3–83\.3\), equal to the best baseline overlap 83\.3 · next: ffr report out",
        line,
    )
    bare = measured(tmp_path / "bare", has_pictures=False)
    assert headline(bare, "x").startswith("utterance F1 66.7 (66.7–66.7), ")
    bare.baselines.clear()
    assert headline(bare, "x") == "utterance F1 66.7 (66.7–66.7) · next: x"
    bare.summary["scores"]["utterance_f1"] = None
    assert headline(bare, "x") == "nothing was scored · next: x"


def test_a_label_keeps_its_beginning_and_its_end():
    assert Label("short").within(8) == "short"
    assert Label("a/long/path/to/model").within(12) == "a/l…to/model"
    assert Label("模型模型模型模型").within(8) == "模…模型"
