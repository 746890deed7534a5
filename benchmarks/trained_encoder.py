"""The right dialogue of an archive before and after `ffr train embedding`.

    python scripts/reader/open_dialogues.py OPEN DATA
    ffr train embedding --dataset DATA/train.jsonl --seed 0 --out RUN0 …
    python benchmarks/trained_encoder.py RUN0 RUN1 RUN2 --dataset DEV --corpus TRAIN --index DIR

Asks the queries that mean one dialogue of the archive of DEV and TRAIN in DIR, or with `--dialogues` of
some of it, by the reader's own encoder as it comes and by each run's, with all ways of recall and
nobody inside.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asked_archive import no_bar, specific_queries
from numpy.typing import NDArray

from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.haystack import load_haystack_data, open_haystack
from ffr.corpus.opening import open_archive
from ffr.corpus.store import Store
from ffr.dialogue import Example
from ffr.evaluation.bootstrap import clustered_means
from ffr.files import replace_json
from ffr.metrics.functional.ranking import ranking_figures
from ffr.runs import RunRecord
from ffr.settings import AnswerConfig

RESULTS = Path(__file__).parent / "results" / "trained_encoder.json"


def asked_of(
    archive: Archive, chats: Mapping[str, int], asked: Sequence[Example]
) -> list[dict[str, float]]:
    """The figures of each query's ranking of those chats.

    Args:
        archive: Holds them, and others.
        chats: Their numbers, by the dialogues' fingerprints.
        asked: The queries.
    """
    filters = Filters(chats=tuple(sorted(chats.values())))
    rows = []
    for example in asked:
        found = [item.where[0] for item in archive.recall(example.query, filters)]
        is_right = [number == chats[example.dialogue.fingerprint] for number in found]
        rows.append(ranking_figures(is_right, 1))
    return rows


def summary(
    rows: Sequence[dict[str, float]], asked: Sequence[Example], kinds: Sequence[str]
) -> dict[str, Any]:
    """Means over queries with intervals over dialogues, and the first 20 by kind."""
    names = list(rows[0])
    values: NDArray[np.float64] = np.array([[row[name] for name in names] for row in rows])
    means = clustered_means(values, [example.dialogue.fingerprint for example in asked])
    of_twenty = values[:, names.index("recall_at_20")]
    return {
        "recall_at_20_by_kind": {
            kind: float(of_twenty[[its == kind for its in kinds]].mean())
            for kind in sorted(set(kinds))
        },
        **{
            name: {"mean": mean, "interval": interval}
            for name, (mean, interval) in zip(names, means, strict=True)
        },
    }


def mean_rows(of_runs: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Each query's figures, meant over the runs."""
    return [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for rows in zip(*of_runs, strict=True)
    ]


def ask(call: argparse.Namespace) -> None:
    """Asks the queries that mean one dialogue, by the encoder as it comes and as it was trained."""
    data = load_haystack_data(call.dataset, call.corpus, "all", say=print)
    chosen = specific_queries(data)
    asked, kinds = [example for example, _ in chosen], [own.kind for _, own in chosen]
    own_names = {example.dialogue.fingerprint for example in data.asked}
    with Store(call.index, is_new_allowed=True) as store:
        haystack = open_haystack(
            store, data, "none", AnswerConfig(), ways=["words"], say=print, bar=no_bar
        )
        known = haystack.chats
        others = sorted(known.keys() - own_names)
        if call.dialogues is not None:
            others = random.Random(call.seed).sample(others, call.dialogues - len(own_names))
        chats = {name: known[name] for name in [*own_names, *others]}

        def rows_of(encoder: Path | None) -> list[dict[str, float]]:
            archive = open_archive(
                store,
                "none",
                AnswerConfig(),
                chats=sorted(chats.values()),
                encoder=None if encoder is None else str(encoder),
                say=print,
                bar=no_bar,
            )
            return asked_of(archive, chats, asked)

        before = rows_of(None)
        after = [rows_of(run) for run in call.runs]
    records = [RunRecord.load(run) for run in call.runs]
    replace_json(
        call.out,
        {
            "data_fingerprint": data.asked.fingerprint,
            "num_dialogues": len(chats),
            "num_queries": len(asked),
            "seed": call.seed,
            "before": summary(before, asked, kinds),
            "after": summary(mean_rows(after), asked, kinds),
            "runs": [
                {
                    "seed": record.seed,
                    "trained_on": record.data_fingerprint,
                    "training": record.results,
                    "recall": summary(rows, asked, kinds),
                }
                for record, rows in zip(records, after, strict=True)
            ],
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="Trainings, of a seed each.")
    parser.add_argument("--dataset", required=True, help="Whose queries are asked.")
    parser.add_argument("--corpus", required=True, help="Whose dialogues are in the archive too.")
    parser.add_argument("--index", type=Path, required=True, help="The archive.")
    parser.add_argument("--dialogues", type=int, help="So many in all; every one without it.")
    parser.add_argument("--seed", type=int, default=0, help="Draws which, with --dialogues.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    call = parser.parse_args()
    ask(call)


if __name__ == "__main__":
    main()
