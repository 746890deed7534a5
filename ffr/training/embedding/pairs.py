"""What an encoder learns from: a query, its fragment, and other fragments of the same dialogue.

Text of a fragment: its lines with words, one a line. Pictures are no part of it, since a sentence
encoder sees none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ffr.data.dataset import ExampleDataset
from ffr.dialogue import Dialogue, Example

QUERIES = "anchor"
"""The column of the queries."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of a training.

    Args:
        queries: n queries.
        positives: (n) the text of each query's fragment.
        negatives: (n, K) texts that do not answer it.
        num_left_out: Examples whose answer is empty or has no words: they teach an encoder nothing.
        num_from_elsewhere: Rows whose dialogue has nothing else: their negatives are fragments of
            other dialogues.
    """

    queries: tuple[str, ...]
    positives: tuple[str, ...]
    negatives: tuple[tuple[str, ...], ...]
    num_left_out: int
    num_from_elsewhere: int

    @property
    def columns(self) -> dict[str, list[str]]:
        """The rows as sentence-transformers takes them, by column."""
        num_negatives = len(self.negatives[0]) if self.negatives else 0
        further = {
            f"negative_{number + 1}": [row[number] for row in self.negatives]
            for number in range(num_negatives)
        }
        return {QUERIES: list(self.queries), "positive": list(self.positives), **further}


def pairs_of(data: ExampleDataset, num_negatives: int, seed: int) -> Pairs:
    """The rows of a data set, in its order.

    Args:
        data: Examples with true answers.
        num_negatives: K hard negatives a row: true fragments of other queries on the dialogue that
            share no line with the row's own; where these are too few, stretches of the other
            lines; where these are too few as well, the same ones again.
        seed: Draws which.
    """
    examples = list(data)
    fragments: dict[str, list[tuple[int, ...]]] = {}
    for example in examples:
        ids = _own_ids(example)
        if ids:
            known = fragments.setdefault(example.dialogue.fingerprint, [])
            if ids not in known:
                known.append(ids)
    everything = [
        (example.dialogue.fingerprint, _text(example.dialogue, ids))
        for example in examples
        if (ids := _own_ids(example))
    ]
    queries, positives, negatives = [], [], []
    num_elsewhere = 0
    for number, example in enumerate(examples):
        dialogue = example.dialogue
        ids = _own_ids(example)
        if not ids:
            continue
        draw = random.Random(f"{seed} {number}")
        texts = _others(dialogue, ids, fragments[dialogue.fingerprint], num_negatives, draw)
        own = _text(dialogue, ids)
        texts = [text for text in texts if text != own]
        if not texts and num_negatives:
            elsewhere = [text for known, text in everything if known != dialogue.fingerprint]
            texts = draw.sample(elsewhere, min(num_negatives, len(elsewhere)))
            num_elsewhere += 1
        if num_negatives and not texts:
            continue
        queries.append(example.query)
        positives.append(own)
        negatives.append(tuple(texts[at % len(texts)] for at in range(num_negatives)))
    return Pairs(
        tuple(queries),
        tuple(positives),
        tuple(negatives),
        len(examples) - len(queries),
        num_elsewhere,
    )


def _own_ids(example: Example) -> tuple[int, ...]:
    """The lines with words of an example's answer."""
    return _ids(
        example.dialogue, () if example.fragment is None else example.fragment.utterance_ids
    )


def _ids(dialogue: Dialogue, ids: Sequence[int]) -> tuple[int, ...]:
    """Those lines of a fragment that have words."""
    return tuple(number for number in ids if dialogue.utterances[number].text.strip())


def _text(dialogue: Dialogue, ids: Sequence[int]) -> str:
    return "\n".join(dialogue.utterances[number].text.strip() for number in ids)


def _others(
    dialogue: Dialogue,
    ids: tuple[int, ...],
    known: Sequence[tuple[int, ...]],
    num_wanted: int,
    draw: random.Random,
) -> list[str]:
    """Texts of up to so many other fragments of a dialogue."""
    own = set(ids)
    others = [other for other in known if not own & set(other)]
    chosen = draw.sample(others, min(num_wanted, len(others)))
    if len(chosen) < num_wanted:
        taken = own.union(*chosen)
        rest = _ids(dialogue, [n for n in range(len(dialogue.utterances)) if n not in taken])
        stretches = [rest[start : start + len(ids)] for start in range(0, len(rest), len(ids))]
        chosen += draw.sample(stretches, min(num_wanted - len(chosen), len(stretches)))
    return list(dict.fromkeys(_text(dialogue, other) for other in chosen))
