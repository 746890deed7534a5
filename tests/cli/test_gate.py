"""`ffr gate` by exit code and text, and the project's own regression on the sample."""

from __future__ import annotations

import dataclasses
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples

BASELINE = (
    Path(__file__).resolve().parent.parent.parent / "benchmarks" / "baselines" / "sample-tiny.json"
)


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def evaluated(sample_home, tmp_path_factory):
    """Results of two baselines on the sample."""
    folder = tmp_path_factory.mktemp("gate")
    for name in ("everything", "overlap"):
        words = (
            "--dataset",
            "sample",
            "--model",
            f"baseline:{name}",
            "--out",
            folder / name,
            "--no-baselines",
        )
        code, text = run("eval", *words)
        assert code == 0, text
    return folder


def test_a_worse_model_falls_before_the_committed_baseline(evaluated):
    code, text = run("gate", evaluated / "everything", "--baseline", BASELINE)
    assert code == 1, text
    assert "FELL: joint_f1 is 0.4251, " in text
    assert "below the baseline's 0.7" in text


def test_passing_and_files(evaluated, tmp_path):
    keep = evaluated / "overlap" / "results.json"
    files = ("--junit", tmp_path / "new" / "gate.xml", "--summary", tmp_path / "gate.md")
    code, text = run("gate", evaluated / "overlap", "--baseline", keep, *files)
    assert code == 0, text
    assert "--max-drop joint_f1=0.01" in text
    assert "Passed: 1 of 1 rules are kept" in text
    assert ElementTree.parse(tmp_path / "new" / "gate.xml").getroot().attrib["failures"] == "0"
    rules = (
        "--max-drop",
        "image_f1=0.02",
        "--max-drop",
        "joint_f1=0.01",
        "--min",
        "utterance_recall=0.9",
    )
    code, text = run("gate", evaluated / "everything", "--baseline", keep, *rules, *files)
    assert code == 0, text
    assert "Passed: 3 of 3 rules are kept" in text
    code, text = run(
        "gate",
        evaluated / "everything",
        "--baseline",
        keep,
        "--min",
        "utterance_precision=0.9",
        *files,
    )
    assert code == 1, text
    assert "FELL: utterance_precision is 0.2588, which is under 0.9" in text
    assert "joint_f1" not in text, "a rule that is given takes the place of the one by default"
    assert ElementTree.parse(tmp_path / "new" / "gate.xml").getroot().attrib["failures"] == "1"
    assert (tmp_path / "gate.md").read_text().count("### ffr gate: ") == 3, (
        "the summary is appended to"
    )


def test_one_command_writes_the_baseline_anew(evaluated, tmp_path):
    keep = tmp_path / "kept" / "baseline.json"
    code, text = run("gate", evaluated / "everything", "--baseline", keep, "--renew")
    assert (code, text) == (0, f"Baseline: {keep}\n")
    content = json.loads(keep.read_text())
    assert content["intervals"] == content["baselines"] == {}
    assert set(content["provenance"]) == {"command", "versions", "sha256"}
    assert "platform" not in content["provenance"]["versions"]
    assert run("gate", evaluated / "everything", "--baseline", keep)[0] == 0
    assert run("gate", evaluated / "overlap", "--baseline", keep)[0] == 1
    code, text = run(
        "gate", evaluated / "overlap", "--baseline", keep, "--renew", "--min", "joint_f1=0.5"
    )
    assert (code, "--renew compares nothing" in text) == (2, True), text
    assert json.loads(keep.read_text()) == content


def test_what_nobody_measured_neither_passes_nor_falls(examples, tmp_path):
    unknown = [dataclasses.replace(example, fragment=None) for example in examples]
    write_examples(tmp_path / "pictures" / "data.jsonl", unknown)
    words = (
        "--dataset",
        tmp_path / "pictures" / "data.jsonl",
        "--model",
        "baseline:overlap",
        "--out",
        tmp_path / "out",
    )
    code, text = run("eval", *words)
    assert code == 0, text
    # the answers in place of tables of nothing
    assert "Nothing was scored: the true answer of 10 queries is unknown." in text
    assert "In percent" not in text
    assert text.splitlines()[-1].startswith("nothing was scored · next: ffr report ")
    assert "0.00" not in text
    assert "Query 0 on d0: talk about lines" in text
    assert "* answered 0 a: line 0 of talk 0" in text
    assert "… and 5 more" in text
    summary = json.loads((tmp_path / "out" / "results.json").read_text())["summary"]
    assert summary["scores"]["joint_f1"] is None
    code, text = run("gate", tmp_path / "out", "--baseline", tmp_path / "out")
    assert code == 2, text
    assert (
        "nothing was scored, so joint_f1 was not measured; evaluate on data with true answers"
        in text
    )
    code, text = run("gate", tmp_path / "out", "--baseline", tmp_path / "kept.json", "--renew")
    assert (code, (tmp_path / "kept.json").exists()) == (2, False), text
    code, text = run("report", tmp_path / "out")
    assert code == 0, text
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'class="tile"' not in page
    assert "<th>F1</th>" not in page
    assert '"opens":"dialogues"' in page


