"""Mem-Gallery by hand, with a picture that is here and one that is not, and the set where it is."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.mem_gallery import read_mem_gallery
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.dialogue import Fragment, Image, Utterance
from ffr.errors import DataError


def _talk() -> dict[str, Any]:
    def shown(name: str) -> dict[str, Any]:
        return {
            "image_id": [f"D1:{name}"],
            "input_image": [f"../image/{name}.png"],
            "image_caption": [f"the {name}"],
        }

    asked = {"session_id": ["D1"], "answer": "x"}
    return {
        "character_profile": {"name": "Ann"},
        "multi_session_dialogues": [
            {
                "session_id": "D1",
                "date": "2024-06-17",
                "dialogues": [
                    {"round": "D1:1", "user": "Look!", "assistant": "Nice.", **shown("cat")},
                    {"round": "D1:2", "user": "And this?", "assistant": "Lost.", **shown("dog")},
                ],
            }
        ],
        "human-annotated QAs": [
            {"point": "VS", "question": "Which shows a cat?", "clue": ["D1:1"], **asked},
            {"point": "AR", "question": "Has she a bird?", "clue": [], **asked},
            {"point": "FR", "question": "Where?", "clue": ["D7:1"], **asked},
            {"point": "TTL", "question": "This?", "clue": ["D1:2"], "question_image": "q", **asked},
        ],
    }


def test_rounds_and_questions(tmp_path: Path) -> None:
    root = tmp_path / "dialog"
    root.mkdir()
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "cat.png").write_bytes(b"\x89PNG")
    (root / "Home.json").write_text(json.dumps(_talk(), indent=2))
    examples, account = read_mem_gallery([root / "Home.json"], image_root=root)
    assert examples[0].dialogue.id == "Home"
    assert examples[0].dialogue.utterances == (
        Utterance("Ann", ("Look!", Image("../image/cat.png", "the cat"), "\nassistant: Nice.")),
        Utterance("Ann", ("And this? [picture: the dog]\nassistant: Lost.",)),
    )
    assert examples[0].meta[EXTRA_LINE_KEYS][1] == {
        "name": "D1:2",
        "session": "D1",
        "time": "2024-06-17",
    }
    assert [(example.query, example.fragment) for example in examples] == [
        ("Which shows a cat?", Fragment((0,), (0,))),
        ("Has she a bird?", Fragment()),
    ]
    assert [example.meta["truth"] for example in examples] == ["evidence", "nothing"]
    assert account.left_out == {
        "asked with a picture, and a query is of words": 1,
        "without a round as evidence": 1,
    }
    assert (account.num_pictures, account.num_missing_pictures) == (2, 1)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("character_profile", [], "character_profile is a list, not an object"),
        ("multi_session_dialogues", [{"session_id": "D1"}], r'dialogues\[0\] has no "date"'),
        ("human-annotated QAs", [{"clue": []}], r'human-annotated QAs\[0\] has no "question"'),
        ("human-annotated QAs", [{"clue": 1, "question": "q"}], r"QAs\[0\]\.clue is a number, not"),
    ],
)
def test_faults(tmp_path: Path, key: str, value: Any, sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_talk() | {key: value}))
    with pytest.raises(DataError, match=rf"^a\.json:1: .*{sentence}|{sentence}"):
        read_mem_gallery([path])


def test_a_round_stands_once(tmp_path: Path) -> None:
    talk = _talk()
    talk["multi_session_dialogues"] *= 2
    (tmp_path / "a.json").write_text(json.dumps(talk))
    with pytest.raises(DataError, match=r'round is "D1:1" a second time; give each round its own'):
        read_mem_gallery([tmp_path / "a.json"])


def test_the_published_set(shared_dir: Path, tmp_path: Path) -> None:
    packed = shared_dir / "memory" / "mem-gallery-dialogs.tar.gz"
    if not packed.is_file():
        pytest.skip(
            "Mem-Gallery is not here; put memory/mem-gallery-dialogs.tar.gz into the folder of "
            "FFR_SHARED"
        )
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    examples, account = read_mem_gallery([*tmp_path.rglob("*.json")], image_root=tmp_path)
    assert (account.num_talks, account.num_lines, account.num_asked) == (20, 3962, 1711)
    assert (len(examples), account.num_nothing, account.dropped) == (1223, 184, [])
    assert account.left_out == {
        "asked with a picture, and a query is of words": 487,
        "asked before of the same dialogue in the same words": 1,
    }
    assert account.kept["VS"] == 218
    assert (account.num_pictures, account.num_missing_pictures) == (1003, 1003)
