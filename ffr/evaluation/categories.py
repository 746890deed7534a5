"""The figures of an evaluation by the kind of question that its data names, as lines of a CSV file.

Shapes: G dialogues, R resamples, K figures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffr.answer import read_answer
from ffr.data.forms.predictions import PredictionFile
from ffr.dialogue import Example, Fragment
from ffr.evaluation.bootstrap import NUM_RESAMPLES, draw_dialogues, percentile_interval
from ffr.evaluation.results import Results
from ffr.files import replaced_file
from ffr.markup import csv_cell
from ffr.metrics.functional.figure import Array
from ffr.retrieval.answer_log import PREDICTIONS_FILE

CATEGORIES_FILE = "categories.csv"
CATEGORY = "category"
"""Key of an example's meta that names the kind of its question."""

HEADER = (
    "category", "num_queries", "num_dialogues", "utterance_f1", "low", "high", "utterance_recall",
    "num_lines", "empty_share", "num_with_captions", "caption_f1", "seconds_a_query",
)  # fmt: skip

_CAPTION = "[picture"
"""How a picture stands in a line's words that is not here (`ffr data import`)."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its true answer and the one that was given.

    Args:
        dialogue: Names its dialogue.
        truth: The true answer.
        answer: The one that was given.
        captioned: The lines that hold a picture's caption.
    """

    dialogue: str
    truth: Fragment
    answer: Fragment
    captioned: frozenset[int]


def write_categories(
    folder: Path, examples: Sequence[Example], results: Results, *, seed: int
) -> None:
    """Writes the table of an evaluation into its folder; none where the data names no kinds.

    Rows: `with evidence` (all whose true answer names something), `nothing` (the others), then
    each kind. Figures are means over questions, with the interval of F1 over whole dialogues;
    `caption_f1` is that of lines with a picture's caption, of the questions whose answer has one;
    `seconds_a_query` is empty where some answers were of an earlier call.

    Args:
        folder: The folder, with its predictions.
        examples: The data, in the order of the predictions.
        results: The results.
        seed: Of the resamples.

    Raises:
        DataError: where the predictions cannot be read or the table not be written.
    """
    if not any(CATEGORY in example.meta for example in examples):
        return
    answered: dict[str, list[Answered]] = {"with evidence": [], "nothing": []}
    for example, record in zip(examples, PredictionFile(folder / PREDICTIONS_FILE), strict=True):
        if example.fragment is None:
            continue
        found = answered_of(example, record.response)
        answered["nothing" if example.fragment.is_empty else "with evidence"].append(found)
        answered.setdefault(str(example.meta.get(CATEGORY, "")), []).append(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    seconds = _seconds(results)
    for category, rows in answered.items():
        if rows:
            writer.writerow([csv_cell(category), *category_figures(rows, seed), seconds])
    with replaced_file(folder / CATEGORIES_FILE) as write:
        write(text.getvalue().encode("utf-8", "backslashreplace"))


def _seconds(results: Results) -> float | None:
    asked = results.provenance.get("seconds_asking")
    if results.provenance.get("num_answers_resumed") or not isinstance(asked, int | float):
        return None
    return round(asked / max(1, int(results.summary["answers"]["num_answers"])), 4)


def answered_of(example: Example, response: str) -> Answered:
    """An answer to an example whose true answer is known.

    Raises:
        ValueError: where it is not.
    """
    if example.fragment is None:
        raise ValueError("the example has no true answer; leave it out")
    lines = example.dialogue.utterances
    captioned = frozenset(place for place, line in enumerate(lines) if _CAPTION in line.text)
    answer = read_answer(response)
    return Answered(example.dialogue.fingerprint, example.fragment, answer, captioned)


def category_figures(rows: Sequence[Answered], seed: int) -> list[float | int | None]:
    """What `HEADER` names between `category` and `seconds_a_query`, of some questions.

    Args:
        rows: The questions, at least one.
        seed: Of the resamples.
    """
    f1 = np.array([_f1(row.truth.utterance_ids, row.answer.utterance_ids) for row in rows])
    recall = [
        len({*row.truth.utterance_ids} & {*row.answer.utterance_ids})
        / len({*row.truth.utterance_ids})
        for row in rows
        if row.truth.utterance_ids
    ]
    captioned = [
        _f1(row.captioned & {*row.truth.utterance_ids}, row.captioned & {*row.answer.utterance_ids})
        for row in rows
        if row.captioned & {*row.truth.utterance_ids}
    ]
    names = [row.dialogue for row in rows]
    low, high = _interval(f1, names, seed)
    num_lines = [len({*row.answer.utterance_ids}) for row in rows]
    empty = [float(row.answer.is_empty) for row in rows]
    return [
        len(rows), len(set(names)), _mean(f1.tolist()), low, high, _mean(recall),
        _mean(num_lines), _mean(empty), len(captioned), _mean(captioned),
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 6) if values else None


def _f1(truth: Sequence[int] | frozenset[int], answer: Sequence[int] | frozenset[int]) -> float:
    """F1 of two sets of ids; 1 where both are empty."""
    true, named = {*truth}, {*answer}
    return 2 * len(true & named) / (len(true) + len(named)) if true or named else 1.0


def _interval(
    values: Array, dialogues: Sequence[str], seed: int
) -> tuple[float | None, float | None]:
    """What the mean lies between over resamples of whole dialogues; None of one dialogue."""
    names = list(dict.fromkeys(dialogues))
    if len(names) < 2:
        return None, None
    numbers = np.array([names.index(name) for name in dialogues])
    sums = np.bincount(numbers, weights=values)
    counts = np.bincount(numbers)
    drawn = np.concatenate(list(draw_dialogues(len(names), NUM_RESAMPLES, seed)))
    low, high = percentile_interval((drawn @ sums) / (drawn @ counts))
    return round(float(low), 6), round(float(high), 6)


def joined_categories(parts: Sequence[tuple[Sequence[str], Path]]) -> str | None:
    """The tables of several evaluations as one; None where none has any.

    Args:
        parts: Of each what stands before its lines (group, row, data set), and its folder.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "label", "dataset", *HEADER])
    has_any = False
    for named, folder in parts:
        if (folder / CATEGORIES_FILE).is_file():
            has_any = True
            with (folder / CATEGORIES_FILE).open(encoding="utf-8", newline="") as file:
                writer.writerows([*map(csv_cell, named), *line] for line in [*csv.reader(file)][1:])
    return text.getvalue() if has_any else None
