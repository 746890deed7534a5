"""Tables of benches, as they are written, against results that were made by hand."""

from __future__ import annotations

import csv
import io
import json

import pytest

from ffr.evaluation.results import Results
from ffr.markup import latex_text, markdown_text
from ffr.suites.suite import read_suite
from ffr.suites.table import Bench, Cell, columns, notes
from ffr.suites.written import bench_json, csv_table, latex_table, markdown_table

TEXT = """\
title: 50 % of "it" & more
figures: [joint_f1, strict_joint_f1]
slices: [all, by_length]
datasets:
  - {label: A_1, dataset: a.jsonl}
models:
  - {group: Old | new, label: m#1, model: tiny}
  - {group: Old | new, label: m2, model: tiny}
  - {group: Others, label: m3, model: tiny}
  - {group: Others, label: paper, reported: {A_1: {joint_f1: 87.25}}}
"""


def made(
    f1: float, *, short: float | None = None, fingerprint: str = "f" * 64, interval=(0.25, 0.75)
) -> Results:
    """Results with one figure in the whole and, where `short` says so, in the slice of short dialogues."""
    nothing = {"num_answers": 0, "num_dialogues": 0, "joint_f1": None, "strict_joint_f1": None}
    slices = dict.fromkeys(("<35", "35-65", ">65"), nothing)
    spans: dict[str, object] = dict.fromkeys(slices)
    if short is not None:
        slices["<35"] = {
            "num_answers": 2,
            "num_dialogues": 2,
            "joint_f1": short,
            "strict_joint_f1": short / 2,
        }
        spans["<35"] = {"joint_f1": [0.125, 0.5], "strict_joint_f1": [0.0, 0.25]}
    return Results(
        model={"label": "m", "kind": "vlm"},
        data={
            "dataset": "a.jsonl",
            "fingerprint": fingerprint,
            "num_examples": 4,
            "num_left_out": 1,
        },
        settings={},
        summary={
            "answers": {"num_scored": 4, "num_dialogues": 3},
            "scores": {"joint_f1": f1},
            "strict_scores": {"joint_f1": f1 / 2},
            "by_length": slices,
        },
        intervals={
            "scores": interval and {"joint_f1": list(interval)},
            "strict_scores": None,
            "by_length": spans,
        },
    )


def table_of(*cells: Cell, text: str = TEXT) -> Bench:
    suite = read_suite(text, name="t", where="t.yaml")
    return Bench(
        suite, {(row.label, "A_1"): cell for row, cell in zip(suite.rows, cells, strict=True)}
    )


@pytest.fixture
def table():
    return table_of(
        Cell("measured", made(0.5, short=0.25)),
        Cell("earlier", made(0.625, interval=None)),
        Cell("missing", reason="no such model_folder"),
        Cell("reported"),
    )


def markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.replace(r"\|", "¦").strip("|").split("|")] for line in lines
    ]


def test_markdown(table):
    text = markdown_table(table)
    assert text.startswith('# 50 % of "it" \\& more\n\n|')
    header, rule, *rows = markdown_rows(text)
    assert header[:5] == [
        "kind",
        "model",
        r"A\_1: joint F1",
        r"A\_1: strict joint F1",
        r"A\_1, length \<35: joint F1",
    ]
    assert len(header) == 2 + 2 * 4
    assert {cell[-1] for cell in rule[2:]} == {":"}
    empty = ["-"] * 4
    assert rows == [
        [
            "Old ¦ new",
            "m#1",
            "50.00 (25.0–75.0)",
            "25.00",
            "25.00 (12.5–50.0)",
            "12.50 (0.0–25.0)",
            *empty,
        ],
        ["Old ¦ new", "m2", r"**62.50**\*", r"**31.25**\*", "-", "-", *empty],
        ["Others", "m3", *["missing (1)"] * 8],
        ["Others", "paper", "87.25†", *["-"] * 7],
    ]
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1
    assert "\n- (1) missing: no such model\\_folder\n" in text
    assert (
        "- A\\_1: the 4 queries on 3 dialogues of a.jsonl, fingerprint ffffffffffff, 1 bad record left out.\n"
        in text
    )


