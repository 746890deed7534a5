"""Results as tables in the terminal: the model beside the trivial baselines, intervals, slices, and what to know beside them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffr.evaluation.results import Results
from ffr.evaluation.scoring import LENGTH_SLICES, SLICES
from ffr.retrieval.embedding import selection_line
from ffr.terminal import plain_table

_FIGURES = (("P", "precision"), ("R", "recall"), ("F1", "f1"), ("MCC", "mcc"))
_MODALITIES = ("utterance", "image", "joint")
_SHORT = {"utterance": "utt.", "image": "image", "joint": "joint"}
_WIDE = 116
"""Columns of a terminal from which the three modalities stand side by side."""


def print_report(results: Results, console: Console) -> None:
    """Prints the tables and notes of a result."""
    for modalities in [_MODALITIES] if console.width >= _WIDE else [(modality,) for modality in _MODALITIES]:
        console.print(_score_table(results, modalities))
    console.print(_length_table(results))
    if results.intervals:
        console.print(_slice_table(results))
    for line in report_lines(results):
        console.print(Text(line))
    for note in results.notes:
        console.print(Text(f"! {note}", style="bold red" if note.startswith("CONTROL") else "yellow"))


def _rows(results: Results) -> list[tuple[str, dict[str, Any]]]:
    return [(str(results.model["label"]), results.summary), *results.baselines.items()]


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval in percent; where it reaches below 0, a word keeps the minus signs apart from the dash.

    >>> interval_text((0.125, 0.5)), interval_text((-0.164, -0.072)), interval_text(None)
    ('12.5–50.0', '-16.4 to -7.2', '-')
    """
    if interval is None:
        return "-"
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def _score_table(results: Results, modalities: tuple[str, ...]) -> Table:
    """Rows: the model, then baselines; columns: precision, recall, F1 and MCC of each modality, in percent."""
    table = plain_table(f"Global, in percent: {', '.join(modalities)}")
    table.add_column("", no_wrap=True)
    for modality in modalities:
        for place, (short, _) in enumerate(_FIGURES):
            above = f"{_SHORT[modality] if place == 0 else ''}\n" if len(modalities) > 1 else ""
            table.add_column(above + short, justify="right", no_wrap=True)
    for number, (label, summary) in enumerate(_rows(results)):
        scores = summary["scores"]
        cells = [_percent(scores[f"{modality}_{figure}"]) for modality in modalities for _, figure in _FIGURES]
        table.add_row(Text(label), *cells, style="bold" if number == 0 else "")
        if number == 0:
            names = [f"{modality}_{figure}" for modality in modalities for _, figure in _FIGURES]
            ends = [results.interval("scores", name) for name in names]
            for row, end in enumerate(("from", "to")):
                bounds = [_percent(interval[row]) for interval in ends if interval is not None]
                if bounds:
                    level = f"{100 * results.intervals['level']:g}"
                    table.add_row(f"  {level} % {end}", *bounds, style="dim")
    return table


def _length_table(results: Results) -> Table:
    """Rows: dialogue length; columns: F1 of the model by modality, then the joint F1 of each baseline."""
    baselines = [(label.removeprefix("baseline:"), summary) for label, summary in results.baselines.items()]
    table = plain_table("F1 by dialogue length, in percent" + (" (baselines: joint)" if baselines else ""))
    table.add_column("turns", no_wrap=True)
    for header in ("queries", *(_SHORT[modality] for modality in _MODALITIES), *(label for label, _ in baselines)):
        table.add_column(header, justify="right")
    for name in LENGTH_SLICES:
        own = results.summary["by_length"][name]
        cells = ["-"] * (3 + len(baselines))
        if own["num_answers"]:
            cells = [_percent(own[f"{modality}_f1"]) for modality in _MODALITIES]
            # a baseline's slice is empty where the dialogues of a prediction file cannot be read
            slices = [summary["by_length"][name] for _, summary in baselines]
            cells += [_percent(part["joint_f1"]) if "joint_f1" in part else "-" for part in slices]
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
    for header in ("queries", *(_SHORT[modality] for modality in _MODALITIES)):
        table.add_column(header, justify="right", no_wrap=True)
    for name, slices in SLICES.items():
        for its_slice in slices:
            own = results.summary[name][its_slice]
            if not own["num_answers"]:
                continue
            cells = ["-"] * 3
            # where nothing is to be found F1 is 0 whatever the answer; `report_lines` counts these
            if (name, its_slice) != ("by_truth", "empty"):
                figures = [f"{modality}_f1" for modality in _MODALITIES]
                spans = [interval_text(results.interval(name, figure, its_slice)) for figure in figures]
                cells = [f"{100 * own[figure]:.1f} {span:>9}" for figure, span in zip(figures, spans, strict=True)]
            table.add_row(slice_label(name, its_slice), str(own["num_answers"]), *cells)
    return table


def report_lines(results: Results) -> list[str]:
    """What stands under the tables: means over queries, malformed answers, empty ones."""
    answers, scores, strict = results.summary["answers"], results.summary["scores"], results.summary["strict_scores"]
    errors = results.summary["standard_errors"]

    def mean(name: str) -> str:
        error = errors[name]
        return _percent(scores[name]) + (f" ± {_percent(error)}" if error is not None else "")

    lines = [
        f"Mean over {answers['num_scored']} queries on {answers['num_dialogues']} dialogues (± standard error, clustered by "
        f"dialogue): F1 {mean('sample_utterance_f1')} utterances, {mean('sample_image_f1')} images; "
        f"exactly right {mean('exact_match')}",
        f"Malformed answers: {answers['num_malformed']} ({_percent(answers['malformed_share'])} %); read strictly, joint F1 is "
        f"{_percent(strict['joint_f1'])} instead of {_percent(scores['joint_f1'])}",
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
