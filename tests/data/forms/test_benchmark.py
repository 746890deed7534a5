"""What the readers of benchmarks share: places of faults, halves, pictures that are here or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.benchmark import Account, Line, Part, Question, Talk, read_talks
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Example, Fragment, Image
from ffr.errors import DataError


def _talk(record: Part, account: Account) -> Talk:
    lines = [Line("Ann", [text], {"name": text}) for text in record.texts("lines")]
    positions = {str(number): number for number in range(len(lines))}
    questions = [
        Question(
            item["q"].words,
            account.place(item["of"], positions),
            {"category": "c"},
            not item.value["of"],
        )
        for item in record["asked"].items
    ]
    return Talk("", lines, questions)


def _read(folder: Path, **files: Any) -> tuple[list[Example], Account]:
    paths = [folder / f"{name}.json" for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_text(json.dumps(content, indent=1))
    return read_talks(paths, _talk, unit="turn")


def _record(**asked: list[str]) -> dict[str, Any]:
    return {"lines": ["hi", "tea?"], "asked": [{"q": q, "of": of} for q, of in asked.items()]}


def test_talks_become_examples(tmp_path: Path) -> None:
    asked = _record(who=["0"], both=["0; 1", "9"], none=[], lost=["x"])
    asked["asked"].append({"q": "who", "of": ["1"]})
    examples, account = _read(tmp_path, b=[_record(what=["1"]), asked], a=_record(why=["1"]))
    # files are read by their names, whatever order they are given in
    assert [(example.dialogue.id, example.query) for example in examples] == [
        ("a", "why"),
        ("b-1", "what"),
        ("b-2", "who"),
        ("b-2", "both"),
        ("b-2", "none"),
    ]
    assert [example.fragment for example in examples[2:]] == [
        Fragment((0,), ()),
        Fragment((0, 1), ()),
        Fragment(),
    ]
    assert [example.meta["half"] for example in examples] == ["odd", "even", "odd", "odd", "odd"]
    assert [example.meta["truth"] for example in examples[2:]] == ["evidence"] * 2 + ["nothing"]
    assert examples[0].meta[EXTRA_LINE_KEYS] == [{"name": "hi"}, {"name": "tea?"}]
    assert account.notes() == [
        "3 dialogues of 6 turns",
        "5 of 7 questions taken, 1 of them answered by nothing",
        "by category: c 5",
        "left out: 1 asked before of the same dialogue in the same words",
        "left out: 1 without a turn as evidence",
        'dropped: 2 labels of evidence that the dialogue does not have, the first "9" at '
        "b.json:16 (record 2), asked[1].of[1]",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lines": []}, r"a\.json:1: holds no turn; take the file as it was published"),
        ({"lines": 3}, r"a\.json:1: lines is a number, not a list; take"),
        ({"lines": [3]}, r"a\.json:1: lines\[0\] is a number, not a text; take"),
        ({"asked": None}, r'a\.json:1: the record has no "asked"; take'),
        ({"asked": {"q": 1}}, r"a\.json:1: asked is an object, not a list"),
        ({"asked": [7]}, r"a\.json:1: asked\[0\] is a number, not an object"),
        ({"asked": [{"q": " ", "of": []}]}, r"asked\[0\]\.q is empty; write a text"),
        ({"asked": [{"q": "q", "of": "0"}]}, r"asked\[0\]\.of is a text, not a list"),
        ({"asked": [{"q": "q", "of": [True]}]}, r"asked\[0\]\.of\[0\] is true/false, not a text"),
        ({"lines": ["<image>"]}, r"a\.json:1: dialogue 'a': utterance 0 contains the marker"),
    ],
)
def test_a_fault_has_its_place(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        _read(tmp_path, a=_record(q=["0"]) | change)


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_record(q=["0"])))
    with pytest.raises(DataError, match=r'the dialogue "a" stands at a\.json:1 too; name each'):
        read_talks([tmp_path / "a.json"] * 2, _talk, unit="turn")


def test_what_follows_the_one_object_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_record(q=["0"]), indent=1) + "\nrest")
    with pytest.raises(DataError, match=r"a\.json:1: not JSON \(Extra data"):
        read_talks([path], _talk, unit="turn")


def test_pictures_that_are_not_here_are_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "left.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    account = Account("turn")
    assert account.picture("a.png", "a cat", tmp_path) == Image("a.png", "a cat")
    for source in ("left.png", "none.png", "", "\0", ".", "x" * 9999, "https://a.b/c.png", None):
        assert account.picture(source, "a cat", tmp_path) == "[picture: a cat]"
    assert account.picture(None, "", None) == "[picture]"
    assert (account.num_pictures, account.num_missing_pictures) == (10, 9)
    assert account.notes()[-1].startswith("9 of 10 pictures not here; in their place stand the")
