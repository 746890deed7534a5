"""Which segments are best: penalty, linking, and the vectors by which segments are recalled.

    python benchmarks/segmentation.py --fit TRAIN --report DEV --out FILE

The penalty is chosen on dialogues of TRAIN (drawn by a seed) and stated on all of DEV; so is the
threshold of a linking pass, which joins segments that stand apart and lie close. Segments are then
recalled among those of both by queries of DEV: by the mean of their lines' vectors, and by the
vector of their joined words.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ffr.corpus.opening import DEFAULT_MODEL
from ffr.corpus.segmentation import by_vectors
from ffr.data.catalog import load_dataset
from ffr.dialogue import Example
from ffr.embedding.interface import Encoder
from ffr.evaluation.segmentation import TrueSegments, evaluate_segmentation, true_segments
from ffr.provenance import versions
from ffr.reader.model import Reader
from ffr.retrieval.opening import open_encoder_of
from ffr.retrieval.segmentation import Cut
from ffr.runs import resolve_model
from ffr.settings import AnswerConfig

PENALTIES = (1.2, 1.4, 1.6, 1.7, 1.8, 2.0, 2.3)
CLOSENESS = (0.1, 0.2, 0.3, 0.4)
MOST_APART = 3
BATCH = 16


class Known:
    """Cuts dialogues whose vectors are known, by a function of them."""

    def __init__(self, name: str, how: Callable[[NDArray[np.float32]], Sequence[int]]) -> None:
        self.name = name
        self.identity: dict[str, object] = {}
        self.how = how
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def cut(self, examples: Sequence[Example]) -> list[Cut]:
        """Cuts the dialogue of each example."""
        return [Cut(tuple(self.how(self.vectors[one.dialogue.fingerprint]))) for one in examples]


def linked(vectors: NDArray[np.float32], closeness: float) -> tuple[int, ...]:
    """Segments by vectors, each joined to an earlier one that lies close, if any does."""
    numbers = np.array(by_vectors(vectors))
    told = vectors.any(axis=1)
    around = np.where(told[:, None], vectors - vectors[told].mean(axis=0), 0)
    groups: list[tuple[NDArray[np.float64], list[int]]] = []
    for number in range(int(numbers.max(initial=-1)) + 1):
        own = around[numbers == number].astype(np.float64).sum(axis=0)
        near = [
            (float(total @ own / max(np.linalg.norm(total) * np.linalg.norm(own), 1e-12)), place)
            for place, (total, members) in enumerate(groups)
            if 2 <= number - members[-1] <= MOST_APART
        ]
        best, place = max(near, default=(-1.0, 0))
        if best > closeness:
            groups[place] = (groups[place][0] + own, [*groups[place][1], number])
        else:
            groups.append((own, [number]))
    label = {number: place for place, (_, members) in enumerate(groups) for number in members}
    return tuple(label[int(number)] for number in numbers)


def line_vectors(
    encoder: Encoder, prefix: str, examples: Sequence[Example]
) -> dict[str, NDArray[np.float32]]:
    """The vectors of each dialogue's lines, by its fingerprint."""
    lines = {
        one.dialogue.fingerprint: [line.text.strip() for line in one.dialogue.utterances]
        for one in examples
    }
    texts = sorted({text for found in lines.values() for text in found if text}, key=len)
    rows = embedded(encoder, [prefix + text for text in texts])
    known = dict(zip(texts, rows, strict=True))
    nothing = np.zeros(rows.shape[1], np.float32)
    return {
        name: np.stack([known.get(text, nothing) for text in found])
        for name, found in lines.items()
    }


def embedded(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, D) the vectors of texts, those of one length together."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(order), BATCH):
        part = [texts[place] for place in order[start : start + BATCH]]
        found.append(encoder.embed_texts(part).float().cpu().numpy())
    back = np.argsort(order)
    return np.asarray(np.concatenate(found)[back])


