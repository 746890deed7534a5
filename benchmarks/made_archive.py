"""Lines with vectors and queries, generated, real or grown out of real ones, and a store of them.

A folder of them holds `texts.txt` (a line each), `vectors.npy` (N, 384), `queries.json` and
`query_vectors.npy`.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 384
VOCABULARY = 50_000
DIALOGUE = 40
BLOCK = 50_000
GROWN_NOISE = 0.015
"""Standard deviation of what is added to each number of a real vector; its cosine with it is .96."""


def generated_texts(number: int, seed: int) -> Iterator[str]:
    """So many lines of 4 to 20 words; the n-th word of the vocabulary is as frequent as 1 / n."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    for start in range(0, number, BLOCK):
        lengths = rng.integers(4, 21, min(BLOCK, number - start))
        words = np.searchsorted(edges, rng.random(lengths.sum()) * edges[-1])
        for part in np.split(words, np.cumsum(lengths)[:-1]):
            yield " ".join(f"w{word}" for word in part)


def generate(folder: Path, number: int, num_queries: int, seed: int) -> None:
    """Texts, vectors and queries; a query is a line's two longest words and its vector with noise."""
    rng = np.random.default_rng(seed + 1)
    centres = rng.standard_normal((max(16, number // 1000), WIDTH), np.float32)
    kept = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (number, WIDTH))
    for start in range(0, number, BLOCK):
        near = centres[rng.integers(0, len(centres), min(BLOCK, number - start))]
        kept[start : start + len(near)] = unit(
            near + 0.8 * rng.standard_normal(near.shape, np.float32)
        )
    kept.flush()
    chosen = np.sort(rng.choice(number, min(num_queries, number), replace=False))
    asked, wanted = [], set(chosen.tolist())
    with (folder / "texts.txt").open("w", encoding="utf-8") as file:
        for place, text in enumerate(generated_texts(number, seed)):
            file.write(text + "\n")
            if place in wanted:
                asked.append(" ".join(sorted(set(text.split()), key=len)[-2:]))
    noise = 0.03 * rng.standard_normal((len(chosen), WIDTH), np.float32)
    np.save(folder / "query_vectors.npy", unit(kept[chosen] + noise))
    (folder / "queries.json").write_text(json.dumps(asked))


def take_from_store(folder: Path, store_folder: Path, data: Path, num_queries: int) -> int:
    """The different lines of a store with their vectors, and the queries of a data file; how many."""
    import ffr
    from ffr.corpus.adding import line_text
    from ffr.corpus.opening import reader_encoder
    from ffr.corpus.store import Store
    from ffr.reader.model import Reader
    from ffr.runs import resolve_model
    from ffr.settings import AnswerConfig

    with Store(store_folder) as store:
        encoder = reader_encoder(store, AnswerConfig())
        rows = store.tuples(
            "SELECT min(messages.id), vectors.place FROM messages JOIN vectors "
            "ON vectors.encoder = ? AND vectors.key = text_key GROUP BY text_key ORDER BY 1",
            [encoder.key],
        )
        lines = store.lines_of([row[0] for row in rows])
        texts = [" ".join(line_text(line.message).split()) for line in lines]
        np.save(folder / "vectors.npy", encoder.vectors.matrix()[[row[1] for row in rows]])
        reader = Reader.load(resolve_model("reader").location)
        # the absent ones find what they find, and take as long
        asked = list(dict.fromkeys(example.query for example in ffr.load_dataset(data)))
        asked = asked[:num_queries]
        vectors = reader.query_vectors(asked, encoder).numpy()
    np.save(folder / "query_vectors.npy", vectors.astype(np.float32))
    (folder / "texts.txt").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    (folder / "queries.json").write_text(json.dumps(asked, ensure_ascii=False))
    return len(texts)


def grow(folder: Path, real: Path, number: int, seed: int) -> None:
    """So many lines out of real ones: again and again, with a number behind, and noise in the vector.

    The first time they are as they are; the queries stay.
    """
    rng = np.random.default_rng(seed)
    vectors, texts = vectors_of(real), list(texts_of(real))
    kept = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (number, WIDTH))
    with (folder / "texts.txt").open("w", encoding="utf-8") as file:
        for time_, start in enumerate(range(0, number, len(texts))):
            part = vectors[: min(len(texts), number - start)]
            noise = GROWN_NOISE * rng.standard_normal(part.shape, np.float32) if time_ else 0
            kept[start : start + len(part)] = unit(part + noise)
            behind = f" {time_}" if time_ else ""
            file.writelines(f"{text}{behind}\n" for text in itertools.islice(texts, len(part)))
    kept.flush()
    for name in ("queries.json", "query_vectors.npy"):
        (folder / name).write_bytes((real / name).read_bytes())


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def texts_of(folder: Path) -> Iterator[str]:
    """The lines, one by one."""
    with (folder / "texts.txt").open(encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def vectors_of(folder: Path) -> np.ndarray:
    """The vectors, read where they are used."""
    return np.load(folder / "vectors.npy", mmap_mode="r")


def vectors_at(folder: Path, places: np.ndarray) -> np.ndarray:
    """(n, 384) some vectors, the file let go of: what is mapped counts as memory of who reads."""
    return np.array(vectors_of(folder)[places])


def blocks_of(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors, some at a time, each with the number of the first; the file let go of between."""
    for start in range(0, len(vectors_of(folder)), BLOCK):
        yield start, np.array(vectors_of(folder)[start : start + BLOCK])


def closest(folder: Path, queries: np.ndarray, number: int) -> list[list[int]]:
    """The numbers of the vectors closest to each query, every vector compared, the closest first."""
    best = np.zeros((len(queries), 0))
    places = np.zeros((len(queries), 0), np.int64)
    for start, rows in blocks_of(folder):
        best = np.concatenate([best, queries @ rows.T], 1)
        more = np.broadcast_to(np.arange(start, start + len(rows)), (len(queries), len(rows)))
        places = np.concatenate([places, more], 1)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :number]
        best, places = (np.take_along_axis(table, kept, 1) for table in (best, places))
    return [row.tolist() for row in places]


# -- a store of them -------------------------------------------------------------------------------


def encoder_of(store: Any) -> Any:
    """Vectors that are given, and never made."""
    import torch

    from ffr.corpus.vectors import StoredEncoder

    class Width:
        weights_digest = "made"

        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.zeros(len(texts), WIDTH)

    return StoredEncoder(store, Width, name="made", weights_digest="made", line_prefix="")


def archive_of(store: Any, usual_queries: np.ndarray | None = None) -> tuple[Any, list[np.ndarray]]:
    """The store that can be asked, and the list whose only vector is taken as that of any query.

    What lies close to usual queries, (U, 384), counts less, as where the reader is asked.
    """
    import torch

    from ffr.corpus.archive import Archive

    now: list[np.ndarray] = [np.zeros(WIDTH, np.float32)]
    usual = None if usual_queries is None else torch.from_numpy(usual_queries)
    made = encoder_of(store)
    asked = Archive(store, None, made, lambda _: torch.from_numpy(np.array(now)), None, usual)
    return asked, now


def fill(store: Any, data: Path) -> dict[str, float]:
    """Lines in dialogues, their vectors, segments, and what is made of these; seconds of each.

    Segments have vectors that are drawn: how long a search takes does not depend on what they are.
    """
    import torch

    from ffr.chats.chat import Message
    from ffr.chats.cutting import Cutting
    from ffr.chats.stream import ChatStream
    from ffr.corpus.adding import add_chat, text_key
    from ffr.corpus.segmenting import make_segments, waiting_segments

    stream = ChatStream("whatsapp", "made")

    def messages() -> Iterator[Message]:
        begun = datetime(2000, 1, 1)
        for place, text in enumerate(texts_of(data)):
            name = stream.person("ab"[place % 2], "ab"[place % 2])
            time_ = begun + timedelta(hours=9 * (place // DIALOGUE), minutes=place % DIALOGUE)
            yield Message(name, text, time_)

    stream.messages = messages()
    marks = [time.perf_counter()]
    add_chat(store, stream, data / "texts.txt", Cutting(8.0, 0), state="made")
    marks.append(time.perf_counter())
    encoder = encoder_of(store)
    places = {text_key(text): place for place, text in enumerate(texts_of(data))}
    for keys in _blocks(list(places)):
        chosen = vectors_at(data, np.array([places[key] for key in keys]))
        encoder.vectors.add(keys, torch.from_numpy(chosen))
    marks.append(time.perf_counter())
    make_segments(store, store.numbers(), encoder, _nothing)
    rng = np.random.default_rng(0)
    for keys in _blocks(list(waiting_segments(store, store.numbers(), encoder))):
        drawn = unit(rng.standard_normal((len(keys), WIDTH), np.float32))
        encoder.vectors.add(keys, torch.from_numpy(drawn))
    marks.append(time.perf_counter())
    if encoder.vectors.lacks_lists():
        encoder.vectors.make_lists(_nothing)
    marks.append(time.perf_counter())
    names = ("lines_seconds", "vectors_seconds", "segments_seconds", "index_seconds")
    return dict(zip(names, np.diff(marks).tolist(), strict=True))


def _blocks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), BLOCK):
        yield keys[start : start + BLOCK]


def _nothing(done: int, total: int | None) -> None:
    """Hears how far it is."""
