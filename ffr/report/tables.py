"""Results as tables in the terminal: the model beside the trivial baselines, intervals, slices, and what to know beside them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffr.evaluation.results import Results
from ffr.evaluation.scoring import LENGTH_SLICES, SLICES
from ffr.metrics.functional.figures import FIGURES, MODALITIES, Modality, figure_names
from ffr.terminal import plain_table
from ffr.text import one_line

_SHORT = {"utterance": "utt.", "image": "image", "joint": "joint"}
_LINE_LENGTH = 5000
_LABEL_WIDTH = 32
_COLUMN_WIDTH = 7
_WIDE = _LABEL_WIDTH + _COLUMN_WIDTH * len(MODALITIES) * len(FIGURES)
"""Columns of a terminal from which the three modalities stand side by side."""


def print_report(results: Results, console: Console) -> None:
    """Prints the tables and notes of a result; where nothing was scored, no table of nothing."""
    if results.num_scored:
        is_wide = console.width >= _WIDE
        for modalities in [MODALITIES] if is_wide else [(modality,) for modality in MODALITIES]:
            console.print(_score_table(results, modalities))
        console.print(_length_table(results))
        if results.intervals:
            console.print(_slice_table(results))
    for line in report_lines(results):
        console.print(Text(one_line(line, _LINE_LENGTH)))
    for note in results.notes:
        style = "bold red" if note.startswith("CONTROL") else "yellow"
        console.print(Text(f"! {one_line(note, _LINE_LENGTH)}", style=style))


def _rows(results: Results) -> list[tuple[str, dict[str, Any]]]:
    return [(results.label, results.summary), *results.baselines.items()]


def percent(value: float | None, num_decimals: int = 2) -> str:
    """A share in percent; a dash where it was not measured.

    >>> percent(0.125), percent(None)
    ('12.50', '-')
    """
    return "-" if value is None else f"{100 * value:.{num_decimals}f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval in percent; where it reaches below 0, a word keeps the minus signs apart from the dash.

    >>> interval_text((0.125, 0.5)), interval_text((-0.164, -0.072)), interval_text(None)
    ('12.5–50.0', '-16.4 to -7.2', '-')
    """
    if interval is None:
        return "-"
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def _score_table(results: Results, modalities: tuple[Modality, ...]) -> Table:
    """Rows: the model, then baselines; columns: the figures of each modality, in percent."""
    table = plain_table(f"Global, in percent: {', '.join(modalities)}")
    table.add_column("", no_wrap=True)
    for modality in modalities:
        for place, figure in enumerate(FIGURES):
            above = f"{_SHORT[modality] if place == 0 else ''}\n" if len(modalities) > 1 else ""
            table.add_column(above + figure.short, justify="right", no_wrap=True)
    names = figure_names(modalities)
    for number, (label, summary) in enumerate(_rows(results)):
        scores = summary["scores"]
        cells = [percent(scores[name]) for name in names]
        table.add_row(Text(one_line(label)), *cells, style="bold" if number == 0 else "")
        if number == 0:
            ends = [results.interval("scores", name) for name in names]
            for row, end in enumerate(("from", "to")):
                bounds = [percent(interval[row]) for interval in ends if interval is not None]
                if bounds:
                    level = f"{100 * results.intervals['level']:g}"
                    table.add_row(f"  {level} % {end}", *bounds, style="dim")
    return table


def _length_table(results: Results) -> Table:
    """Rows: dialogue length; columns: F1 of the model by modality, then the joint F1 of each baseline."""
    baselines = [(label.removeprefix("baseline:"), summary) for label, summary in results.baselines.items()]
    table = plain_table("F1 by dialogue length, in percent" + (" (baselines: joint)" if baselines else ""))
    table.add_column("turns", no_wrap=True)
    for header in ("queries", *(_SHORT[modality] for modality in MODALITIES), *(label for label, _ in baselines)):
        table.add_column(header, justify="right")
    for name in LENGTH_SLICES:
        own = results.summary["by_length"][name]
        cells = [percent(own[f"{modality}_f1"]) for modality in MODALITIES]
        cells += [percent(summary["by_length"][name]["joint_f1"]) for _, summary in baselines]
        table.add_row(name, str(own["num_answers"]), *cells)
    return table


def slice_label(table: str, name: str) -> str:
    """What tables call a slice.

    >>> slice_label("by_length", "<35"), slice_label("by_truth", "empty")
    ('length <35', 'truth empty')
    """
    return f"{table.removeprefix('by_')} {name}"


