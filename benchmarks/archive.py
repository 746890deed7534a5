"""How an archive grows: build time, bytes, memory and time a query, beside engines that others use.

    python benchmarks/archive.py --lines 10000 100000 1000000 --out benchmarks/results/archive.json
    python benchmarks/archive.py --store DIR --queries DATA.json --out …
    python benchmarks/archive.py --lines 10000000 --engines exact faiss --out …

Lines are generated: words of a made vocabulary whose frequencies fall as 1 / rank, with vectors of 384
numbers around centres, as lines of one matter have them. `--store` takes the lines and vectors that
`ffr index add` made instead, and the queries of a data file. Every engine gets the same texts, vectors
and queries. It builds in one process and is asked in another, so that both peaks of memory are its own;
an engine that is not installed is named as missing.

    ffr      messages in a store, full text and vectors of lines fused (`Archive.recall`)
    exact    vectors alone, one matrix product
    faiss    vectors alone, inverted lists with 8 bits a number (IVF-SQ8)
    lancedb  full text and vectors, each an index, fused by reciprocal ranks
    sqlite   full text alone (FTS5)
    bm25s    full text alone
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 384
VOCABULARY = 50_000
DIALOGUE = 40
BLOCK = 50_000
K = 20
NO_TEXTS = ("exact", "faiss")

Ask = Callable[[str, np.ndarray], list[int]]
"""A query's words and vector → the numbers of the lines that were found, the best first."""


# -- what is searched ------------------------------------------------------------------------------


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
        asked = list(dict.fromkeys(example.query for example in ffr.load_dataset(data)))
        asked = asked[:num_queries]
        vectors = reader.query_vectors(asked, encoder).numpy()
    np.save(folder / "query_vectors.npy", vectors.astype(np.float32))
    (folder / "texts.txt").write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    (folder / "queries.json").write_text(json.dumps(asked, ensure_ascii=False))
    return len(texts)


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


# -- engines: each builds under a folder, and opens what was built to be asked ---------------------


@dataclass(frozen=True)
class Engine:
    """One way of searching.

    Args:
        build: From the folder of the data into an empty one.
        open: From both to what answers.
        package: What must be installed beside ffr; None for nothing.
    """

    build: Callable[[Path, Path], None]
    open: Callable[[Path, Path], Ask]
    package: str | None = None


