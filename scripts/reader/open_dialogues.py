"""Long dialogues of the open material as a data set, for whatever learns from files.

    python scripts/reader/open_dialogues.py FOLDER OUT
    ffr train embedding --dataset OUT/train.jsonl --val-dataset OUT/val.jsonl

FOLDER holds `dialogues.jsonl.gz` and `fragments.jsonl.gz` (`material.py`). Every piece stands in one
dialogue. Half of the dialogues are of pieces of different subjects; those of the others have one
subject or no known one, and are asked for nothing that names the subject alone: what is particular
in a piece is told from the like of it. Pieces that are held out from the reader's training make
`val.jsonl`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from make import trimmed
from material import Piece, read_pieces
from synthesis import QUERY_WEIGHTS

from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance

MOST_PIECES = 5
QUERIES_A_PIECE = 2
WHOLE = frozenset({"goal", "human", "slot", "keyword"})
"""Kinds of queries that say more than a subject."""


def merged(pieces: list[Piece]) -> list[Piece]:
    """Of pieces with the same lines one, with the queries of all."""
    found: dict[tuple[tuple[int, str], ...], Piece] = {}
    for piece in pieces:
        kept = found.setdefault(piece.lines, piece)
        for kind, texts in piece.queries.items():
            kept.queries[kind] = list(dict.fromkeys([*kept.queries.get(kind, ()), *texts]))
    return list(found.values())


def examples_of(pieces: list[Piece], seed: int) -> Iterator[Example]:
    """The dialogues of some pieces, with up to two queries on each piece.

    Args:
        pieces: Each comes once.
        seed: Draws which stand together, and what is asked.
    """
    rng = random.Random(f"{seed} open dialogues")
    for language in ("en", "zh"):
        own = [piece for piece in pieces if piece.language == language]
        rng.shuffle(own)
        mixed, alike = own[::2], sorted(own[1::2], key=lambda piece: piece.subject)
        of_one = [alike[at : at + MOST_PIECES] for at in range(0, len(alike), MOST_PIECES)]
        for groups, kinds in ((_different(mixed), set(QUERY_WEIGHTS)), (of_one, set(WHOLE))):
            for number, group in enumerate(groups):
                yield from _asked(f"{language}-{len(kinds)}-{number}", group, rng, kinds)


def _different(pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces in groups, of which none has two of one subject."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        for group in groups[-40:]:
            if len(group) < MOST_PIECES and not _has(group, piece.subject):
                group.append(piece)
                break
        else:
            groups.append([piece])
    return groups


def _has(group: list[Piece], subject: str) -> bool:
    return bool(subject) and any(piece.subject == subject for piece in group)


def _asked(
    name: str, pieces: list[Piece], rng: random.Random, kinds: set[str]
) -> Iterator[Example]:
    said = [(number, *line) for number, piece in enumerate(pieces) for line in piece.lines]
    dialogue = Dialogue(
        name, tuple(Utterance(f"S{speaker + 1}", (text,)) for _, speaker, text in said)
    )
    for number, piece in enumerate(pieces):
        lines = tuple(place for place, (owner, *_) in enumerate(said) if owner == number)
        of_others = {
            text
            for other in pieces
            if other is not piece
            for texts in other.queries.values()
            for text in texts
        }
        for kind, text in _queries(piece, rng, kinds, of_others):
            yield Example(
                dialogue,
                text,
                Fragment(lines, ()),
                meta={"query_kind": kind, "source": piece.source},
            )


def _queries(
    piece: Piece, rng: random.Random, kinds: set[str], left_out: set[str]
) -> list[tuple[str, str]]:
    """So many at most, those of kinds that are asked more often sooner."""
    known = {
        text: (kind, text)
        for kind, texts in piece.queries.items()
        if kind in kinds
        for text in texts
        if text not in left_out
    }
    share = {kind: QUERY_WEIGHTS[kind] / len(texts) for kind, texts in piece.queries.items()}
    # the largest of u^(1/w) are a draw without replacement by the weights w (Efraimidis, Spirakis 2006)
    drawn = sorted(known.values(), key=lambda query: -(rng.random() ** (1 / share[query[0]])))
    return drawn[:QUERIES_A_PIECE]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="The open material.")
    parser.add_argument("out", type=Path, help="Gets train.jsonl and val.jsonl.")
    parser.add_argument("--seed", type=int, default=0)
    call = parser.parse_args()
    pieces = merged(trimmed(read_pieces(call.folder)))
    call.out.mkdir(parents=True, exist_ok=True)
    for name, is_held_out in {"train": False, "val": True}.items():
        chosen = [piece for piece in pieces if piece.is_held_out == is_held_out]
        path = call.out / f"{name}.jsonl"
        num = write_examples(path, list(examples_of(chosen, call.seed)), format="raw")
        print(f"{path}: {num} dialogues of {len(chosen)} pieces")


if __name__ == "__main__":
    main()