def test_wrong_calls(evaluated, tmp_path):
    keep = evaluated / "overlap" / "results.json"
    code, text = run("gate", evaluated / "overlap", "--baseline", keep, "--min", "joint_fl=0.5")
    assert (code, "no figure 'joint_fl'; did you mean joint_f1?" in text) == (2, True), text
    changed = json.loads(keep.read_text())
    changed["data"]["fingerprint"] = "0" * 64
    del changed["provenance"]["sha256"]
    (tmp_path / "other.json").write_text(json.dumps(changed))
    code, text = run("gate", evaluated / "overlap", "--baseline", tmp_path / "other.json")
    assert (code, "were measured on different data" in text) == (2, True), text
    code, text = run("gate", evaluated / "overlap", "--baseline", tmp_path / "none.json")
    assert (code, "none.json: not found" in text) == (1, True), text
    code, text = run("gate", evaluated / "overlap")
    assert (code, "--baseline FILE is missing" in text) == (2, True), text
    code, text = run("gate", evaluated / "overlap", "--baseline", keep, "--summary", tmp_path)
    assert (code, "cannot be written to" in text) == (1, True), text


@pytest.mark.slow
def test_the_shipped_model_passes_and_a_damaged_one_falls(sample_home, tmp_path):
    """The regression that CI runs.

    Then the same with noise of a tenth of each tensor's spread on the weights.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from ffr.runs import resolve_model

    base = Path(resolve_model("tiny").location)
    damaged = shutil.copytree(base, tmp_path / "damaged")
    chance = torch.Generator().manual_seed(0)
    files = list(damaged.glob("*.safetensors"))
    assert files
    for file in files:
        weights = load_file(file)
        for name, tensor in weights.items():
            if tensor.is_floating_point() and tensor.numel() > 1:
                noise = torch.randn(tensor.shape, generator=chance) * tensor.float().std() * 0.1
                weights[name] = (tensor.float() + noise).to(tensor.dtype)
        save_file(weights, file, metadata={"format": "pt"})
    for model, expected in (("tiny", 0), (damaged, 1)):
        out = tmp_path / f"out{expected}"
        code, text = run(
            "eval", "--dataset", "sample", "--model", model, "--out", out, "--no-baselines"
        )
        assert code == 0, text
        code, text = run("gate", out, "--baseline", BASELINE, "--max-drop", "joint_f1=0.01")
        assert code == expected, text


def test_the_verdict_stands_whole_at_80_columns(evaluated, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rule = (
        "--min",
        "sample_utterance_precision=0.999",
        "--max-drop",
        "strict_sample_utterance_recall=1",
    )
    code, text = run(
        "gate", evaluated / "everything", "--baseline", evaluated / "everything", *rule
    )
    assert code == 1
    fell, passed = (
        next(line for line in text.splitlines() if line.strip().startswith(w))
        for w in ("FELL ", "passed ")
    )
    for line in (fell, passed):
        assert len(line) <= 80
        assert len(line.rsplit(maxsplit=4)) == 5
        # the rule gives way in its middle, its bound and the figures do not
        assert "…" not in " ".join(line.split()[-4:])
    assert "=0.999 " in fell
    assert "=1 " in passed


def test_least_values_alone(evaluated):
    code, text = run("gate", evaluated / "everything", "--min", "utterance_recall=1")
    assert code == 0, text
    assert "Passed: 1 of 1 rules are kept" in text
    code, text = run("gate", evaluated / "everything", "--min", "utterance_f1=0.99")
    assert code == 1
    for words in ([], ["--max-drop", "joint_f1=0.1"], ["--min", "joint_f1=0", "--renew"]):
        code, text = run("gate", evaluated / "everything", *words)
        assert code == 2
        assert "--baseline FILE is missing" in " ".join(text.split())