def test_cells_with_queries_that_failed_are_marked():
    results = made(0.5)
    results.summary["answers"]["num_failed"] = 2
    table = table_of(
        Cell("measured", results), Cell("earlier", results), Cell("waiting"), Cell("reported")
    )
    words = (
        "‡: with queries that could not be answered, which count as wrong and are asked again by "
        "the same command (m#1 on A_1 2, m2 on A_1 2)."
    )
    assert words in notes(table)
    rows = markdown_rows(markdown_table(table))[2:]
    assert [row[2] for row in rows] == [
        "**50.00**‡ (25.0–75.0)",
        r"**50.00**\*‡ (25.0–75.0)",
        "…",
        "87.25†",
    ]
    assert r"\rlap{\textsuperscript{*‡}}" in latex_table(table)
    lines = list(csv.DictReader(io.StringIO(csv_table(table))))
    assert {line["label"]: line["num_failed"] for line in lines} == {
        "m#1": "2",
        "m2": "2",
        "m3": "",
        "paper": "",
    }
    assert [row["cells"][0].get("num_failed") for row in bench_json(table)["rows"]] == [
        2,
        2,
        None,
        None,
    ]


def test_best_is_told_among_the_same_data_only(table):
    assert "Bold: the best measured on the same data." in notes(table)
    # one measured row is not the best of anything
    alone = table_of(Cell("measured", made(0.5)), *[Cell("waiting")] * 2, Cell("reported"))
    assert "**" not in markdown_table(alone)
    assert markdown_rows(markdown_table(alone))[3][2:] == ["…"] * 8
    # equally good ones are both
    even = table_of(
        Cell("measured", made(0.5)), Cell("measured", made(0.5)), Cell("waiting"), Cell("reported")
    )
    assert markdown_table(even).count("**50.00**") == 2
    other = table_of(
        Cell("measured", made(0.5)),
        Cell("earlier", made(0.75, fingerprint="e" * 64)),
        Cell("waiting"),
        Cell("reported"),
    )
    text = markdown_table(other)
    assert "**50.00" not in text
    assert "**75.00" not in text
    assert (
        "- **A\\_1: its figures were measured on different data (fingerprints eeeeeeeeeeee, ffffffffffff), so none is marked "
        "as best; measure all rows again.**\n"
    ) in text
    assert r"\textbf" not in latex_table(other)
    assert bench_json(other)["warnings"] == other.warnings() != []
    assert bench_json(table)["warnings"] == []


def test_latex(table):
    text = latex_table(table)
    for line in (
        r"  \caption{50 \% of \textquotedbl{}it\textquotedbl{} \& more}",
        r"  \label{tab:t}",
        r"  \begin{tabular}{lrrrrrrrr}",
        r"     & \multicolumn{2}{c}{A\_1} & \multicolumn{2}{c}{A\_1, length \textless{}35} & "
        r"\multicolumn{2}{c}{A\_1, length 35-65} & \multicolumn{2}{c}{A\_1, length \textgreater{}65} \\",
        r"    \cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7} \cmidrule(lr){8-9}",
        r"    Model & joint F1 & strict joint F1 & joint F1 & strict joint F1 & joint F1 & strict joint F1 & joint F1 & strict joint F1 \\",
        r"    \multicolumn{9}{l}{\textit{Old \textbar{} new}} \\",
        r"    m\#1 & 50.00 {\scriptsize (25.0--75.0)} & 25.00 & 25.00 {\scriptsize (12.5--50.0)} & 12.50 {\scriptsize (0.0--25.0)}"
        r" & -- & -- & -- & -- \\",
        r"    m2 & \textbf{62.50}\rlap{\textsuperscript{*}} & \textbf{31.25}\rlap{\textsuperscript{*}} & -- & -- & -- & -- & -- & -- \\",
        r"    paper & 87.25\rlap{\textsuperscript{\dag{}}} & -- & -- & -- & -- & -- & -- & -- \\",
        r"  (1) missing: no such model\_folder\par",
    ):
        assert line in text.splitlines()
    assert text.count(r"\midrule") == 2
    assert [text.count(f"{word}{{table}}") for word in (r"\begin", r"\end")] == [1, 1]
    assert text.count("{") == text.count("}") + text.count(r"\{") - text.count(r"\}")


