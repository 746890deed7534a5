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
        "there is no suite samples (memory, paper-ablation, paper-length, paper-main, sample); did you mean sample?"
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
