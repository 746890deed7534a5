"""The right dialogue of an archive before and after `ffr train embedding`.

    ffr train embedding --dataset FILE --encoder e5 --out RUN …
    python benchmarks/trained_encoder.py RUN --dataset DEV --corpus TRAIN --index DIR

Embeds all dialogues of DEV and TRAIN, or with `--dialogues` some of TRAIN alone, in the archive of both in
DIR, by e5 as it comes and as it was trained, and asks both alike: plain words, nothing before query
and line, all ways of recall, nobody inside.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asked_archive import no_bar, specific_queries

from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.haystack import load_haystack_data, open_haystack
from ffr.corpus.opening import open_archive
from ffr.corpus.store import Store
from ffr.dialogue import Example
from ffr.embedding.packaged import packaged_folder
from ffr.evaluation.bootstrap import clustered_means
from ffr.files import replace_json
from ffr.metrics.functional.ranking import ranking_figures
from ffr.runs import ENCODER, RunRecord
from ffr.settings import AnswerConfig

RESULTS = Path(__file__).parent / "results" / "trained_encoder.json"


def recall_of(
    archive: Archive, chats: Mapping[str, int], asked: Sequence[Example], kinds: Sequence[str]
) -> dict[str, Any]:
    """How often the right dialogue of those chats is recalled, with intervals, and by kind.

    Args:
        archive: Holds them, and others.
        chats: Their numbers, by the dialogues' fingerprints.
        asked: The queries.
        kinds: Of each query.
    """
    filters = Filters(chats=tuple(sorted(chats.values())))
    rows = []
    for example in asked:
        found = [item.where[0] for item in archive.recall(example.query, filters)]
        is_right = [number == chats[example.dialogue.fingerprint] for number in found]
        rows.append(ranking_figures(is_right, 1))
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])
    means = clustered_means(values, [example.dialogue.fingerprint for example in asked])
    of_kind = {
        kind: float(
            np.mean(
                [row["recall_at_20"] for row, its in zip(rows, kinds, strict=True) if its == kind]
            )
        )
        for kind in sorted(set(kinds))
    }
    return {
        "recall_at_20_by_kind": of_kind,
        **{
            name: {"mean": mean, "interval": interval}
            for name, (mean, interval) in zip(names, means, strict=True)
        },
    }


def ask(call: argparse.Namespace) -> None:
    """Asks the queries that mean one dialogue, by e5 as it comes and as it was trained."""
    data = load_haystack_data(call.dataset, call.corpus, "all", say=print)
    chosen = specific_queries(data)
    asked, kinds = [example for example, _ in chosen], [own.kind for _, own in chosen]
    own_names = {example.dialogue.fingerprint for example in data.asked}
    record = RunRecord.load(call.run)
    recall = {}
    with Store(call.index, is_new_allowed=True) as store:
        known = open_haystack(store, data, "none", AnswerConfig(), say=print, bar=no_bar).chats
        others = sorted(known.keys() - own_names)
        if call.dialogues is not None:
            others = random.Random(call.seed).sample(others, call.dialogues - len(own_names))
        chats = {name: known[name] for name in [*own_names, *others]}
        for name, encoder in {
            "before": packaged_folder("e5"),
            "after": call.run / ENCODER,
        }.items():
            archive = open_archive(
                store,
                "none",
                AnswerConfig(),
                chats=sorted(chats.values()),
                encoder=str(encoder),
                say=print,
                bar=no_bar,
            )
            recall[name] = recall_of(archive, chats, asked, kinds)
    replace_json(
        call.out,
        {
            "data_fingerprint": data.asked.fingerprint,
            "num_dialogues": len(chats),
            "num_queries": len(asked),
            "seed": call.seed,
            "trained_on": record.data_fingerprint,
            "trained_seed": record.seed,
            "training": record.results,
            "recall": recall,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="The run of the training.")
    parser.add_argument("--dataset", required=True, help="Whose queries are asked.")
    parser.add_argument("--corpus", required=True, help="Whose dialogues are in the archive too.")
    parser.add_argument("--index", type=Path, required=True, help="The archive.")
    parser.add_argument("--dialogues", type=int, help="So many in all; every one without it.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    call = parser.parse_args()
    ask(call)


if __name__ == "__main__":
    main()