@pytest.mark.parametrize(
    ("text", "latex", "markdown"),
    [
        ("a_b", r"a\_b", r"a\_b"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}", r"\\input{/etc/passwd}"),
        ("$x^2$ ~ 5%", r"\$x\textasciicircum{}2\$ \textasciitilde{} 5\%", r"$x^2$ \~ 5%"),
        ("a\n  b & #c", r"a b \& \#c", r"a b \& #c"),
        (
            "<b>|</b>",
            r"\textless{}b\textgreater{}\textbar{}\textless{}/b\textgreater{}",
            r"\<b\>\|\</b\>",
        ),
        ("why?`so", "why?{}`so", r"why?\`so"),
        ("[x](y) **z**", "[x](y) **z**", r"\[x\](y) \*\*z\*\*"),
        ("- a", "- a", r"\- a"),
        ("12. a", "12. a", r"12\. a"),
        ("对话", "对话", "对话"),
    ],
)
def test_escapes(text, latex, markdown):
    assert latex_text(text) == latex
    assert markdown_text(text) == markdown


def test_csv(table):
    rows = list(csv.DictReader(io.StringIO(csv_table(table))))
    assert len(rows) == 3 * 8 + 1  # of the reported row only what is reported
    first = rows[0]
    expected = {
        "group": "Old | new", "label": "m#1", "setting": "", "model": "tiny", "dataset": "A_1", "split": "val", "slice": "all",
        "figure": "joint_f1", "value": "0.5", "low": "0.25", "high": "0.75", "num_answers": "4", "is_best": "0",
        "status": "measured", "reason": "", "data_fingerprint": "f" * 64,
        "num_failed": "0",
    }  # fmt: skip
    assert first == expected
    by_key = {(row["label"], row["slice"], row["figure"]): row for row in rows}
    short = by_key["m#1", "by_length <35", "strict_joint_f1"]
    assert [short[name] for name in ("value", "low", "high", "num_answers")] == [
        "0.125",
        "0.0",
        "0.25",
        "2",
    ]
    best = by_key["m2", "all", "joint_f1"]
    assert [best[name] for name in ("value", "low", "is_best", "status")] == [
        "0.625",
        "",
        "1",
        "earlier",
    ]
    gone = by_key["m3", "all", "joint_f1"]
    assert [gone[name] for name in ("value", "status", "reason")] == [
        "",
        "missing",
        "no such model_folder",
    ]
    assert by_key["paper", "all", "joint_f1"]["value"] == "0.8725"


def test_json(table):
    found = bench_json(table)
    assert json.loads(json.dumps(found, allow_nan=False))["num_missing"] == 1
    assert found["suite"]["fingerprint"] == table.suite.fingerprint
    cell = found["rows"][0]["cells"][0]
    assert cell["settings"]["max_new_tokens"] == 512
    assert cell["data"]["fingerprint"] == "f" * 64
    assert cell["figures"][0] == {
        "slice": "all", "figure": "joint_f1", "share": 0.5, "interval": (0.25, 0.75), "num_answers": 4, "is_reported": False,
        "is_best": False,
    }  # fmt: skip
    # what was not measured is null: no dialogue of 65 turns
    assert cell["figures"][6] == {"slice": "by_length >65", "figure": "joint_f1", "share": None}
    assert [len(row["cells"][0]["figures"]) for row in found["rows"]] == [8, 8, 0, 1]


def test_no_cell_of_the_csv_is_a_formula():
    text = TEXT.replace("label: m#1", 'label: "=cmd|A0"').replace("group: Old | new", 'group: "@x"')
    table = table_of(Cell("missing", reason="+1"), *[Cell("waiting")] * 3, text=text)
    row = next(csv.DictReader(io.StringIO(csv_table(table))))
    assert (row["label"], row["group"], row["reason"]) == ("'=cmd|A0", "'@x", "'+1")


