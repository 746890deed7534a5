"""Runs a suite: every row on every data set, each cell an evaluation in a folder of its own.

The results folder holds `cells/ROW/DATASET/` (what `ffr eval` writes, and `cell.json`: what was
asked for), `archives/DATASET/` where a suite asks an archive, `categories.csv` where the data names
kinds of questions, the table as `table.md`, `table.csv` and `table.tex`, and `results.json`. The
table is written anew after every cell.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ffr.corpus.indexing import Bar
from ffr.data.catalog import load_dataset
from ffr.data.dataset import ExampleDataset, FirstExamples
from ffr.data.judgement import ModelRules
from ffr.errors import DataError, FfrError, UsageError
from ffr.evaluation.categories import CATEGORIES_FILE, joined_categories, write_categories
from ffr.evaluation.results import RESULTS_FILE, Results, is_seal_broken, sealed_json
from ffr.evaluation.room import with_room
from ffr.evaluation.run import evaluate
from ffr.files import (
    CHECKSUMS_FILE,
    differing_files,
    owned_folder,
    remove,
    replace_json,
    replaced_file,
    write_checksums,
)
from ffr.progress import Progress, Say
from ffr.provenance import command, now, versions
from ffr.retrieval.fitting import AskedData
from ffr.retrieval.opening import (
    ModelChoice,
    OpenModel,
    choose_model,
    open_model,
    rules_of,
)
from ffr.settings import AnswerConfig, declared, settings_of_data
from ffr.suites.archive import ARCHIVES_FOLDER, Archives, check_index
from ffr.suites.file import SuiteDataset
from ffr.suites.suite import Suite, SuiteRow
from ffr.suites.table import Bench, Cell
from ffr.suites.written import bench_json, csv_table, latex_table, markdown_table
from ffr.text import one_line

CELLS_FOLDER = "cells"
CELL_FILE = "cell.json"
TABLE_FILES = ("table.md", "table.csv", "table.tex")


def _no_bar(what: str, total: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda done, total: None)


def run_suite(
    suite: Suite,
    out: Path,
    *,
    only: Collection[str] = (),
    trust_remote_code: bool = False,
    sends_outside_pictures: bool = False,
    index: Path | None = None,
    say: Say = lambda text: None,
    bar: Bar = _no_bar,
) -> Bench:
    """Measures what is not measured yet and writes the table.

    Args:
        suite: The suite.
        out: The results folder.
        only: Labels of models or rows; the other rows are shown as they lie in the folder.
        trust_remote_code: Run code that comes with the models.
        sends_outside_pictures: Send servers pictures from outside the data's folder too.
        index: Where the archive lies of a suite that asks one; None for in the results folder.
        say: Gets a line about every cell.
        bar: Makes the bar of some work.

    Returns:
        All cells. One that cannot be measured does not keep the others from it: it says why.

    Raises:
        UsageError: where `only` names no row, the folder holds something else, another process
            works on it, or `index` is no one archive of the suite.
        DataError: where the folder cannot be written to.
    """
    started = now()
    chosen = suite.rows_of(only)
    check_index(suite, index)
    with owned_folder(out):
        _check_folder(out, say)
        archives = Archives(suite, out / ARCHIVES_FOLDER, index, _slug, say, bar)
        models = _Models(suite, trust_remote_code, sends_outside_pictures)
        measuring = _Measuring(suite, out, _Data(say), models, archives, say, bar)
        return _run(suite, out, chosen, measuring, say, started)


def _run(
    suite: Suite,
    out: Path,
    chosen: tuple[SuiteRow, ...],
    measuring: _Measuring,
    say: Say,
    started: str,
) -> Bench:
    bench = Bench(suite, {})
    for row in suite.rows:
        for dataset in suite.datasets:
            bench.cells[row.label, dataset.label] = _cell_at_hand(
                suite, row, dataset, out, is_chosen=row in chosen
            )
    todo = [
        (row, dataset)
        for row in chosen
        if row.model.model is not None
        for dataset in suite.datasets
    ]
    for number, (row, dataset) in enumerate(todo, start=1):
        say(f"[{number}/{len(todo)}] {row.label} on {dataset.label}")
        try:
            cell = measuring.measure(row, dataset)
        except FfrError as error:
            cell = Cell("missing", reason=str(error))
        except torch.OutOfMemoryError as error:
            cell = Cell(
                "missing",
                reason=f"the device ran out of memory ({one_line(str(error).splitlines()[0])})",
            )
        if cell.status == "missing":
            say(f"MISSING: {cell.reason}")
        bench.cells[row.label, dataset.label] = cell
        _write(bench, out, started)
    if not todo:
        _write(bench, out, started)
    return bench


def cell_folder(out: Path, row: SuiteRow, dataset: SuiteDataset) -> Path:
    """Where a cell's evaluation lies; its name depends on the labels alone."""
    return out / CELLS_FOLDER / _slug(row.label) / _slug(dataset.label)


