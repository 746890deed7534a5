"""Cards and checks of figures: what is written, and that any wrong digit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import UsageError
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.files import write_text
from ffr.report.card import check_figures, figures_section, write_figures
from ffr.retrieval.lexical import BaselineRetriever


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def _examples() -> list[Example]:
    found = []
    for number in range(4):
        lines = [("Ann", f"line {index} of talk {number}") for index in range(4 + number)]
        chat = Dialogue.of(lines, f"d{number}")
        found += [
            Example(chat, f"talk {number}", Fragment((0, 1))),
            Example(chat, "tea", Fragment()),
        ]
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose model has two cards, with one evaluation."""
    folder = tmp_path / "sft-a-1"
    for name in ("merged", "adapter"):
        (folder / name).mkdir(parents=True)
        write_text(folder / name / "README.md", f"# a model\n\nIts {name} folder.\n")
    _evaluate(folder, "chats", "overlap")
    return folder


def _evaluate(run: Path, name: str, baseline: Any) -> Results:
    return evaluate(
        _examples(),
        BaselineRetriever(baseline),
        run / "eval" / name,
        dataset=name,
        split="val",
        baselines=("everything",),
    )


def test_figures_are_written_behind_the_card_and_once(run: Path) -> None:
    assert [path.parent.name for path in write_figures(run)] == ["merged", "adapter"]
    card = run / "merged" / "README.md"
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# a model\n\nIts merged folder.\n\n<!-- figures")
    results = Results.load(run / "eval" / "chats")
    row = next(line for line in text.splitlines() if line.startswith("| chats (val)"))
    value = 100 * results.summary["scores"]["utterance_f1"]
    low, high = (100 * end for end in results.intervals["scores"]["utterance_f1"])
    assert f"| 8 | {value:.1f} ({low:.1f}–{high:.1f}) |" in row
    assert results.data["fingerprint"][:16] in row
    assert row.endswith("| - | - | 0.0 |")  # no picture is in the data
    write_figures(run)
    assert card.read_text(encoding="utf-8") == text
    # what people write behind them stays, and another evaluation gets a row of its own
    write_text(card, text + "\nThanks to Ann.\n")
    _evaluate(run, "other", "nothing")
    write_figures(run)
    text = card.read_text(encoding="utf-8")
    assert text.count("<!-- figures") == 1
    assert [line.split()[1] for line in text.splitlines() if "(val)" in line] == ["chats", "other"]
    assert text.endswith("<!-- end of figures -->\n\nThanks to Ann.\n")


def test_all_figures_hold(run: Path) -> None:
    write_figures(run)
    evaluation, merged, adapter = check_figures(run)
    assert not evaluation.faults + merged.faults + adapter.faults
    # figures of both readings, slices, intervals, and the baseline's
    assert evaluation.num_figures > 300
    (alone,) = check_figures(run / "eval" / "chats")
    assert alone == evaluation


def _rewrite(folder: Path, change: Any) -> None:
    """Changes results and seals them anew, as who invents a figure would."""
    results = Results.load(folder)
    change(results)
    results.save(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda it: it.summary["scores"].update(joint_f1=0.9),
            "scores.joint_f1: the file says 0.9, its answers give",
        ),
        (
            lambda it: it.summary["strict_scores"].update(exact_match=1.0),
            "strict_scores.exact_match: the file says 1.0",
        ),
        (
            lambda it: it.intervals["scores"].update(utterance_f1=[0.1, 0.2]),
            "interval of scores.utterance_f1[0]: the file says 0.1",
        ),
        (
            lambda it: it.baselines["baseline:everything"]["scores"].update(utterance_f1=0.01),
            "baseline:everything scores.utterance_f1: the file says 0.01",
        ),
        (
            lambda it: it.summary["answers"].update(num_malformed=3),
            "answers.num_malformed: the file says 3, its answers give 0",
        ),
        (
            lambda it: it.data.update(fingerprint="0" * 64),
            "the data: the file says 0000000000000000",
        ),
    ],
)
def test_an_invented_figure_is_named(run: Path, change: Any, sentence: str) -> None:
    write_figures(run)
    _rewrite(run / "eval" / "chats", change)
    faults = check_figures(run / "eval" / "chats")[0].faults
    assert any(fault.startswith(sentence) for fault in faults), faults
    code, text = call("card", run, "--check")
    assert code == 1
    assert sentence.split(":")[0] in text


def test_the_last_digit_counts(run: Path) -> None:
    def nudge(results: Results) -> None:
        value = results.summary["scores"]["utterance_f1"]
        results.summary["scores"]["utterance_f1"] = value + 2**-50

    _rewrite(run / "eval" / "chats", nudge)
    (fault,) = check_figures(run / "eval" / "chats")[0].faults
    assert fault.startswith("scores.utterance_f1: the file says 0.")


def test_a_changed_answer_is_found_out(run: Path) -> None:
    path = run / "eval" / "chats" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["response"] = "<|utt_ids_start|>[3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert any(item.faults for item in check_figures(run / "eval" / "chats"))


def test_a_card_that_says_other_figures(run: Path) -> None:
    (_, merged, _) = check_figures(run)
    assert merged.faults == (f"{merged.folder} has no figures; `ffr card {run}` writes them",)
    write_figures(run)
    card = run / "adapter" / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("| 8 |", "| 9 |"), encoding="utf-8")
    code, text = call("card", run, "--check")
    assert code == 1
    assert "are not those of the evaluations" in text
    assert text.splitlines()[-1].startswith("1 of ")


def test_the_commands_words(run: Path, tmp_path: Path) -> None:
    code, text = call("card", run)
    assert (code, text.count("README.md")) == (0, 2)
    assert f"next: ffr card {run} --check" in text
    code, text = call("card", run, "--check")
    assert code == 0
    assert text.splitlines()[-1].startswith("all ")
    code, text = call("card", run, "--check", "--json")
    assert (code, [len(item["faults"]) for item in json.loads(text)]) == (0, [0, 0, 0])
    (tmp_path / "empty").mkdir()
    for words, expected, sentence in (
        ([tmp_path / "empty"], 2, "has no evaluation; `ffr eval --model"),
        ([run / "eval" / "chats"], 2, "has no model with a card"),
        ([run, "--json"], 2, "--json has no meaning without --check"),
        ([tmp_path / "none"], 2, "name that of a training run or of an evaluation"),
    ):
        code, text = call("card", *words)
        assert (code, sentence in " ".join(text.split())) == (expected, True), text
    (run / "eval" / "chats" / "predictions.jsonl").unlink()
    code, text = call("card", run, "--check")
    assert code == 1
    assert "nothing can be computed anew" in text


def test_names_of_data_cannot_break_the_table(run: Path) -> None:
    results = Results.load(run / "eval" / "chats")
    results.data["dataset"] = "a|b<script>\n.jsonl"
    row = figures_section([("x", results)]).splitlines()[6]
    assert row.count("|") - row.count("\\|") == 7
    assert "<script>" not in row
    with pytest.raises(UsageError, match="no evaluation"):
        check_figures(run / "merged")


def test_the_published_reading_is_computed_anew(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    write_examples(data, _examples())
    code, text = call(
        "eval", "--model", "baseline:overlap", "--dataset", data, "--out", tmp_path / "ev", "--reading",
        "published",
    )  # fmt: skip
    assert code == 0, text
    code, text = call("card", tmp_path / "ev", "--check")
    assert code == 0, text
