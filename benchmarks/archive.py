"""How an archive grows: build time, bytes, memory and time a query, beside engines that others use.

    python benchmarks/archive.py --lines 10000 100000 1000000 --out benchmarks/results/archive.json
    python benchmarks/archive.py --store DIR --queries DATA.json --grown 1000000 --out …
    python benchmarks/archive.py --lines 10000000 --engines exact faiss --out …

Lines are generated: words of a made vocabulary whose frequencies fall as 1 / rank, with vectors of 384
numbers around centres, as lines of one matter have them. `--store` takes the lines and vectors that
`ffr index add` made instead, and the queries of a data file; `--grown` grows so many out of them, each
line with a number behind and its vector with noise. Every engine gets the same texts, vectors
and queries. It builds in one process and is asked in another, so that both peaks of memory are its own;
an engine that is not installed is named as missing.

    ffr      messages in a store: full text, vectors of lines and of segments, fused (`Archive.recall`)
    lists    ffr's comparing of vectors alone: beyond 300,000 by inverted lists, the best exactly
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
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from made_archive import (
    BLOCK,
    WIDTH,
    archive_of,
    fill,
    generate,
    grow,
    take_from_store,
    texts_of,
    vectors_of,
)

from ffr.corpus.nearest import EXACT_ROWS

K = 20
NO_TEXTS = ("lists", "exact", "faiss")

Ask = Callable[[str, np.ndarray], list[int]]
"""A query's words and vector → the numbers of the lines that were found, the best first."""


# -- engines: each builds under a folder, and opens what was built to be asked ---------------------


@dataclass(frozen=True)
class Engine:
    """One way of searching.

    Args:
        build: From the folder of the data into an empty one; may tell the seconds of its parts.
        open: From both to what answers.
        package: What must be installed beside ffr; None for nothing.
    """

    build: Callable[[Path, Path], dict[str, float] | None]
    open: Callable[[Path, Path], Ask]
    package: str | None = None


def build_ffr(data: Path, own: Path) -> dict[str, float]:
    from ffr.corpus.store import Store

    with Store(own, is_new_allowed=True) as store:
        return fill(store, data)


def open_ffr(data: Path, own: Path) -> Ask:
    from ffr.corpus.store import Store

    archive, now = archive_of(Store(own))

    def ask(query: str, vector: np.ndarray) -> list[int]:
        now[:] = [vector]
        found = archive.recall(query, k=K)
        # the chat is the file: a message's place is the number of its line
        return [item.messages[0] - 1 for item in found if item.messages]

    return ask


def build_lists(data: Path, own: Path) -> None:
    from ffr.corpus.nearest import make_lists

    rows = vectors_of(data)
    rows.tofile(own / "vectors.f32")
    if len(rows) > EXACT_ROWS:
        make_lists(own / "vectors.f32", rows, lambda done, total: None)


def open_lists(data: Path, own: Path) -> Ask:
    from ffr.corpus.nearest import Matrix

    rows = np.memmap(own / "vectors.f32", np.float32, "r").reshape(-1, WIDTH)
    matrix, every = Matrix(rows, own / "vectors.f32"), np.arange(len(rows))

    def ask(query: str, vector: np.ndarray) -> list[int]:
        return matrix.closest(vector, every, K)[0][:K].tolist()

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
    "lists": Engine(build_lists, open_lists, "faiss"),
    "exact": Engine(build_nothing, open_exact),
    "faiss": Engine(build_faiss, open_faiss, "faiss"),
    "lancedb": Engine(build_lancedb, open_lancedb, "lancedb"),
    "sqlite": Engine(build_sqlite, open_sqlite),
    "bm25s": Engine(build_bm25s, open_bm25s, "bm25s"),
}


# -- measuring -------------------------------------------------------------------------------------


def run_part(part: str, engine: Engine, data: Path, own: Path) -> dict[str, Any]:
    """One part in this process: seconds, of the processor too where others use it, and memory."""
    if part == "build":
        begun = time.perf_counter()
        parts = engine.build(data, own) or {}
        measured: dict[str, Any] = {"build_seconds": time.perf_counter() - begun, **parts}
    else:
        asked = json.loads((data / "queries.json").read_text())
        vectors = np.load(data / "query_vectors.npy")
        begun = time.perf_counter()
        ask = engine.open(data, own)
        found = [ask(asked[0], vectors[0])]
        measured = {"open_seconds": time.perf_counter() - begun}
        measured |= {"found": found, "num_timed": len(asked) - 1}
        seconds: dict[str, list[float]] = {"": [], "cpu_": []}
        for query, vector in zip(asked[1:], vectors[1:], strict=True):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            found.append(ask(query, vector))
            seconds[""].append(time.perf_counter() - begun)
            seconds["cpu_"].append(time.process_time() - begun_cpu)
        for clock, taken in seconds.items():
            p50, p95 = np.percentile(taken, [50, 95])
            measured |= {f"p50_{clock}seconds": float(p50), f"p95_{clock}seconds": float(p95)}
    return measured | {f"{part}_peak_megabytes": peak_megabytes()}


def peak_megabytes() -> float:
    """The most memory that this process held, read files included; not what it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


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


def all_data(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[int, str, Path]]:
    """Number of lines, kind and folder of all that is searched, one there at a time beside the real."""
    real = scratch / "real"
    if options.store:
        real.mkdir()
        yield (
            take_from_store(real, options.store, options.queries, options.num_queries),
            "real",
            real,
        )
    for kind in ("grown", "generated"):
        for number in options.grown if kind == "grown" else options.lines:
            data = scratch / "data"
            data.mkdir()
            if kind == "grown":
                grow(data, real, number, options.seed)
            else:
                generate(data, number, options.num_queries, options.seed)
            yield number, kind, data
            shutil.rmtree(data)


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
    parser.add_argument("--grown", type=int, nargs="*", default=[], help="lines out of those")
    parser.add_argument("--num-queries", type=int, default=101, help="the first is not timed")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if (options.store is None) != (options.queries is None):
        parser.error("--store and --queries go together; give both")
    if options.grown and not options.store:
        parser.error("--grown grows lines of a --store; name one")

    from ffr.provenance import versions

    sizes = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, kind, data in all_data(options, Path(scratch)):
            rows = {name: measure(name, data, Path(scratch)) for name in options.engines}
            compare(rows)
            sizes.append({"num_lines": number, "kind": kind, "engines": rows})
            print(json.dumps(sizes[-1], indent=1), flush=True)
            if options.out is not None:
                result = {"sizes": sizes, "seed": options.seed, "k": K, "versions": versions()}
                text = json.dumps(result, indent=2, ensure_ascii=False)
                options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
