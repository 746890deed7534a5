"""Someone else's predictions on our data: joined by dialogue and query, and used as any result is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.answer import format_answer
from ffr.cli.main import ffr
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance

CHATS = [
    Dialogue(
        f"d{number}", tuple(Utterance("a", (f"line {index} of {number}",)) for index in range(4))
    )
    for number in range(3)
]
EXAMPLES = [
    Example(chat, query, fragment)
    for chat in CHATS
    for query, fragment in (("beginning", Fragment((0, 1))), ("nothing", Fragment()))
]


def say(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(ffr, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_examples(tmp_path / "data.jsonl", EXAMPLES)
    return tmp_path / "data.jsonl"


def line(example: Example, **more: object) -> dict[str, object]:
    return {"dialogue_id": example.dialogue.id, "query": example.query, **more}


def right(example: Example) -> dict[str, object]:
    assert example.fragment is not None
    return line(example, response=format_answer(example.fragment))


def write(*lines: dict[str, object], name: str = "theirs.jsonl") -> Path:
    Path(name).write_text("".join(json.dumps(item) + "\n" for item in lines), encoding="utf-8")
    return Path(name)


def results(folder: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(folder, "results.json").read_text())
    return found


def test_answers_and_lists_of_ids_are_joined_with_our_truth():
    # in another order, one of them by ids, with a repeat and an id that the dialogue lacks
    ids = line(EXAMPLES[2], utterance_ids=[1, 1, 9], image_ids=[])
    only = line(EXAMPLES[1], utterance_ids=[])
    others = [right(example) for example in (EXAMPLES[5], EXAMPLES[4], EXAMPLES[3], EXAMPLES[0])]
    code, text = say("eval", "--predictions", write(ids, *others, only), "--dataset", "data.jsonl")
    assert code == 0, text
    assert text.startswith("Scoring theirs.jsonl on data.jsonl (no model)")
    assert "below naming" in text or "best baseline" in text
    found = results("eval/theirs-data")
    scores = found["summary"]["scores"]
    # 6 true utterances; 5 of them named, and one that the dialogue lacks
    assert scores["utterance_recall"] == pytest.approx(5 / 6)
    assert scores["utterance_precision"] == pytest.approx(5 / 6)
    assert found["summary"]["answers"]["num_failed"] == 0
    assert set(found["baselines"]) > {"baseline:overlap", "baseline:everything"}
    lines = Path("eval/theirs-data/predictions.jsonl").read_text().splitlines()
    assert [json.loads(item)["dialogue_id"] for item in lines] == [
        "d0",
        "d0",
        "d1",
        "d1",
        "d2",
        "d2",
    ]
    assert "[1, 1, 9]" in lines[2]


def test_compare_gate_report_and_show_take_it(monkeypatch: pytest.MonkeyPatch):
    theirs = write(*map(right, EXAMPLES))
    assert say("eval", "--predictions", theirs, "--dataset", "data.jsonl", "--out", "b")[0] == 0
    words = ("--dataset", "data.jsonl", "--model", "baseline:overlap", "--out", "a")
    assert say("eval", *words)[0] == 0
    assert results("a")["data"]["fingerprint"] == results("b")["data"]["fingerprint"]
    monkeypatch.chdir(Path("a").resolve())  # what was typed as data.jsonl means nothing here
    code, text = say("compare", "../a", "../b")
    assert (code, "worse on 0" in text) == (0, True), text
    code, text = say("gate", "../b", "--baseline", "../a", "--max-drop", "joint_f1=0.01")
    assert (code, "passed" in text.lower()) == (0, True), text
    code, text = say("show", "../b", "--id", "1")
    assert (code, "line 0 of 0" in text, "was not used" in text) == (0, True, False), text
    code, text = say("report", "../b", "--out", "page.html")
    assert (code, "was not used" in text) == (0, False), text
    assert "line 3 of 2" in Path("page.html").read_text(encoding="utf-8")


def test_queries_without_a_prediction_count_as_wrong_and_are_named():
    # the truth of the second query is empty, so an answer that names nothing would be right
    theirs = write(*[right(example) for example in EXAMPLES if example is not EXAMPLES[1]])
    code, text = say("eval", "--predictions", theirs, "--dataset", "data.jsonl", "--out", "x")
    assert code == 0, text
    assert "1 of 6 queries have no prediction in the file and count as wrong" in text
    assert "Which: no prediction for dialogue 'd0', query 'nothing'" in text
    found = results("x")["summary"]
    assert found["answers"]["num_failed"] == 1
    assert found["scores"]["exact_match"] == pytest.approx(5 / 6)


def test_our_own_files_and_the_published_form_are_joined_by_their_prompts():
    assert (
        say("eval", "--dataset", "data.jsonl", "--model", "baseline:overlap", "--out", "a")[0] == 0
    )
    own = Path("a/predictions.jsonl")
    code, text = say("eval", "--predictions", own, "--dataset", "data.jsonl", "--out", "b")
    assert code == 0, text
    assert results("a")["summary"] == results("b")["summary"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([line(EXAMPLES[0])], 'theirs.jsonl:1: write "response", or "utterance_ids"'),
        ([line(EXAMPLES[0], response="", utterance_ids=[])], "one of the two"),
        ([line(EXAMPLES[0], response=3)], 'theirs.jsonl:1: "response" is no text'),
        ([line(EXAMPLES[0], utterance_ids=[True])], '"utterance_ids" is no list of ids'),
        ([line(EXAMPLES[0], utterance_ids=[], image_ids=["0"])], '"image_ids" is no list of ids'),
        ([line(EXAMPLES[0], utterance_ids=[-1])], "write whole numbers from 0"),
        ([{"query": "x", "response": ""}], 'theirs.jsonl:1: no "dialogue_id"'),
        ([{"dialogue_id": "d0", "response": ""}], 'theirs.jsonl:1: no text under "query"'),
        ([{"dialogue_id": [1], "query": "x", "response": ""}], '"dialogue_id"'),
        (
            [right(EXAMPLES[0]), right(EXAMPLES[0])],
            "theirs.jsonl:2: answers dialogue 'd0', query 'beginning' as theirs.jsonl:1 does",
        ),
        (
            [right(EXAMPLES[0]), {"dialogue_id": "d7", "query": "x", "response": ""}],
            "theirs.jsonl:2: answers dialogue 'd7', query 'x', and the data has no dialogue of that",
        ),
        (
            [{"dialogue_id": "d1", "query": "x", "response": ""}],
            "the data has other queries on that dialogue (so do 1 of 1 lines)",
        ),
    ],
)
def test_what_cannot_be_joined_is_one_sentence(lines, sentence):
    code, text = say("eval", "--predictions", write(*lines), "--dataset", "data.jsonl")
    assert (code, sentence in text) == (1, True), text
    assert not Path("eval").exists()


def test_the_first_queries_alone_and_ids_that_are_numbers():
    chat = Dialogue("7", (Utterance("a", ("x",)),))
    write_examples(
        Path("n.jsonl"), [Example(chat, "q", Fragment((0,))), Example(chat, "r", Fragment())]
    )
    theirs = write(
        {"dialogue_id": 7, "query": " q\n", "utterance_ids": [0]},
        {"dialogue_id": 7, "query": "r", "utterance_ids": [0]},
    )
    words = ("--dataset", "n.jsonl", "--limit", "1", "--out", "x")
    code, text = say("eval", "--predictions", theirs, *words)
    assert code == 0, text
    assert results("x")["summary"]["scores"]["exact_match"] == 1


def test_lines_to_records_that_were_left_out_are_counted():
    with Path("data.jsonl").open("a") as file:
        file.write('{"dialogue_id": "bad", "dialogue": 3, "query_text": "x", "gt_turns": []}\n')
    theirs = write(*map(right, EXAMPLES), {"dialogue_id": "bad", "query": "x", "response": ""})
    words = ("--dataset", "data.jsonl", "--out", "x", "--skip-bad")
    code, text = say("eval", "--predictions", theirs, *words)
    assert code == 0, text
    assert "! 1 of 7 predictions answer no query of the data, of which 1 bad records were" in text


def test_options_of_data_need_the_data():
    code, text = say("eval", "--predictions", write(right(EXAMPLES[0])), "--limit", "1")
    assert code == 2
    assert "--limit has no meaning beside --predictions, which uses no model and, without" in text
    code, text = say(
        "eval", "--predictions", "theirs.jsonl", "--dataset", "data.jsonl", "--window", "3"
    )
    assert (code, "--window has no meaning beside --predictions" in text) == (2, True), text
