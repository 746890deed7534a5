"""A new figure is one file and two lines, and then stands in every table: done in a copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent

IOU = '''"""Intersection over union: the share of the ids named by either list that both name."""

from ffr.metrics.functional.figure import Array, Figure, divide


def iou(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    """TP / (TP + FP + FN)."""
    return divide(tp, tp + fp + fn)


IOU = Figure("iou", "IoU", "IoU", iou)
'''
IMPORT = (
    "from ffr.metrics.functional import ratios\n",
    "from ffr.metrics.functional.iou import IOU\n",
)
ENTRY = ("    ratios.MCC,\n", "    IOU,\n")

TRIED = """
import csv, json, math
from pathlib import Path

from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance


def run(*words):
    done = CliRunner().invoke(ffr, list(words), env={"COLUMNS": "160"})
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


lines = tuple(Utterance("a", (f"line {index}",)) for index in range(3))
chats = [Dialogue(str(number), (*lines, Utterance("b", (f"only {number}",)))) for number in range(3)]
write_examples("data.jsonl", [Example(chat, "which lines", Fragment((0,))) for chat in chats])
shown = run("eval", "--model", "baseline:everything", "--dataset", "data.jsonl", "--out", "a", "--no-baselines")
assert shown.count("IoU") == 3, shown
content = json.loads(Path("a/results.json").read_text())
# one of four lines is true and all are named
assert content["summary"]["scores"]["utterance_iou"] == 0.25
assert content["summary"]["scores"]["sample_utterance_iou"] == 0.25
assert content["summary"]["scores"]["joint_iou"] == 0.125
assert content["summary"]["strict_scores"]["joint_iou"] == 0.125
assert content["summary"]["by_length"]["<35"]["strict_joint_iou"] == 0.125
assert content["intervals"]["scores"]["utterance_iou"] == [0.25, 0.25]
run("eval", "--model", "baseline:nothing", "--dataset", "data.jsonl", "--out", "b", "--no-baselines")
run("report", "a")
page = Path("a/report.html").read_text()
assert page.count("<th>IoU</th>") == 3
assert '<td class=\"best\">12.50<small>12.5–12.5</small></td></tr>' in page  # joint is last
assert "utterance_iou" in run("compare", "b", "a", "--changed", "0")
compared = json.loads(run("compare", "b", "a", "--json"))["comparisons"][0]["figures"]
assert compared["strict_sample_image_iou"]["difference"] == 0
assert compared["utterance_iou"]["difference"] == 0.25
assert "0.2500" in run("gate", "a", "--baseline", "b", "--min", "utterance_iou=0.25")
Path("suite.yaml").write_text(
    "figures: [utterance_iou]\\ndatasets: [{label: A, dataset: data.jsonl}]\\n"
    "models: [{label: m, model: 'baseline:everything'}]\\n"
)
assert "A: utterance IoU" in run("bench", "run", "suite.yaml", "--out", "o", "--no-progress")
(row,) = csv.DictReader(Path("o/table.csv").open())
assert (row["figure"], row["value"]) == ("utterance_iou", "0.25")

import torch

from ffr.metrics import FragmentScores

metric = FragmentScores()
metric.update([((0, 1), ())], [((1, 2), ())], num_utterances=[4], num_images=[0])
assert math.isclose(metric.compute()["utterance_iou"], 1 / 3, rel_tol=1e-6)

# what an ffr without the figure wrote is refused in a sentence
del content["summary"]["scores"]["joint_iou"]
Path("a/results.json").write_text(json.dumps(content))
for words in (["report", "a"], ["compare", "b", "a"], ["gate", "a", "--baseline", "b"], ["show", "a", "--id", "0"]):
    done = CliRunner().invoke(ffr, words)
    assert done.exit_code == 1, words
    assert "lacks the figure joint_iou, which this ffr reports; evaluate again" in done.output, done.output
print("found everywhere")
"""


@pytest.mark.slow
def test_one_file_and_two_lines(tmp_path):
    site = tmp_path / "site"
    shutil.copytree(REPOSITORY / "ffr", site / "ffr", ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("cli", "metrics", "exports"):
        shutil.copytree(
            REPOSITORY / part, site / "ffr" / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    functional = site / "ffr" / "metrics" / "functional"
    (functional / "iou.py").write_text(IOU)
    table = (functional / "figures.py").read_text()
    for before, line in (IMPORT, ENTRY):
        assert table.count(before) == 1
        table = table.replace(before, before + line)
    (functional / "figures.py").write_text(table)
    done = subprocess.run(
        [sys.executable, "-c", TRIED],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(site),
            "PATH": "",
            "FFR_DATA_HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "found everywhere\n", done.stderr