def _slug(label: str) -> str:
    """A folder's name for a label: itself where it can be one, else with a digest.

    >>> _slug("tiny"), _slug("F2RVLM 7B")
    ('tiny', 'F2RVLM-7B-a85edba6')
    """
    plain = re.sub(r"[^\w.-]+", "-", label, flags=re.ASCII).strip("-.")[:60]
    return plain if plain == label else f"{plain}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _check_folder(out: Path, say: Say) -> None:
    """Refuses a folder of something else, and tells what was changed since it was written."""
    path = out / RESULTS_FILE
    if not path.exists():
        return
    changed = [out / name for name in differing_files(out)]
    try:
        data = path.read_bytes()
        content = json.loads(data.decode("utf-8"))
        is_ours = "suite" in content
        changed += [path] if is_ours and is_seal_broken(data, content) else []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise UsageError(f"{out} holds a {RESULTS_FILE} of something else; pass another --out")
    for found in changed:
        say(f"{found} is not what was written; it is written anew")


def _asked(suite: Suite, row: SuiteRow, dataset: SuiteDataset) -> dict[str, Any]:
    """What a cell is asked for, as far as it is known without loading anything."""
    data = {
        key: value for key, value in asdict(dataset).items() if key not in ("label", "settings")
    }
    asked: dict[str, Any] = {
        "model": row.model.model,
        "settings": asdict(suite.settings_of(row, dataset)),
        "data": data,
        "seed": suite.seed,
    }
    if suite.asks_archive:
        asked["ways"] = row.model.ways
    # as a file gives it back
    return dict(json.loads(json.dumps(asked)))


def _cell_at_hand(
    suite: Suite, row: SuiteRow, dataset: SuiteDataset, out: Path, *, is_chosen: bool
) -> Cell:
    """A cell before anything is done: those of rows that are not chosen, as the folder has them."""
    if row.model.model is None:
        return Cell("reported")
    folder = cell_folder(out, row, dataset)
    if is_chosen or not (folder / CELL_FILE).is_file():
        return Cell("waiting")
    try:
        asked = json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
        results = Results.load(folder)
    except (OSError, ValueError, RecursionError, DataError):
        return Cell("waiting")
    return Cell("earlier", results) if asked == _asked(suite, row, dataset) else Cell("waiting")