def _slice_table(results: Results) -> Table:
    """Rows: all slices that hold anything; columns: F1 of each modality with its interval."""
    table = plain_table(f"F1 by slice, in percent, with {100 * results.intervals['level']:g} % intervals")
    table.add_column("", no_wrap=True)
    for header in ("queries", *(_SHORT[modality] for modality in MODALITIES)):
        table.add_column(header, justify="right", no_wrap=True)
    for name, slices in SLICES.items():
        for its_slice in slices:
            own = results.summary[name][its_slice]
            if not own["num_answers"]:
                continue
            cells = ["-"] * 3
            # where nothing is to be found F1 is 0 whatever the answer; `report_lines` counts these
            if (name, its_slice) != ("by_truth", "empty"):
                figures = [f"{modality}_f1" for modality in MODALITIES]
                spans = [interval_text(results.interval(name, figure, its_slice)) for figure in figures]
                cells = [f"{percent(own[figure], 1)} {span:>9}" for figure, span in zip(figures, spans, strict=True)]
            table.add_row(slice_label(name, its_slice), str(own["num_answers"]), *cells)
    return table


def report_lines(results: Results) -> list[str]:
    """What stands under the tables: means over queries, malformed answers, empty ones."""
    summary = results.summary
    answers, scores, strict = summary["answers"], summary["scores"], summary["strict_scores"]
    if not results.num_scored:
        return [f"Nothing was scored: the true answer of {answers['num_answers']} queries is unknown."]
    errors = summary["standard_errors"]

    def mean(name: str) -> str:
        error = errors[name]
        return percent(scores[name]) + (f" ± {percent(error)}" if error is not None else "")

    lines = [
        f"Mean over {answers['num_scored']} queries on {answers['num_dialogues']} dialogues (± standard error, clustered by "
        f"dialogue): F1 {mean('sample_utterance_f1')} utterances, {mean('sample_image_f1')} images; "
        f"exactly right {mean('exact_match')}",
        f"Malformed answers: {answers['num_malformed']} ({percent(answers['malformed_share'])} %); read strictly, joint F1 is "
        f"{percent(strict['joint_f1'])} instead of {percent(scores['joint_f1'])}",
        f"Empty: {answers['num_empty_truths']} truths, {answers['num_empty_answers']} answers, both {answers['num_both_empty']}",
    ]
    chosen = selection_line(results.model)
    if chosen is not None:
        lines.append(chosen)
    if results.intervals.get("scores") is not None:
        drawn = results.intervals
        lines.append(
            f"{100 * drawn['level']:g} % intervals: {drawn['num_resamples']:,} resamples of the {drawn['num_dialogues']} dialogues, "
            f"seed {drawn['seed']}; exactly right {interval_text(results.interval('scores', 'exact_match'))}, joint F1 read strictly "
            f"{interval_text(results.interval('strict_scores', 'joint_f1'))}"
        )
    if "coherence" in results.summary:
        coherence = results.summary["coherence"]
        shown = "-" if coherence["mean"] is None else f"{coherence['mean']:.4f}"
        lines.append(
            f"Fragment order coherence: {shown} (vectors of {coherence['encoder']}; comparable with these only)"
        )
    return lines


def selection_line(model: dict[str, Any]) -> str | None:
    """How an embedding retriever chose, in a sentence for the report; None for another model.

    Args:
        model: The model's part of a result.

    >>> selection = {"rule": "threshold", "utterance": 0.25, "image": None, "fit": None}
    >>> selection_line({"kind": "embedding", "num_neighbours": 2, "selection": selection})
    'Chosen: lines (each with 2 neighbours on either side) of cosine ≥ 0.2500, pictures as their lines; as given'
    """
    selection = model.get("selection")
    if model.get("kind") != "embedding" or selection is None:
        return None

    def amount(number: float) -> str:
        return f"of cosine ≥ {number:.4f}" if selection["rule"] == "threshold" else f"in the first {100 * number:.0f} %"

    span = model["num_neighbours"]
    lines = f"lines (each with {span} neighbours on either side)" if span else "lines"
    images = "pictures as their lines" if selection["image"] is None else f"pictures {amount(selection['image'])}"
    fit = selection["fit"]
    origin = "as given"
    if fit is not None:
        part = f" ({fit['split']})" if fit["split"] else ""
        origin = (
            f"fitted on {fit['dataset']}{part}, {fit['num_queries']} queries, fingerprint {fit['fingerprint'][:16]}: "
            f"mean F1 {100 * fit['utterance_f1']:.2f} utterances, {100 * fit['image_f1']:.2f} images there"
        )
    return f"Chosen: {lines} {amount(selection['utterance'])}, {images}; {origin}"
