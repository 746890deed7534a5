"""`ffr bench` by exit code and text, on the embedded model and the baselines."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from signalled import before, behind, run_signalled

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.suites import archive as archive_module
from ffr.suites import packaged_suites, suite_text
from ffr.suites import run as bench_module


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, ["bench", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def folder(small_sample_home, tmp_path, monkeypatch):
    """A fresh working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(out: Path) -> dict[str, object]:
    """All files of a results folder, without time stamps."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(out))] = path.read_bytes()
            if path.name == "results.json":
                found[str(path.relative_to(out))] = {
                    **json.loads(path.read_text()),
                    **dict.fromkeys(("provenance", "date", "total_evaluation_time_seconds")),
                }
    return found


def test_list_and_show():
    code, text = run("list")
    assert code == 0
    assert [line.split()[0] for line in text.splitlines()] == list(packaged_suites())
    assert "ablation: without the F1 reward" in text
    for name in packaged_suites():
        assert run("show", name) == (0, suite_text(name))
    code, text = run("show", "samples")
    assert code == 2
    assert (
        "there is no suite samples (corpus, memory, paper-ablation, paper-length, paper-main, sample); did you mean sample?"
        in text
    )


def test_the_small_suite_end_to_end(folder):
    code, text = run("run", "sample", "--limit", 6)
    assert code == 0, text
    assert text.startswith(
        "Suite sample: 7 rows on 2 data sets; results folder bench/sample-first-6\n"
    )
    assert "[14/14] word overlap on wechat-sample" in text
    out = Path("bench/sample-first-6")
    assert (out / "table.md").read_text(encoding="utf-8") in text
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * 2 * 4
    assert {row["status"] for row in rows} == {"measured"}
    assert {row["num_answers"] for row in rows} == {"6"}
    # the figures are those of `ffr eval` under the same settings
    words = [
        "--dataset",
        "sample",
        "--model",
        "tiny",
        "--limit",
        "6",
        "--constrained",
        "--out",
        "alone",
        "--no-baselines",
    ]
    assert CliRunner().invoke(ffr, ["eval", *words]).exit_code == 0
    alone = json.loads(Path("alone/results.json").read_text())
    ours = {
        row["figure"]: row
        for row in rows
        if (row["label"], row["setting"], row["dataset"]) == ("tiny", "constrained", "sample")
    }
    for figure in ("utterance_f1", "image_f1", "joint_f1"):
        assert float(ours[figure]["value"]) == alone["summary"]["scores"][figure]
        assert [float(ours[figure][end]) for end in ("low", "high")] == alone["intervals"][
            "scores"
        ][figure]
    assert ours["joint_f1"]["data_fingerprint"] == alone["data"]["fingerprint"]


def test_missing_rows_make_exit_code_1(folder):
    Path("my.yaml").write_text(
        "figures: [joint_f1]\ndatasets: [{dataset: sample, limit: 3}, {label: gone, dataset: mldr}]\n"
        "models: [{model: 'baseline:overlap'}, {label: trained, model: runs/paper/none}]\n"
    )
    code, text = run("run", "my.yaml")
    assert code == 1
    assert "MISSING: the set mldr is not here: fetch it with `ffr data download mldr" in text
    assert "MISSING: runs/paper/none: no such model folder or run" in text
    assert "3 of 4 cells are missing; the table says why" in text
    assert "missing (1)" in Path("bench/my/table.tex").read_text(encoding="utf-8")
    # a row that is there alone is no failure
    code, text = run("run", "my.yaml", "--only", "trained", "--limit", 2)
    assert code == 1
    assert "2 of 4 cells are missing" in text
    code, text = run("run", "my.yaml", "--only", "traind")
    assert code == 2
    assert "--only traind: the suite my has no such row; did you mean trained?" in text


def test_bad_suites_make_exit_code_2(folder):
    for content, sentence in (
        ("figure: [joint_f1]\n", "bad.yaml:1: a suite has no key `figure`; did you mean figures?"),
        ("", "bad.yaml: is empty"),
        ("a: &x [1]\nb: [*x, *x]\n", "bad.yaml:1: an anchor (&x) is not taken; take it out"),
    ):
        Path("bad.yaml").write_text(content)
        code, text = run("run", "bad.yaml")
        assert (code, text.count("\n")) == (2, 1)
        assert sentence in text
    assert not Path("bench").exists()


def test_servers_and_keys_are_told_beforehand(folder, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "secret-word")
    Path("my.yaml").write_text(
        "figures: [joint_f1]\ndatasets: [{dataset: sample, limit: 1}]\n"
        "models: [{label: m, model: 'api:http://127.0.0.1:9/v1#m', settings: {api_key_env: MY_API_KEY, max_retries: 0}}]\n"
    )
    code, text = run("run", "my.yaml")
    assert code == 1
    assert (
        "\nhttp://127.0.0.1:9/v1 is sent the dialogues, and the key in MY_API_KEY where that is set\n"
        in text
    )
    assert "MISSING: " in text
    assert not any(
        b"secret-word" in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )


def test_ctrl_c_says_how_to_go_on(folder, monkeypatch):
    real, calls = bench_module.evaluate, []

    def evaluate(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    words = ("run", "sample", "--limit", 2, "--only", "everything", "--only", "nothing", "--out")
    assert run(*words, "whole")[0] == 0
    monkeypatch.setattr(bench_module, "evaluate", evaluate)
    code, text = run(*words, "out")
    assert code == 130
    assert text.endswith("Stopped; the same command goes on from here.\n")
    assert "…" in Path("out/table.md").read_text(encoding="utf-8")
    assert run(*words, "out")[0] == 0
    assert outcome(Path("out")) == outcome(Path("whole"))


@pytest.mark.slow
def test_killed_at_any_moment_and_taken_up(folder):
    """The same files as without a kill: killed between batches, before a batch is written, before answers are put in order,
    before results, and before the table."""
    suite = yaml.safe_load(suite_text("sample"))
    suite["models"], suite["datasets"] = suite["models"][:2], suite["datasets"][:1]
    limit = 12
    for dataset in suite["datasets"]:
        dataset["limit"] = limit
    suite["models"][0]["settings"] = {
        "batch_tokens": 1
    }  # one query a batch, so that kills come between batches
    Path("my.yaml").write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "ffr.cli.main", "bench", "run", "my.yaml", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "whole"], check=True, **quiet)
    log = "ffr.retrieval.answer_log:AnswerLog"

    def num_answers() -> int:
        return sum(
            path.read_bytes().count(b"\n") for path in Path("out").rglob("predictions.jsonl")
        )

    found = [0]
    for event in (
        behind(f"{log}.append", 1),
        before(f"{log}.append", 2),  # one more batch
        before(f"{log}.finish", 1),
        before("ffr.evaluation.results:Results.save", 1),
        before("ffr.suites.run:_write", 1),
        behind(f"{log}.append", 1),  # the second row's first batch
    ):
        assert (
            run_signalled(["bench", "run", "my.yaml", "--out", "out"], event, signal.SIGKILL)
            == -signal.SIGKILL
        )
        found.append(num_answers())
    assert found[0] < found[1] < found[2] < limit
    assert found[3:6] == [limit] * 3
    assert limit < found[6] <= 2 * limit
    subprocess.run([*command, "out"], check=True, **quiet)
    assert outcome(Path("out")) == outcome(Path("whole"))


BUS = Dialogue.of([("a", "the bus was late"), ("b", "again"), ("a", "it always is")], id="bus")
CAT = Dialogue.of([("a", "the cat sleeps"), ("b", "good cat")], id="cat")
ARCHIVE = """\
asks: archive
figures: [recall_at_1, utterance_f1, known_utterance_f1, wrong]
slices: [one dialogue, absent]
models:
  - {label: words, model: "baseline:overlap", ways: [words]}
  - {label: all ways, model: "baseline:overlap"}
