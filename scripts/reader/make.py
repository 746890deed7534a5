"""Makes the shipped reader: `python scripts/reader/make.py --data DIR --cache DIR --out DIR`.

DIR of `--data` holds `fragments.jsonl.gz` and `dialogues.jsonl.gz` (docs/reader.md says what they
are made of). Vectors are kept in `--cache`, so that a stop loses little; with them there, only the
training is left, some minutes a seed. Nothing but these files decides the result, up to the last
bits of sums; `reader.json` says what they were.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from material import HERE, Piece, read_pieces
from synthesis import Concepts, Maker, Shown, fits, nearest_shown
from torch import Tensor
from train import Calibration, Row, TrainingPlan, calibrate, rows_of, train_network
from vectors import VectorFolder

from ffr.embedding import SentenceEncoder, load_encoder
from ffr.embedding.tagger import load_tagger
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.reader.settings import ReaderSettings

LINE_PREFIX, QUERY_PREFIX = "passage: ", "query: "
MAX_TOKENS = 64
"""Lines are cut here for training: few are longer, and they take most of the time."""

BACKGROUND_LINES, BACKGROUND_QUERIES = 1500, 750
BACKGROUND_KINDS = ("goal", "topic", "human")
HELD_OUT_KINDS = {"goal": 4.0, "human": 4.0, "cross": 2.0, "topic": 1.0}
"""What is asked of held-out pieces, for the calibration: as people ask."""

NUM_HELD_OUT_QUERIES = 3000
WRONGLY_EMPTY = 0.03

WORDINGS = {
    "en": (
        "{}",
        "the part about {}",
        "where we talk about {}",
        "messages and pictures about {}",
        "what was said about {}",
        "when did anybody bring up {}?",
        "show me everything on {}",
        "{}: which lines are these?",
        "a picture of {} and the talk around it",
    ),
    "zh": (
        "{}",
        "关于{}的聊天",
        "聊{}的那一段",
        "说到{}的句子和照片",
        "大家谈{}的内容",
        "有谁提起过{}？",
        "帮我把{}那部分翻出来",
        "{}是在哪儿说的",
        "和{}相关的图片和话",
    ),
}


def concept_queries() -> list[list[str]]:
    """For each concept of `concepts.tsv`, its wordings in both languages."""
    rows = (HERE / "concepts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [
        [
            wording.format(name)
            for language, name in zip(WORDINGS, row.split("\t"), strict=True)
            for wording in WORDINGS[language]
        ]
        for row in rows
    ]


def trimmed(pieces: list[Piece]) -> list[Piece]:
    """The pieces with one keyword query each and no quotes: these two teach least."""
    for piece in pieces:
        piece.queries.pop("quote", None)
        if "keyword" in piece.queries:
            piece.queries["keyword"] = piece.queries["keyword"][:1]
    return [piece for piece in pieces if all(text for _, text in piece.lines)]


def class_texts() -> list[str]:
    """What the image tagger says of a picture that is of one class alone."""
    return [f"a photo of {name}" for name in load_tagger().names]


def all_texts(pieces: list[Piece]) -> list[str]:
    """Every text whose vector the training needs."""
    lines = {LINE_PREFIX + text for piece in pieces for _, text in piece.lines}
    shown = {LINE_PREFIX + text for text in class_texts()}
    asked = {QUERY_PREFIX + text for some in concept_queries() for text in some}
    asked |= {
        QUERY_PREFIX + text for piece in pieces for some in piece.queries.values() for text in some
    }
    return [*lines, *shown, *asked]


def maker_of(
    pieces: list[Piece], vectors: dict[str, Tensor], encoder: str, **options: Any
) -> Maker:
    """Makes dialogues of these pieces."""
    wordings = concept_queries()
    named = torch.stack([vectors[QUERY_PREFIX + text] for some in wordings for text in some])
    places = [number for number, some in enumerate(wordings) for _ in some]
    shown = torch.stack([vectors[LINE_PREFIX + text] for text in class_texts()]).float()
    return Maker(
        pieces,
        vectors,
        encoder,
        Concepts(fits(pieces, vectors, LINE_PREFIX, named, wordings=places), wordings),
        Shown(shown, nearest_shown(fits(pieces, vectors, LINE_PREFIX, shown))),
        prefixes=(LINE_PREFIX, QUERY_PREFIX),
        **options,
    )


def background_of(pieces: list[Piece], vectors: dict[str, Tensor], seed: int = 0) -> Background:
    """Lines and queries of either language, drawn from the pieces."""
    rng = random.Random(seed)
    lines, queries = [], []
    for language in ("en", "zh"):
        own = [piece for piece in pieces if piece.language == language]
        said = sorted({text for piece in own for _, text in piece.lines if len(text) > 3})
        asked = sorted(
            {
                text
                for piece in own
                for kind in BACKGROUND_KINDS
                for text in piece.queries.get(kind, [])
            }
        )
        lines.append([vectors[LINE_PREFIX + text] for text in rng.sample(said, BACKGROUND_LINES)])
        queries.append(
            [vectors[QUERY_PREFIX + text] for text in rng.sample(asked, BACKGROUND_QUERIES)]
        )
    return Background(
        torch.stack([torch.stack(rows) for rows in lines]).float(),
        torch.stack([torch.stack(rows) for rows in queries]).float(),
    )


def held_out_rows(maker: Maker, background: Background) -> list[Row]:
    """Queries on dialogues of pieces that no network was trained on."""
    rng = random.Random(99)
    rows: list[Row] = []
    while len(rows) < NUM_HELD_OUT_QUERIES:
        rows += rows_of(maker.make(rng), background)
    return rows


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that the training reads, the first 16 digits."""
    digest = hashlib.sha256()
    for path in (
        folder / "fragments.jsonl.gz",
        folder / "dialogues.jsonl.gz",
        HERE / "everyday.txt",
        HERE / "concepts.tsv",
    ):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def reader_of(
    networks: list[Any],
    background: Background,
    calibration: Calibration,
    encoder: SentenceEncoder,
    notes: dict[str, Any],
) -> Reader:
    """The reader of these parts."""
    settings = ReaderSettings(
        "e5",
        encoder.weights_digest,
        line_prefix=LINE_PREFIX,
        query_prefix=QUERY_PREFIX,
        shape=networks[0].shape,
        num_networks=len(networks),
        **asdict(calibration),
        notes=notes,
    )
    return Reader(networks, background, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=TrainingPlan.epochs)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder("e5")
    assert isinstance(encoder, SentenceEncoder)
    encoder.max_text_tokens = MAX_TOKENS
    pieces = trimmed(read_pieces(arguments.data))
    vectors = VectorFolder(arguments.cache, encoder).of(all_texts(pieces), say=print)
    digest = encoder.weights_digest
    kept = [piece for piece in pieces if not piece.is_held_out]
    held_out = [piece for piece in pieces if piece.is_held_out]
    print(f"{len(kept)} pieces to train on, {len(held_out)} held out")
    background = background_of(kept, vectors)
    maker = maker_of(kept, vectors, digest)
    plan = TrainingPlan(epochs=arguments.epochs)
    shape = NetworkShape()
    networks = [
        train_network(maker, background, shape, plan, seed=seed) for seed in arguments.seeds
    ]
    other = maker_of(held_out, vectors, digest, kinds=HELD_OUT_KINDS, noise=0.0)
    rows = held_out_rows(other, background)
    calibration = calibrate(networks, rows, wrongly_empty=WRONGLY_EMPTY)
    notes = {
        "data": fingerprint(arguments.data),
        "seeds": arguments.seeds,
        "plan": asdict(plan),
        "num_pieces": len(kept),
    }
    reader_of(networks, background, calibration, encoder, notes).save(arguments.out)
    print(f"{arguments.out} is written")


if __name__ == "__main__":
    main()
