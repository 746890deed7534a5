"""A report: one HTML page, or several with links, that needs nothing beside itself and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ffr.errors import DataError
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import SLICES
from ffr.files import replaced_file
from ffr.provenance import versions
from ffr.report.answered import METRICS_FILE, Evaluation
from ffr.report.html.data import MODALITIES, SCATTER_CELLS, ReportData, gather, parts_of, to_json
from ffr.report.html.plots import Interval, bar_chart, line_chart, scatter, share_chart
from ffr.report.tables import interval_text, report_lines, slice_label
from ffr.run_log import read_metrics

MAX_PAGE_BYTES = 48_000_000
"""What one page may have before the dialogues go on in a further one."""

FIGURES = (("P", "precision"), ("R", "recall"), ("F1", "f1"), ("MCC", "mcc"))
_MAX_SHOWN_FAULTS = 5
_AGREES_WITHIN = 1e-9


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        pages: The files, the first of them the one that was asked for.
        num_queries: Queries in them.
        num_dialogues: Dialogues in them.
        num_pictures: Distinct pictures in them.
        num_unopened: Pictures that could not be opened.
        notes: What a reader must know, in sentences.
    """

    pages: list[Path]
    num_queries: int
    num_dialogues: int
    num_pictures: int
    num_unopened: int
    notes: list[str]


def write_report(evaluation: Evaluation, out: Path, *, max_page_bytes: int = MAX_PAGE_BYTES) -> Report:
    """Writes the page of an evaluation, and `NAME-2.html` … beside it where one page would be too large.

    Args:
        evaluation: Results and answers.
        out: The page's file.
        max_page_bytes: About how large a page may be.

    Raises:
        DataError: where there is nothing to show, or a file cannot be written.
    """
    data = gather(evaluation)
    if not data.queries:
        raise DataError("holds no answer that can be read", where=str(evaluation.predictions))
    notes = [*evaluation.results.notes, *evaluation.notes, *_notes(evaluation, data)]
    frame = _frame(evaluation, data, notes)
    room = max(1, max_page_bytes - sum(len(text.encode("utf-8", "backslashreplace")) for text in frame.values()))
    parts = list(parts_of(data, room))
    pages = [out, *(out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(2, len(parts) + 1))]
    for number, (path, part) in enumerate(zip(pages, parts, strict=True)):
        content = {**part, "orders": SLICES, "steps": SCATTER_CELLS}
        page = _fill(frame | {"data": to_json(content), "parts": _links(pages, parts, number)})
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


def _notes(evaluation: Evaluation, data: ReportData) -> Iterator[str]:
    num_prompts = sum("p" in dialogue for dialogue in data.dialogues)
    if num_prompts:
        yield f"{num_prompts} prompts cannot be read as a dialogue and are shown as they are."
    if data.num_unopened:
        shown = " · ".join(data.faults[:_MAX_SHOWN_FAULTS])
        more = f" (the first {_MAX_SHOWN_FAULTS})" if data.num_unopened > _MAX_SHOWN_FAULTS else ""
        yield (
            f"{data.num_unopened} pictures could not be opened and are placeholders; --image-root names their folder. "
            f"Why{more}: {shown}"
        )
    stated = evaluation.results.summary["scores"]
    if any(abs(stated[name] - value) > _AGREES_WITHIN for name, value in data.scores.items()):
        yield (
            f"{evaluation.predictions.name} does not give the figures that the results state: one of the two was changed "
            "after the evaluation."
        )


def _fill(values: Mapping[str, str]) -> str:
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _frame(evaluation: Evaluation, data: ReportData, notes: Sequence[str]) -> dict[str, str]:
    """Everything of the page but its data and the links between parts."""
    results = evaluation.results
    style, script = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    model, dataset = str(results.model.get("label")), _dataset_of(results)
    return {
        # nothing may be fetched and nothing may run but what stands here, whatever a dialogue holds
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "version": escape(versions().get("ffr-vlm", "")),
        "title": escape(f"{model} on {dataset}"),
        "style": style,
        "script": script,
        "model": escape(model),
        "dataset": escape(dataset),
        "notes": "".join(_note(note) for note in notes),
        "tiles": _tiles(results),
        "global_table": _global_table(results),
        "slice_table": _slice_table(results),
        "slice_remark": "(baselines: joint)" if results.baselines else "",
        "lines": '<div class="lines">' + "".join(f"<p>{escape(line)}</p>" for line in report_lines(results)) + "</div>",
        "plots": "".join(_plots(evaluation, data)),
        "provenance": _provenance(evaluation),
    }


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _note(note: str) -> str:
    kind = "control" if note.startswith("CONTROL") else "warn"
    return f'<p class="note {kind}" dir="auto">{escape(note)}</p>'


