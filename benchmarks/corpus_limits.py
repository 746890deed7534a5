"""Where F1 goes between knowing the dialogue and the best hit of an archive, and what tells absence.

    python benchmarks/corpus_limits.py ask --dataset DEV --corpus TRAIN --index DIR --out dev.json
    python benchmarks/corpus_limits.py ask --dataset TRAIN --corpus DEV --index DIR --limit 160 --out train.json
    python benchmarks/corpus_limits.py keep dev.json --fit train.json
    python benchmarks/corpus_limits.py table

`ask` searches the archive of both data sets with the reader, its own encoder's vectors and all ways,
and keeps of each hit whether its dialogue is right, its F1 and its evidence: no query and no text.
`keep` writes the figures, `table` the two tables of docs/archive-eval.md. A query counts as absent with its own dialogue taken out of what was
recalled, which is what a search of the archive without it gives, but for words' rarities. A conversation may be
part of several dialogues (of one data set; `source_dialogue` says so): each is right.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from asked_archive import Conversations, no_bar, specific_queries
from numpy.typing import NDArray
from page_table import with_table

from ffr.corpus.archive import Archive
from ffr.corpus.found import Hit, evidence, in_order, told_apart
from ffr.corpus.haystack import load_haystack_data, open_haystack
from ffr.corpus.inside import hits_inside
from ffr.corpus.recall import Recalled
from ffr.corpus.store import Store, StoredChat
from ffr.dialogue import Example
from ffr.evaluation.bootstrap import clustered_means
from ffr.evaluation.corpus import Meant
from ffr.files import replace_json
from ffr.report.tables import interval_text
from ffr.settings import AnswerConfig

RESULTS = Path(__file__).parent / "results" / "corpus_limits.json"
DEPTHS = (20, 50)
FALSE = 0.05
"""The share of answered queries that a gate may call absent."""

PAGE = Path(__file__).parents[1] / "docs" / "archive-eval.md"
BEGIN, END = "<!-- table: benchmarks/corpus_limits.py -->", "<!-- end of table -->"
PARTS = {
    "known": "knowing the dialogue",
    "recall": "not recalled",
    "reading": "read otherwise",
    "order": "another hit first",
    "best hit": "best hit",
}
GATES = {
    "evidence": "evidence of the best hit",
    "margin": "its evidence above the next hit's",
    "score": "how sure the model is of it",
    "lines": "likeness of the closest lines",
    "segments": "likeness of the closest segment",
    "words": "BM25 of the best line",
    "all": "all of these, weighed",
}


class Asker:
    """Asks queries of an archive at several depths, each dialogue once.

    Args:
        archive: The archive.
        chats: The number of the chat that each dialogue became, by its fingerprint.
        conversations: Those of the archive.
    """

    def __init__(
        self, archive: Archive, chats: Mapping[str, int], conversations: Conversations
    ) -> None:
        self.archive = archive
        self.chats = chats
        self.conversations = conversations
        self.stored: dict[int, StoredChat] = {chat.id: chat for chat in archive.store.chats()}

    def records(self, asked: Sequence[tuple[Example, Meant]]) -> list[dict[str, Any]]:
        """What was found for each query: of each hit whether it is right, its F1 and its evidence.

        A dialogue with the same conversation is right too (`Conversations.truths`).
        """
        queries = [example.query for example, _ in asked]
        owns = [self.chats[example.dialogue.fingerprint] for example, _ in asked]
        recalled = [
            {depth: self.archive.recall(query, k=depth) for depth in DEPTHS} for query in queries
        ]
        known = self._asked(
            {(own, number): Recalled((own, 0), {}) for number, own in enumerate(owns)}, queries
        )
        inside = self._asked(
            {
                (item.where[0], number): item
                for number, at_depths in enumerate(recalled)
                for items in at_depths.values()
                for item in items
            },
            queries,
        )
        return [
            self._record(
                example,
                meant,
                known[owns[number], number],
                {
                    depth: [(item, inside[item.where[0], number]) for item in items]
                    for depth, items in recalled[number].items()
                },
            )
            for number, (example, meant) in enumerate(asked)
        ]

    def _record(
        self,
        example: Example,
        meant: Meant,
        known: Sequence[Hit],
        found: Mapping[int, Sequence[tuple[Recalled, Sequence[Hit]]]],
    ) -> dict[str, Any]:
        """What was found for one query: knowing its dialogue, and in what was recalled at each depth."""
        truths = {
            self.chats[name]: {*truth.utterance_ids}
            for name, truth in self.conversations.truths(example).items()
        }
        own = self.chats[example.dialogue.fingerprint]
        record: dict[str, Any] = {
            "kind": meant.kind,
            "dialogue": example.dialogue.fingerprint,
            "num_right": len(truths),
            "known_f1": _f1(known[0], truths[own]) if known else 0.0,
        }
        for depth, items in found.items():
            hits = [
                replace(
                    hit,
                    ways={way: trace.rank for way, trace in item.traces.items()},
                    likenesses=dict(item.likenesses),
                )
                for item, its in items
                for hit in its
            ]
            others = [hit for hit in hits if hit.chat.id not in truths]
            record[str(depth)] = {
                "is_recalled": any(item.where[0] in truths for item, _ in items),
                "hits": self._said(hits, truths),
                "without": self._said(others, truths),
            }
        return record

    def _asked(
        self, items: Mapping[tuple[int, int], Recalled], queries: Sequence[str]
    ) -> dict[tuple[int, int], list[Hit]]:
        """The hits in a dialogue of a query, by both numbers.

        One dialogue comes after the other, so that what is known of it serves all queries on it.
        """
        store, retriever = self.archive.store, self.archive.retriever
        assert retriever is not None
        found = {}
        for chat, number in sorted(items):
            item = items[chat, number]
            hits, failures = hits_inside(store, retriever, queries[number], [item], self.stored)
            if failures:
                raise SystemExit(failures[0])
            found[chat, number] = hits
        return found

    def _said(self, hits: Sequence[Hit], truths: Mapping[int, set[int]]) -> list[dict[str, Any]]:
        """The hits in the order of a search."""
        known = dict(zip(map(id, hits), evidence(hits), strict=True))
        kept = told_apart(hits)
        earned = {id(hit): known[id(old)] for hit, old in zip(kept, hits, strict=True)}
        return [
            {
                "is_right": hit.chat.id in truths,
                "f1": _f1(hit, truths.get(hit.chat.id, set())),
                "score": hit.score,
                "is_weak": hit.is_weak,
                "has_words": "words" in hit.found_by,
                "evidence": earned[id(hit)],
                "likenesses": dict(hit.likenesses),
                "ranks": dict(hit.ways),
            }
            for hit in in_order(kept)
        ]


def _f1(hit: Hit, truth: set[int]) -> float:
    """F1 of a hit's lines, by the ids of its own dialogue."""
    found = {line.message.line - 1 for line in hit.lines}
    return 2 * len(found & truth) / (len(found) + len(truth))


