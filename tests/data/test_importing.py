"""`ffr data import` and `ffr data example`, as they are typed."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mutators import mutated

from ffr.cli.main import ffr
from ffr.data.check import check_file
from ffr.data.dataset import open_dataset
from ffr.data.example import example_examples
from ffr.data.importing import READERS, import_files
from ffr.data.kinds import KINDS
from ffr.dialogue import Fragment
from ffr.errors import FfrError


def zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # without the time of now, by which the cases of two workers would have other names
        archive.writestr(zipfile.ZipInfo(name), "nothing that is a chat")
    return buffer.getvalue()


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(ffr, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def run_and_read(*arguments: object) -> bytes:
    """Imports, and hands out what the file holds."""
    run("import", *arguments)
    return Path(str(arguments[arguments.index("--out") + 1])).read_bytes()


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with lines.csv, queries.csv and their picture."""
    run("example", "--to", "table", "--out", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("form", ["raw", "ms-swift", "predictions"])
def test_every_example_passes_the_check(tmp_path: Path, form: str) -> None:
    output = run("example", "--to", form, "--out", tmp_path / "new")
    path = tmp_path / "new" / f"{form}.jsonl"
    assert output.splitlines() == [str(path), f"Look at it: ffr data check {path}"]
    report = check_file(path)
    assert (report.faults, report.num_examples, report.num_image_files) == ([], 3, 1)
    assert "is there already" in run("example", "--to", form, "--out", tmp_path / "new", code=2)


def test_the_example_is_the_same_in_every_form(tmp_path: Path, tables: Path) -> None:
    prints = set()
    for form in ("raw", "ms-swift"):
        run("example", "--to", form, "--out", tmp_path / form)
        prints.add(open_dataset(tmp_path / form / f"{form}.jsonl").fingerprint)
    output = run("import", "lines.csv", "queries.csv", "--out", "mine.jsonl")
    assert output.splitlines() == [
        "5 lines of 1 dialogue",
        "mine.jsonl: 1 record, 3 queries",
        "mine.jsonl: 1 of 1 records good, 0 bad; 0 faults, 0 warnings; 1 dialogue, 3 queries, "
        "1 picture looked at",
    ]
    imported = open_dataset("mine.jsonl")
    assert {*prints, imported.fingerprint} == {imported.fingerprint}
    assert [example.fragment for example in imported] == [
        example.fragment for example in example_examples()
    ]


def test_import_in_either_form(tables: Path) -> None:
    for form in ("raw", "ms-swift"):
        run("import", "queries.csv", "lines.csv", "--out", f"{form}.jsonl", "--to", form)
    raw, swift = open_dataset("raw.jsonl"), open_dataset("ms-swift.jsonl")
    assert raw.fingerprint == swift.fingerprint
    assert (raw[0].prompt is None, swift[0].prompt is None) == (True, False)
    text = Path("queries.csv").read_text().replace("[0]", "[]")
    Path("queries.csv").write_text(text)
    said = run("import", "lines.csv", "queries.csv", "--out", "x.jsonl", code=1)
    assert "the raw form cannot say that, write the ms-swift form (--to ms-swift)" in said
    assert not Path("x.jsonl").exists()
    run("import", "lines.csv", "queries.csv", "--out", "x.jsonl", "--to", "ms-swift")


def test_what_is_wrong_is_said_and_nothing_written(tables: Path) -> None:
    text = Path("queries.csv").read_text().replace("[3, 4]", "[3, 5]")
    Path("queries.csv").write_text(text)
    said = run("import", "lines.csv", "queries.csv", "--out", "x.jsonl", code=1)
    assert said == (
        "Error: queries.csv:3: the answer names utterance 5 but the dialogue has ids 0 to 4; "
        "correct the answer\n"
    )
    assert not Path("x.jsonl").exists()


def test_a_picture_that_is_missing_is_said(tables: Path) -> None:
    Path("pictures/alfama.png").unlink()
    said = run("import", "lines.csv", "queries.csv", "--out", "x.jsonl", code=1)
    assert 'x.jsonl:1: image "pictures/alfama.png" not found' in said


def test_pictures_elsewhere(tables: Path, tmp_path: Path) -> None:
    said = run("import", "lines.csv", "queries.csv", "--out", tmp_path / "b" / "x.jsonl")
    assert "its pictures stay in ., outside the folder of x.jsonl" in said
    assert "1 of 1 records good" in run("check", tmp_path / "b" / "x.jsonl")
    assert '"image_url": "../mine/pictures/alfama.png"' in (tmp_path / "b" / "x.jsonl").read_text()
    Path("pictures").rename(tmp_path / "pictures")
    run("import", "lines.csv", "queries.csv", "--out", "y.jsonl", code=1)
    run("import", "lines.csv", "queries.csv", "--out", "z.jsonl", "--image-root", tmp_path)


def test_columns_by_other_names(tables: Path) -> None:
    expected = run_and_read("lines.csv", "queries.csv", "--out", "plain.jsonl")
    text = Path("lines.csv").read_text().replace("speaker,text", "posted_by,remark")
    Path("lines.csv").write_text(text)
    files = ("lines.csv", "queries.csv", "--out", "x.jsonl")
    assert 'has no column "speaker"; add it' in run("import", *files, code=1)
    names = ("--column", "speaker=posted_by", "--column", "text=remark")
    assert run_and_read(*files, *names) == expected
    for wrong in ("speaker", "speaker=", "who=author"):
        assert "is not NAME=COLUMN; NAME is one of" in run(
            "import", *files[:2], "--out", "y.jsonl", "--column", wrong, code=2
        )


def test_columns_that_others_call_otherwise_are_taken_and_told(tables: Path) -> None:
    expected = run_and_read("lines.csv", "queries.csv", "--out", "plain.jsonl")
    lines, queries = Path("lines.csv").read_text(), Path("queries.csv").read_text()
    Path("lines.csv").write_text(
        lines.replace("dialogue_id,speaker,text,picture", "dialogue,Author,message,image")
    )
    Path("queries.csv").write_text(
        queries.replace("dialogue_id,query,utterance_ids", "Dialogue,question,answer")
    )
    files = ("lines.csv", "queries.csv", "--out", "x.jsonl")
    said = run("import", *files)
    assert (
        'lines.csv: took the column "dialogue" for dialogue_id, "Author" for speaker, "message" for '
        'text, "image" for picture\n'
        'queries.csv: took the column "Dialogue" for dialogue_id, "question" for query, "answer" for '
        "utterance_ids\n"
    ) in said
    assert Path("x.jsonl").read_bytes() == expected
    # two that may be meant: none is taken
    Path("lines.csv").write_text(lines.replace("speaker,text,picture", "author,text,sender"))
    said = run("import", *files, "--force", code=1)
    assert 'has no column "speaker"; did you mean "sender"? pass --column speaker=sender' in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zip_of("notes.txt"), "is a zip archive; unpack it"),
        (zip_of("notes.txt")[:40], "it ends in the middle); copy it again"),
        (
            b'{"name": "x",\n "messages": [{"date": "x", "from": "y"}]}',
            "is a chat export of Telegram",
        ),
        (b'{"messages": [{"date": "x", "from": "y"}]}', "is a chat export of Telegram"),
        (b'{"messages": [{"role": "user"}]}', "is a data file already; use it as it is"),
        (b'{"dialogue_id": "d", "response": "x"}', "is a data file already"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    other = tmp_path / "b.csv"  # a chat alone would be read as one
    other.write_text("dialogue_id,speaker,text\n")
    out = str(tmp_path / "c.jsonl")
    result = CliRunner().invoke(ffr, ["data", "import", str(path), str(other), "--out", out])
    assert result.exit_code in (1, 2)
    assert sentence in result.output


def test_a_form_that_is_named_is_not_looked_for(tables: Path) -> None:
    text = "12/31/23 8:03 PM - x,speaker,text\ntrip,ann,hi\n"
    Path("odd.csv").write_text(text)
    files = ("odd.csv", "queries.csv", "--out", "x.jsonl")
    assert "is a chat export of WhatsApp" in run("import", *files, code=2)
    said = run("import", *files, "--as", "table", code=1)
    assert 'odd.csv:2: has no column "dialogue_id"' in said


BENCHMARKS: dict[str, dict[str, Any]] = {
    "locomo": {
        "sample_id": "c",
        "conversation": {
            "speaker_a": "Ann",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "hi", "img_url": ["http://a.b/c"]}
            ],
        },
        "qa": [{"question": "q", "answer": 1, "evidence": ["D1:1"], "category": 4}],
    },
    "mem-gallery": {
        "character_profile": {"name": "Ann"},
        "multi_session_dialogues": [
            {
                "session_id": "D1",
                "date": "2024-06-17",
                "dialogues": [
                    {"round": "D1:1", "user": "hi", "assistant": "ho", "input_image": ["a.png"]}
                ],
            }
        ],
        "human-annotated QAs": [{"point": "FR", "question": "q", "answer": "x", "clue": ["D1:1"]}],
    },
    "longmemeval": {
        "question_id": "q1",
        "question_type": "multi-session",
        "question": "q",
        "answer": "x",
        "haystack_dates": ["today"],
        "haystack_session_ids": ["s"],
        "haystack_sessions": [[{"role": "user", "content": "hi", "has_answer": True}]],
    },
    "qmsum": {
        "meeting_transcripts": [{"speaker": "Ann", "content": "hi"}],
        "specific_query_list": [{"query": "q", "relevant_text_span": [["0", "0"]]}],
    },
}