def _dataset_of(results: Results) -> str:
    split = results.data.get("split")
    return f"{results.data.get('dataset')}" + (f" ({split})" if split else "")


def _links(pages: Sequence[Path], parts: Sequence[Mapping[str, Any]], current: int) -> str:
    if len(pages) == 1:
        return ""
    links = []
    for number, (path, part) in enumerate(zip(pages, parts, strict=True)):
        words = f"part {number + 1} ({len(part['queries'])} queries)"
        links.append(f"<b>{words}</b>" if number == current else f'<a href="{quote(path.name)}">{words}</a>')
    return f'<div class="parts">The dialogues are in {len(pages)} pages; figures and plots are of all of them. {" ".join(links)}</div>'


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _tiles(results: Results) -> str:
    summary = results.summary
    scores, errors, answers = summary["scores"], summary["standard_errors"], summary["answers"]

    level = f"{100 * results.intervals.get('level', 0):g}"

    def tile(label: str, name: str) -> str:
        interval = results.interval("scores", name)
        error = errors.get(name)
        under = ""
        if interval is not None:
            under = f"<span>{level} %: {interval_text(interval)}</span>"
        elif error is not None:
            under = f"<span>± {_percent(error)} (standard error)</span>"
        return f'<div class="tile"><span>{escape(label)}</span><b>{_percent(scores[name])}</b>{under}</div>'

    return "".join(
        [
            tile("joint F1, global", "joint_f1"),
            tile("utterance F1, global", "utterance_f1"),
            tile("image F1, global", "image_f1"),
            tile("joint F1, mean over queries", "sample_joint_f1"),
            tile("exactly right", "exact_match"),
            f'<div class="tile"><span>queries</span><b>{answers["num_scored"]:,}</b>'
            f"<span>on {answers['num_dialogues']:,} dialogues</span></div>",
            f'<div class="tile"><span>malformed answers</span><b>{answers["num_malformed"]:,}</b>'
            f"<span>{_percent(answers['malformed_share'])} %</span></div>",
        ]
    )


def _summaries(results: Results) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(results.model.get("label")), results.summary), *results.baselines.items()]


def _cell(value: float | None, interval: Interval | None = None) -> str:
    if value is None:
        return "<td>–</td>"
    small = f"<small>{interval_text(interval)}</small>" if interval is not None else ""
    return f"<td>{_percent(value)}{small}</td>"


