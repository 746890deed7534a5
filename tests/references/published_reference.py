"""The published evaluator's rules written down a second time, in plain Python without any of ffr's code."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from typing import Any

_KINDS = (("utterance", "utt"), ("image", "img"))


def _ids(text: str, short: str) -> list[Any]:
    start, end = f"<|{short}_ids_start|>", f"<|{short}_ids_end|>"
    for line in text.split("\n"):
        # a later start on the line is part of what stands between, as in a search from the left
        place = line.find(start)
        stop = line.find(end, place + len(start)) if place >= 0 else -1
        if stop >= 0:
            try:
                found = json.loads(line[place + len(start) : stop])
            except (ValueError, RecursionError):
                return []
            if not isinstance(found, list) or any(isinstance(item, list | dict) for item in found):
                return []
            kept: list[Any] = []
            for item in found:
                if item not in kept:
                    kept.append(item)
            return kept
    return []


def published_scores(records: list[dict[str, Any]]) -> dict[str, float]:
    """P, R, F1 and MCC summed over the data ("global"), and their means over records ("sample_")."""
    tables: dict[str, list[tuple[int, int, int, int]]] = {"utterance": [], "image": []}
    for record in records:
        if not isinstance(record.get("labels"), str) or not isinstance(record.get("response"), str):
            continue
        users = [message["content"] for message in record["messages"] if message["role"] == "user"]
        for name, short in _KINDS:
            marks = re.findall(
                rf"<\|{short}_id_start\|>(\d+)<\|{short}_id_end\|>", users[0] if users else ""
            )
            largest = max((int(mark) for mark in marks), default=20)
            predicted, true = _ids(record["response"], short), _ids(record["labels"], short)
            tp = sum(item in true for item in predicted)
            tn = sum(
                number not in predicted and number not in true for number in range(largest + 1)
            )
            tables[name].append((tp, len(predicted) - tp, len(true) - tp, tn))
    scores: dict[str, float] = {}
    for prefix in ("", "sample_"):
        found = {}
        for name, rows in tables.items():
            if prefix:
                figures = [_figures(*row, is_sample=True) for row in rows]
                found[name] = [
                    math.fsum(column) / len(rows) for column in zip(*figures, strict=True)
                ]
            else:
                found[name] = list(
                    _figures(*(sum(column) for column in zip(*rows, strict=True)), is_sample=False)
                )
        first, second = found["utterance"], found["image"]
        joint = [
            2 * a * b / (a + b) if a + b else 0.0
            for a, b in zip(first[:2], second[:2], strict=True)
        ]
        joint += [(a + b) / 2 for a, b in zip(first[2:], second[2:], strict=True)]
        for name, values in (*found.items(), ("joint", joint)):
            for figure, value in zip(("precision", "recall", "f1", "mcc"), values, strict=True):
                scores[f"{prefix}{name}_{figure}"] = value
    return scores


def _figures(
    tp: int, fp: int, fn: int, tn: int, *, is_sample: bool
) -> tuple[float, float, float, float]:
    if is_sample and tp + fn == 0:
        value = float(fp == 0)
        return value, value, value, value

    def share(numerator: int, denominator: int) -> float:
        return float(Fraction(numerator, denominator)) if denominator else 0.0

    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    mcc = (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0
    return share(tp, tp + fp), share(tp, tp + fn), share(2 * tp, 2 * tp + fp + fn), mcc
