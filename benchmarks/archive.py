"""How an archive grows: build time, bytes, memory and time a query, beside engines that others use.

    python benchmarks/archive.py --lines 10000 100000 1000000 --out benchmarks/results/archive.json
    python benchmarks/archive.py --store DIR --queries DATA.json --grown 1000000 --out …
    python benchmarks/archive.py --store DIR --queries DATA.json --grown 10000000 --only-grown \
        --engines vectors faiss --out …

Lines are generated: words of a made vocabulary whose frequencies fall as 1 / rank, with vectors of 384
numbers around centres, as lines of one matter have them. `--store` takes the lines and vectors that
`ffr index add` made instead, and the queries of a data file; `--grown` grows so many out of them, each
line with a number behind and its vector with noise. Every engine gets the same texts, vectors and
queries. It builds in one process and is asked in another, so that both peaks of memory are its own; one
that is not installed is named as missing. With `--scratch DIR` what was built is kept, and a later call
adds engines to the sizes of its `--out`.

    ffr      messages in a store: full text, vectors of lines and of segments, fused (`Archive.recall`)
    lists    ffr's vectors alone, of the lines of its store: beyond 300,000 by inverted lists
    vectors  the same without a store, of a file of vectors: what takes no more room than they do
    exact    vectors alone, one matrix product
    faiss    vectors alone, inverted lists with 8 bits a number (IVF-SQ8)
    lancedb  full text and vectors, each an index, fused by reciprocal ranks
    lances   LanceDB's vectors alone, of the same table
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
    blocks_of,
    closest,
    encoder_of,
    fill,
    generate,
    grow,
    take_from_store,
    texts_of,
    vectors_of,
)

K = 20
NO_TEXTS = ("lists", "vectors", "exact", "faiss", "lances")

Ask = Callable[[str, np.ndarray], list[int]]
"""A query's words and vector → the numbers of the lines that were found, the best first."""


# -- engines: each builds under a folder, and opens what was built to be asked ---------------------


@dataclass(frozen=True)
class Engine:
    """One way of searching.

    Args:
        build: From the folder of the data into an empty one; may tell the seconds of its parts. Or
            the engine whose it is that was built.
        open: From both to what answers.
        package: What must be installed beside ffr; None for nothing.
    """

    build: Callable[[Path, Path], dict[str, float] | None] | str
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


def open_lists(data: Path, own: Path) -> Ask:
    from ffr.corpus.store import Store

    with Store(own) as store:
        encoder = encoder_of(store)
        # the chat is the file: a message's id is the number of its line, from 1
        found = store.tuples(
            "SELECT vectors.place, min(messages.id) FROM messages JOIN vectors "
            "ON vectors.encoder = ? AND vectors.key = text_key GROUP BY 1 ORDER BY 1",
            [encoder.key],
        )
        matrix = encoder.vectors.compared()
    places, numbers = np.array(found, np.int64).T
    line_of = dict(zip(places.tolist(), (numbers - 1).tolist(), strict=True))
    places = np.ascontiguousarray(places)

    def ask(query: str, vector: np.ndarray) -> list[int]:
        near, _ = matrix.closest(vector, places, K)
        return [line_of[place] for place in near[:K].tolist()]

    return ask


def build_vectors(data: Path, own: Path) -> dict[str, float]:
    from ffr.corpus.nearest import make_lists

    with (own / "vectors-made-0.f32").open("wb") as file:
        for _, rows in blocks_of(data):
            file.write(rows.astype("<f4").tobytes())
    begun = time.perf_counter()
    make_lists(own / "vectors-made-0.f32", len(vectors_of(data)), WIDTH, _nothing)
    return {"index_seconds": time.perf_counter() - begun}


def _nothing(done: int, total: int | None) -> None:
    """Hears how far it is."""


def open_vectors(data: Path, own: Path) -> Ask:
    from ffr.corpus.nearest import Matrix

    path = own / "vectors-made-0.f32"
    matrix = Matrix(np.memmap(path, "<f4", "r").reshape(-1, WIDTH), path)
    places = np.arange(len(matrix.rows))

    def ask(query: str, vector: np.ndarray) -> list[int]:
        return matrix.closest(vector, places, K)[0][:K].tolist()

    return ask


def build_exact(data: Path, own: Path) -> None:
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

    number = len(vectors_of(data))
    num_lists = max(1, min(4096, int(4 * math.sqrt(number))))
    index = faiss.index_factory(WIDTH, f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    is_chosen = np.zeros(number, bool)
    is_chosen[rng.choice(number, min(number, 50 * num_lists), replace=False)] = True
    sample = [rows[is_chosen[start : start + BLOCK]] for start, rows in blocks_of(data)]
    index.train(np.concatenate(sample))
    for _, rows in blocks_of(data):
        index.add(rows)
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

    texts = texts_of(data)

    def batches() -> Iterator[pa.RecordBatch]:
        for start, rows in blocks_of(data):
            fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), WIDTH)
            numbers = pa.array(range(start, start + len(rows)))
            words = pa.array([next(texts) for _ in rows])
            yield pa.RecordBatch.from_arrays([numbers, words, fixed], schema=schema)

    vector = pa.list_(pa.float32(), WIDTH)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("vector", vector)])
    table = lancedb.connect(own).create_table("lines", batches(), schema=schema)
    table.create_fts_index("text", use_tantivy=False)
    if (
        len(vectors_of(data)) >= 50_000
    ):  # below, its documentation advises to search without an index
        table.create_index("cosine", vector_column_name="vector", index_type="IVF_PQ")


