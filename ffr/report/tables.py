"""Results as tables in the terminal: model, baselines, intervals, slices, and notes."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ffr.evaluation.figures import figure_words
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import LENGTH_SLICES, SLICES
from ffr.metrics.functional.figures import FIGURES, MODALITIES, figure_names
from ffr.terminal import Label, plain_table
from ffr.text import counted, one_line

_SHORT = {"utterance": "utt.", "image": "img.", "joint": "joint"}
_LINE_LENGTH = 5000
_WIDE = 108
"""Columns of a terminal from which figures have two decimals."""


def print_report(results: Results, console: Console, *, with_slices: bool = False) -> None:
    """Prints the table and notes of a result; where nothing was scored, no table of nothing.

    Args:
        results: What is shown.
        console: Where to.
        with_slices: Whether F1 by slice follows: dialogue length, density, truth, language.
    """
    if results.num_scored:
        console.print(_score_table(results, 2 if console.width >= _WIDE else 1))
        if with_slices:
            console.print(_slice_table(results))
            if results.baselines:
                console.print(_length_table(results))
    for line in report_lines(results):
        console.print(Text(one_line(line, _LINE_LENGTH)))
    for note in results.notes:
        style = "bold red" if note.startswith("CONTROL") else "yellow"
        console.print(Text(f"! {one_line(note, _LINE_LENGTH)}", style=style))


def headline_figure(results: Results) -> str:
    """The one figure that a result is named by.

    Joint F1, of utterances where no truth has pictures.
    """
    has_pictures = results.summary["answers"].get("num_true_images") != 0
    return "joint_f1" if has_pictures else "utterance_f1"


def headline(results: Results, next_command: str) -> str:
    """The last line of `ffr eval`: the verdict, and what to do next.

    Args:
        results: What was measured.
        next_command: What the reader may call now.
    """
    return f"{verdict(results)} · next: {next_command}"


def verdict(results: Results) -> str:
    """What came out, in a line: the figure that counts, its interval, and the best baseline."""
    name = headline_figure(results)
    value = results.summary["scores"][name]
    if value is None:
        return "nothing was scored"
    words = f"{figure_words(name)} {percent(value, 1)}"
    interval = results.interval("scores", name)
    if interval is not None:
        words += f" ({interval_text(interval)})"
    others = {label: summary["scores"][name] for label, summary in results.baselines.items()}
    measured = {label: other for label, other in others.items() if other is not None}
    if measured:
        best = max(measured, key=lambda label: measured[label])
        is_above, is_below = value > measured[best], value < measured[best]
        relation = "above" if is_above else "below" if is_below else "equal to"
        words += f", {relation} the best baseline {_short_label(best)} {percent(measured[best], 1)}"
    return words


def _short_label(label: str) -> str:
    return label.removeprefix("baseline:")


def _rows(results: Results) -> list[tuple[str, dict[str, Any]]]:
    return [(results.label, results.summary), *results.baselines.items()]


def percent(value: float | None, num_decimals: int = 2) -> str:
    """A share in percent; a dash where it was not measured.

    >>> percent(0.125), percent(None)
    ('12.50', '-')
    """
    return "-" if value is None else f"{100 * value:.{num_decimals}f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval in percent; below 0 a word keeps the minus signs apart from the dash.

    >>> interval_text((0.125, 0.5)), interval_text((-0.164, -0.072)), interval_text(None)
    ('12.5–50.0', '-16.4 to -7.2', '-')
    """
    if interval is None:
        return "-"
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def _score_table(results: Results, num_decimals: int) -> Table:
    """Rows: the model, its intervals, then baselines; columns: the figures of each modality.

    The best of a column is bold. Labels give way where the terminal is narrow, figures never.
    """
    table = plain_table("In percent; bold: the best of a column")
    table.padding = (0, 0, 0, 0)  # the frame's own blank stands between columns
    table.add_column("")
    for modality in MODALITIES:
        for place, figure in enumerate(FIGURES):
            above = _SHORT[modality] if place == 0 else ""
            table.add_column(f"{above}\n{figure.short}", justify="right", no_wrap=True)
    names = figure_names(MODALITIES)
    scores = [summary["scores"] for _, summary in _rows(results)]
    best = {
        name: max((row[name] for row in scores if row[name] is not None), default=None)
        for name in names
    }
    for number, ((label, _), row) in enumerate(zip(_rows(results), scores, strict=True)):
        cells = [
            Text(
                _cell(row[name], num_decimals),
                style="bold" if row[name] is not None and row[name] == best[name] else "",
            )
            for name in names
        ]
        table.add_row(Label(label if number == 0 else _short_label(label)), *cells)
        if number == 0 and results.intervals:
            level = f"{100 * results.intervals['level']:g}"
            intervals = [results.interval("scores", name) for name in names]
            for end, words in enumerate(("from", "to")):
                bounds = [
                    _cell(None if span is None else span[end], num_decimals) for span in intervals
                ]
                table.add_row(Label(f"{level} % {words}"), *bounds, style="dim")
    return table


