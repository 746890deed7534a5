"""Measures a reader on a data file: `python scripts/reader/measure.py --reader DIR --dataset FILE`.

Mean F1 over records, by language and kind of query, with intervals resampled over whole dialogues;
with the pictures' own words, with those of wrong pictures, and without any; and "nothing here" on
the records that have no answer and on queries put to other dialogues of the file with which they
share no concept (`meta.concept`): as the reader ships, and at other thresholds.

Shapes: Q queries of a dialogue.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ffr
from ffr.data.dataset import data_fingerprint
from ffr.dialogue import Example
from ffr.embedding import CachedEncoder, load_encoder
from ffr.embedding.tagger import load_tagger
from ffr.files import replace_json
from ffr.reader.model import Reader, ReaderPrediction
from ffr.reader.units import Units

NUM_DRAWS = 2000
NUM_ABSENT = 100
CACHE_BYTES = 2**31
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Probabilities of nothing from which an answer is empty, that are tried beside the reader's own."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One record: which dialogue, what was asked, how well it was answered."""

    dialogue: str
    language: str
    kind: str
    utterance_f1: float
    image_f1: float
    is_absent: bool
    is_empty: bool
    score: float


def f1(found: tuple[int, ...], true: tuple[int, ...]) -> float:
    """F1 of two sets of ids; 1 where both are empty."""
    if not found and not true:
        return 1.0
    return 2 * len({*found} & {*true}) / (len({*found}) + len({*true}))


class Measurement:
    """A reader on a data file.

    Args:
        reader: The reader.
        examples: With true answers.
        cache: Folder for vectors.
    """

    def __init__(self, reader: Reader, examples: list[Example], cache: Path) -> None:
        self.reader = reader
        self.encoder = CachedEncoder(load_encoder("e5"), cache, max_bytes=CACHE_BYTES)
        self.by_dialogue: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            self.by_dialogue[example.dialogue.fingerprint].append(example)
        locations = sorted({str(path) for one in examples for path in one.image_locations()})
        words = load_tagger().words([Path(path) for path in locations])
        self.words = dict(zip(locations, words, strict=True))
        self.vectors = {
            key: reader.query_vectors([example.query for example in some], self.encoder)
            for key, some in self.by_dialogue.items()
        }

    def units(self, key: str, pictures: str, rng: random.Random) -> Units:
        """The units of a dialogue, its pictures with their own words, wrong ones, or none."""
        example = self.by_dialogue[key][0]
        shown = [self.words[str(path)] for path in example.image_locations()]
        if pictures == "wrong":
            shown = [rng.choice(sorted(self.words.values())) for _ in shown]
        elif pictures == "none":
            shown = [""] * len(shown)
        return self.reader.units(example.dialogue, self.encoder, shown)

    def scored(self, pictures: str) -> list[Scored]:
        """Every record."""
        rng, rows = random.Random(3), []
        for key, examples in self.by_dialogue.items():
            found = self.reader.predict(self.units(key, pictures, rng), self.vectors[key])
            rows += [_scored(key, *pair) for pair in zip(examples, found, strict=True)]
        return rows

    def of_strangers(self) -> list[bool]:
        """Whether each of `NUM_ABSENT` queries is answered with nothing on another dialogue."""
        rng, empty = random.Random(11), []
        keys = sorted(self.by_dialogue)
        asked = [
            (key, number)
            for key in keys
            for number, example in enumerate(self.by_dialogue[key])
            if example.fragment is not None and not example.fragment.is_empty
        ]
        while len(empty) < NUM_ABSENT:
            (key, number), other = rng.choice(asked), rng.choice(keys)
            example = self.by_dialogue[key][number]
            concepts = {one.meta.get("concept") for one in self.by_dialogue[other]}
            languages = {one.meta.get("lang") for one in self.by_dialogue[other]}
            concept = example.meta.get("concept")
            if key == other or example.meta.get("lang") not in languages:
                continue
            # any hotel answers for a hotel: goals name no concept, so they are left out
            if concept in concepts or concept is None:
                continue
            units = self.units(other, "own", rng)
            (found,) = self.reader.predict(units, self.vectors[key][number : number + 1])
            empty.append(not (found.utterance_ids or found.image_ids))
        return empty