def open_lancedb(data: Path, own: Path) -> Ask:
    import lancedb

    table = lancedb.connect(own).open_table("lines")

    def ask(query: str, vector: np.ndarray) -> list[int]:
        search = table.search(query_type="hybrid").vector(vector).text(query)
        found = search.limit(K).to_arrow()
        return found["id"].to_pylist()

    return ask


def open_lances(data: Path, own: Path) -> Ask:
    import lancedb

    table = lancedb.connect(own).open_table("lines")

    def ask(query: str, vector: np.ndarray) -> list[int]:
        search = table.search(vector, vector_column_name="vector", query_type="vector")
        return search.distance_type("cosine").limit(K).to_arrow()["id"].to_pylist()

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
    "lists": Engine("ffr", open_lists, "faiss"),
    "vectors": Engine(build_vectors, open_vectors, "faiss"),
    "exact": Engine(build_exact, open_exact),
    "faiss": Engine(build_faiss, open_faiss, "faiss"),
    "lancedb": Engine(build_lancedb, open_lancedb, "lancedb"),
    "lances": Engine("lancedb", open_lances, "lancedb"),
    "sqlite": Engine(build_sqlite, open_sqlite),
    "bm25s": Engine(build_bm25s, open_bm25s, "bm25s"),
}


# -- measuring -------------------------------------------------------------------------------------


def run_part(part: str, engine: Engine, data: Path, own: Path) -> dict[str, Any]:
    """One part in this process: seconds, of the processor too where others use it, and memory."""
    if part == "build":
        begun = time.perf_counter()
        assert callable(engine.build)
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


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Both parts of an engine, each in a process of its own; what is built there is taken as it is."""
    engine = ENGINES[name]
    if engine.package is not None and importlib.util.find_spec(engine.package) is None:
        return {"missing": f"{engine.package} is not installed"}
    own, row = folder / name, {}
    if isinstance(engine.build, str):
        own = folder / engine.build
    elif not (folder / f"{name}.json").is_file():
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        row = in_process("build", name, folder / "data", own)
        if "failed" in row:
            return row
        sizes = [path.stat().st_size for path in own.rglob("*") if path.is_file()]
        row["megabytes"] = sum(sizes) / 1e6
        (folder / f"{name}.json").write_text(json.dumps(row))
    else:
        row = json.loads((folder / f"{name}.json").read_text())
    return row | in_process("ask", name, folder / "data", own)


def in_process(part: str, name: str, data: Path, own: Path) -> dict[str, Any]:
    """What `run_part` gives in a process of its own, or why it failed."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, name, str(data), str(own)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-1:])
        return {"failed": f"{part}: {said or f'ended by signal {-done.returncode}'}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(rows: dict[str, dict[str, Any]], folder: Path) -> None:
    """Puts beside each engine of vectors alone how much of the exact answer it finds.

    Args:
        rows: What was measured, by engine; what was found is taken out.
        folder: Of what was built; keeps the exact answer for a later call.
    """
    kept = folder / "exact-found.json"
    if not kept.is_file():
        queries = np.load(folder / "data" / "query_vectors.npy")
        kept.write_text(json.dumps(closest(folder / "data", queries, K)))
    exact = json.loads(kept.read_text())
    for name, row in rows.items():
        found = row.pop("found", None)
        if found is not None and name in NO_TEXTS:
            shares = [
                len(set(own) & set(true)) / len(true)
                for own, true in zip(found, exact, strict=True)
            ]
            row[f"recall_at_{K}_of_exact"] = float(np.mean(shares))


def all_folders(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[int, str, Path]]:
    """Number of lines, kind and folder of all that is searched; what is there is taken as it is."""
    real = scratch / "real"
    if options.store:
        if not (real / "data").is_dir():
            (real / "data").mkdir(parents=True)
            take_from_store(real / "data", options.store, options.queries, options.num_queries)
        if not options.only_grown:
            yield len(vectors_of(real / "data")), "real", real
    for kind in ("grown", "generated"):
        for number in options.grown if kind == "grown" else options.lines:
            folder = scratch / f"{kind}-{number}"
            data = folder / "data"
            if not data.is_dir():
                data.mkdir(parents=True)
                if kind == "grown":
                    grow(data, real / "data", number, options.seed)
                else:
                    generate(data, number, options.num_queries, options.seed)
            yield number, kind, folder
            if options.scratch is None:
                shutil.rmtree(folder)


def keep(out: Path, size: dict[str, Any], options: argparse.Namespace) -> None:
    """Puts what was measured of a size into the file, beside what it has of other engines and sizes."""
    from ffr.provenance import versions

    result = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"sizes": []}
    for other in result["sizes"]:
        if (other["num_lines"], other["kind"]) == (size["num_lines"], size["kind"]):
            other["engines"] |= size["engines"]
            break
    else:
        result["sizes"].append(size)
    result |= {"seed": options.seed, "k": K, "versions": versions()}
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    parser.add_argument("--only-grown", action="store_true", help="not those themselves")
    parser.add_argument("--scratch", type=Path, help="keeps what is built, for another call")
    parser.add_argument("--num-queries", type=int, default=101, help="the first is not timed")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if (options.store is None) != (options.queries is None):
        parser.error("--store and --queries go together; give both")
    if options.grown and not options.store:
        parser.error("--grown grows lines of a --store; name one")

    with tempfile.TemporaryDirectory() as temporary:
        for number, kind, folder in all_folders(options, options.scratch or Path(temporary)):
            rows = {name: measure(name, folder) for name in options.engines}
            compare(rows, folder)
            size = {"num_lines": number, "kind": kind, "engines": rows}
            print(json.dumps(size, indent=1), flush=True)
            if options.out is not None:
                keep(options.out, size, options)


if __name__ == "__main__":
    sys.exit(main())