def _cell(value: float | None, num_decimals: int) -> str:
    """A figure of the score table; 100 without decimals, for twelve of them must fit 80 columns."""
    text = percent(value, num_decimals)
    return text.partition(".")[0] if text.startswith(("100.", "-100.")) else text


def _length_table(results: Results) -> Table:
    """Rows: the model and each baseline; columns: joint F1 by dialogue length."""
    table = plain_table("Joint F1 by turns, in percent")
    table.add_column("")
    for name in LENGTH_SLICES:
        table.add_column(name, justify="right", no_wrap=True)
    for number, (label, summary) in enumerate(_rows(results)):
        cells = [percent(summary["by_length"][name]["joint_f1"], 1) for name in LENGTH_SLICES]
        table.add_row(Label(label if number == 0 else _short_label(label)), *cells)
    return table


def slice_label(table: str, name: str) -> str:
    """What tables call a slice.

    >>> slice_label("by_length", "<35"), slice_label("by_truth", "empty")
    ('length <35', 'truth empty')
    """
    return f"{table.removeprefix('by_')} {name}"


def _slice_table(results: Results) -> Table:
    """Rows: all slices that hold anything; columns: F1 of each modality with its interval."""
    with_intervals = (
        f", with {100 * results.intervals['level']:g} % intervals" if results.intervals else ""
    )
    table = plain_table(f"F1 by slice, in percent{with_intervals}")
    table.add_column("")
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
                spans = [
                    interval_text(results.interval(name, figure, its_slice)) for figure in figures
                ]
                cells = [
                    f"{percent(own[figure], 1)} {span:>9}"
                    for figure, span in zip(figures, spans, strict=True)
                ]
            table.add_row(Label(slice_label(name, its_slice)), str(own["num_answers"]), *cells)
    return table


