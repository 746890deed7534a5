"""Two tables joined to examples: one of the lines of dialogues, one of the queries put to them.

Lines: `dialogue_id`, `speaker`, `text`, `picture`, in the order of the dialogue; perhaps
`utterance_id`, by which answers name the line. Queries: `dialogue_id`, `query`, and the true answer
as `utterance_ids` and `image_ids`. A table whose rows are whole records is taken as well.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from ffr.data.findings import FaultyError, Findings, shown
from ffr.data.forms.arrow import MAX_ROWS
from ffr.data.forms.fields import read_image
from ffr.data.forms.formats import read_record
from ffr.data.forms.raw import EXTRA_LINE_KEYS, RAW_LINE_KEYS
from ffr.data.forms.rows import Row, read_rows
from ffr.data.index import kind_of
from ffr.data.keys import LINE_COLUMNS, QUERY_COLUMNS, columns_taken, other_name
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.prompt import check_markers

Role = Literal["lines", "queries", "records"]
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass
class TableSummary:
    """What was read from tables.

    Args:
        num_lines: Rows of lines.
        num_dialogues: Dialogues they make.
        num_unasked: Dialogues without a query, which no example shows.
        kept: Columns that mean nothing here and are kept beside the lines and the queries.
        taken: For each file, the columns that were taken for those wanted, by these.
    """

    num_lines: int = 0
    num_dialogues: int = 0
    num_unasked: int = 0
    kept: list[str] = field(default_factory=list)
    taken: dict[str, dict[str, str]] = field(default_factory=dict)


def read_tables(
    paths: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    image_root: Path | None = None,
) -> tuple[list[Example], TableSummary]:
    """Reads tables of lines and of queries, or of whole records, from files and joins them.

    Args:
        paths: The files, in any order; which is which is told by their columns.
        columns: Other names of columns in the files, by the names that are wanted.
        encoding: Of CSV files; see `read_rows`.
        image_root: Goes into the examples.

    Raises:
        UsageError: where a table of one of the two kinds is missing.
        DataError: with file and line of the first fault.
    """
    rows: dict[Role, list[Iterable[Row]]] = {"lines": [], "queries": [], "records": []}
    count = itertools.count(1)
    taken: dict[str, dict[str, str]] = {}
    for path in paths:
        table = _counted(read_rows(path, encoding=encoding), count, path.name)
        renamed = _renamed(table, columns or {})
        first = next(renamed, None)
        if first is None:
            raise DataError("holds no row behind its header", where=path.name)
        role = _role(first, path.name)
        whole: Iterable[Row] = itertools.chain([first], renamed)
        if role != "records":
            names = LINE_COLUMNS if role == "lines" else QUERY_COLUMNS
            if found := columns_taken(first.values, names):
                taken[path.name] = found
                whole = _renamed(whole, found)
        rows[role].append(whole)
    if rows["records"]:
        if rows["lines"] or rows["queries"]:
            raise UsageError(
                "a table of records stands beside one of lines or queries; import them one by one"
            )
        records = itertools.chain.from_iterable(rows["records"])
        return list(examples_of_records(records, image_root=image_root)), TableSummary()
    needed: dict[Role, Sequence[str]] = {"lines": LINE_COLUMNS[:4], "queries": QUERY_COLUMNS}
    for role, wanted in needed.items():
        if not rows[role]:
            raise UsageError(
                f"no table of {role} among the files; name one with the columns "
                f"{', '.join(wanted)} too"
            )
    examples, summary = examples_of_tables(
        itertools.chain.from_iterable(rows["lines"]),
        itertools.chain.from_iterable(rows["queries"]),
        image_root=image_root,
    )
    summary.taken = taken
    return examples, summary


def examples_of_records(
    rows: Iterable[Row], *, image_root: Path | None = None
) -> Iterator[Example]:
    """The examples of rows that are whole records, in ms-swift or raw form.

    Raises:
        DataError: with the place of the first fault.

    >>> from ffr.data.forms.rows import rows_of
    >>> record = {"dialogue": [{"speaker": "a", "utterance": "hi"}], "query_text": "greeting"}
    >>> [example.query for example in examples_of_records(rows_of([record]))]
    ['greeting']
    """
    for row in rows:
        # a table gives every row every column
        record = {key: value for key, value in row.values.items() if value is not None}
        examples, findings = read_record(record, fallback_id=row.where, image_root=image_root)
        for finding in findings:
            if finding.is_error:
                raise DataError(finding.message, where=row.where)
        yield from examples


def examples_of_tables(
    lines: Iterable[Row], queries: Iterable[Row], *, image_root: Path | None = None
) -> tuple[list[Example], TableSummary]:
    """Joins rows of lines and rows of queries to examples, those on one dialogue after each other.

    Args:
        lines: One row a line, in the order of the dialogue.
        queries: One row a query.
        image_root: Goes into the examples.

    Raises:
        DataError: with the place of the first fault.

    >>> from ffr.data.forms.rows import rows_of
    >>> lines = [{"dialogue_id": "d", "speaker": "ann", "text": word} for word in ("hi", "tea?")]
    >>> query = {"dialogue_id": "d", "query": "a drink", "utterance_ids": [1]}
    >>> examples, _ = examples_of_tables(rows_of(lines), rows_of([query]))
    >>> examples[0].query, examples[0].fragment.utterance_ids
    ('a drink', (1,))
    """
    dialogues: dict[str, _Lines] = {}
    kept: dict[str, None] = {}
    num_lines = 0
    for row in lines:
        dialogues.setdefault(_id_of(row, "dialogue_id", LINE_COLUMNS), _Lines(row.where)).add(row)
        kept |= {f"{key} (lines)": None for key in row.values if key not in LINE_COLUMNS}
        num_lines += 1
    asked: dict[str, list[Row]] = {}
    for row in queries:
        dialogue_id = _id_of(row, "dialogue_id", QUERY_COLUMNS)
        if dialogue_id not in dialogues:
            raise DataError(
                f"the dialogue {shown(dialogue_id)} is in no table of lines; add its lines, or "
                "correct the id",
                where=row.where,
            )
        asked.setdefault(dialogue_id, []).append(row)
        kept |= {f"{key} (queries)": None for key in row.values if key not in QUERY_COLUMNS}
    examples: list[Example] = []
    for dialogue_id, found in dialogues.items():
        if dialogue_id in asked:
            examples += found.examples(dialogue_id, asked[dialogue_id], image_root)
    summary = TableSummary(num_lines, len(dialogues), len(dialogues) - len(asked), list(kept))
    return examples, summary


class _Lines:
    """The lines of one dialogue, as their rows come.

    Args:
        where: Place of the first of them.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.utterances: list[Utterance] = []
        self.positions: dict[str, int] = {}  # name of a line → its id, where lines have names
        self.extras: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """Takes a line."""
        speaker = _id_of(row, "speaker", LINE_COLUMNS)
        if "text" not in row.values and "picture" not in row.values:
            _no_column(row, "text", LINE_COLUMNS)
        text = row.values.get("text")
        if text is not None and not isinstance(text, str):
            raise DataError(f'"text" is {kind_of(text)}; write a text', where=row.where)
        segments = ([text] if text else []) + _pictures(row)
        has_name = row.values.get("utterance_id") is not None
        name = _id_of(row, "utterance_id", LINE_COLUMNS) if has_name else ""
        if self.utterances and has_name != bool(self.positions):
            raise DataError(
                "of this dialogue some lines have an utterance_id and some have none; give all "
                "one, "
                "or none",
                where=row.where,
            )
        if name in self.positions:
            raise DataError(
                f"the dialogue has the utterance_id {shown(name)} twice; give each line its own",
                where=row.where,
            )
        if has_name:
            self.positions[name] = len(self.utterances)
        extra = {key: item for key, item in row.values.items() if key not in LINE_COLUMNS}
        if taken := next((key for key in extra if key in RAW_LINE_KEYS), None):
            raise DataError(
                f"the column {shown(taken)} means something else in the raw form; rename it",
                where=row.where,
            )
        self.utterances.append(Utterance(speaker, tuple(segments)))
        self.extras.append(extra)

    def examples(
        self, dialogue_id: str, queries: Sequence[Row], image_root: Path | None
    ) -> Iterator[Example]:
        """The examples of the queries put to it."""
        dialogue = Dialogue(dialogue_id, tuple(self.utterances))
        _refuse_markers(dialogue, self.where)
        shared = {EXTRA_LINE_KEYS: self.extras} if any(self.extras) else {}
        for row in queries:
            query = row.values.get("query")
            if not isinstance(query, str) or not query.strip():
                if "query" not in row.values:
                    _no_column(row, "query", QUERY_COLUMNS)
                raise DataError('"query" is no text; write what is looked for', where=row.where)
            _refuse_markers(Dialogue(dialogue_id, ()), row.where, query)
            own = {key: item for key, item in row.values.items() if key not in QUERY_COLUMNS}
            yield Example(
                dialogue,
                query,
                self._answer(row, dialogue),
                None,
                image_root,
                MappingProxyType({**own, **shared}),
            )

    def _answer(self, row: Row, dialogue: Dialogue) -> Fragment | None:
        """The true answer of a query; None where its cell holds nothing.

        Where image ids are not given, it has the pictures of its lines.
        """
        names = _ids(row, "utterance_ids")
        given_images = _ids(row, "image_ids")
        if names is None:
            if given_images is not None:
                raise DataError(
                    '"image_ids" stand there without "utterance_ids"; write [] for no utterance',
                    where=row.where,
                )
            return None
        utterance_ids = [self._position(name, row) for name in names]
        if given_images is None:
            hosts = set(utterance_ids)
            return Fragment.of(
                utterance_ids,
                (index for index, host in enumerate(dialogue.image_utterance_ids) if host in hosts),
            )
        image_ids = [_number(name, "image", len(dialogue.images), row) for name in given_images]
        return Fragment.of(utterance_ids, image_ids)

    def _position(self, name: str, row: Row) -> int:
        if not self.positions:
            return _number(name, "utterance", len(self.utterances), row)
        if name not in self.positions:
            raise DataError(
                f"the answer names the line {shown(name)}, which the dialogue does not have; its "
                "lines are named by their utterance_id",
                where=row.where,
            )
        return self.positions[name]


