"""Chats brought in as dialogues: a table of lines, or a data file that asks each."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import PIL.Image
import pytest
from click.testing import CliRunner, Result

from ffr.chats.cutting import Cutting
from ffr.cli.main import ffr
from ffr.data.catalog import load_dataset
from ffr.data.chat_import import ChatChoices, cut_chats, line_rows
from ffr.errors import UsageError

CHAT = """\
12/05/2023, 18:02 - Ann Miller: shall we fly to Lisbon?
12/05/2023, 18:05 - Bob: IMG-20230512-WA0001.png (file attached)
a flat in Alfama
13/05/2023, 09:00 - Bob: call +49 170 1234567, Ann
13/05/2023, 09:01 - Bob added Eve
"""


@pytest.fixture
def export(tmp_path: Path) -> Path:
    PIL.Image.new("RGB", (8, 6), "red").save(tmp_path / "p.png")
    path = tmp_path / "WhatsApp Chat with Trip.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("WhatsApp Chat with Trip.txt", CHAT)
        archive.write(tmp_path / "p.png", "IMG-20230512-WA0001.png")
    (tmp_path / "p.png").unlink()
    return path


def _import(*arguments: object) -> Result:
    return CliRunner().invoke(ffr, ["data", "import", *map(str, arguments)])


def test_lines_of_a_chat(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    done = _import(export, "--out", out)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    picture = next((tmp_path / "lines-media").iterdir())
    assert rows == [
        {
            "dialogue_id": "Trip/0",
            "utterance_id": 0,
            "speaker": "Ann Miller",
            "text": "shall we fly to Lisbon?",
            "time": "2023-05-12T18:02:00",
        },
        {
            "dialogue_id": "Trip/0",
            "utterance_id": 1,
            "speaker": "Bob",
            "text": "a flat in Alfama",
            "picture": [str(picture)],
            "time": "2023-05-12T18:05:00",
            "kind": "picture",
        },
        {
            "dialogue_id": "Trip/1",
            "utterance_id": 0,
            "speaker": "Bob",
            "text": "call +49 170 1234567, Ann",
            "time": "2023-05-13T09:00:00",
        },
    ]
    assert done.stdout.splitlines()[0] == (
        "Trip: 3 messages, 1 picture, 2 people, 12 May 2023 – 13 May 2023, day/month order d/m "
        "(seen 13/05); cut at pauses of 8 hours and after 120 messages at most"
    )
    # joined with a table of queries it is a data file
    (tmp_path / "queries.csv").write_text("dialogue_id,query,utterance_ids\nTrip/0,a flat,1\n")
    joined = _import(out, tmp_path / "queries.csv", "--out", tmp_path / "data.jsonl")
    assert joined.exit_code == 0, joined.output
    (example,) = load_dataset(tmp_path / "data.jsonl")
    assert example.fragment is not None
    assert (example.fragment.utterance_ids, example.fragment.image_ids) == ((1,), (0,))


def test_a_data_file_asks_each_dialogue(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "data.jsonl"
    done = _import(export, "--out", out, "--query", "a flat", "--query", "a call", "--pause", "0")
    assert done.exit_code == 0, done.output
    examples = load_dataset(out)
    assert [example.query for example in examples] == ["a flat", "a call"]
    assert {len(example.dialogue.utterances) for example in examples} == {3}


def test_other_names(export: Path, tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    assert _import(export, "--out", out, "--redact").exit_code == 0
    said = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["speaker"], row["text"]) for row in said] == [
        ("Person 1", "shall we fly to Lisbon?"),
        ("Person 2", "a flat in Alfama"),
        ("Person 2", "call Phone 1, Person 1"),
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--to", "raw"], "--to raw asks something of each dialogue; give --query TEXT"),
        (["--chat", "Lake"], "has no chat called Lake; there are Trip"),
        (["--as", "icq"], "--as icq: no such form; there are table, locomo"),
        (["--pause", "-1"], "-1"),
    ],
)
def test_what_cannot_be_done_is_said(
    export: Path, tmp_path: Path, more: list[str], words: str
) -> None:
    done = _import(export, "--out", tmp_path / "o.jsonl", *more)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_what_is_for_chats_is_refused_of_tables(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("dialogue_id,speaker,text\nd,Ann,hi\n")
    done = _import(tmp_path / "lines.csv", "--out", tmp_path / "o.jsonl", "--redact")
    assert done.exit_code == 2
    assert "are for chats, and these files are none" in done.stderr


def test_rows_come_from_what_was_cut(export: Path, tmp_path: Path) -> None:
    choices = ChatChoices(cutting=Cutting(0, 2), media_folder=tmp_path / "m")
    (cut,) = cut_chats(export, choices)
    assert [row["dialogue_id"] for row in line_rows(cut)] == ["Trip/0", "Trip/0", "Trip/1"]
    with pytest.raises(UsageError, match="has no chat called x"):
        list(cut_chats(export, ChatChoices(title="x")))