def report_lines(results: Results) -> list[str]:
    """What stands under the tables: means over queries, malformed answers, empty ones."""
    summary = results.summary
    answers, scores, strict = summary["answers"], summary["scores"], summary["strict_scores"]
    if not results.num_scored:
        return [
            f"Nothing was scored: the true answer of {counted(answers['num_answers'], 'query')} "
            "is unknown."
        ]
    errors = summary["standard_errors"]

    def mean(name: str) -> str:
        error = errors[name]
        return percent(scores[name]) + (f" ± {percent(error)}" if error is not None else "")

    lines = [
        f"Mean over {counted(answers['num_scored'], 'query')} on "
        f"{counted(answers['num_dialogues'], 'dialogue')} (± "
        "standard error, clustered by "
        f"dialogue): F1 {mean('sample_utterance_f1')} utterances, {mean('sample_image_f1')} "
        "images; "
        f"exactly right {mean('exact_match')}",
        f"Malformed answers: {answers['num_malformed']} ({percent(answers['malformed_share'])} %); "
        "read strictly, joint F1 is "
        f"{percent(strict['joint_f1'])} instead of {percent(scores['joint_f1'])}",
        f"Empty: {counted(answers['num_empty_truths'], 'truth')}, "
        f"{counted(answers['num_empty_answers'], 'answer')}, "
        f"both {answers['num_both_empty']}",
    ]
    if "published" in results.summary:
        lines += _published_lines(results.summary["published"])
    chosen = selection_line(results.model)
    if chosen is not None:
        lines.append(chosen)
    if results.intervals.get("scores") is not None:
        drawn = results.intervals
        lines.append(
            f"{100 * drawn['level']:g} % intervals: {drawn['num_resamples']:,} resamples of the "
            f"{counted(drawn['num_dialogues'], 'dialogue')}, "
            f"seed {drawn['seed']}; exactly right "
            f"{interval_text(results.interval('scores', 'exact_match'))}, joint F1 read strictly "
            f"{interval_text(results.interval('strict_scores', 'joint_f1'))}"
        )
    if "coherence" in results.summary:
        coherence = results.summary["coherence"]
        found = [coherence[name] for name in ("mean", "query_similarity") if name in coherence]
        shown = ["-" if value is None else f"{value:.4f}" for value in found]
        similarity = f"  ·  query–fragment similarity: {shown[1]}" if len(shown) > 1 else ""
        lines.append(
            f"Fragment order coherence: {shown[0]}{similarity} (vectors of "
            f"{coherence['encoder']}; comparable with these only)"
        )
    return lines


def selection_line(model: dict[str, Any]) -> str | None:
    """How an embedding retriever chose, in a sentence for the report; None for another model.

    Args:
        model: The model's part of a result.

    >>> selection = {"rule": "threshold", "utterance": 0.25, "image": None, "fit": None}
    >>> selection_line({"kind": "embedding", "num_neighbours": 0, "selection": selection})
    'Chosen: lines of cosine ≥ 0.2500, pictures as their lines; as given'
    """
    selection = model.get("selection")
    if model.get("kind") != "embedding" or selection is None:
        return None

    rule = selection["rule"]

    def amount(number: float, of_pictures: bool = False) -> str:
        if rule == "threshold":
            return f"of cosine ≥ {number:.4f}"
        if rule == "top-share":
            return f"in the first {100 * number:.0f} %"
        words = f"{number:g} deviations above their dialogue's mean"
        is_stretch = rule == "stretch" and not of_pictures
        return f"in the best stretch of {words}" if is_stretch else f"at least {words}"

    span = model["num_neighbours"]
    lines = f"lines (each with {span} neighbours on either side)" if span else "lines"
    images = (
        "pictures as their lines"
        if selection["image"] is None
        else f"pictures {amount(selection['image'], of_pictures=True)}"
    )
    fit = selection["fit"]
    origin = "as given"
    if fit is not None:
        part = f" ({fit['split']})" if fit["split"] else ""
        origin = (
            f"fitted on {fit['dataset']}{part}, {counted(fit['num_queries'], 'query')}, "
            "fingerprint "
            f"{fit['fingerprint'][:16]}: "
            f"mean F1 {100 * fit['utterance_f1']:.2f} utterances, {100 * fit['image_f1']:.2f} "
            "images there"
        )
    return f"Chosen: {lines} {amount(selection['utterance'])}, {images}; {origin}"


def _published_lines(published: dict[str, Any]) -> list[str]:
    """The figures of the published reading, one modality a line, and what it skipped."""
    scores = published["scores"] or {}
    lines = [
        f"Published reading ({counted(published['num_scored'], 'answer')}, "
        f"{published['num_skipped']} "
        "skipped, "
        f"{counted(published['num_unmarked'], 'prompt')} without markers taken for 21 utterances):"
    ]
    for modality in MODALITIES:
        names = zip(FIGURES, figure_names([modality]), strict=True)
        cells = [f"{figure.short} {percent(scores.get(name))}" for figure, name in names]
        lines.append(f"  {_SHORT[modality]:<6} {'  '.join(cells)}")
    return lines