def build_ffr(data: Path, own: Path) -> None:
    from ffr.chats.chat import Message
    from ffr.chats.cutting import Cutting
    from ffr.chats.stream import ChatStream
    from ffr.corpus.adding import add_chat, text_key
    from ffr.corpus.store import Store
    from ffr.corpus.vectors import StoredVectors

    stream = ChatStream("whatsapp", "made")

    def messages() -> Iterator[Message]:
        begun = datetime(2000, 1, 1)
        for place, text in enumerate(texts_of(data)):
            name = stream.person("ab"[place % 2], "ab"[place % 2])
            time_ = begun + timedelta(hours=9 * (place // DIALOGUE), minutes=place % DIALOGUE)
            yield Message(name, text, time_)

    stream.messages = messages()
    vectors = vectors_of(data)
    with Store(own, is_new_allowed=True) as store:
        add_chat(store, stream, data / "texts.txt", Cutting(8.0, 0), state="made")
        kept = StoredVectors(store, _key(store), WIDTH)
        seen: set[bytes] = set()
        keys: list[bytes] = []
        rows: list[int] = []

        def flush() -> None:
            import torch

            kept.add(keys, torch.from_numpy(np.array(vectors[rows])))
            keys.clear()
            rows.clear()

        for place, text in enumerate(texts_of(data)):
            key = text_key(text)
            if key not in seen:
                seen.add(key)
                keys.append(key)
                rows.append(place)
            if len(keys) == BLOCK:
                flush()
        if keys:
            flush()


def _encoder(store: Any) -> Any:
    from ffr.corpus.vectors import StoredEncoder

    def load() -> Any:
        raise AssertionError("no text is embedded here")

    return StoredEncoder(store, load, name="made", weights_digest="made", line_prefix="")


def _key(store: Any) -> str:
    return str(_encoder(store).key)


def open_ffr(data: Path, own: Path) -> Ask:
    import torch

    from ffr.corpus.archive import Archive
    from ffr.corpus.store import Store

    store = Store(own)
    now: list[np.ndarray] = []
    archive = Archive(store, None, _encoder(store), lambda _: torch.from_numpy(np.array(now[-1:])))

    def ask(query: str, vector: np.ndarray) -> list[int]:
        now[:] = [vector]
        found = archive.recall(query, k=K)
        # the chat is the file: a message's place is the number of its line
        return [item.messages[0] - 1 for item in found if item.messages]

    return ask


def build_nothing(data: Path, own: Path) -> None:
    shutil.copy(data / "vectors.npy", own / "vectors.npy")


def open_exact(data: Path, own: Path) -> Ask:
    vectors = np.load(own / "vectors.npy")

    def ask(query: str, vector: np.ndarray) -> list[int]:
        scores = vectors @ vector
        best = np.argpartition(-scores, min(K, len(scores) - 1))[:K]
        return best[np.argsort(-scores[best])].tolist()

    return ask


def build_faiss(data: Path, own: Path) -> None:
    import faiss

    vectors = vectors_of(data)
    num_lists = max(1, min(4096, int(4 * math.sqrt(len(vectors)))))
    index = faiss.index_factory(WIDTH, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(vectors), min(len(vectors), 50 * num_lists), replace=False))
    index.train(np.array(vectors[sample]))
    for start in range(0, len(vectors), BLOCK):
        index.add(np.array(vectors[start : start + BLOCK]))
    faiss.write_index(index, str(own / "index"))


def open_faiss(data: Path, own: Path) -> Ask:
    import faiss

    index = faiss.read_index(str(own / "index"))
    index.nprobe = max(8, index.nlist // 32)

    def ask(query: str, vector: np.ndarray) -> list[int]:
        return index.search(vector[None], K)[1][0].tolist()

    return ask


def build_lancedb(data: Path, own: Path) -> None:
    import lancedb
    import pyarrow as pa

    vectors, texts = vectors_of(data), texts_of(data)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(vectors), BLOCK):
            rows = np.array(vectors[start : start + BLOCK])
            fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH)
            numbers = pa.array(range(start, start + len(rows)))
            words = pa.array([next(texts) for _ in rows])
            yield pa.RecordBatch.from_arrays([numbers, words, fixed], schema=schema)

    vector = pa.list_(pa.float32(), WIDTH)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("vector", vector)])
    table = lancedb.connect(own).create_table("lines", batches(), schema=schema)
    table.create_fts_index("text", use_tantivy=False)
    if len(vectors) >= 50_000:  # below, its documentation advises to search without an index
        table.create_index("cosine", vector_column_name="vector", index_type="IVF_PQ")


def open_lancedb(data: Path, own: Path) -> Ask:
    import lancedb

    table = lancedb.connect(own).open_table("lines")

    def ask(query: str, vector: np.ndarray) -> list[int]:
        search = table.search(query_type="hybrid").vector(vector).text(query)
        found = search.limit(K).to_arrow()
        return found["id"].to_pylist()

    return ask


def build_sqlite(data: Path, own: Path) -> None:
    import sqlite3

    database = sqlite3.connect(own / "texts.sqlite3")
    database.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    rows = ((place, text) for place, text in enumerate(texts_of(data)))
    with database:
        database.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", rows)
    database.close()


def open_sqlite(data: Path, own: Path) -> Ask:
    import sqlite3

    database = sqlite3.connect(own / "texts.sqlite3")
    sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?"

    def ask(query: str, vector: np.ndarray) -> list[int]:
        words = " OR ".join('"' + word.replace('"', '""') + '"' for word in query.split())
        return [row[0] for row in database.execute(sql, [words, K])]

    return ask


def build_bm25s(data: Path, own: Path) -> None:
    import bm25s

    retriever = bm25s.BM25()
    tokens = bm25s.tokenize(list(texts_of(data)), stopwords=None, show_progress=False)
    retriever.index(tokens, show_progress=False)
    retriever.save(own / "index")


def open_bm25s(data: Path, own: Path) -> Ask:
    import bm25s

    retriever = bm25s.BM25.load(own / "index", mmap=True)

    def ask(query: str, vector: np.ndarray) -> list[int]:
        tokens = bm25s.tokenize([query], stopwords=None, show_progress=False)
        found, _ = retriever.retrieve(tokens, k=K, show_progress=False)
        return found[0].tolist()

    return ask


ENGINES = {
    "ffr": Engine(build_ffr, open_ffr),
    "exact": Engine(build_nothing, open_exact),
    "faiss": Engine(build_faiss, open_faiss, "faiss"),
    "lancedb": Engine(build_lancedb, open_lancedb, "lancedb"),
    "sqlite": Engine(build_sqlite, open_sqlite),
    "bm25s": Engine(build_bm25s, open_bm25s, "bm25s"),
}


# -- measuring -------------------------------------------------------------------------------------


