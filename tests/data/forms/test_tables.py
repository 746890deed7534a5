"""Tables of lines and of queries joined: by hand, and every fault with its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ffr.data.dataset import data_fingerprint, open_dataset
from ffr.data.forms import tables
from ffr.data.forms.formats import write_examples
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.data.forms.rows import rows_of
from ffr.data.forms.tables import examples_of_records, examples_of_tables, read_tables
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError

Cells = dict[str, Any]


def _line(text: str | None = "hi", *, of: str = "d", **more: Any) -> Cells:
    return {"dialogue_id": of, "speaker": "Ann", "text": text, **more}


def _query(query: str = "q", *, of: str = "d", **more: Any) -> Cells:
    return {"dialogue_id": of, "query": query, **more}


def _join(lines: list[Cells], queries: list[Cells]) -> list[Example]:
    return examples_of_tables(rows_of(lines, "lines"), rows_of(queries, "queries"))[0]


def test_lines_and_queries_meet() -> None:
    lines = [
        _line("one", of="a"),
        _line("uno", of="b"),
        _line("two", of="a", picture="x.png"),
        _line(None, of="a", picture=["y.png", {"path": "z.png"}]),
        _line("lonely", of="c"),
    ]
    queries = [
        _query("b?", of="b", utterance_ids=[0]),
        _query("first", of="a", utterance_ids=[1, 0], image_ids=[]),
        _query("second", of="a", utterance_ids=[2]),
        _query("none", of="a", utterance_ids=[]),
        _query("unknown", of="a", utterance_ids=None),
    ]
    examples, summary = examples_of_tables(rows_of(lines), rows_of(queries), image_root=Path("r"))
    chat = Dialogue(
        "a",
        (
            Utterance("Ann", ("one",)),
            Utterance("Ann", ("two", Image("x.png"))),
            Utterance("Ann", (Image("y.png"), Image("z.png"))),
        ),
    )
    assert examples == [
        Example(chat, "first", Fragment((0, 1), ())),
        Example(chat, "second", Fragment((2,), (1, 2))),
        Example(chat, "none", Fragment()),
        Example(chat, "unknown", None),
        Example(Dialogue("b", (Utterance("Ann", ("uno",)),)), "b?", Fragment((0,), ())),
    ]
    assert {example.image_root for example in examples} == {Path("r")}
    assert (summary.num_lines, summary.num_dialogues, summary.num_unasked) == (5, 3, 1)
    assert summary.kept == []


def test_lines_with_names_of_their_own() -> None:
    lines = [_line("one", utterance_id=7), _line("two", utterance_id="m1")]
    (example,) = _join(lines, [_query(utterance_ids=["m1"])])
    assert example.fragment == Fragment((1,), ())
    assert _join(lines, [_query(utterance_ids="7 m1")])[0].fragment == Fragment((0, 1), ())
    with pytest.raises(DataError, match=r'queries, row 1: the answer names the line "0", which'):
        _join(lines, [_query(utterance_ids=[0])])


@pytest.mark.parametrize("cell", ["[0, 2]", "0 2", "0,2", "0; 2", "2,0", [0, 2], ["0", 2], " 0\n2"])
def test_ids_are_written_in_many_ways(cell: Any) -> None:
    lines = [_line("a"), _line("b"), _line("c")]
    assert _join(lines, [_query(utterance_ids=cell)])[0].fragment == Fragment((0, 2), ())


def test_one_id_is_a_list_of_one() -> None:
    assert _join([_line()], [_query(utterance_ids=0)])[0].fragment == Fragment((0,), ())


def test_other_columns_are_kept(tmp_path: Path) -> None:
    examples, summary = examples_of_tables(
        rows_of([_line(time="10:00"), _line(time="10:01")]), rows_of([_query(by="me")])
    )
    assert summary.kept == ["time (lines)", "by (queries)"]
    assert examples[0].meta == {"by": "me", EXTRA_LINE_KEYS: [{"time": "10:00"}, {"time": "10:01"}]}
    write_examples(tmp_path / "a.json", examples, format="raw")
    (record,) = json.loads((tmp_path / "a.json").read_text())
    assert [line["time"] for line in record["dialogue"]] == ["10:00", "10:01"]
    assert record["meta"] == {"by": "me"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"dialogue_id": None}, '"dialogue_id" is empty; write a text or a whole number'),
        ({"dialogue_id": 1.0}, '"dialogue_id" is 1.0; write a text or a whole number'),
        ({"dialogue_id": True}, '"dialogue_id" is true; write'),
        ({"speaker": None}, '"speaker" is empty; write'),
        ({"speaker": " "}, '"speaker" is empty; write'),
        ({"text": 3}, '"text" is a number; write a text'),
        ({"picture": 3}, '"picture" is a number; write its path'),
        ({"picture": "[a.png"}, '"picture" is "\\[a.png", which is no list'),
        ({"picture": {"bytes": "x"}}, '"picture" is an object that needs one of'),
        ({"picture": ["a.png", ""]}, '"picture" has an empty or impossible path'),
        ({"utterance_id": "0"}, "some lines have an utterance_id and some have none"),
        ({"utterance_idx": 1}, 'the column "utterance_idx" means something else in the raw form'),
    ],
)
def test_faults_of_a_line(line: Cells, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^lines, row 2: .*{sentence}"):
        _join([_line(), {**_line(), **line}], [_query()])


@pytest.mark.parametrize("missing", ["dialogue_id", "speaker", "text"])
def test_a_column_of_lines_that_is_missing(missing: str) -> None:
    bad = {key: value for key, value in _line().items() if key != missing}
    with pytest.raises(DataError, match=f'lines, row 1: has no column "{missing}"; add it'):
        _join([bad], [_query()])
    other = {"speaker": "author", "text": "content", "dialogue_id": "chat"}[missing]
    hint = f'did you mean "{other}"\\? pass --column {missing}={other}'
    with pytest.raises(DataError, match=f'lines, row 1: has no column "{missing}"; {hint}'):
        _join([{**bad, other: "x"}], [_query()])


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"dialogue_id": "e"}, 'the dialogue "e" is in no table of lines; add its lines'),
        ({"query": None}, '"query" is no text; write what is looked for'),
        ({"query": "  "}, '"query" is no text'),
        ({"query": "a <image>"}, "the query contains the marker <image>; remove it"),
        ({"utterance_ids": [1.0]}, '"utterance_ids" holds 1.0; write a list of ids'),
        ({"utterance_ids": [True]}, '"utterance_ids" holds true; write a list of ids'),
        ({"utterance_ids": 0.5}, '"utterance_ids" holds 0.5; write a list of ids'),
        ({"utterance_ids": {"0": 1}}, '"utterance_ids" holds {"0": 1}; write a list'),
        ({"utterance_ids": "1.0"}, 'the answer names the utterance "1.0"; ids are whole numbers'),
        ({"utterance_ids": "[0, x]"}, '"utterance_ids" is "\\[0, x\\]", which is no list'),
        ({"utterance_ids": "[" * 9999}, "which is no list"),
        ({"utterance_ids": "-1"}, 'names the utterance "-1"; ids are whole numbers from 0'),
        ({"utterance_ids": "٣"}, "ids are whole numbers from 0"),
        ({"utterance_ids": [1]}, "names utterance 1 but the dialogue has ids 0 to 0; correct"),
        ({"utterance_ids": [0], "image_ids": [0]}, "names image 0 but the dialogue has no image"),
        ({"image_ids": [0]}, '"image_ids" stand there without "utterance_ids"; write'),
    ],
)
def test_faults_of_a_query(query: Cells, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^queries, row 1: .*{sentence}"):
        _join([_line()], [{**_query(), **query}])


def test_faults_of_a_dialogue() -> None:
    with pytest.raises(
        DataError, match=r'^lines, row 2: the dialogue has the utterance_id "m" twi'
    ):
        _join([_line(utterance_id="m"), _line(utterance_id="m")], [_query()])
    with pytest.raises(DataError, match=r"^lines, row 1: .*utterance 1 contains the marker"):
        _join([_line(), _line("<|query_end|>")], [_query()])


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_files_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    lines = _write(tmp_path / "1.csv", "chat,author,text\nd,ann,hi\nd,bob,yes\n")
    queries = _write(tmp_path / "2.jsonl", '{"chat": "d", "query": "q", "utterance_ids": [1]}\n')
    names = {"dialogue_id": "chat", "speaker": "author"}
    for paths in ((lines, queries), (queries, lines)):
        examples, _ = read_tables(paths, columns=names)
        assert [line.speaker for line in examples[0].dialogue.utterances] == ["ann", "bob"]
        assert examples[0].fragment == Fragment((1,), ())
    with pytest.raises(UsageError, match="no table of queries among the files; name one with the"):
        read_tables([lines], columns=names)
    with pytest.raises(UsageError, match="no table of lines among the files"):
        read_tables([queries], columns=names)
    odd = _write(tmp_path / "3.csv", "chat,author,body,msg\nd,ann,hi,ho\n")
    with pytest.raises(
        DataError, match=r'3\.csv: has no column "text"; did you mean "body"\? pass'
    ):
        read_tables([odd])
    odd = _write(tmp_path / "4.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r'4\.csv: has the columns \["a", "b"\]; a table of lines'):
        read_tables([odd])
    empty = _write(tmp_path / "5.csv", "dialogue_id,query\n")
    with pytest.raises(DataError, match=r"5\.csv: holds no row behind its header"):
        read_tables([empty])


def test_several_tables_of_a_kind_are_one(tmp_path: Path) -> None:
    header = "dialogue_id,speaker,text\n"
    paths = [
        _write(tmp_path / "1.csv", f"{header}a,ann,hi\n"),
        _write(tmp_path / "2.csv", f"{header}b,bob,ho\n"),
        _write(tmp_path / "3.csv", "dialogue_id,query\nb,second\na,first\n"),
    ]
    assert [example.query for example in read_tables(paths)[0]] == ["first", "second"]


def test_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 3)
    paths = [
        _write(tmp_path / "1.csv", "dialogue_id,speaker,text\na,ann,hi\na,ann,ho\n"),
        _write(tmp_path / "2.csv", "dialogue_id,query\na,one\na,two\n"),
    ]
    with pytest.raises(DataError, match=r"the tables have more than 3 rows; import them in parts"):
        read_tables(paths)


def test_whole_records(tmp_path: Path, record: Cells, raw_record: Cells) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "records.parquet"
    rows = [{**record, "dialogue_id": f"d{number}", "meta": None} for number in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    examples, _ = read_tables([path])
    (tmp_path / "images").mkdir()
    write_examples(tmp_path / "a.jsonl", examples)
    again = open_dataset(tmp_path / "a.jsonl", require_images=False)
    assert again.fingerprint == data_fingerprint(examples)
    assert [example.dialogue.id for example in again] == ["d0", "d1", "d2"]
    with pytest.raises(DataError, match=r'^rows, row 2: "gt_turns" has 1 list but'):
        list(examples_of_records(rows_of([raw_record, {**raw_record, "gt_turns": [[0]]}])))
    lines = _write(tmp_path / "1.csv", "dialogue_id,speaker,text\na,ann,hi\n")
    with pytest.raises(UsageError, match="a table of records stands beside one of lines"):
        read_tables([path, lines])
