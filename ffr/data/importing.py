"""Foreign files → examples: the kind of each is found by its content, and its form's reader asked.

To add a form: a module in `ffr/data/forms/`, its kinds in `ffr/data/kinds.py`, a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ffr.data.findings import shown
from ffr.data.forms.benchmark import Account
from ffr.data.forms.locomo import read_locomo
from ffr.data.forms.longmemeval import read_longmemeval
from ffr.data.forms.mem_gallery import read_mem_gallery
from ffr.data.forms.qmsum import read_qmsum
from ffr.data.forms.rows import is_json
from ffr.data.forms.tables import read_tables
from ffr.data.index import RecordFile, parse_record
from ffr.data.kinds import HEAD_BYTES, Kind, kind_of_head, kind_of_object
from ffr.dialogue import Example
from ffr.errors import DataError, UsageError
from ffr.text import address_hint, counted


@dataclass(frozen=True)
class ImportChoices:
    """What may be said about files that are imported.

    Args:
        columns: Names of columns in tables, by the names that are wanted.
        encoding: Of files of text; None for what their first bytes say.
        image_root: Folder that relative picture paths are resolved against.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    image_root: Path | None = None


@dataclass(frozen=True)
class Imported:
    """What was read from foreign files.

    Args:
        examples: The examples, those on one dialogue after each other.
        notes: What there is to say about them, a line each.
    """

    examples: Sequence[Example]
    notes: Sequence[str] = ()


def _read_tables(paths: Sequence[Path], choices: ImportChoices) -> Imported:
    examples, summary = read_tables(
        paths,
        columns=choices.columns,
        encoding=choices.encoding,
        image_root=choices.image_root,
    )
    notes: list[str] = []
    if summary.num_lines:
        notes.append(
            f"{counted(summary.num_lines, 'line')} of {counted(summary.num_dialogues, 'dialogue')}"
        )
    for name, columns in summary.taken.items():
        words = ", ".join(f"{shown(given)} for {wanted}" for wanted, given in columns.items())
        notes.append(f"{name}: took the column {words}")
    if summary.num_unasked:
        one, many = "dialogue has no query, and is", "dialogues have no query, and are"
        notes.append(f"{counted(summary.num_unasked, one, many)} left out")
    if summary.kept:
        notes.append(f"kept beside them, but not used: {', '.join(summary.kept)}")
    return Imported(examples, notes)


class _Benchmark(Protocol):
    """What reads the files of a benchmark."""

    def __call__(
        self, paths: Sequence[Path], *, image_root: Path | None = None
    ) -> tuple[list[Example], Account]: ...


def _of(read: _Benchmark) -> Callable[[Sequence[Path], ImportChoices], Imported]:
    def reader(paths: Sequence[Path], choices: ImportChoices) -> Imported:
        examples, account = read(paths, image_root=choices.image_root)
        return Imported(examples, account.notes())

    return reader


READERS: dict[str, Callable[[Sequence[Path], ImportChoices], Imported]] = {
    "table": _read_tables,
    "locomo": _of(read_locomo),
    "mem-gallery": _of(read_mem_gallery),
    "longmemeval": _of(read_longmemeval),
    "qmsum": _of(read_qmsum),
}
"""For each form, what reads files of it, all of one import together."""


def import_files(
    paths: Sequence[Path], *, form: str | None = None, choices: ImportChoices | None = None
) -> Imported:
    """Reads foreign files of one form.

    Args:
        paths: The files.
        form: One of `READERS`, whatever the files look like; None to find it by their content.
        choices: What else is said about them.

    Raises:
        UsageError: where a file is of no form that can be read, or the files are of several.
        DataError: with the place of the first fault.
    """
    forms = {path: form or _form_of(path) for path in paths}
    first, *others = forms
    for path in others:
        if forms[path] != forms[first]:
            raise UsageError(
                f"{first} is a {forms[first]} and {path} a {forms[path]}; import them one by one"
            )
    return READERS[forms[first]](paths, choices or ImportChoices())


def _form_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}){address_hint(path)}; check the path",
            where=str(path),
        ) from error
    kind = kind_of_head(head, path)
    if kind is None and (is_json(head) or head.startswith(b"\x1f\x8b")):
        kind = _kind_of_records(path)
    if kind is not None and kind.form is None:
        raise UsageError(f"{path} is {kind.words}; {kind.remedy}")
    # what looks like nothing may be a table whose columns have other names
    return "table" if kind is None or kind.form is None else kind.form


def _kind_of_records(path: Path) -> Kind | None:
    records = RecordFile(path, may_be_one=True)
    if not len(records):
        raise records.tail_fault or DataError("holds no record", where=str(path))
    record = parse_record(records.read(0), records.where(0))
    kind = kind_of_object(record)
    if kind is None and record.keys() & {"messages", "dialogue", "response"}:
        raise UsageError(
            f"{path} is a data file already; use it as it is, or write it in another form with "
            "`ffr data convert`"
        )
    return kind