def run_part(part: str, engine: Engine, data: Path, own: Path) -> dict[str, Any]:
    """One part in this process: seconds, and the peak of memory above what it began with."""
    if part == "build":
        begun = time.perf_counter()
        engine.build(data, own)
        measured: dict[str, Any] = {"build_seconds": time.perf_counter() - begun}
    else:
        asked = json.loads((data / "queries.json").read_text())
        vectors = np.load(data / "query_vectors.npy")
        begun = time.perf_counter()
        ask = engine.open(data, own)
        found = [ask(asked[0], vectors[0])]
        measured = {"open_seconds": time.perf_counter() - begun}
        seconds = []
        for query, vector in zip(asked[1:], vectors[1:], strict=True):
            begun = time.perf_counter()
            found.append(ask(query, vector))
            seconds.append(time.perf_counter() - begun)
        p50, p95 = np.percentile(seconds, [50, 95])
        measured |= {"p50_seconds": float(p50), "p95_seconds": float(p95), "found": found}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return measured | {f"{part}_peak_megabytes": peak}


def measure(name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Both parts of an engine, each in a process of its own."""
    engine = ENGINES[name]
    if engine.package is not None and importlib.util.find_spec(engine.package) is None:
        return {"missing": f"{engine.package} is not installed"}
    own = scratch / name
    own.mkdir()
    row: dict[str, Any] = {}
    for part in ("build", "ask"):
        done = subprocess.run(
            [sys.executable, __file__, "--part", part, name, str(data), str(own)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            return row | {"failed": f"{part}: {done.stderr.strip().splitlines()[-1:]}"}
        row |= json.loads(done.stdout.splitlines()[-1])
        if part == "build":
            sizes = [path.stat().st_size for path in own.rglob("*") if path.is_file()]
            row["megabytes"] = sum(sizes) / 1e6
    shutil.rmtree(own)
    return row


def compare(rows: dict[str, dict[str, Any]]) -> None:
    """Puts beside each engine of vectors alone how much of the exact answer it finds."""
    exact = rows.get("exact", {}).get("found")
    for name, row in rows.items():
        found = row.pop("found", None)
        if exact is not None and found is not None and name in NO_TEXTS:
            shares = [
                len(set(own) & set(true)) / len(true)
                for own, true in zip(found, exact, strict=True)
            ]
            row[f"recall_at_{K}_of_exact"] = float(np.mean(shares))


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    """Time a query, build time, bytes and memory against the number of lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {
        "p95_seconds": "p95 a query, s",
        "build_seconds": "build, s",
        "megabytes": "on the disk, MB",
        "ask_peak_megabytes": "memory, asking, MB",
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), constrained_layout=True)
    for axis, (key, words) in zip(axes.flat, drawn.items(), strict=True):
        for name in ENGINES:
            points = [
                (size["num_lines"], size["engines"][name][key])
                for size in sizes
                if key in size["engines"].get(name, {})
            ]
            if points:
                axis.loglog(*zip(*points, strict=True), marker="o", label=name)
        axis.set_xlabel("lines")
        axis.set_ylabel(words)
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    if sys.argv[1:2] == ["--part"]:
        part, name, data, own = sys.argv[2:6]
        print(json.dumps(run_part(part, ENGINES[name], Path(data), Path(own))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, nargs="*", default=[], help="generated lines")
    parser.add_argument("--store", type=Path, help="an indexed store, whose lines are taken")
    parser.add_argument("--queries", type=Path, help="the data file whose queries it is asked")
    parser.add_argument("--num-queries", type=int, default=101, help="the first is not timed")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if (options.store is None) != (options.queries is None):
        parser.error("--store and --queries go together; give both")

    from ffr.provenance import versions

    sizes = []
    for number in [*([None] if options.store else []), *options.lines]:
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch, "data")
            data.mkdir()
            if number is None:
                number = take_from_store(data, options.store, options.queries, options.num_queries)
                kind = "real"
            else:
                generate(data, number, options.num_queries, options.seed)
                kind = "generated"
            rows = {name: measure(name, data, Path(scratch)) for name in options.engines}
        compare(rows)
        sizes.append({"num_lines": number, "kind": kind, "engines": rows})
        print(json.dumps(sizes[-1], indent=1), flush=True)
    result = {"sizes": sizes, "seed": options.seed, "k": K, "versions": versions()}
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(f"{options.out}: written")
    if options.plot is not None:
        plot([size for size in sizes if size["kind"] == "generated"], options.plot)
        print(f"{options.plot}: written")


if __name__ == "__main__":
    sys.exit(main())
