"""Suites that are run, stopped, taken up and run in part."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from ffr.data.forms.formats import write_examples
from ffr.errors import UsageError
from ffr.evaluation import run as run_module
from ffr.evaluation.bootstrap import interval_table
from ffr.evaluation.results import Results
from ffr.retrieval.opening import OpenRetriever
from ffr.suites import run as bench_module
from ffr.suites.run import TABLE_FILES, cell_folder, run_suite
from ffr.suites.suite import read_suite

RUN = """\
figures: [utterance_f1, joint_f1]
seed: 3
settings: [{label: whole}, {label: cut, window: 50, overlap: 2}]
datasets:
  - {label: made, dataset: data.jsonl, image_root: pictures}
  - {label: first four, dataset: data.jsonl, image_root: pictures, limit: 4}
models:
  - {label: fake, model: tiny}
  - {label: random, model: "baseline:random-third"}
"""


@pytest.fixture
def suite(examples, tmp_path, monkeypatch):
    """A suite over ten queries on five dialogues; the working folder is a fresh one, and intervals are coarse for speed."""
    monkeypatch.setattr(
        run_module, "interval_table", functools.partial(interval_table, num_resamples=50)
    )
    write_examples(tmp_path / "data.jsonl", examples)
    monkeypatch.chdir(tmp_path)
    return read_suite(RUN, name="run", where="run.yaml")


@pytest.fixture
def fakes(monkeypatch, fake_retriever):
    """`tiny` is answered by fakes of these arguments, one a row; what was made of them comes back."""
    arguments: list[dict[str, object]] = []
    opened: list[object] = []
    real = bench_module.open_model

    def open_model(choice, settings, **options):
        if choice.kind != "vlm":
            return real(choice, settings, **options)
        opened.append(fake_retriever(**(arguments.pop(0) if arguments else {})))
        return OpenRetriever(opened[-1], takes_images=True)

    monkeypatch.setattr(bench_module, "open_model", open_model)
    return arguments, opened


def files(out):
    """All files of a results folder without their time stamps."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "results.json":
                parsed = json.loads(content)
                for name in ("provenance", "date", "total_evaluation_time_seconds"):
                    parsed.pop(name, None)
                content = json.dumps(parsed).encode()
            found[str(path.relative_to(out))] = content
    return found


def test_a_suite_from_start_to_finish(suite, fakes, tmp_path):
    said = []
    done = run_suite(suite, tmp_path / "out", say=said.append)
    assert [line for line in said if line.startswith("[")] == [
        "[1/8] fake, whole on made", "[2/8] fake, whole on first four", "[3/8] fake, cut on made", "[4/8] fake, cut on first four",
        "[5/8] random, whole on made", "[6/8] random, whole on first four", "[7/8] random, cut on made",
        "[8/8] random, cut on first four",
    ]  # fmt: skip
    assert done.num_of("measured") == 8
    assert len(fakes[1]) == 2  # one a row, for both data sets
    for row in suite.rows:
        for dataset, number in zip(suite.datasets, (10, 4), strict=True):
            results = Results.load(cell_folder(tmp_path / "out", row, dataset))
            assert results.data["num_examples"] == number
            assert results.settings["seed"] == 3
            assert results.baselines == {}
            figure = results.summary["scores"]["joint_f1"]
            assert f"{100 * figure:.2f}" in (tmp_path / "out" / "table.md").read_text(
                encoding="utf-8"
            )
    again = run_suite(suite, tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "out")
    assert again.cells.keys() == done.cells.keys()


