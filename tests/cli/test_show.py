"""`ffr show` by exit code and text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ffr.answer import format_answer
from ffr.cli.main import ffr
from ffr.data.forms.predictions import PredictionRecord, prediction_to_json
from ffr.dialogue import Dialogue, Fragment, Image, Utterance
from ffr.files import write_records
from ffr.prompt import render
from ffr.report.answered import open_evaluation
from ffr.report.dialogue import find_answers, print_answer

CHAT = Dialogue(
    "chat",
    (
        Utterance("ann", ("look here",)),
        Utterance("bob", (Image("a.png"), "nice")),
        Utterance("ann", ("\x1b[2J\x1b]0;title\x07 cleared?",)),
        Utterance("bob", ("bye", Image("b.png"))),
    ),
)


def record(
    query: str, response: str, truth: Fragment | None, dialogue: Dialogue = CHAT, name: str = "chat"
) -> PredictionRecord:
    return PredictionRecord(
        dialogue_id=name,
        response=response,
        labels=None if truth is None else format_answer(truth),
        messages=({"role": "user", "content": render(dialogue, query).user},),
        images=tuple(image.source for image in dialogue.images),
    )


@pytest.fixture
def predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    other = Dialogue("other", (Utterance("x", ("hi",)),))
    records = [
        record("what ann shows", format_answer(Fragment((0, 2, 77), (0,))), Fragment((0, 1), (1,))),
        record("nothing", format_answer(Fragment()), Fragment(), name="chat_q1"),
        record("unknown", "[0]", None, other, "7"),
    ]
    write_records("p.jsonl", map(prediction_to_json, records))
    return Path("p.jsonl")


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, ["show", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_truth_and_prediction_are_marked(predictions):
    code, text = run(predictions, "--id", "chat", "--plain")
    assert code == 0, text
    assert [line.rstrip() for line in text.splitlines()] == [
        "Query 0 on chat: what ann shows",
        "utterances P  33.3  R  50.0  F1  40.0   1 hit  1 missed  2 wrong",
        "images     P   0.0  R   0.0  F1   0.0   0 hit  1 missed  1 wrong",
        "The answer: utterance ids out of range",
        "As it came: " + format_answer(Fragment((0, 2, 77), (0,))),
        "",
        "+ hit    0 ann: look here",
        "- missed 1 bob: [image 0 x wrong: a.png] nice",
        "x wrong  2 ann: ␛[2J␛]0;title␇ cleared?",
        "         3 bob: bye [image 1 - missed: b.png]",
        "x wrong: ids that the dialogue does not have: utterance 77",
        "",
        "2 queries on this dialogue (--id INDEX):",
        ">      0  F1  20.0  what ann shows",
        "       1  F1 100.0  nothing",
    ]


def test_by_index_and_by_an_id_that_looks_like_one(predictions):
    code, text = run(predictions, "--id", "1", "--plain")
    assert code == 0, text
    assert text.startswith("Query 1 on chat_q1: nothing\n")
    assert "The true answer is empty: nothing in the dialogue fits the query." in text
    code, text = run(predictions, "--id", "7", "--plain")
    assert code == 0, text
    assert text.startswith("Query 2 on 7: unknown\nThe true answer is unknown.\n")


def test_colours_and_none(predictions):
    answer, others = find_answers(open_evaluation(predictions), "chat")
    for colours in ("standard", None):
        console = Console(color_system=colours, force_terminal=True, highlight=False, width=100)
        with console.capture() as captured:
            print_answer(answer, others, console)
        # the escapes of the dialogue itself never come through
        assert "\x1b[2J" not in captured.get()
        assert ("\x1b[1;32m+ hit" in captured.get()) == (colours is not None)
        assert ("\x1b" in captured.get()) == (colours is not None)


def test_a_prompt_that_is_no_dialogue(predictions):
    line = {
        "dialogue_id": "raw",
        "response": "[0]",
        "labels": format_answer(Fragment((0,))),
        "messages": [{"role": "user", "content": "hm"}],
    }
    Path("raw.jsonl").write_text(json.dumps(line) + "\n")
    code, text = run("raw.jsonl", "--id", "raw", "--plain")
    assert code == 0, text
    assert text.endswith("The prompt cannot be read as a dialogue; here it stands as it is:\nhm\n")


def test_unknown_ids_are_refused_with_what_there_is(predictions):
    code, text = run(predictions, "--id", "chat_q")
    assert code == 2
    assert "no dialogue 'chat_q'; ids are like chat_q1, chat, and indices go from 0 to 2" in text
    assert run("nowhere.jsonl", "--id", "1")[0] == 1
