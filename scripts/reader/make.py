"""Makes the shipped reader: `python scripts/reader/make.py --data DIR --cache DIR --out DIR`.

DIR of `--data` holds `fragments.jsonl.gz` and `dialogues.jsonl.gz` (docs/reader.md says what they
are made of). Vectors are kept in `--cache`, so that a stop loses little; with them there, only the
training is left, some minutes a seed. Nothing but these files decides the result, up to the last
bits of sums; `reader.json` says what they were.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from material import HERE, Piece, read_pieces
from safetensors.torch import load_file, save
from synthesis import Concepts, Maker, Shown, fits, nearest_shown
from torch import Tensor
from train import Calibration, Row, TrainingPlan, calibrate, rows_of, train_network
from vectors import VectorFolder

from ffr.embedding import SentenceEncoder, load_encoder
from ffr.embedding.tagger import load_tagger
from ffr.files import replaced_file
from ffr.reader.gate import RIDGE as GATE_RIDGE
from ffr.reader.gate import Gate
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape, ReaderNetwork
from ffr.reader.query import QueryMap, fit_query_map, plain_words
from ffr.reader.settings import ReaderSettings

LINE_PREFIX, QUERY_PREFIX = "passage: ", "query: "
MAX_TOKENS = 64
"""Lines are cut here for training: few are longer, and they take most of the time."""

BACKGROUND_LINES, BACKGROUND_QUERIES = 1500, 750
BACKGROUND_KINDS = ("goal", "topic", "human")
HELD_OUT_KINDS = {"goal": 4.0, "human": 4.0, "cross": 2.0, "topic": 1.0, "concept": 3.0}
"""What is asked of held-out pieces, for gate and calibration: as people ask."""

NUM_HELD_OUT_QUERIES = 5000
WRONGLY_EMPTY = 0.08
"""Of these queries, which are harder than those on the chats of the development set: so many are .04
there."""

PICTURE_WEIGHT, PICTURE_USUAL = 0.5, 2.5
"""How much what a picture shows counts beside where it stands; by other chats, not by these pieces,
whose picture lines stand where they belong."""

RIDGE = 3.0
"""Of the query map, for about 11,000 wordings."""


def read_wordings() -> dict[str, list[str]]:
    """The ways of asking of `wordings.txt` by language, the bare name first."""
    found: dict[str, list[str]] = {"en": [], "zh": []}
    for row in (HERE / "wordings.txt").read_text(encoding="utf-8").splitlines():
        language, _, wording = row.partition(" ")
        if language in found:
            found[language].append(wording)
    return found


def concept_queries() -> list[dict[str, list[str]]]:
    """For each concept of `concepts.tsv`, its wordings in either language, the bare name first."""
    wordings = read_wordings()
    rows = (HERE / "concepts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [
        {
            language: [wording.format(name) for wording in wordings[language]]
            for language, name in zip(("en", "zh"), row.split("\t"), strict=True)
        }
        for row in rows
    ]


def query_map_of(vectors: dict[str, Tensor]) -> QueryMap:
    """The map from concepts in any wording to their bare names."""
    asked, bare = [], []
    for concept in concept_queries():
        for named, *others in concept.values():
            asked += [vectors[QUERY_PREFIX + text] for text in others]
            bare += [vectors[QUERY_PREFIX + named]] * len(others)
    return fit_query_map(torch.stack(asked).float(), torch.stack(bare).float(), ridge=RIDGE)


def refined(
    vectors: dict[str, Tensor], pieces: list[Piece], query_map: QueryMap
) -> dict[str, Tensor]:
    """The vectors with those of queries as the reader makes them: of their plain words, mapped."""
    texts = sorted(all_queries(pieces))
    plain = torch.stack([vectors[QUERY_PREFIX + plain_words(text)] for text in texts]).float()
    names = [QUERY_PREFIX + text for text in texts]
    return vectors | dict(zip(names, query_map(plain).half(), strict=True))


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


def all_queries(pieces: list[Piece]) -> set[str]:
    """Every query that may be asked."""
    asked = {text for concept in concept_queries() for some in concept.values() for text in some}
    return asked | {text for piece in pieces for some in piece.queries.values() for text in some}


def all_texts(pieces: list[Piece]) -> list[str]:
    """Every text whose vector the training needs."""
    lines = {LINE_PREFIX + text for piece in pieces for _, text in piece.lines}
    shown = {LINE_PREFIX + text for text in class_texts()}
    plain = {QUERY_PREFIX + plain_words(text) for text in all_queries(pieces)}
    # the query map is fitted on concepts as they are asked for
    asked = {
        QUERY_PREFIX + text
        for concept in concept_queries()
        for some in concept.values()
        for text in some
    }
    return [*lines, *shown, *plain, *asked]


def maker_of(
    pieces: list[Piece], vectors: dict[str, Tensor], encoder: str, **options: Any
) -> Maker:
    """Makes dialogues of these pieces."""
    concepts = concept_queries()
    wordings = [[text for some in concept.values() for text in some] for concept in concepts]
    bare = [some[0] for concept in concepts for some in concept.values()]
    named = torch.stack([vectors[QUERY_PREFIX + text] for text in bare])
    places = [number for number, concept in enumerate(concepts) for _ in concept]
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
        HERE / "wordings.txt",
    ):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def plan_name(plan: TrainingPlan, shape: NetworkShape) -> str:
    """Eight digits that name how a network is trained."""
    return hashlib.sha256(repr((plan, shape)).encode()).hexdigest()[:8]


def kept_network(
    path: Path, shape: NetworkShape, train: Callable[[], ReaderNetwork]
) -> ReaderNetwork:
    """A network that was trained before, or is now."""
    if path.is_file():
        network = ReaderNetwork(shape).eval()
        network.load_state_dict(load_file(path))
        return network
    network = train()
    with replaced_file(path) as write:
        write(save(network.state_dict()))
    return network


def reader_of(
    networks: list[Any],
    background: Background,
    calibration: Calibration,
    encoder: SentenceEncoder,
    query_map: QueryMap,
    gate: Gate,
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
        picture_weight=PICTURE_WEIGHT,
        picture_usual=PICTURE_USUAL,
        **asdict(calibration),
        notes=notes,
    )
    return Reader(networks, background, settings, query_map, gate)


def options() -> argparse.ArgumentParser:
    """What is asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=TrainingPlan().epochs)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder("e5")
    assert isinstance(encoder, SentenceEncoder)
    encoder.max_text_tokens = MAX_TOKENS
    pieces = trimmed(read_pieces(arguments.data))
    vectors = VectorFolder(arguments.cache, encoder).of(all_texts(pieces), say=print)
    digest = encoder.weights_digest
    query_map = query_map_of(vectors)
    vectors = refined(vectors, pieces, query_map)
    kept = [piece for piece in pieces if not piece.is_held_out]
    held_out = [piece for piece in pieces if piece.is_held_out]
    print(f"{len(kept)} pieces to train on, {len(held_out)} held out")
    background = background_of(kept, vectors)
    maker = maker_of(kept, vectors, digest)
    plan = TrainingPlan(epochs=arguments.epochs)
    shape = NetworkShape()
    data = fingerprint(arguments.data)
    networks = [
        kept_network(
            arguments.cache / f"network-{data}-{plan_name(plan, shape)}-{seed}.safetensors",
            shape,
            functools.partial(train_network, maker, background, shape, plan, seed=seed),
        )
        for seed in arguments.seeds
    ]
    other = maker_of(held_out, vectors, digest, kinds=HELD_OUT_KINDS, noise=0.0)
    rows = held_out_rows(other, background)
    calibration, gate = calibrate(networks, rows, wrongly_empty=WRONGLY_EMPTY, ridge=GATE_RIDGE)
    notes = {
        "data": data,
        "seeds": arguments.seeds,
        "plan": asdict(plan),
        "num_pieces": len(kept),
    }
    made = reader_of(networks, background, calibration, encoder, query_map, gate, notes)
    made.save(arguments.out)
    print(f"{arguments.out} is written")


if __name__ == "__main__":
    main()