@pytest.mark.parametrize("form", BENCHMARKS)
def test_a_benchmark_is_found_by_its_content(tables: Path, form: str) -> None:
    Path("m.json").write_text(json.dumps(BENCHMARKS[form], indent=1))
    for named in ((), ("--as", form)):
        said = run("import", "m.json", "--out", "x.jsonl", *named, "--force")
        assert "1 of 1 question taken\n" in said
        (example,) = open_dataset("x.jsonl")
        assert (example.query, example.meta["half"]) == ("q", "odd")
        assert example.fragment == Fragment((0,), ())
    other = "qmsum" if form == "locomo" else "locomo"
    assert "has no" in run("import", "m.json", "--as", other, "--out", "y.jsonl", code=1)


def test_an_archive_of_a_benchmark_is_to_be_unpacked(tables: Path) -> None:
    Path("m.zip").write_bytes(b"PK\x03\x04")
    said = run("import", "m.zip", "--as", "qmsum", "--out", "y.jsonl", code=1)
    assert "m.zip: is a zip archive; unpack it and name the data file in it" in said


@pytest.mark.parametrize("form", BENCHMARKS)
def test_changed_benchmarks_are_read_or_refused(tmp_path: Path, form: str) -> None:
    chance = random.Random(form)
    path = tmp_path / "m.json"
    refused: list[str] = []
    for _ in range(150):
        path.write_text(json.dumps([mutated(BENCHMARKS[form], chance)]))
        try:
            found = import_files([path], form=form)
        except FfrError as error:
            refused.append(str(error))
            continue
        assert all(example.meta["truth"] in ("evidence", "nothing") for example in found.examples)
    assert 30 < len(refused) < 150
    assert all(sentence.startswith("m.json:1 (record 1): ") for sentence in refused)


