"""`ffr search`, as a person types it: one question, many, over everything that was read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr

TRIP = """\
12/05/2023, 18:02 - Ann: shall we fly to Lisbon in May?
12/05/2023, 18:05 - Bob: I found a flat in Alfama
13/05/2023, 09:00 - Ann: did the dentist call?
13/05/2023, 09:01 - Bob: 今天不看牙医
"""
ZOO = "14/05/2023, 10:00 - Zoe: a zebra and a flat stone\n"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    for title, text in (("Trip", TRIP), ("Zoo", ZOO)):
        path = tmp_path / f"WhatsApp Chat with {title}.txt"
        path.write_text(text)
        done = _run("index", "add", path, "--index", folder, "--model", "baseline:overlap")
        assert done.exit_code == 0, done.output
    return folder


RECALL = ("--rerank", "none", "--ways", "words")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(ffr, [str(item) for item in arguments])


def _search(kept: Path, *more: object) -> Result:
    return _run("search", *more, "--index", kept)


def test_a_hit_says_how_it_came_about(kept: Path) -> None:
    done = _search(kept, "a flat", "--rerank", "baseline:overlap")
    assert done.exit_code == 0, done.output
    assert "by words #1; it has flat" in done.stdout
    assert done.stdout.endswith("2 fragments; searched 5 of 5 messages\n")
    told = json.loads(_search(kept, "牙医", *RECALL, "--json").stdout)
    (hit,) = told["hits"]
    assert (hit["found_by"], hit["ways"], hit["words"]) == (
        ["recall", "words"],
        {"words": 1},
        ["牙医"],
    )
    assert hit["score"] is None
    assert told["searched"] == "searched 5 of 5 messages"
    # the passage around the line that was recalled
    assert [line["text"] for line in hit["messages"]] == ["did the dentist call?", "今天不看牙医"]


def test_filters_and_a_page(kept: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    done = _search(kept, "flat", *RECALL, "--by", "Zoe", "--chat", "Zoo", "--html", page)
    assert "zebra" in done.stdout
    assert "Alfama" not in done.stdout
    assert "a flat stone" in page.read_text(encoding="utf-8")
    assert "Nothing found" in _search(kept, "flat", *RECALL, "--since", "2024").stdout


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("q.txt", "flat\n\n牙医\n", [1, 3]),
        ("q.jsonl", '{"id": "a", "query": "flat"}\n"牙医"\n', ["a", 2]),
        ("q.csv", '\ufeffid,query_text\n7,"a flat"\n,牙医\n', ["7", 3]),
    ],
)
def test_many_questions(kept: Path, tmp_path: Path, name: str, content: str, ids: list) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    done = _search(kept, "--queries", path, *RECALL)
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["id"] for item in told] == ids
    assert [len(item["hits"]) for item in told] == [2, 1]
    assert done.stderr.endswith("2 questions answered\n")
    page = tmp_path / "found.html"
    _search(kept, "--queries", path, *RECALL, "--html", page)
    text = page.read_text(encoding="utf-8")
    # a list of the questions leads to the hits of each
    assert '<a href="#question-2"><bdi dir="auto">牙医</bdi></a> · 1' in text
    assert (
        text.index('id="question-1"') < text.index("a flat stone") < text.index('id="question-2"')
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.txt", "\n \n", "holds no question"),
        ("q.jsonl", "{\n", "q.jsonl:1: is no JSON"),
        ("q.jsonl", '{"id": 1, "query": " "}\n', "q.jsonl:1: has no question"),
        ("q.jsonl", '{"id": [1], "query": "x"}\n', r"has the id [1]"),
        ("q.jsonl", '{"id": 1, "query": "x"}\n{"id": 1, "query": "y"}\n', "stands in line 1 too"),
        ("q.csv", "id,words\n1,x\n", "q.csv:2: has no question"),
        ("q.json", "[]", "let its name end in .jsonl"),
        ("q.txt", b"\xff\xfe\xfa", "it is no UTF-8"),
    ],
)
def test_a_file_of_questions_that_is_none(
    kept: Path, tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = _search(kept, "--queries", path, *RECALL)
    assert done.exit_code == 1
    assert words in done.stderr
    assert done.stdout == ""


def test_what_cannot_be_asked_is_refused(kept: Path, tmp_path: Path) -> None:
    assert "give a query, or a file" in _search(kept).stderr
    assert "give a query, or a file" in _search(kept, "x", "--queries", tmp_path / "q").stderr
    assert "some of words" in _search(kept, "x", "--ways", "moons").stderr
    assert _search(kept, "x", "--ways", "moons").exit_code == 2
    none = _search(tmp_path / "nowhere", "x", *RECALL)
    assert (none.exit_code, "holds no chat yet" in none.stderr) == (1, True)