def test_columns_go_by_data_part_and_figure():
    suite = table_of(*[Cell("waiting")] * 4).suite
    assert [(column.name, column.figure_words) for column in columns(suite)][:4] == [
        ("all", "joint F1"),
        ("all", "strict joint F1"),
        ("<35", "joint F1"),
        ("<35", "strict joint F1"),
    ]


ARCHIVE = """\
asks: archive
figures: [recall_at_1, wrong]
slices: [one dialogue, absent]
datasets:
  - {label: A, dataset: a.jsonl, corpus: c.jsonl}
models:
  - {label: words, model: none, ways: [words]}
  - {label: all, model: none}
  - {label: paper, reported: {A: {recall_at_1: 12.5}}}
"""


def of_archive(recall: float, wrong: float, archive: str = "c" * 64) -> Results:
    """Results of a search of an archive: four queries that mean one dialogue, and one that none does."""
    found = made(0.5)
    found.model |= {"fingerprint": archive, "num_dialogues": 7}
    one = {"recall_at_1": recall, "wrong": wrong}
    found.summary["archive"] = {
        "groups": {
            "one dialogue": {
                "num_queries": 4,
                "figures": one,
                "intervals": {"recall_at_1": [0.25, 0.75], "wrong": None},
            },
            "absent": {
                "num_queries": 1,
                "figures": {"recall_at_1": None, "wrong": 1.0},
                "intervals": {"recall_at_1": None, "wrong": None},
            },
        }
    }
    return found


def archive_bench(*found: Results) -> Bench:
    suite = read_suite(ARCHIVE, name="t", where="t.yaml")
    cells = [*(Cell("measured", results) for results in found), Cell("reported")]
    return Bench(
        suite, {(row.label, "A"): cell for row, cell in zip(suite.rows, cells, strict=True)}
    )


def test_an_archive_has_a_table_for_each_group_of_queries():
    bench = archive_bench(of_archive(0.5, 0.25), of_archive(0.75, 0.5))
    text = markdown_table(bench)
    assert text.index("## A, one dialogue") < text.index("## A, absent")
    header, _, words, everything, paper = markdown_rows(text)[:5]
    assert header == ["model", "recall@1", "wrong"]
    assert words == ["words", "50.00 (25.0–75.0)", "25.00"]
    # more of what is wrong is not better
    assert everything == ["all", "**75.00** (25.0–75.0)", "50.00"]
    assert paper == ["paper", "12.50†", "-"]
    assert markdown_rows(text)[7:] == [
        ["words", "-", "100.00"],
        ["all", "-", "100.00"],
        ["paper", "-", "-"],
    ]
    assert (
        "asked of 7 dialogues, those of c.jsonl among them, fingerprint cccccccccccc "
        "(queries by what they mean: 4 one dialogue, 1 absent)" in text
    )
    assert latex_table(bench).count(r"\begin{tabular}") == 2
    assert r"\multicolumn{2}{c}{A, absent}" in latex_table(bench)
    rows = list(csv.DictReader(io.StringIO(csv_table(bench))))
    assert [(row["slice"], row["value"], row["num_answers"]) for row in rows[:4]] == [
        ("one dialogue", "0.5", "4"),
        ("one dialogue", "0.25", "4"),
        ("absent", "", ""),
        ("absent", "1.0", "1"),
    ]
    (cell, *_) = bench_json(bench)["rows"][0]["cells"]
    assert cell["figures"][2] == {"slice": "absent", "figure": "recall_at_1", "share": None}


def test_other_archives_are_not_compared():
    text = markdown_table(archive_bench(of_archive(0.5, 0), of_archive(0.75, 0, "d" * 64)))
    assert "**75.00**" not in text
    assert "different data (fingerprints ffffffffffff in cccccccccccc, ffffffffffff in" in text
