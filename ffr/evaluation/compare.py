"""Results on the same data, paired: differences with intervals and p-values, and what changed.

Both sides meet the same resamples of the dialogues (`ffr.evaluation.bootstrap`), so that what makes
a dialogue hard for both drops out of their difference.

Shapes: R resamples, F figures (`ffr.evaluation.bootstrap.FIGURE_NAMES`), N scored answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffr.answer import read_answer
from ffr.data.forms.predictions import PredictionFile, example_of_prediction
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError, UsageError
from ffr.evaluation.bootstrap import (
    ALL,
    LEVEL,
    NUM_RESAMPLES,
    Slice,
    percentile_interval,
    resample_figures,
)
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import SLICES, ScoredRows, ScoreTable
from ffr.files import check_as_written
from ffr.metrics.functional.figures import F1
from ffr.retrieval.answer_log import FAILURE, PREDICTIONS_FILE
from ffr.text import counted

SCHEMA = 2
"""Version of what `ffr compare --json` prints. 2: a slice without answers is null."""


@dataclass(frozen=True)
class Run:
    """A results folder with what its model answered.

    Args:
        path: What the user called it.
        results: The results.
        responses: The answers, in the order of the data.
        keys: What names each (dialogue, query) pair.
        failed: Places of the queries that could not be answered.
    """

    path: Path
    results: Results
    responses: tuple[str, ...]
    keys: tuple[str, ...]
    failed: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        return self.results.label


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two results.

    Args:
        first: Its value in the first.
        second: Its value in the second.
        difference: Second minus first.
        interval: What the difference lies between; None where all answers are on one dialogue.
        p_value: See `p_value`; None likewise.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class ChangedSample:
    """A query that two results answer differently well.

    Args:
        dialogue_id: The dialogue's id.
        query: The query.
        truth: The true answer.
        first: The first's answer, as it is read.
        second: The second's.
        first_f1: Joint F1 of the first's answer (mean over queries' convention).
        second_f1: The second's.
        index: Place in the data.
    """

    dialogue_id: str
    query: str
    truth: Fragment
    first: Fragment
    second: Fragment
    first_f1: float
    second_f1: float
    index: int


@dataclass(frozen=True)
class Comparison:
    """The second result against the first.

    Args:
        first: Path of the first.
        second: Path of the second.
        figures: Figure → difference, over all the data.
        slices: Table → slice → number of answers and differences; None where it has no answer.
        changed: The samples that changed most, those first.
        num_better: Queries with a better joint F1 in the second.
        num_worse: With a worse one.
        num_same: With the same.
    """

    first: str
    second: str
    figures: dict[str, Difference]
    slices: dict[str, dict[str, tuple[int, dict[str, Difference]] | None]]
    changed: list[ChangedSample]
    num_better: int
    num_worse: int
    num_same: int


def load_run(path: Path) -> Run:
    """Reads a results folder, or its `results.json`, and the predictions beside it.

    Raises:
        DataError: where either is missing or something else.
    """
    results = Results.load(path)
    folder = path if path.is_dir() else path.parent
    file = folder / PREDICTIONS_FILE
    if not file.is_file():
        raise DataError(
            f"has no {PREDICTIONS_FILE}, without which answers cannot be paired; keep the folder "
            "of `ffr eval` whole",
            where=str(folder),
        )
    check_as_written(file, otherwise="evaluate again")
    records = PredictionFile(file)
    keys: list[str] = []
    responses: list[str] = []
    failed: set[int] = set()
    for index, record in enumerate(records):
        key = record.extra.get("key")
        if not isinstance(key, str):
            raise DataError(
                'has no "key"; take the predictions that `ffr eval` wrote',
                where=records.where(index),
            )
        keys.append(key)
        responses.append(record.response)
        if FAILURE in record.extra:
            failed.add(index)
    return Run(path, results, tuple(responses), tuple(keys), frozenset(failed))


def check_comparable(first: Results, second: Results, names: tuple[str, str]) -> None:
    """Refuses what must not be set side by side.

    Args:
        first: One result.
        second: The other.
        names: What the user called them.

    Raises:
        UsageError: where the data differ or are unknown, or one is a control with wrong pictures
            and the other is not.
    """
    prints = [results.data.get("fingerprint") for results in (first, second)]
    for name, found in zip(names, prints, strict=True):
        if not isinstance(found, str):
            raise UsageError(
                f"{name} does not say what data it was measured on (a prediction file with lines "
                "that could not be read?); "
                "evaluate with `ffr eval --dataset`"
            )
    if prints[0] != prints[1] and not _have_same_texts(first, second):
        shown = [_data_words(results) for results in (first, second)]
        raise UsageError(
            f"{names[0]} and {names[1]} were measured on different data ({shown[0]}; {shown[1]}); "
            "evaluate both on the same"
        )
    controls = [bool(results.settings.get("wrong_pictures")) for results in (first, second)]
    if controls[0] != controls[1]:
        control, other = names if controls[0] else names[::-1]
        raise UsageError(
            f"{control} is a control with wrong pictures and {other} is not; a control is no "
            "result of a model, "
            "so compare controls with each other only"
        )


def _have_same_texts(first: Results, second: Results) -> bool:
    """Whether texts and answers are the same, and of the pictures it cannot be told.

    As of a file of predictions alone.
    """
    texts = [results.data.get("text_fingerprint") for results in (first, second)]
    is_unknown = any(results.data.get("num_unread_images") for results in (first, second))
    return is_unknown and isinstance(texts[0], str) and texts[0] == texts[1]


def _data_words(results: Results) -> str:
    data = results.data
    part = f" {data['split']}" if data.get("split") else ""
    queries = counted(data.get("num_examples", 0), "query")
    return f"{data.get('dataset')}{part}, {queries}, fingerprint {str(data['fingerprint'])[:12]}"


def p_value(differences: npt.NDArray[np.float64]) -> float:
    """Two-sided p-value of "no difference" from the resampled differences of a paired bootstrap.

    Twice the smaller of two shares: resamples whose difference is at most 0, and at least 0; one is
    added to both sides of the division, so that it is never 0 (Davison and Hinkley 1997, section
    4.2). It is under 1 - level just where the percentile interval of that level leaves 0 out.

    Args:
        differences: float64 of shape (R,).

    >>> p_value(np.array([0.2, 0.1, 0.3, -0.1])), p_value(np.zeros(4))
    (0.8, 1.0)
    """
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (1 + smaller) / (1 + len(differences)))


def compare(
    runs: Sequence[Run], *, num_changed: int = 10, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> list[Comparison]:
    """Sets every result against the first.

    Args:
        runs: Two or more results on the same data.
        num_changed: How many of the samples that changed most are named.
        seed: Seed of the resamples.
        num_resamples: Number of resamples.

    Raises:
        UsageError: where they cannot be compared (`check_comparable`).
        DataError: where predictions are not those of their results.
    """
    first = runs[0]
    for other in runs[1:]:
        check_comparable(first.results, other.results, (str(first.path), str(other.path)))
    examples = _read_examples(first)
    scored = [index for index, example in enumerate(examples) if example.fragment is not None]
    if not scored:
        raise DataError(
            "has no query with a true answer; there is nothing to compare", where=str(first.path)
        )
    base = _score(first, examples)
    base_figures = resample_figures(base, seed=seed, num_resamples=num_resamples)
    found = []
    for other in runs[1:]:
        # a file of predictions alone does not know its pictures' bytes, so its keys are others;
        # that texts, queries and answers are the same is known from the results
        is_same = len(other.keys) == len(first.keys) and (
            other.keys == first.keys or _have_same_texts(first.results, other.results)
        )
        if not is_same:
            raise DataError(
                f"its answers are not to the queries of {first.path}, in their order; evaluate "
                "again",
                where=str(other.path),
            )
        rows = _score(other, examples)
        figures = resample_figures(rows, seed=seed, num_resamples=num_resamples)
        sample_f1 = [table.sample_figures[..., F1].mean(1).tolist() for table in (base, rows)]
        changes = [after - before for before, after in zip(*sample_f1, strict=True)]
        order = sorted(range(len(scored)), key=lambda row: (-abs(changes[row]), row))
        changed = [row for row in order if changes[row] != 0][:num_changed]
        found.append(
            Comparison(
                first=str(first.path),
                second=str(other.path),
                figures=_differences(base, rows, base_figures, figures, ALL),
                slices=_sliced(base, rows, base_figures, figures),
                changed=[
                    _changed(
                        examples[scored[row]],
                        scored[row],
                        (first, other),
                        (sample_f1[0][row], sample_f1[1][row]),
                    )
                    for row in changed
                ],
                num_better=sum(change > 0 for change in changes),
                num_worse=sum(change < 0 for change in changes),
                num_same=sum(change == 0 for change in changes),
            )
        )
    return found


def comparison_to_json(
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """The comparisons as `ffr compare --json` prints them."""
    return {
        "schema": SCHEMA,
        "data": runs[0].results.data,
        "runs": [
            {"path": str(run.path), "model": run.results.model, "settings": run.results.settings}
            for run in runs
        ],
        "method": {
            "intervals": "percentiles over resamples of whole dialogues, paired",
            "p_value": "twice the smaller share of resamples at or beyond 0, one added to both "
            "sides of the division",
            "level": LEVEL,
            "num_resamples": num_resamples,
            "seed": seed,
        },
        "comparisons": [
            {
                "first": item.first,
                "second": item.second,
                "figures": {name: asdict(value) for name, value in item.figures.items()},
                **{
                    table: {name: _slice_json(found) for name, found in slices.items()}
                    for table, slices in item.slices.items()
                },
                "num_better": item.num_better,
                "num_worse": item.num_worse,
                "num_same": item.num_same,
                "changed": [asdict(sample) for sample in item.changed],
            }
            for item in comparisons
        ],
    }


def _slice_json(found: tuple[int, dict[str, Difference]] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    num_answers, differences = found
    figures = {figure: asdict(value) for figure, value in differences.items()}
    return {"num_answers": num_answers, **figures}


def _read_examples(run: Run) -> list[Example]:
    """What was asked, from the prompts of the predictions."""
    folder = run.path if run.path.is_dir() else run.path.parent
    records = PredictionFile(folder / PREDICTIONS_FILE)
    return [
        example_of_prediction(record, where=records.where(index))
        for index, record in enumerate(records)
    ]


def _score(run: Run, examples: Sequence[Example]) -> ScoredRows:
    """The rows of a result, whose figures must be those that it states."""
    table = ScoreTable()
    for index, (example, response) in enumerate(zip(examples, run.responses, strict=True)):
        table.add_example(example, response, is_failed=index in run.failed)
    rows = table.rows()
    stated = run.results.summary["scores"]
    if any(not _is_same(stated[name], value) for name, value in rows.scores().items()):
        raise DataError(
            f"its {PREDICTIONS_FILE} does not give the figures of its results; evaluate again",
            where=str(run.path),
        )
    return rows


def _is_same(stated: float | None, found: float | None) -> bool:
    if stated is None or found is None:
        return stated is found
    return math.isclose(stated, found, abs_tol=1e-9)


def _differences(
    first: ScoredRows,
    second: ScoredRows,
    first_figures: Mapping[Slice, npt.NDArray[np.float64]],
    second_figures: Mapping[Slice, npt.NDArray[np.float64]],
    name: Slice,
) -> dict[str, Difference]:
    before, after = first.all_scores(), second.all_scores()
    resampled = second_figures[name] - first_figures[name] if name in first_figures else None
    found: dict[str, Difference] = {}
    for column, figure in enumerate(FIGURE_NAMES):
        interval = chance = None
        if resampled is not None:
            values = resampled[~np.isnan(resampled[:, column]), column]
            low, high = percentile_interval(values)
            interval, chance = (float(low), float(high)), p_value(values)
        was, became = before[figure], after[figure]
        # there are answers, so every figure was measured
        assert was is not None
        assert became is not None
        found[figure] = Difference(was, became, became - was, interval, chance)
    return found


def _sliced(
    first: ScoredRows,
    second: ScoredRows,
    first_figures: Mapping[Slice, npt.NDArray[np.float64]],
    second_figures: Mapping[Slice, npt.NDArray[np.float64]],
) -> dict[str, dict[str, tuple[int, dict[str, Difference]] | None]]:
    found: dict[str, dict[str, tuple[int, dict[str, Difference]] | None]] = {}
    for table, names in SLICES.items():
        found[table] = {}
        for name in names:
            before, after = first.of(table, name), second.of(table, name)
            found[table][name] = None
            if len(before):
                differences = _differences(
                    before, after, first_figures, second_figures, (table, name)
                )
                found[table][name] = len(before), differences
    return found


def _changed(
    example: Example, index: int, runs: tuple[Run, Run], f1: tuple[float, float]
) -> ChangedSample:
    truth = example.fragment
    assert truth is not None  # only scored samples can change
    first, second = (read_answer(run.responses[index]) for run in runs)
    return ChangedSample(example.dialogue.id, example.query, truth, first, second, *f1, index)