def _global_table(results: Results) -> str:
    top = "".join(f'<th colspan="{len(FIGURES)}">{modality}</th>' for modality in MODALITIES)
    names = "".join(f"<th>{short}</th>" for _ in MODALITIES for short, _ in FIGURES)
    rows = []
    for number, (label, summary) in enumerate(_summaries(results)):
        cells = "".join(
            _cell(summary["scores"][name], results.interval("scores", name) if number == 0 else None)
            for name in (f"{modality}_{figure}" for modality in MODALITIES for _, figure in FIGURES)
        )
        kind = ' class="model"' if number == 0 else ""
        rows.append(f"<tr{kind}><td><bdi>{escape(label)}</bdi></td>{cells}</tr>")
    return (
        f"<table><thead><tr><th></th>{top}</tr><tr><th></th>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _filled_slices(results: Results, table: str) -> dict[str, Mapping[str, Any]]:
    """The slices of a table in which F1 says something: some answers, and truths that name something."""
    rows = results.summary.get(table, {})
    return {
        name: rows[name]
        for name in SLICES[table]
        # where nothing is to be found F1 is 0 whatever the answer; `report_lines` counts these
        if name in rows and rows[name]["num_answers"] and (table, name) != ("by_truth", "empty")
    }


def _slice_table(results: Results) -> str:
    head = "".join(f"<th>{modality}</th>" for modality in MODALITIES)
    head += "".join(f"<th>{escape(label.removeprefix('baseline:'))}</th>" for label in results.baselines)
    rows = []
    for table in SLICES:
        for name, own in _filled_slices(results, table).items():
            figures = [f"{modality}_f1" for modality in MODALITIES]
            cells = [_cell(own[figure], results.interval(table, figure, name)) for figure in figures]
            cells += [_cell(summary[table][name].get("joint_f1")) for summary in results.baselines.values()]
            rows.append(
                f"<tr><td>{escape(slice_label(table, name))}</td><td>{own['num_answers']}</td>{''.join(cells)}</tr>"
            )
    return f"<table><thead><tr><th></th><th>queries</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _figure(title: str, svg: str, caption: str) -> str:
    return f"<figure><h2>{escape(title)}</h2>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _plots(evaluation: Evaluation, data: ReportData) -> Iterator[str]:
    results = evaluation.results
    for table, title, x_label in (
        ("by_length", "F1 by dialogue length", "turns"),
        ("by_density", "F1 by density of the fragment", "share of the dialogue's utterances that the truth names"),
    ):
        rows = _filled_slices(results, table)
        if not rows:
            continue
        figures = {modality: f"{modality}_f1" for modality in MODALITIES}
        svg = bar_chart(
            title,
            [(name, int(row["num_answers"])) for name, row in rows.items()],
            {modality: [row[figure] for row in rows.values()] for modality, figure in figures.items()},
            intervals={
                modality: [results.interval(table, figure, name) for name in rows]
                for modality, figure in figures.items()
            },
            x_label=x_label,
        )
        whiskers = ""
        if results.interval("scores", "joint_f1") is not None:
            whiskers = f"; whiskers are {100 * results.intervals['level']:g} % intervals"
        yield _figure(title, svg, f"Global F1 within each slice, in percent{whiskers}.")
    num_scored = results.summary["answers"]["num_scored"]
    for modality, counts in sorted(data.scatter.items(), reverse=True):
        title = f"Precision and recall of each answer: {modality}s"
        num_left_out = num_scored - sum(counts.values())
        left_out = f" {num_left_out} answers whose truth has no {modality} are left out." if num_left_out else ""
        yield _figure(
            title,
            scatter(title, counts, num_steps=SCATTER_CELLS, modality=modality),
            f"The larger a circle, the more answers; click one to list them.{left_out}",
        )
    if evaluation.run is not None:
        yield from _run_plots(evaluation.run)


_CURVES = (
    ("Loss", "loss", ("loss", "val_loss"), None),
    ("Rewards", "reward", ("reward", "reward_f1", "reward_order", "reward_format"), None),
    ("Validation F1", "F1", ("val_utterance_f1", "val_image_f1", "val_joint_f1"), (0.0, 1.0)),
)
_LEVELS = ("level_easy", "level_medium", "level_confusing", "level_hard")


def _run_plots(run: Path) -> Iterator[str]:
    rows = read_metrics(run / METRICS_FILE)
    for title, y_label, names, y_range in _CURVES:
        curves = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
        curves = {name: points for name, points in curves.items() if points}
        if curves:
            svg = line_chart(f"{title} of the run", curves, y_label=y_label, y_range=y_range)
            yield _figure(f"{title} of the run", svg, f"From {METRICS_FILE} of {run.name}.")
    shares = [row for row in rows if all(name in row for name in _LEVELS)]
    if shares:
        levels = {name.removeprefix("level_"): [(row["step"], row[name]) for row in shares] for name in _LEVELS}
        title = "Levels of the curriculum"
        yield _figure(
            title,
            share_chart(title, levels),
            f"Share of each level in the items of a step; from {METRICS_FILE} of {run.name}.",
        )


def _provenance(evaluation: Evaluation) -> str:
    results = evaluation.results
    parts = {
        "model": results.model,
        "data": results.data,
        "settings": results.settings,
        "provenance": results.provenance,
    }
    blocks = "".join(
        f'<details><summary>{name}</summary><pre dir="auto">{escape(json.dumps(value, ensure_ascii=False, indent=2))}</pre></details>'
        for name, value in parts.items()
    )
    return f"<p>Answers: <bdi>{escape(evaluation.predictions.name)}</bdi></p>{blocks}"
