"""The published evaluator's reading of a prediction file, for figures that are to equal its own.

Its rules, which are not ours: the first list of each kind anywhere in the text counts, thoughts
included, if it stands on one line between its markers and is JSON; anything else names nothing.
Truths are read in the same way. A record without `labels` or `response` is skipped. A dialogue's
size is told by the largest marker in the first user message; without one the largest id is 20.

Shapes: N scored records; the modality axis is (utterance, image); the count axis is (TP, FP, FN,
TN).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ffr.answer import IMG_IDS_END, IMG_IDS_START, UTT_IDS_END, UTT_IDS_START
from ffr.data.index import RecordFile, parse_record
from ffr.errors import DataError
from ffr.evaluation.results import Results
from ffr.metrics.functional.figures import (
    sample_figures_of,
    score_names,
    scores_of_sums,
    to_fixed_point,
)
from ffr.prompt import IMG_ID_END, IMG_ID_START, UTT_ID_END, UTT_ID_START

LARGEST_ID_UNMARKED = 20

_LISTS = [
    re.compile(re.escape(start) + "(.*?)" + re.escape(end))
    for start, end in ((UTT_IDS_START, UTT_IDS_END), (IMG_IDS_START, IMG_IDS_END))
]
_MARKS = [
    re.compile(re.escape(start) + "([0-9]{1,9})" + re.escape(end))
    for start, end in ((UTT_ID_START, UTT_ID_END), (IMG_ID_START, IMG_ID_END))
]


def read_published(text: str) -> tuple[set[Any], set[Any]]:
    """What the published evaluator reads from an answer or a truth: utterance and image ids.

    Elements are what JSON makes of them, compared as Python does: 3.0 is 3, "3" is not.

    >>> read_published("<|utt_ids_start|>[3, 3]<|utt_ids_end|> <|img_ids_start|>[0<|img_ids_end|>")
    ({3}, set())
    """
    first, second = (_json_list(pattern.search(text)) for pattern in _LISTS)
    return first, second


def _json_list(match: re.Match[str] | None) -> set[Any]:
    try:
        found = json.loads(match[1]) if match else []
        return set(found) if isinstance(found, list) else set()
    except (ValueError, RecursionError, TypeError):
        return set()  # no JSON, or a list of lists, whose elements are no ids


def published_summary(path: str | Path) -> dict[str, Any]:
    """The figures of a prediction file as the published evaluator reads it.

    Args:
        path: A .jsonl file or .json list, plain or .gz.

    Returns:
        `num_scored`, `num_skipped` (no object, or without labels or response), `num_unmarked`
        (records whose first user message shows no utterance marker), and `scores`, which has the
        names of our own figures but `exact_match`; None where nothing could be scored.
    """
    records = RecordFile(Path(path))
    counts: list[list[list[int]]] = []
    num_skipped = num_unmarked = 0
    for index, data in enumerate(records):
        try:
            if isinstance(data, DataError):
                raise data
            record = parse_record(data, records.where(index))
        except DataError:
            num_skipped += 1
            continue
        labels, response = record.get("labels"), record.get("response")
        if not isinstance(labels, str) or not isinstance(response, str):
            num_skipped += 1
            continue
        prompt = _first_user_message(record)
        largest = [max(map(int, pattern.findall(prompt)), default=None) for pattern in _MARKS]
        num_unmarked += largest[0] is None
        counts.append(
            [
                _counts(predicted, true, LARGEST_ID_UNMARKED if last is None else last)
                for predicted, true, last in zip(
                    read_published(response), read_published(labels), largest, strict=True
                )
            ]
        )
    scores = None
    if counts:
        table = np.array(counts, dtype=np.int64)
        of_samples = to_fixed_point(sample_figures_of(table)).sum(0)
        values = scores_of_sums(table.sum(0), of_samples, np.array(len(table)))
        scores = dict(zip(score_names(), values.tolist(), strict=True))
    return {
        "num_scored": len(counts),
        "num_skipped": num_skipped + (records.tail_fault is not None),
        "num_unmarked": num_unmarked,
        "scores": scores,
    }


def add_published(results: Results, predictions: Path) -> None:
    """Puts the figures of the published reading into results, beside the lenient and the strict.

    Args:
        results: Results of the answers in `predictions`.
        predictions: The prediction file.
    """
    results.summary["published"] = published_summary(predictions)


def _first_user_message(record: Mapping[str, Any]) -> str:
    messages = record.get("messages")
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            return content if isinstance(content, str) else ""
    return ""


def _counts(predicted: set[Any], true: set[Any], largest: int) -> list[int]:
    """(TP, FP, FN, TN) over the ids 0 to `largest`; what is no such id is never a true negative."""
    return [
        len(predicted & true),
        len(predicted - true),
        len(true - predicted),
        largest + 1 - _num_inside(predicted | true, largest),
    ]


def _num_inside(named: Iterable[Any], largest: int) -> int:
    return sum(
        isinstance(item, int | float) and 0 <= item <= largest and item == int(item)
        for item in named
    )