def _refuse_markers(dialogue: Dialogue, where: str, *queries: str) -> None:
    try:
        check_markers(dialogue, *queries)
    except DataError as error:
        raise DataError(f"{error.where}: {error.message}", where=where) from error


def _counted(rows: Iterable[Row], count: Iterator[int], name: str) -> Iterator[Row]:
    for row in rows:
        if next(count) > MAX_ROWS:
            raise DataError(
                f"the tables have more than {MAX_ROWS:,} rows; import them in parts", where=name
            )
        yield row


def _renamed(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows with their columns called as they are wanted."""
    wanted = {given: name for name, given in columns.items()}
    for row in rows:
        yield replace(
            row, values={wanted.get(key, key): value for key, value in row.values.items()}
        )


def _role(first: Row, name: str) -> Role:
    """Which table a file holds, by the columns of its first row."""
    given = first.values.keys()
    if "query" in given:
        return "queries"
    if given & {"text", "picture"}:
        return "lines"
    if any(isinstance(first.values.get(key), list) for key in ("messages", "dialogue")):
        return "records"
    if columns_taken(given, ["query"]):
        return "queries"
    if columns_taken(given, ["text", "picture"]):
        return "lines"
    for key in ("text", "query"):
        if other := other_name(key, given - {"dialogue_id", "speaker"}):
            raise DataError(
                f'has no column "{key}"; did you mean {shown(other)}? pass --column {key}={other}',
                where=name,
            )
    raise DataError(
        f"has the columns {shown(list(given))}; a table of lines has "
        f"{', '.join(LINE_COLUMNS[:4])}, "
        f"one of queries {', '.join(QUERY_COLUMNS)}",
        where=name,
    )


def _no_column(row: Row, wanted: str, known: Sequence[str]) -> NoReturn:
    other = other_name(wanted, [key for key in row.values if key not in known])
    hint = f"did you mean {shown(other)}? pass --column {wanted}={other}" if other else "add it"
    raise DataError(f'has no column "{wanted}"; {hint}', where=row.where)


def _id_of(row: Row, column: str, known: Sequence[str]) -> str:
    """A cell that names something, as a text: a text or a whole number."""
    if column not in row.values:
        _no_column(row, column, known)
    value = row.values[column]
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        found = "empty" if value is None or isinstance(value, str) else shown(value)
        raise DataError(f'"{column}" is {found}; write a text or a whole number', where=row.where)
    return value


def _pictures(row: Row) -> list[str | Image]:
    """The pictures of a line: a path, or a list of paths (in CSV as JSON)."""
    value = row.values.get("picture")
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value, "picture", row)
    entries = value if isinstance(value, list) else [] if value is None else [value]
    findings = Findings()
    try:
        return [Image(read_image(entry, '"picture"', findings)) for entry in entries]
    except FaultyError:
        raise DataError(findings[-1].message, where=row.where) from None


def _ids(row: Row, column: str) -> list[str] | None:
    """The ids in a cell: a list of whole numbers and texts, or a text with them between spaces."""
    value = row.values.get(column)
    if value is None:
        return None
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return [part for part in _SEPARATORS.split(value) if part]
        value = _json_list(value, column, row)
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if type(entry) is not int and not isinstance(entry, str):
            raise DataError(
                f'"{column}" holds {shown(entry)}; write a list of ids, such as [0, 3]',
                where=row.where,
            )
    return [str(entry) for entry in entries]


def _json_list(text: str, column: str, row: Row) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise DataError(
            f'"{column}" is {shown(text)}, which is no list; write one such as [0, 3]',
            where=row.where,
        )
    return value


def _number(name: str, word: str, count: int, row: Row) -> int:
    """An id that counts from 0."""
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise DataError(
            f"the answer names the {word} {shown(name)}; ids are whole numbers from 0",
            where=row.where,
        )
    if int(name) >= count:
        has = f"ids 0 to {count - 1}" if count else f"no {word}"
        raise DataError(
            f"the answer names {word} {name} but the dialogue has {has}; correct the answer",
            where=row.where,
        )
    return int(name)