"""


@pytest.fixture
def archive(folder):
    """A suite that asks an archive, on two dialogues; its options."""
    own = {"query_kind": "own"}
    write_examples(
        Path("asked.jsonl"),
        [
            Example(BUS, "late", Fragment((0,)), meta=own),
            Example(BUS, "cat", Fragment(), meta={"query_kind": "absent"}),
        ],
    )
    write_examples(Path("more.jsonl"), [Example(CAT, "cats", Fragment((0, 1)), meta=own)])
    Path("my.yaml").write_text(ARCHIVE)
    return "run", "my.yaml", "--data", "mine=asked.jsonl", "--corpus", "mine=more.jsonl"


def without_archive(out: Path) -> dict[str, object]:
    return {name: value for name, value in outcome(out).items() if "archives" not in name}


def test_a_suite_that_asks_an_archive(archive):
    code, text = run(*archive, "--specific", "own")
    assert code == 0, text
    out = Path("bench/my")
    assert (out / "table.md").read_text(encoding="utf-8") in text
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [row["value"] for row in rows if row["slice"] == "one dialogue"]
    assert own == ["1.0"] * 3 + ["0.0"] + ["1.0"] * 3 + ["0.0"]
    # of another dialogue than its own something is found
    absent = [row["value"] for row in rows if row["slice"] == "absent"]
    assert absent == ["", "0.0", "1.0", "1.0"] * 2
    # one archive for all rows
    assert [path.name for path in (out / "archives").iterdir()] == ["mine"]
    # the figures are those of `ffr eval`, asked of an archive that was made there
    words = ["--dataset", "asked.jsonl", "--corpus", "more.jsonl", "--model", "baseline:overlap"]
    words += ["--specific", "own", "--ways", "words", "--index", out / "archives" / "mine"]
    done = CliRunner().invoke(ffr, ["eval", *map(str, words), "--out", "alone"])
    assert done.exit_code == 0, done.output
    alone = json.loads(Path("alone/results.json").read_text())
    ours = json.loads((out / "cells" / "words" / "mine" / "results.json").read_text())
    assert ours["summary"]["archive"] == alone["summary"]["archive"]
    # the same command asks nothing anew, and an archive that lies elsewhere gives the same
    assert run(*archive, "--specific", "own")[0] == 0
    again = json.loads((out / "cells" / "words" / "mine" / "results.json").read_text())
    assert again["provenance"]["num_answers_resumed"] == 2
    where = ("--index", out / "archives" / "mine", "--out", "other")
    assert run(*archive, "--specific", "own", *where)[0] == 0
    assert without_archive(Path("other")) == without_archive(out)
    assert not Path("other/archives").exists()


def test_archives_are_stopped_and_taken_up(archive, monkeypatch):
    assert run(*archive, "--out", "whole")[0] == 0
    real, calls = archive_module.evaluate_in_archive, []

    def evaluate(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(archive_module, "evaluate_in_archive", evaluate)
    code, text = run(*archive, "--out", "out")
    assert (code, "Stopped; the same command goes on" in text) == (130, True)
    assert run(*archive, "--out", "out")[0] == 0
    assert without_archive(Path("out")) == without_archive(Path("whole"))


def test_what_an_archive_lacks_is_said(archive):
    for options, sentence in (
        (["--trust-remote-code"], "--trust-remote-code has no effect where a whole archive is"),
        (["--data", "b=asked.jsonl"], "the suite my asks an archive; add --corpus b=FILE"),
        (
            ["--data", "b=asked.jsonl", "--corpus", "b=more.jsonl", "--index", "x"],
            "--index x is one archive, and each of the 2 data sets of my has its own; leave it out",
        ),
    ):
        code, text = run(*archive, *options)
        assert (code, sentence in text) == (2, True), text
    code, text = run("run", "sample", "--index", "x")
    assert (code, "--index x: the suite sample asks no archive; leave it out" in text) == (2, True)
    # what cannot be measured stands in the table
    write_examples(Path("asked.jsonl"), [Example(BUS, "late")])
    code, text = run(*archive)
    assert code == 1
    assert text.count("MISSING: the query 'late' on dialogue 'bus' has no true answer") == 2
