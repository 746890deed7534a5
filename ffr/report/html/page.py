"""A report: one HTML page, or several with links, that needs nothing beside itself.

`page.html` is the template; jinja2 escapes every value of it. What it may take as it is: the page's
own style and script, its data (`to_json` makes them safe inside a script element) and plots, which
are built of escaped parts (`markupsafe.Markup`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ffr.errors import DataError
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import SLICES
from ffr.files import replaced_file
from ffr.metrics.functional.figures import FIGURES, MODALITIES, figure_names
from ffr.provenance import versions
from ffr.report.answered import Evaluation
from ffr.report.html.data import SCATTER_CELLS, ReportData, gather, parts_of, to_json
from ffr.report.html.plots import bar_chart, line_chart, scatter, share_chart
from ffr.report.tables import interval_text, percent, report_lines, slice_label, verdict
from ffr.run_log import METRICS_FILE, read_metrics, reward_figures
from ffr.text import counted

MAX_PAGE_BYTES = 48_000_000
"""What one page may have before the dialogues go on in a further one."""

_MAX_SHOWN_FAULTS = 5
_AGREES_WITHIN = 1e-9
_TILES = (
    ("joint F1, global", "joint_f1"),
    ("utterance F1, global", "utterance_f1"),
    ("image F1, global", "image_f1"),
    ("joint F1, mean over queries", "sample_joint_f1"),
    ("exactly right", "exact_match"),
)


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        pages: The files, the first of them the one that was asked for.
        num_queries: Queries in them.
        num_dialogues: Dialogues in them.
        num_pictures: Distinct pictures in them.
        num_unopened: Pictures that are placeholders.
        notes: What a reader must know, in sentences.
    """

    pages: list[Path]
    num_queries: int
    num_dialogues: int
    num_pictures: int
    num_unopened: int
    notes: list[str]


@dataclass(frozen=True)
class _Plot:
    title: str
    svg: Markup
    caption: str


def write_report(
    evaluation: Evaluation,
    out: Path,
    *,
    max_page_bytes: int = MAX_PAGE_BYTES,
    takes_outside_pictures: bool = False,
) -> Report:
    """Writes the page of an evaluation, and `NAME-2.html` … where one page would be too large.

    Args:
        evaluation: Results and answers.
        out: The page's file.
        max_page_bytes: About how large a page may be.
        takes_outside_pictures: Show pictures that lie outside the data's folder too: a file from
            someone else could name any picture of this machine.

    Raises:
        DataError: where there is nothing to show, or a file cannot be written.
    """
    data = gather(evaluation, takes_outside_pictures=takes_outside_pictures)
    if not data.queries:
        raise DataError("holds no answer that can be read", where=str(evaluation.predictions))
    notes = [*evaluation.results.notes, *evaluation.notes, *_notes(evaluation, data)]
    template = _template()
    frame = _frame(evaluation, data, notes)
    empty = template.render(frame, data="", links=[])
    room = max(1, max_page_bytes - len(empty.encode("utf-8", "backslashreplace")))
    parts = list(parts_of(data, room))
    further = range(2, len(parts) + 1)
    pages = [out, *(out.with_name(f"{out.stem}-{number}{out.suffix}") for number in further)]
    # without a figure there is nothing on the overview to begin with
    opens = "overview" if evaluation.results.num_scored else "dialogues"
    for number, (path, part) in enumerate(zip(pages, parts, strict=True)):
        content = {**part, "orders": SLICES, "steps": SCATTER_CELLS, "opens": opens}
        links = _links(pages, parts, number)
        page = template.render(frame, data=to_json(content), links=links)
        with replaced_file(path) as write:
            write(page.encode("utf-8", "backslashreplace"))
    return Report(
        pages=pages,
        num_queries=len(data.queries),
        num_dialogues=len(data.dialogues),
        num_pictures=sum(len(picture) > 1 for picture in data.pictures),
        num_unopened=data.num_unopened,
        notes=notes,
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"percent": percent, "span": interval_text}
    return environment.from_string(_text_of("page.html"))


