"""What a model's card says of its evaluations, and whether every figure of them holds.

A figure holds where the stored answers, scored anew, give it to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.errors import DataError, UsageError
from ffr.evaluation.predictions import score_predictions
from ffr.evaluation.published import add_published
from ffr.evaluation.results import RESULTS_FILE, Results, evaluations_of
from ffr.files import replace_text
from ffr.markup import markdown_text
from ffr.report.tables import headline_figure, interval_text, percent
from ffr.retrieval.answer_log import PREDICTIONS_FILE
from ffr.text import counted, one_line

CARD_FILE = "README.md"
MODEL_FOLDERS = ("merged", "adapter", "reader")
"""Where a run keeps its model, each with a card."""

_BEGIN, _END = "<!-- figures, by `ffr card` -->", "<!-- end of figures -->"
_FIGURES = ("utterance_f1", "image_f1", "joint_f1")
_OF_THE_RUN_ALONE = ("usage", "coherence", "published")
"""Parts of a summary that are no figures of answers, or are compared apart."""
_ANSWERS_OF_THE_RUN = ("num_failed", "num_cut_off", "num_true_images")


@dataclass(frozen=True)
class CheckedFigures:
    """An evaluation whose answers were scored anew.

    Args:
        folder: Of the evaluation.
        num_figures: How many numbers were compared.
        faults: Those that differ, a sentence each.
        notes: What could not be computed anew, a sentence each.
    """

    folder: Path
    num_figures: int
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


def write_figures(run: Path) -> list[Path]:
    """Writes the figures of a run's evaluations into the cards of its model, for older ones.

    Args:
        run: Folder of a training run.

    Returns:
        The cards.

    Raises:
        UsageError: where it has no evaluation, or no model with a card.
        DataError: where one cannot be read or written.
    """
    section = figures_section(_opened(_evaluations(run)))
    cards = _cards(run)
    if not cards:
        raise UsageError(
            f"{run} has no model with a card; `ffr card` takes a finished training run"
        )
    for card in cards:
        text = _read(card)
        before, begun, rest = text.partition(_BEGIN)
        behind = rest.partition(_END)[2] if begun else ""
        replace_text(card, f"{before.rstrip()}\n\n{section}{behind.rstrip()}\n")
    return cards


def check_figures(path: Path) -> list[CheckedFigures]:
    """Scores the stored answers of evaluations anew and compares every figure.

    Args:
        path: The folder of an evaluation, or of a run: all its evaluations, and the figures in the
            cards of its model.

    Raises:
        UsageError: where there is no evaluation.
        DataError: where one cannot be read.
    """
    folders = _evaluations(path)
    checked = [_checked(folder) for folder in folders]
    cards = [] if (path / RESULTS_FILE).exists() else _cards(path)
    section = figures_section(_opened(folders)) if cards else ""
    for card in cards:
        text = _read(card)
        if _BEGIN not in text:
            faults: tuple[str, ...] = (f"{card} has no figures; `ffr card {path}` writes them",)
        elif section not in text:
            faults = (f"the figures in {card} are not those of the evaluations",)
        else:
            faults = ()
        checked.append(CheckedFigures(card, len(_FIGURES) * len(folders), faults))
    return checked


def figures_section(evaluations: Sequence[tuple[str, Results]]) -> str:
    """The figures of evaluations in Markdown, between marks by which they are found again.

    Args:
        evaluations: The name of each, and its results.
    """
    rows = []
    for _, results in evaluations:
        data = results.data
        name = Path(str(data["dataset"])).name + (
            f" ({data['split']})" if data.get("split") else ""
        )
        identity = str(data.get("fingerprint") or "")[:16]
        cells = [
            markdown_text(name) + (f", {identity}" if identity else ""),
            str(results.num_scored),
            *(_figure_cell(results, figure) for figure in _FIGURES),
            percent(results.summary["answers"]["malformed_share"], 1),
        ]
        if results.settings.get("wrong_pictures"):
            cells[0] += ", control with wrong pictures"
        rows.append("| " + " | ".join(cells) + " |\n")
    return f"""{_BEGIN}
## Figures

In percent, with 95 % intervals by bootstrap over dialogues (`ffr eval`).

