"""Suites of `ffr bench run`: models × settings × data sets from a file, checked whole at first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ffr.errors import UsageError
from ffr.settings import AnswerConfig, kind_of, nearest, without_effect
from ffr.settings.yaml import Document, read_yaml, read_yaml_file
from ffr.suites import packaged_suites, suite_text
from ffr.suites.file import (
    ARCHIVE,
    DIALOGUE,
    EVERY_KIND,
    MAX_CELLS,
    SuiteDataset,
    SuiteFile,
    SuiteModel,
    check_file,
)
from ffr.text import address_hint, counted, one_line


@dataclass(frozen=True)
class SuiteRow:
    """A model, asked in one way.

    Args:
        model: The model.
        setting: What the way is called; empty where a model is asked in but one.
        settings: Settings of the way.
    """

    model: SuiteModel
    setting: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the table calls the row."""
        return f"{self.model.label}, {self.setting}" if self.setting else self.model.label


@dataclass(frozen=True)
class Suite:
    """A table to be measured.

    Args:
        name: Its file's name without the ending, or what `ffr bench list` calls it.
        text: The file.
        title: What stands above the table.
        seed: Seed of whatever is drawn.
        figures: Figures of the table, as `results.json` names them.
        slices: `all`, or tables of `ffr.evaluation.scoring.SLICES`.
        defaults: Settings for everything.
        rows: The rows of the table.
        datasets: The data sets; none where they are named when it is run (`with_data`).
        notes: Rows that are not made since their setting changes nothing for the model.
        answers: What declares the settings.
        asks: `ARCHIVE` where queries are asked of a whole archive of dialogues.
    """

    name: str
    text: str
    title: str
    seed: int
    figures: tuple[str, ...]
    slices: tuple[str, ...]
    defaults: Mapping[str, Any]
    rows: tuple[SuiteRow, ...]
    datasets: tuple[SuiteDataset, ...]
    notes: tuple[str, ...] = ()
    answers: type[AnswerConfig] = AnswerConfig
    asks: str = DIALOGUE

    @property
    def asks_archive(self) -> bool:
        """Whether each query is asked of a whole archive."""
        return self.asks == ARCHIVE

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def settings_of(self, row: SuiteRow, dataset: SuiteDataset) -> AnswerConfig:
        """How the row's model is asked on the data; what has no effect on its kind is left out.

        The suite's defaults give way to those of the data set, these to the model's, these to the
        row's.
        """
        assert row.model.model is not None
        merged = {**self.defaults, **dataset.settings, **row.model.settings, **row.settings}
        without = without_effect(kind_of(row.model.model), self.answers)
        return self.answers(
            **{name: value for name, value in merged.items() if name not in without}
        )

    def with_data(
        self,
        data: Iterable[str],
        fit: Iterable[str],
        corpus: Iterable[str] = (),
        specific: str | None = None,
    ) -> Suite:
        """The suite on data that is named when it is run.

        Args:
            data: `NAME=FILE` each, or `NAME=SET` for a named set.
            fit: Likewise, the data that models are fitted on for a name of those.
            corpus: Likewise, the data whose dialogues are the archive for a name of those.
            specific: Patterns of kinds of queries that mean one dialogue of the archive, with commas
                between them; None for all kinds.

        Raises:
            UsageError: where the suite names data itself, none is given, a text is no such pair, or
                an archive is named and not asked, or the other way round.
        """
        named = _pairs("--data", data)
        beside = {"--fit": _pairs("--fit", fit), "--corpus": _pairs("--corpus", corpus)}
        is_given = {option: bool(pairs) for option, pairs in beside.items()}
        is_given["--specific"] = specific is not None
        if not self.asks_archive:
            _refuse(is_given, ("--corpus", "--specific"), f"{self._asks_what}, and no archive")
        if self.datasets:
            is_given = {"--data": bool(named), **is_given}
            _refuse(is_given, is_given, f"the suite {self.name} names its own data")
            return self
        if not named:
            asked = "--data NAME=FILE" + (" and --corpus NAME=FILE" if self.asks_archive else "")
            raise UsageError(f"the suite {self.name} names no data; add {asked}")
        for option, pairs in beside.items():
            for name in pairs:
                if name not in named:
                    no_data = f"no --data has this name{nearest(name, named)}"
                    raise UsageError(f"{option} {one_line(name)}: {no_data}")
        archives = beside["--corpus"]
        if self.asks_archive and (missing := [name for name in named if name not in archives]):
            more = f"add --corpus {missing[0]}=FILE, whose dialogues it is made of"
            raise UsageError(f"the suite {self.name} asks an archive; {more}")
        kinds = None if specific is None else _kinds(specific)
        own = (
            _dataset(name, path, beside["--fit"].get(name), archives.get(name), kinds)
            for name, path in named.items()
        )
        return replace(self, datasets=tuple(own))

    @property
    def _asks_what(self) -> str:
        return f"the suite {self.name} asks each query of its own dialogue"

    def limited_to(self, num_queries: int) -> Suite:
        """The suite with the first queries of each data set only."""
        datasets = (
            replace(item, limit=min(num_queries, item.limit or num_queries))
            for item in self.datasets
        )
        return replace(self, datasets=tuple(datasets))

    def rows_of(self, labels: Iterable[str]) -> tuple[SuiteRow, ...]:
        """The rows of these models, or of these rows; all for no label.

        Raises:
            UsageError: for a label that the suite does not have.
        """
        wanted = set(labels)
        known = dict.fromkeys(name for row in self.rows for name in (row.model.label, row.label))
        for label in wanted:
            if label not in known:
                raise UsageError(
                    f"--only {label}: the suite {self.name} has no such row{nearest(label, known)}"
                )
        return tuple(
            row for row in self.rows if not wanted or wanted & {row.model.label, row.label}
        )


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, mark, value = (part.strip() for part in text.partition("="))
        if not (name and mark and value):
            raise UsageError(f"{option} {one_line(text)}: write NAME=FILE")
        if name.casefold() in map(str.casefold, found):
            raise UsageError(f"{option} {one_line(name)} is given twice; give each its own name")
        found[name] = value
    return found


