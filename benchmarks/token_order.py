"""Whether hits of an archive stand better once the first are held against the question token by token.

    python benchmarks/token_order.py --dataset DEV --corpus TRAIN --index DIR --more 160

DIR holds the archive of both data sets, as `ffr eval --corpus --index` leaves it. Asked are DEV's queries
that mean one dialogue, those that name what several speak of, and so many of TRAIN's that mean one; each
is searched once, and its first hits are ordered with their tokens and without. `seconds` is the
processor's time for the tokens of one question.

    s(q, h) = Σ_t w_t max_{u in h} cos(h_t, h_u)

over the question's tokens t, with weights w by rarity among the hits' lines that sum to 1 (late
interaction: ColBERT, Khattab and Zaharia, SIGIR 2020; the encoder was never trained for it), in
deviations over the hits, `WEIGHT` times beside the evidence of an ordinary search. `WEIGHT` was chosen on
120 others of TRAIN's queries, `LEAST_TOKENS` so that queries of a few words do not lose; five hits are what
a second allows, for states of tokens are not kept: those of the hits' lines are made anew.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asked_archive import SPECIFIC, Conversations, no_bar, specific_queries
from numpy.typing import NDArray
from torch.nn import functional

from ffr.corpus.adding import line_text
from ffr.corpus.found import Hit, evidence
from ffr.corpus.haystack import Haystack, load_haystack_data, open_haystack
from ffr.corpus.opening import reader_encoder
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.dialogue import Example, Fragment
from ffr.embedding.interface import TokenEncoder, TokenStates, token_encoder_of
from ffr.evaluation.bootstrap import clustered_means
from ffr.evaluation.corpus import SEVERAL, meant_by
from ffr.files import replace_json
from ffr.reader.model import Reader
from ffr.reader.query import plain_words
from ffr.runs import resolve_model
from ffr.settings import AnswerConfig

RESULTS = Path(__file__).parent / "results" / "token_order.json"
MET = 5
"""So many of the first hits are held against the question."""

WEIGHT = 4.0
FIGURES = ("first", "f1")

MOST_LINES = 24
"""Of a longer hit so many lines, the first ones, are held against the question."""

LEAST_TOKENS = 6
"""A question of fewer tokens, without what only asks, is left as it is."""

_LEAST = 1e-9


Asked = Sequence[tuple[Example, Mapping[str, Fragment]]]


class TokenMeeting:
    """Holds hits against a question token by token.

    Args:
        encoder: Whose states of tokens are compared; loaded for the first question.
        query_prefix: Stands before every question, as the encoder was trained.
    """

    def __init__(self, encoder: StoredEncoder, query_prefix: str = "") -> None:
        self._encoder = encoder
        self._query_prefix = query_prefix

    @cached_property
    def _tokens(self) -> TokenEncoder:
        found = token_encoder_of(self._encoder.encoder)
        if found is None:
            raise SystemExit(f"{self._encoder.name} has no states of single tokens")
        return found

    def standings(self, query: str, hits: Sequence[Hit]) -> list[float]:
        """How each hit stands to a question among them, in deviations from their mean.

        Args:
            query: The question.
            hits: The hits; one without words stands below all that have some. All stand alike where
                there is one alone, or the question is short.
        """
        none = [0.0] * len(hits)
        if len(hits) < 2:
            return none
        (asked,) = self._states([plain_words(query)], self._query_prefix)
        if len(asked.ids) < LEAST_TOKENS:
            return none
        texts = [
            [text for line in hit.lines[:MOST_LINES] if (text := line_text(line.message))]
            for hit in hits
        ]
        different = list(dict.fromkeys(text for its in texts for text in its))
        states = self._states(different, self._encoder.line_prefix)
        known = dict(zip(different, states, strict=True))
        found = likenesses(asked, [[known[text] for text in its] for its in texts])
        spread = float(found.std())
        return none if spread < _LEAST else [float(v) for v in (found - found.mean()) / spread]

    def _states(self, texts: Sequence[str], prefix: str) -> list[TokenStates]:
        """The tokens of texts, seen behind a prefix, without its own."""
        own = len(self._tokens.token_states([prefix])[0].ids) if prefix.strip() else 0
        return [
            TokenStates(found.ids[own:], found.states[own:])
            for found in self._tokens.token_states([prefix + text for text in texts])
        ]


def likenesses(asked: TokenStates, hits: Sequence[Sequence[TokenStates]]) -> NDArray[np.float64]:
    """(n,) how well the tokens of each hit's lines meet those of a question, from -1 to 1.

    Args:
        asked: The T tokens of the question, one at the least.
        hits: The tokens of each line of n hits; -1 of a hit that has none.

    >>> words = torch.eye(3).half()
    >>> hits = [[TokenStates((1,), words[1:2])], [TokenStates((0, 1), words[:2])]]
    >>> likenesses(TokenStates((0,), words[:1]), hits).tolist()
    [0.0, 1.0]
    """
    lines = [line for its in hits for line in its]
    counts = Counter(token for line in lines for token in {*line.ids})
    held = np.array([counts[token] for token in asked.ids], np.float64)
    rarity = np.log1p((len(lines) - held + 0.5) / (held + 0.5))
    question = functional.normalize(asked.states.float(), dim=-1)
    found = np.full(len(hits), -1.0)
    for number, its in enumerate(hits):
        if states := [line.states for line in its if len(line.ids)]:
            own = functional.normalize(torch.cat(states).float(), dim=-1)
            closest = (own @ question.T).amax(0).double().numpy()
            found[number] = float(closest @ rarity / rarity.sum())
    return found


def met(hits: Sequence[Hit], standings: Sequence[float]) -> list[Hit]:
    """Hits in their order, the first of them ordered anew by what their tokens say too.

    Args:
        hits: As a search gives them.
        standings: Of the first so many, in deviations.
    """
    most = len(standings)
    earned = {
        id(hit): known + WEIGHT * standing
        for hit, known, standing in zip(hits, evidence(hits), standings, strict=False)
    }
    first = sorted(
        hits[:most],
        key=lambda hit: (hit.is_weak, "words" not in hit.found_by, -earned[id(hit)]),
    )
    return [*first, *hits[most:]]


def figures_of(hits: Sequence[Hit], truths: Mapping[int, set[int]]) -> list[float]:
    """Whether the best hit is in a right dialogue, and its F1."""
    if not hits or hits[0].is_weak:
        return [0.0, 0.0]
    best = hits[0]
    truth = truths.get(best.chat.id, set())
    found = {line.message.line - 1 for line in best.lines}
    f1 = 2 * len(found & truth) / (len(found) + len(truth))
    return [float(best.chat.id in truths), f1]


def asked_of(haystack: Haystack, meeting: TokenMeeting, asked: Asked) -> dict[str, Any]:
    """The figures of queries with tokens and without, what that gains, and how long it takes."""
    rows: dict[str, list[list[float]]] = {"without": [], "with": []}
    seconds = []
    for example, truth in asked:
        truths = {haystack.chats[name]: {*its.utterance_ids} for name, its in truth.items()}
        hits = haystack.archive.search(example.query).hits
        begun = time.process_time()
        standings = meeting.standings(example.query, hits[:MET])
        seconds.append(time.process_time() - begun)
        rows["without"].append(figures_of(hits, truths))
        rows["with"].append(figures_of(met(hits, standings), truths))
    values = {name: np.array(some) for name, some in rows.items()}
    values["gain"] = values["with"] - values["without"]
    clusters = [example.dialogue.fingerprint for example, _ in asked]
    figures = {
        name: {
            figure: {"mean": mean, "interval": interval}
            for figure, (mean, interval) in zip(
                FIGURES, clustered_means(some, clusters), strict=True
            )
        }
        for name, some in values.items()
    }
    return {"num_queries": len(asked), "seconds": statistics.median(seconds), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--index", type=Path, required=True, help="The archive of both.")
    parser.add_argument("--more", type=int, default=160, help="So many of the corpus' queries.")
    parser.add_argument("--seed", type=int, default=0)
    call = parser.parse_args()
    data = load_haystack_data(call.dataset, call.corpus, "all", say=print)
    # the same files, the other one asked
    others = type(data)(data.archive[0], data.archive)
    same = Conversations(data.known)
    meant = zip(data.asked, meant_by(data.asked, data.known, SPECIFIC), strict=True)
    drawn = random.Random(call.seed).sample(specific_queries(others), call.more)
    asked: dict[str, Asked] = {
        "one dialogue": [(example, same.truths(example)) for example, _ in specific_queries(data)],
        "several dialogues": [
            (example, its.truths) for example, its in meant if its.group == SEVERAL
        ],
        "others": [(example, same.truths(example)) for example, _ in drawn],
    }
    reader = Reader.load(resolve_model("reader").location)
    with Store(call.index, is_new_allowed=True) as store:
        haystack = open_haystack(store, data, "reader", AnswerConfig(), say=print, bar=no_bar)
        encoder = reader_encoder(store, AnswerConfig(), reader)
        meeting = TokenMeeting(encoder, reader.settings.query_prefix)
        found = {name: asked_of(haystack, meeting, some) for name, some in asked.items()}
    replace_json(
        RESULTS,
        {
            "data_fingerprint": data.asked.fingerprint,
            "archive_fingerprint": haystack.fingerprint,
            "num_met": MET,
            "seed": call.seed,
            **found,
        },
    )


if __name__ == "__main__":
    main()