@pytest.mark.parametrize("num_batches", [0, 2, 5])
def test_stopped_and_taken_up(suite, fakes, tmp_path, num_batches):
    run_suite(suite, tmp_path / "whole")
    arguments, opened = fakes
    opened.clear()
    arguments.append({"stop_after": num_batches})
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path / "out")
    assert len(opened) == 1
    if num_batches == 5:  # the first cell has four batches: the table knows it already
        table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
        assert table.count("…") > 1
    run_suite(suite, tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    # nothing is asked twice: ten and four queries, less what the first call has written down
    assert opened[1].num_asked == 14 - opened[0].num_asked
    num_asked = [fake.num_asked for fake in opened[1:]]
    run_suite(suite, tmp_path / "out")
    assert [fake.num_asked for fake in opened[1:]] == [*num_asked, 0, 0]


def test_other_settings_and_data_are_not_taken_for_done(suite, fakes, examples, tmp_path):
    out = tmp_path / "out"
    run_suite(suite, out)
    fakes[0].append({"flavour": "another"})
    done = run_suite(suite, out, only=["fake, whole"])
    cell = done.cells["fake, whole", "made"]
    assert cell.status == "missing"
    assert (
        "holds an evaluation that differs in model flavour; pass another --out, or delete the folder"
        in cell.reason
    )
    write_examples(tmp_path / "data.jsonl", examples[:8])
    done = run_suite(suite, out, only=["random"])
    assert "differs in data_fingerprint" in done.cells["random, whole", "made"].reason
    assert done.cells["random, whole", "first four"].status == "measured"


def test_what_is_missing_does_not_sink_the_rest(suite, fakes, tmp_path):
    text = RUN + "  - {label: gone, model: ./runs/nowhere}\n"
    text = text.replace("models:", "  - {label: absent, dataset: nothing.jsonl}\nmodels:")
    bad = read_suite(text, name="run", where="run.yaml")
    said = []
    done = run_suite(bad, tmp_path / "out", say=said.append)
    status = {key: cell.status for key, cell in done.cells.items()}
    missing = {key for key, value in status.items() if value == "missing"}
    assert missing == {(row.label, data.label) for row in bad.rows for data in bad.datasets
                       if row.model.label == "gone" or data.label == "absent"}  # fmt: skip
    assert done.num_of("measured") == 8
    assert done.cells["gone, whole", "made"].reason.startswith(
        "./runs/nowhere: no such model folder or run"
    )
    assert done.cells["fake, cut", "absent"].reason.startswith(
        "no data file or set 'nothing.jsonl'"
    )
    assert sum(line.startswith("MISSING: ") for line in said) == len(missing) == 10
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["num_missing"] == 10
    assert content["versions"]["torch"]
    assert content["suite"]["seed"] == 3


def test_a_full_device_is_a_reason(suite, fakes, tmp_path, monkeypatch, fake_retriever):
    calls = []

    def answer(self, examples):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore")
        return whole(self, examples)

    whole = fake_retriever.answer
    monkeypatch.setattr(fake_retriever, "answer", answer)
    done = run_suite(suite, tmp_path / "out")
    assert done.cells["fake, whole", "made"].reason == (
        "the device ran out of memory (CUDA out of memory. Tried to allocate 9 GiB)"
    )
    assert done.num_of("measured") == 7


def test_only_some_rows(suite, fakes, examples, tmp_path):
    out = tmp_path / "out"
    done = run_suite(suite, out, only=["random, whole"])
    assert [done.num_of(status) for status in ("measured", "waiting", "missing")] == [2, 6, 0]
    assert "…: not measured yet." in (out / "table.md").read_text(encoding="utf-8")
    done = run_suite(suite, out, only=["fake"])
    assert [done.num_of(status) for status in ("measured", "earlier", "waiting")] == [4, 2, 2]
    # what was asked otherwise is not shown as if it were this suite's
    other = read_suite(RUN.replace("seed: 3", "seed: 4"), name="run", where="run.yaml")
    done = run_suite(other, out, only=["random, cut"])
    assert [done.num_of(status) for status in ("measured", "earlier", "waiting")] == [2, 0, 6]
    # rows of different times on different data: shown, and warned of
    write_examples(tmp_path / "data.jsonl", examples[2:])
    out = tmp_path / "mixed"
    run_suite(suite, out, only=["random, whole"])
    write_examples(tmp_path / "data.jsonl", examples)
    done = run_suite(suite, out, only=["random, cut"])
    assert [line.partition(":")[0] for line in done.warnings()] == ["made", "first four"]
    assert "so none is marked as best" in (out / "table.tex").read_text(encoding="utf-8")


def test_folders_of_others_are_left_alone(suite, fakes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for content in ("{}", "[", "[]", "7"):
        (out / "results.json").write_text(content)
        with pytest.raises(
            UsageError, match=r"holds a results\.json of something else; pass another --out"
        ):
            run_suite(suite, out)
        assert (out / "results.json").read_text() == content
    assert not (out / "cells").exists()
    with pytest.raises(UsageError, match="the suite run has no such row"):
        run_suite(suite, tmp_path / "new", only=["nobody"])
    assert not (tmp_path / "new").exists()


def test_labels_become_folders_that_no_two_share(tmp_path):
    text = (
        RUN.replace("label: fake", "label: A/B")
        .replace("label: random", "label: A-B")
        .replace("label: made", "label: " + "'../..'")
    )
    suite = read_suite(text, name="run", where="run.yaml")
    found = [
        cell_folder(tmp_path, row, dataset) for row in suite.rows for dataset in suite.datasets
    ]
    assert len(set(found)) == 8
    for folder in found:
        assert (
            folder.resolve().relative_to(tmp_path / "cells").parts
            == folder.relative_to(tmp_path / "cells").parts
        )
        assert len(folder.relative_to(tmp_path / "cells").parts) == 2


def test_the_table_is_written_whole(suite, fakes, tmp_path):
    run_suite(suite, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *TABLE_FILES,
        "SHA256SUMS",
        "results.json",
        "cells",
    }