class _Data:
    """The data sets of a suite, each opened once for each model that looks at its pictures."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._found: dict[tuple[str, bool, str], ExampleDataset | FfrError] = {}

    def __call__(
        self,
        dataset: SuiteDataset,
        *,
        needs_images: bool,
        asked_as: str,
        rules: Callable[[], ModelRules | None],
    ) -> ExampleDataset:
        # a picture that one model cannot take another may
        key = dataset.label, needs_images, asked_as if needs_images else ""
        if key not in self._found:
            try:
                self._found[key] = load_dataset(
                    dataset.dataset,
                    split=dataset.split,
                    image_root=dataset.image_root,
                    skip_bad=dataset.skip_bad,
                    require_images=needs_images,
                    rules=rules(),
                    echo=self._say,
                )
            except FfrError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, FfrError):
            raise found
        return found


class _Models:
    """The model of one row at a time, loaded once for all data sets that ask it in the same way."""

    def __init__(self, suite: Suite, trust_remote_code: bool, sends_outside_pictures: bool) -> None:
        self._suite = suite
        self._trust_remote_code = trust_remote_code
        self._sends_outside_pictures = sends_outside_pictures
        self._key: tuple[str, AnswerConfig] | None = None
        self._found: OpenModel | FfrError | None = None

    def __call__(self, row: SuiteRow, settings: AnswerConfig) -> OpenModel:
        assert row.model.model is not None
        known = declared(type(settings))
        of_data = {name: known[name].default for name in settings_of_data(type(settings))}
        key = row.label, replace(settings, **of_data)
        if key != self._key:
            self._make_room()
            try:
                choice = choose_model(row.model.model)
                self._found = open_model(
                    choice,
                    key[1],
                    name=row.label,
                    seed=self._suite.seed,
                    trust_remote_code=self._trust_remote_code,
                )
            except FfrError as error:
                self._found = error
            self._key = key
        if isinstance(self._found, FfrError):
            raise self._found
        assert self._found is not None
        return self._found

    def rules(self, choice: ModelChoice, model: OpenModel | None) -> ModelRules | None:
        """What the data must not hold for a model."""
        return rules_of(
            choice,
            model,
            trust_remote_code=self._trust_remote_code,
            sends_outside_pictures=self._sends_outside_pictures,
        )

    def _make_room(self) -> None:
        """Gives the memory of the model before back."""
        held_a_model = (
            self._found is not None
            and not isinstance(self._found, FfrError)
            and self._found.encoder is not None
        )
        self._key = self._found = None
        if held_a_model:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True, eq=False)
class _Measuring:
    """What it takes to measure a cell."""

    suite: Suite
    out: Path
    data: _Data
    models: _Models
    archives: Archives
    say: Say
    bar: Bar

    def measure(self, row: SuiteRow, dataset: SuiteDataset) -> Cell:
        """Measures a cell, or goes on where that was stopped."""
        folder = cell_folder(self.out, row, dataset)
        if self.suite.asks_archive:
            results = self.archives.measure(row, dataset, folder)
        else:
            results = self._in_dialogues(row, dataset, folder)
        replace_json(folder / CELL_FILE, _asked(self.suite, row, dataset))
        return Cell("measured", results)

    def _in_dialogues(self, row: SuiteRow, dataset: SuiteDataset, folder: Path) -> Results:
        """Each query asked of its own dialogue."""
        assert row.model.model is not None
        suite, models = self.suite, self.models
        settings = suite.settings_of(row, dataset)
        choice = choose_model(row.model.model)
        model = models(row, settings) if choice.takes_images is None else None
        takes_images = choice.takes_images if model is None else model.takes_images

        def rules() -> ModelRules | None:
            return with_room(models.rules(choice, model), settings)

        def progress(num_queries: int) -> AbstractContextManager[Progress]:
            return self.bar("answers", num_queries)

        # what a model has no room for is another thing where it is asked in another way
        asked_as = f"{choice.spec} {settings}" if choice.source is not None else choice.spec
        # data that is not here is found out before a model is loaded
        found = self.data(dataset, needs_images=bool(takes_images), asked_as=asked_as, rules=rules)
        examples = found if dataset.limit is None else FirstExamples(found, dataset.limit)
        split = dataset.split_asked
        asked = AskedData(examples, dataset.dataset, split, dataset.image_root, dataset.skip_bad)
        opened = models(row, settings)
        retriever = opened.retriever(asked, settings, say=self.say, progress=progress)
        with progress(len(examples)) as advance:
            results = evaluate(
                examples,
                retriever,
                folder,
                dataset=dataset.dataset,
                split=split,
                num_left_out=found.num_left_out,
                seed=suite.seed,
                baselines=(),
                progress=advance,
                max_failures=settings.max_failures,
            )
        write_categories(folder, examples, results, seed=suite.seed)
        return results


def _write(bench: Bench, out: Path, started: str) -> None:
    content = bench_json(bench) | {
        "versions": versions(),
        "provenance": {"command": command(), "started_at": started, "finished_at": now()},
    }
    remove(out / CHECKSUMS_FILE)  # a kill before the end leaves none, rather than wrong ones
    texts = (markdown_table(bench), csv_table(bench), latex_table(bench))
    for name, text in zip(TABLE_FILES, texts, strict=True):
        with replaced_file(out / name) as write:
            write(text.encode("utf-8", "backslashreplace"))
    categories = joined_categories(
        [
            ((row.model.group, row.label, dataset.label), cell_folder(out, row, dataset))
            for row in bench.suite.rows
            for dataset in bench.suite.datasets
            if bench.cell(row, dataset).results is not None
        ]
    )
    if categories is not None:
        with replaced_file(out / CATEGORIES_FILE) as write:
            write(categories.encode("utf-8", "backslashreplace"))
    write_checksums(out, [*TABLE_FILES, *([CATEGORIES_FILE] if categories else [])])
    with replaced_file(out / RESULTS_FILE) as write:
        write(sealed_json(content).encode("utf-8", "backslashreplace"))