def _scored(key: str, example: Example, found: ReaderPrediction) -> Scored:
    truth = example.fragment
    assert truth is not None
    return Scored(
        key,
        str(example.meta.get("lang")),
        str(example.meta.get("query_kind")),
        f1(found.utterance_ids, truth.utterance_ids),
        f1(found.image_ids, truth.image_ids),
        not truth.utterance_ids,
        not found.utterance_ids,
        found.score,
    )


def with_interval(rows: list[Scored], figure: str) -> dict[str, float | int]:
    """Mean over records with the 95 % interval over whole dialogues."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row.dialogue].append(getattr(row, figure))
    sums = np.array([[sum(some), len(some)] for some in groups.values()])
    rng = np.random.default_rng(0)
    drawn = sums[rng.integers(0, len(sums), (NUM_DRAWS, len(sums)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return {
        "mean": round(float(sums[:, 0].sum() / sums[:, 1].sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "records": len(rows),
    }


def report(measurement: Measurement) -> dict[str, Any]:
    """All figures of a reader on a file."""
    own = measurement.scored("own")
    groups = {
        "all": own,
        "en": [row for row in own if row.language == "en"],
        "zh": [row for row in own if row.language == "zh"],
        "human": [row for row in own if row.kind.startswith("human")],
        "concept": [row for row in own if row.kind.startswith(("concept", "templated"))],
        "goal": [row for row in own if "goal" in row.kind],
    }
    there = [row for row in own if not row.is_absent]
    return {
        "utterance_f1": {
            name: with_interval(rows, "utterance_f1") for name, rows in groups.items() if rows
        },
        "image_f1": {
            pictures: with_interval(measurement.scored(pictures), "image_f1")
            for pictures in ("own", "wrong", "none")
        },
        "nothing": of_nothing(own, measurement.of_strangers()),
        "thresholds": at_thresholds(measurement),
        "reliability": _reliability(there),
    }


def of_nothing(rows: list[Scored], strangers: list[bool]) -> dict[str, float]:
    """What share is left unanswered of records without an answer, of strangers', and of the others."""
    absent = [row.is_empty for row in rows if row.is_absent]
    there = [row.is_empty for row in rows if not row.is_absent]
    return {
        "absent_found": _mean(absent),
        "strangers_found": _mean(strangers),
        "both_found": _mean(absent + strangers),
        "wrongly_empty": _mean(there),
    }


def at_thresholds(measurement: Measurement) -> list[dict[str, float]]:
    """The same at each of `THRESHOLDS`, with what it does to F1."""
    reader, own = measurement.reader, measurement.reader.settings
    found = []
    for threshold in THRESHOLDS:
        reader.settings = replace(own, nothing_from=threshold)
        rows = measurement.scored("own")
        found.append(
            {
                "nothing_from": threshold,
                **of_nothing(rows, measurement.of_strangers()),
                "utterance_f1": _mean([row.utterance_f1 for row in rows]),
                "image_f1": _mean([row.image_f1 for row in rows]),
            }
        )
    reader.settings = own
    return found


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _reliability(rows: list[Scored]) -> list[dict[str, float]]:
    """Mean score and mean F1 of records by their score, in five parts of equal size."""
    answered = sorted((row for row in rows if not row.is_empty), key=lambda row: row.score)
    parts = [answered[len(answered) * n // 5 : len(answered) * (n + 1) // 5] for n in range(5)]
    return [
        {
            "score": round(float(np.mean([row.score for row in part])), 3),
            "utterance_f1": round(float(np.mean([row.utterance_f1 for row in part])), 3),
        }
        for part in parts
        if part
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--image-root", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reader = Reader.load(arguments.reader)
    examples = list(ffr.load_dataset(arguments.dataset, image_root=arguments.image_root))
    found = {
        "data": data_fingerprint(examples),
        "reader": {"notes": reader.settings.notes, "networks": reader.settings.num_networks},
        **report(Measurement(reader, examples, arguments.cache)),
    }
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if arguments.out is not None:
        replace_json(arguments.out, found)


if __name__ == "__main__":
    main()