def _refuse(is_given: Mapping[str, bool], options: Iterable[str], because: str) -> None:
    if given := [option for option in options if is_given[option]]:
        raise UsageError(f"{because}; leave {' and '.join(given)} out")


def _kinds(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise UsageError(
            f"--specific {one_line(text)!r} names no kind; write some, such as human_*,goal"
        )
    return found


def _dataset(
    name: str, path: str, fit: str | None, corpus: str | None, kinds: tuple[str, ...] | None
) -> SuiteDataset:
    settings = {} if fit is None else {"fit_dataset": fit}
    try:
        return SuiteDataset(
            label=name,
            dataset=path,
            settings=settings,
            corpus=corpus,
            specific=kinds or EVERY_KIND,
        )
    except ValidationError as error:
        raise UsageError(f"--data {one_line(name)}: {one_line(error.errors()[0]['msg'])}") from None


def load_suite(source: str) -> Suite:
    """Reads a suite that comes with ffr, by name, or one from a file.

    Raises:
        UsageError: where there is none, or something in it is wrong; file and line are named.
    """
    known = packaged_suites()
    if source in known:
        return read_suite(suite_text(source), name=source, where=source)
    path = Path(source)
    if not path.is_file():
        names = ", ".join(known)
        raise UsageError(
            f"{source}: neither a suite ({names}) nor a file"
            f"{address_hint(source)}{nearest(source, known)}"
        )
    name = path.name.removesuffix(".yaml").removesuffix(".yml")
    return _suite(read_yaml_file(path), name, AnswerConfig)


def read_suite(
    text: str, *, name: str, where: str, answers: type[AnswerConfig] = AnswerConfig
) -> Suite:
    """Reads the text of a suite.

    Args:
        text: The YAML.
        name: What the suite is called.
        where: What stands before the line in errors.
        answers: What declares the settings that a suite may have.

    Raises:
        UsageError: where something in it is wrong.
    """
    return _suite(read_yaml(text, where), name, answers)


def _suite(document: Document, name: str, answers: type[AnswerConfig]) -> Suite:
    """The table that a file asks for."""
    found = check_file(document, answers)
    rows, notes = _rows(document, found, answers)
    datasets = found.datasets or ()
    if len(rows) * len(datasets) > MAX_CELLS:
        size = f"{counted(len(rows), 'row')} on {counted(len(datasets), 'data set')}"
        document.fail(f"{size} are more than {MAX_CELLS:,} cells; split it")
    suite = Suite(
        name=name,
        text=document.text,
        title=name if found.title is None else found.title,
        seed=found.seed,
        figures=found.figures,
        slices=found.slices,
        defaults=found.defaults,
        rows=rows,
        datasets=datasets,
        notes=notes,
        answers=answers,
        asks=found.asks,
    )
    for row in rows:
        for dataset in suite.datasets if row.model.model is not None else ():
            try:
                suite.settings_of(row, dataset)
            except UsageError as error:
                document.fail(f"{row.label} on {dataset.label}: {error}", "models")
    return suite


def _rows(
    document: Document, found: SuiteFile, answers: type[AnswerConfig]
) -> tuple[tuple[SuiteRow, ...], tuple[str, ...]]:
    """The rows, and notes on those that are not made."""
    rows: list[SuiteRow] = []
    skipped: dict[tuple[str, str], list[str]] = {}
    for item in found.models:
        if item.model is None or found.settings is None:
            rows.append(SuiteRow(item))
            continue
        without = without_effect(kind_of(item.model), answers)
        own = [way for way in found.settings if not without.intersection(way.settings)]
        for way in found.settings:
            if way not in own:
                idle = ", ".join(sorted(without.intersection(way.settings)))
                skipped.setdefault((way.label, idle), []).append(item.label)
        if not own:
            why = "since every one of `settings` has something without effect on it"
            document.fail(f"{item.label} gets no row, {why}", "models")
        # a model with one row needs no word on how it was asked
        rows += [SuiteRow(item, way.label if len(own) > 1 else "", way.settings) for way in own]
    notes = tuple(
        f"No row “{label}” for {', '.join(labels)}: nothing changes with {idle}."
        for (label, idle), labels in skipped.items()
    )
    taken: set[str] = set()
    for row in rows:
        if row.label.casefold() in taken:
            message = f"two rows would be called {row.label}; choose other labels"
            document.fail(message, "models")
        taken.add(row.label.casefold())
    return tuple(rows), notes