def test_every_form_of_a_kind_has_its_reader() -> None:
    assert {kind.form for kind in KINDS} - {None} == set(READERS)


def test_what_is_kept_is_said(tables: Path) -> None:
    def row(**more: Any) -> str:
        return json.dumps({"dialogue_id": "d", "speaker": "a", "text": "hi", **more}) + "\n"

    Path("l.jsonl").write_text(row(time="10:00") + row(dialogue_id="e"))
    Path("q.jsonl").write_text('{"dialogue_id": "d", "query": "q", "utterance_ids": []}\n')
    said = run("import", "l.jsonl", "q.jsonl", "--out", "x.jsonl")
    assert "1 dialogue has no query, and is left out" in said
    assert "kept beside them, but not used: time (lines)" in said


@pytest.mark.parametrize("text", ["[", "[]", "{"])
def test_a_file_without_a_record_is_a_sentence(tables: Path, text: str) -> None:
    Path("none.json").write_text(text)
    said = run("import", "none.json", "queries.csv", "--out", "x.jsonl", code=1)
    assert said.startswith("Error: none.json")
    assert "Traceback" not in said


_PIECES = [b'"', b",", b"\n", b"\r", b"\0", b"[", b"]", b"{", b"NaN", b"1e999", b"\xff\xfe", b"-1"]
_PIECES += [b"\xef\xbb\xbf", b"9" * 50, b"<image>", b"\\ud83d", b'"\n"', b"PAR1", b"PK\x03\x04"]


def _mutant(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at, piece = chance.randrange(len(changed) + 1), chance.choice(_PIECES)
        kind = chance.randrange(4)
        if kind == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del changed[at : at + chance.randint(1, 20)]
        elif kind == 2:
            changed[at:at] = piece
        else:
            changed = changed[:at]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
def test_changed_tables_are_read_or_refused(tables: Path, seed: int) -> None:
    chance = random.Random(seed)
    csv = Path("lines.csv").read_bytes()
    rows = b'{"dialogue_id": "trip", "speaker": "a", "text": "hi", "picture": ["x.png"]}\n' * 5
    num_read = 0
    for _ in range(150):
        seeded = chance.choice([csv, rows, csv.decode().encode("utf-16")])
        Path("mutant").write_bytes(_mutant(seeded, chance))
        try:
            found = import_files([Path("mutant"), Path("queries.csv")])
        except FfrError:
            continue
        num_read += 1
        assert found.examples
    assert num_read < 150