def _text_of(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _notes(evaluation: Evaluation, data: ReportData) -> Iterator[str]:
    num_prompts = sum("p" in dialogue for dialogue in data.dialogues)
    if num_prompts:
        yield counted(
            num_prompts,
            "prompt cannot be read as a dialogue and is shown as it is.",
            "prompts cannot be read as dialogues and are shown as they are.",
        )
    num_lost = data.num_unopened - data.num_outside
    if data.num_outside:
        yield (
            f"{counted(data.num_outside, 'picture lies', 'pictures lie')} outside the data's "
            "folder, with a placeholder instead; "
            "--outside-pictures shows them, for data you trust."
        )
    if num_lost:
        shown = " · ".join(data.faults[:_MAX_SHOWN_FAULTS])
        more = f" (the first {_MAX_SHOWN_FAULTS})" if num_lost > _MAX_SHOWN_FAULTS else ""
        yield (
            f"{counted(num_lost, 'picture')} could not be opened, with a placeholder instead; "
            "--image-root names "
            f"their folder. Why{more}: {shown}"
        )
    stated = evaluation.results.summary["scores"]
    if any(
        stated[name] is None or abs(stated[name] - value) > _AGREES_WITHIN
        for name, value in data.scores.items()
    ):
        yield (
            f"{evaluation.predictions.name} does not give the figures that the results state: one "
            "of the two was changed after the evaluation."
        )


def _frame(evaluation: Evaluation, data: ReportData, notes: Sequence[str]) -> dict[str, Any]:
    """Everything of the page but its data and the links between parts."""
    results = evaluation.results
    style, script = _text_of("page.css"), _text_of("page.js")
    split = results.data.get("split")
    sources = {
        "model": results.model,
        "data": results.data,
        "settings": results.settings,
        "provenance": results.provenance,
    }
    return {
        # nothing may be fetched and nothing may run but what stands here, whatever a dialogue holds
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        "version": versions().get("ffr-vlm", ""),
        "style": style,
        "script": script,
        "results": results,
        "summary": results.summary,
        "dataset": f"{results.data.get('dataset')}" + (f" ({split})" if split else ""),
        "level": f"{100 * results.intervals.get('level', 0):g}",
        "notes": notes,
        "tiles": _TILES,
        "modalities": MODALITIES,
        "figures": FIGURES,
        "names": figure_names(),
        "verdict": verdict(results),
        "best": _best(results),
        "summaries": [(results.label, results.summary), *results.baselines.items()],
        "slices": [
            (table, name, slice_label(table, name), own)
            for table in SLICES
            for name, own in _filled_slices(results, table).items()
        ],
        "lines": report_lines(results),
        "plots": list(_plots(evaluation, data)),
        "predictions": evaluation.predictions.name,
        "provenance": {
            name: json.dumps(value, ensure_ascii=False, indent=2) for name, value in sources.items()
        },
    }


def _best(results: Results) -> dict[str, float]:
    """The largest value of each column of figures, the model's and the baselines'."""
    rows = [results.summary["scores"], *(its["scores"] for its in results.baselines.values())]
    found = {}
    for name in figure_names():
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[name] = max(values)
    return found


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _links(
    pages: Sequence[Path], parts: Sequence[Mapping[str, Any]], current: int
) -> list[dict[str, Any]]:
    return [
        {
            "words": f"part {number + 1} ({counted(len(part['queries']), 'query')})",
            "file": path.name,
            "is_here": number == current,
        }
        for number, (path, part) in enumerate(zip(pages, parts, strict=True))
    ]


def _filled_slices(results: Results, table: str) -> dict[str, Mapping[str, Any]]:
    """The slices in which F1 says something: some answers, and truths that name something."""
    rows = results.summary[table]
    return {
        name: rows[name]
        for name in SLICES[table]
        # where nothing is to be found F1 is 0 whatever the answer; `report_lines` counts these
        if rows[name]["num_answers"] and (table, name) != ("by_truth", "empty")
    }


def _plots(evaluation: Evaluation, data: ReportData) -> Iterator[_Plot]:
    results = evaluation.results
    for table, title, x_label in (
        ("by_length", "F1 by dialogue length", "turns"),
        (
            "by_density",
            "F1 by density of the fragment",
            "share of the dialogue's utterances that the truth names",
        ),
    ):
        rows = _filled_slices(results, table)
        # of one group the tiles on top say all
        if len(rows) < 2:
            continue
        figures = {modality: f"{modality}_f1" for modality in MODALITIES}
        svg = bar_chart(
            title,
            [(name, int(row["num_answers"])) for name, row in rows.items()],
            {
                modality: [row[figure] for row in rows.values()]
                for modality, figure in figures.items()
            },
            intervals={
                modality: [results.interval(table, figure, name) for name in rows]
                for modality, figure in figures.items()
            },
            x_label=x_label,
        )
        whiskers = ""
        if results.interval("scores", "joint_f1") is not None:
            whiskers = f"; whiskers are {100 * results.intervals['level']:g} % intervals"
        yield _Plot(title, svg, f"Global F1 within each slice, in percent{whiskers}.")
    num_scored = results.summary["answers"]["num_scored"]
    for modality, counts in sorted(data.scatter.items(), reverse=True):
        title = f"Precision and recall of each answer: {modality}s"
        num_left_out = num_scored - sum(counts.values())
        left_out = (
            f" {counted(num_left_out, 'answer')} whose truth has no {modality} left out."
            if num_left_out
            else ""
        )
        yield _Plot(
            title,
            scatter(title, counts, num_steps=SCATTER_CELLS, modality=modality),
            f"The larger a circle, the more answers; click one to list them.{left_out}",
        )
    if evaluation.run is not None:
        yield from _run_plots(evaluation.run)


_LEVELS = ("level_easy", "level_medium", "level_confusing", "level_hard")


def _run_plots(run: Path) -> Iterator[_Plot]:
    rows = read_metrics(run / METRICS_FILE)
    validation = [f"val_{modality}_f1" for modality in MODALITIES]
    for title, y_label, names, y_range in (
        ("Loss", "loss", ["loss", "val_loss"], None),
        ("Rewards", "reward", [*reward_figures(rows), "reward_std"], None),
        ("Validation F1", "F1", validation, (0.0, 1.0)),
    ):
        curves = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
        curves = {name: points for name, points in curves.items() if points}
        if curves:
            svg = line_chart(f"{title} of the run", curves, y_label=y_label, y_range=y_range)
            yield _Plot(f"{title} of the run", svg, f"From {METRICS_FILE} of {run.name}.")
    shares = [row for row in rows if all(name in row for name in _LEVELS)]
    if shares:
        levels = {
            name.removeprefix("level_"): [(row["step"], row[name]) for row in shares]
            for name in _LEVELS
        }
        title = "Levels of the curriculum"
        yield _Plot(
            title,
            share_chart(title, levels),
            f"Share of each level in the items of a step; from {METRICS_FILE} of {run.name}.",
        )