def ranks_of(
    rows: NDArray[np.float64], owners: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The rank of each dialogue, from 0, by the closest of its rows."""
    best = np.full(int(owners.max()) + 1, -np.inf)
    np.maximum.at(best, owners, rows @ query)
    return np.argsort(np.argsort(-best, kind="stable"), kind="stable")


def recall_of(
    ways: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
    queries: NDArray[np.float32],
    wanted: Sequence[int],
) -> dict[str, float]:
    """How high the right dialogue stands, by the reciprocal ranks of one way or several."""
    found = []
    for query, right in zip(queries, wanted, strict=True):
        earned = sum(1 / (60 + ranks_of(rows, owners, query)) for rows, owners in ways)
        order = np.argsort(-np.asarray(earned), kind="stable")
        found.append(int(np.flatnonzero(order == right)[0]) + 1)
    ranks = np.array(found)
    shares = {f"recall@{k}": round(float((ranks <= k).mean()), 4) for k in (1, 5, 20)}
    return {**shares, "mrr": round(float((1 / ranks).mean()), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", required=True)
    parser.add_argument("--report", required=True)
    parser.add_argument("--num-dialogues", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    fit_data = load_dataset(asked.fit, require_images=False)
    report_data = load_dataset(asked.report, require_images=False)
    whole = true_segments(fit_data)
    drawn = sorted(
        random.Random(asked.seed).sample(range(len(whole.examples)), asked.num_dialogues)
    )
    fit = TrueSegments(
        tuple(whole.examples[place] for place in drawn),
        tuple(whole.labels[place] for place in drawn),
        0,
        0,
    )
    report = true_segments(report_data)
    chosen = Reader.load(resolve_model(DEFAULT_MODEL).location).settings
    encoder = open_encoder_of(chosen.encoder_name, AnswerConfig())
    examples = [*fit.examples, *report.examples]
    vectors = line_vectors(encoder, chosen.line_prefix, examples)

    def figures(
        name: str, how: Callable[[NDArray[np.float32]], Sequence[int]]
    ) -> dict[str, object]:
        segmenter = Known(name, how)
        segmenter.vectors = vectors
        row: dict[str, object] = {"method": name}
        for part, truth in (("fit", fit), ("report", report)):
            found = evaluate_segmentation(truth, segmenter, data={}, seed=asked.seed)
            row[part] = {"figures": found.figures, "intervals": found.intervals}
        print(name, {part: row[part]["figures"] for part in ("fit", "report")}, flush=True)  # type: ignore[index]
        return row

    rows = [
        figures("whole", lambda lines: [0] * len(lines)),
        figures("every 10", lambda lines: [line // 10 for line in range(len(lines))]),
        *(
            figures(f"penalty {one}", lambda lines, one=one: by_vectors(lines, penalty=one))
            for one in PENALTIES
        ),
        *(figures(f"linked {one}", lambda lines, one=one: linked(lines, one)) for one in CLOSENESS),
    ]
    owners: list[int] = []
    means: list[NDArray[np.float64]] = []
    joined: list[str] = []
    for place, one in enumerate(examples):
        lines = vectors[one.dialogue.fingerprint]
        numbers = np.array(by_vectors(lines))
        for number in range(int(numbers.max()) + 1):
            total = lines[numbers == number].astype(np.float64).sum(axis=0)
            words = [
                line.text.strip()
                for line, its in zip(one.dialogue.utterances, numbers, strict=True)
                if its == number and line.text.strip()
            ]
            owners.append(place)
            means.append(total / max(float(np.linalg.norm(total)), 1e-12))
            joined.append(chosen.line_prefix + "\n".join(dict.fromkeys(words)))
    by_line = [vectors[one.dialogue.fingerprint].astype(np.float64) for one in examples]
    of_line = np.repeat(np.arange(len(examples)), [len(rows) for rows in by_line])
    ways = {
        "lines": (np.concatenate(by_line), of_line),
        "mean of lines": (np.stack(means), np.array(owners)),
        "joined words": (embedded(encoder, joined).astype(np.float64), np.array(owners)),
    }
    place_of = {one.dialogue.fingerprint: place for place, one in enumerate(examples)}
    told = [
        one
        for one in [*fit_data, *report_data]
        if one.dialogue.fingerprint in place_of and one.fragment and one.fragment.utterance_ids
    ]
    queries = embedded(encoder, [chosen.query_prefix + one.query for one in told])
    wanted = [place_of[one.dialogue.fingerprint] for one in told]
    recalled: dict[str, object] = {"num_segments": len(owners)}
    for part, start, stop in (
        ("fit", 0, len(fit.examples)),
        ("report", len(fit.examples), len(examples)),
    ):
        here = [place for place, right in enumerate(wanted) if start <= right < stop]
        right = [wanted[place] for place in here]
        for names in (
            ["lines"],
            ["mean of lines"],
            ["joined words"],
            ["lines", "mean of lines"],
            ["lines", "joined words"],
        ):
            found = recall_of([ways[name] for name in names], queries[here], right)
            recalled[f"{part}: {' + '.join(names)}"] = {"num_queries": len(here), **found}
    print(recalled)
    result = {
        "seed": asked.seed,
        "fit": {"fingerprint": fit_data.fingerprint, "num_dialogues": len(fit.examples)},
        "report": {"fingerprint": report_data.fingerprint, "num_dialogues": len(report.examples)},
        "encoder": encoder.fingerprint,
        "methods": rows,
        "recall": recalled,
        "versions": versions(),
    }
    asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