# -- figures ---------------------------------------------------------------------------------------


def parts_of(record: Mapping[str, Any], depth: int) -> dict[str, float]:
    """Where F1 goes between knowing the dialogue and the best hit: the parts add up.

    >>> hit = {"is_right": True, "f1": 0.5, "is_weak": False}
    >>> other = {"is_right": False, "f1": 0.0, "is_weak": False}
    >>> found = {"known_f1": 0.8, "20": {"is_recalled": True, "hits": [other, hit]}}
    >>> {name: round(value, 2) for name, value in parts_of(found, 20).items()}
    {'known': 0.8, 'recall': 0.0, 'reading': 0.3, 'order': 0.5, 'best hit': 0.0}
    """
    at, known = record[str(depth)], record["known_f1"]
    reached = max((hit["f1"] for hit in at["hits"] if hit["is_right"]), default=0.0)
    first = next((hit["f1"] for hit in at["hits"] if not hit["is_weak"]), 0.0)
    return {
        "known": known,
        "recall": 0.0 if at["is_recalled"] else known,
        "reading": known - reached if at["is_recalled"] else 0.0,
        "order": reached - first,
        "best hit": first,
    }


def depth_figures(records: Sequence[Mapping[str, Any]], depth: int) -> dict[str, Any]:
    """Means of the parts with intervals over dialogues, and how well hits are ordered."""
    rows = []
    for record in records:
        hits = record[str(depth)]["hits"]
        rank = next((n for n, hit in enumerate(hits, 1) if hit["is_right"]), None)
        ordered = {
            "recalled": float(record[str(depth)]["is_recalled"]),
            "first": float(rank == 1),
            "reciprocal_rank": 0.0 if rank is None else 1 / rank,
        }
        rows.append(parts_of(record, depth) | ordered)
    values = np.array([[row[name] for name in rows[0]] for row in rows])
    means = clustered_means(values, [record["dialogue"] for record in records])
    return {
        name: {"mean": mean, "interval": interval}
        for name, (mean, interval) in zip(rows[0], means, strict=True)
    }