| data, fingerprint | queries | utterance F1 | image F1 | joint F1 | malformed answers |
|---|---|---|---|---|---|
{"".join(rows)}{_END}"""


def _figure_cell(results: Results, figure: str) -> str:
    # where no truth has pictures, figures of pictures measure nothing
    if figure != "utterance_f1" and headline_figure(results) == "utterance_f1":
        return "-"
    value = percent(results.summary["scores"][figure], 1)
    interval = results.interval("scores", figure)
    return value if interval is None else f"{value} ({interval_text(interval)})"


def _evaluations(path: Path) -> list[Path]:
    if (path / RESULTS_FILE).is_file():
        return [path]
    found = evaluations_of(path)
    if not path.is_dir():
        raise UsageError(f"no folder {path}; name that of a training run or of an evaluation")
    if not found:
        raise UsageError(f"{path} has no evaluation; `ffr eval --model {path}` makes one")
    return found


def _opened(folders: Sequence[Path]) -> list[tuple[str, Results]]:
    return [(folder.name, Results.load(folder)) for folder in folders]


def _cards(run: Path) -> list[Path]:
    return [card for name in MODEL_FOLDERS if (card := run / name / CARD_FILE).is_file()]


def _read(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read ({one_line(error)}); restore it", where=str(card)
        ) from None


def _checked(folder: Path) -> CheckedFigures:
    stored = Results.load(folder)
    answers = folder / PREDICTIONS_FILE
    if not answers.is_file():
        raise DataError(
            f"has no {PREDICTIONS_FILE}, so nothing can be computed anew; evaluate again",
            where=str(folder),
        )
    found = score_predictions(
        answers, seed=stored.settings.get("seed", 0), with_baselines=bool(stored.baselines)
    )
    notes = []
    if stored.summary.get("published"):
        add_published(found, answers)
    if stored.summary.get("coherence"):
        notes.append("coherence is not computed anew: that needs its encoder")
    pairs = [
        ("", _comparable(stored.summary), _comparable(found.summary)),
        ("published ", stored.summary.get("published"), found.summary.get("published")),
        ("interval of ", stored.intervals, found.intervals),
        *(
            (f"{name} ", _comparable(summary), _comparable(found.baselines.get(name, {})))
            for name, summary in stored.baselines.items()
        ),
    ]
    num_figures, faults = 0, []
    for prefix, ours, anew in pairs:
        values, others = dict(_numbers(ours)), dict(_numbers(anew))
        num_figures += len(values)
        faults += [
            f"{prefix}{name}: the file says {values.get(name, 'nothing')}, its answers give "
            f"{others.get(name, 'nothing')}"
            for name in sorted(values.keys() | others.keys())
            if values.get(name, "nothing") != others.get(name, "nothing")
        ]
    told = stored.data.get("fingerprint")
    if told is not None and found.data.get("fingerprint") != told:
        faults.append(f"the data: the file says {told[:16]}, its answers hold other dialogues")
    return CheckedFigures(folder, num_figures, tuple(faults), tuple(notes))


def _comparable(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of a summary follows from the answers alone."""
    kept = {name: value for name, value in summary.items() if name not in _OF_THE_RUN_ALONE}
    answers = kept.get("answers", {})
    kept["answers"] = {
        name: value for name, value in answers.items() if name not in _ANSWERS_OF_THE_RUN
    }
    return kept


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each number of nested objects and lists, by its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _numbers(item, f"{name}[{number}]")
    elif isinstance(value, int | float) or value is None:
        yield name, value


def verdict(checked: Sequence[CheckedFigures]) -> str:
    """What came out, in a line.

    >>> verdict([CheckedFigures(Path("a"), 12, ()), CheckedFigures(Path("b"), 1, ("x",))])
    '1 of 13 figures differs'
    """
    num_faults = sum(len(item.faults) for item in checked)
    num_figures = sum(item.num_figures for item in checked)
    if not num_faults:
        return f"all {counted(num_figures, 'figure')} hold"
    verb = "differs" if num_faults == 1 else "differ"
    return f"{num_faults} of {counted(num_figures, 'figure')} {verb}"