def gate_numbers(hits: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the hits of a query say of whether there is anything; larger speaks for it."""
    if not hits:
        return dict.fromkeys(("evidence", "margin", "score", "lines", "segments", "words"), 0.0)
    best, *others = hits

    def most(way: str) -> float:
        return max((hit["likenesses"].get(way, 0.0) for hit in hits), default=0.0)

    return {
        "evidence": best["evidence"],
        "margin": best["evidence"] - (others[0]["evidence"] if others else 0.0),
        "score": best["score"] or 0.0,
        "lines": most("lines"),
        "segments": most("segments"),
        "words": most("words"),
    }


Numbers = NDArray[np.float64]


def fitted_sum(held: Numbers, absent: Numbers) -> Callable[[Numbers], Numbers]:
    """Fisher's linear discriminant of two groups of (N, F) numbers."""
    both = np.cov(held.T) + np.cov(absent.T)
    weights = np.linalg.pinv(both) @ (held.mean(0) - absent.mean(0))
    return lambda rows: rows @ weights


def gate_figures(
    records: Sequence[Mapping[str, Any]], fit: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """How well each number, and all of them fitted elsewhere, tell absent queries from others.

    The threshold leaves `FALSE` of the answered queries of `fit` below it.
    """
    numbers = {
        key: tuple(
            np.array([list(gate_numbers(record["20"][part]).values()) for record in some])
            for part in ("hits", "without")
        )
        for key, some in (("asked", records), ("fit", fit))
    }
    names = list(gate_numbers([]))
    found = {}
    all_of_them = fitted_sum(*numbers["fit"])
    for name in (*names, "all"):
        if name == "all":
            told = {key: tuple(map(all_of_them, rows)) for key, rows in numbers.items()}
        else:
            at = names.index(name)
            told = {key: tuple(row[:, at] for row in rows) for key, rows in numbers.items()}
        least = float(np.quantile(told["fit"][0], FALSE))
        held, absent = told["asked"]
        above = (held[:, None] > absent).mean() + 0.5 * (held[:, None] == absent).mean()
        found[name] = {
            "auc": float(above),
            "absent_named": float((absent < least).mean()),
            "answered_named": float((held < least).mean()),
        }
    return found


def tables_of(found: Mapping[str, Any]) -> str:
    """The tables of the page: where F1 goes, in percent, and what tells absence."""
    parts = [
        f"| dialogues asked | {' | '.join(PARTS.values())} |",
        "|---" * (1 + len(PARTS)) + "|",
    ]
    for depth, figures in found["depths"].items():
        cells = [f"{100 * figures[name]['mean']:.1f}" for name in PARTS]
        cells[-1] += f" ({interval_text(figures['best hit']['interval'])})"
        parts.append(f"| {depth} | {' | '.join(cells)} |")
    gates = ["| | AUC | absent ones named | others named |", "|---|---|---|---|"]
    for name, label in GATES.items():
        its = found["gate"][name]
        shares = f"{100 * its['absent_named']:.0f} % | {100 * its['answered_named']:.0f} %"
        gates.append(f"| {label} | {its['auc']:.2f} | {shares} |")
    return "\n".join([BEGIN, *parts, "", *gates, END])


# -- commands --------------------------------------------------------------------------------------


def ask(call: argparse.Namespace) -> None:
    """Asks the queries that mean one dialogue, and keeps what was found."""
    data = load_haystack_data(call.dataset, call.corpus, "all", say=print)
    asked = specific_queries(data)
    if call.limit:
        asked = random.Random(call.seed).sample(asked, call.limit)
    with Store(call.index, is_new_allowed=True) as store:
        haystack = open_haystack(store, data, "reader", AnswerConfig(), say=print, bar=no_bar)
        asker = Asker(haystack.archive, haystack.chats, Conversations(data.known))
        records = asker.records(asked)
    replace_json(
        call.out,
        {
            "data_fingerprint": data.asked.fingerprint,
            "archive_fingerprint": haystack.fingerprint,
            "num_dialogues": len(haystack.chats),
            "seed": call.seed,
            "records": records,
        },
    )


def keep(call: argparse.Namespace) -> None:
    """Writes the figures of what was asked."""
    found, fit = (json.loads(path.read_text("utf-8")) for path in (call.asked, call.fit))
    about = {key: found[key] for key in found if key != "records"}
    replace_json(
        RESULTS,
        {
            **about,
            "fit": {key: fit[key] for key in ("data_fingerprint", "seed")},
            "num_queries": len(found["records"]),
            "num_fit": len(fit["records"]),
            "depths": {str(depth): depth_figures(found["records"], depth) for depth in DEPTHS},
            "fit_depths": {str(depth): depth_figures(fit["records"], depth) for depth in DEPTHS},
            "gate": gate_figures(found["records"], fit["records"]),
            "gate_where_it_was_fitted": gate_figures(fit["records"], fit["records"]),
        },
    )


def write_table(call: argparse.Namespace) -> None:
    """Writes the tables into the page."""
    found = json.loads(RESULTS.read_text("utf-8"))
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), tables_of(found)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    asking = commands.add_parser("ask", help="Ask the queries of a data set.")
    asking.add_argument("--dataset", required=True, help="Whose queries are asked.")
    asking.add_argument("--corpus", required=True, help="Whose dialogues are in the archive too.")
    asking.add_argument("--index", type=Path, required=True, help="The archive.")
    asking.add_argument("--limit", type=int, help="So many of the queries, drawn.")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--out", type=Path, required=True)
    asking.set_defaults(do=ask)
    keeping = commands.add_parser("keep", help="Write the figures.")
    keeping.add_argument("asked", type=Path)
    keeping.add_argument("--fit", type=Path, required=True, help="What a gate is fitted on.")
    keeping.set_defaults(do=keep)
    commands.add_parser("table", help="Write the tables.").set_defaults(do=write_table)
    call = parser.parse_args()
    call.do(call)


if __name__ == "__main__":
    main()
