"""Makes the index of vectors on a server: for each partition a graph (HNSW) over half-precision copies.

A graph is made in memory. Where there is too little of it what is left is put in row by row on the
disk, which takes many times as long, so the server is asked for as much as one graph takes.
"""

from __future__ import annotations

from psycopg import errors

from ffr.corpus.postgres.database import ServerDatabase
from ffr.progress import Progress

# a row of the graph beside its vector: neighbours with distances, and where the row lies
_NODE_BYTES = 900
# memory is taken in blocks of this at least
_LEAST_MEMORY_KB = 4 * 1024
_MOST_MEMORY_KB = 2 * 1024**2
"""For this much the server is asked at most; its own setting counts where it is more."""


def make_graphs(
    server: ServerDatabase, index: str, encoder: str, width: int, progress: Progress
) -> None:
    """Makes the index, within `whole`.

    Args:
        server: The server.
        index: Its name.
        encoder: The key of the vectors, hexadecimal digits alone.
        width: Of the vectors.
        progress: Is told after each partition how many rows are in.
    """
    counted = server.tuples(
        "SELECT relname, count(*) FROM vectors JOIN pg_class ON pg_class.oid = vectors.tableoid "
        "WHERE encoder = ? AND relkind = 'r' GROUP BY relname ORDER BY relname",
        [encoder],
    )
    num_all, num_done = sum(num for _, num in counted), 0
    largest = max((num for _, num in counted), default=0) * (_NODE_BYTES + 2 * width)
    memory = min(_LEAST_MEMORY_KB + largest // 1024, _MOST_MEMORY_KB)
    server.tuples(
        "SELECT set_config('maintenance_work_mem', ? || 'kB', TRUE) FROM pg_settings "
        "WHERE name = 'maintenance_work_mem' AND setting::bigint < ?",
        [memory, memory],
    )
    made = (
        "INDEX {} ON {} USING hnsw "
        f"((vector::halfvec({width})) halfvec_cosine_ops) WHERE encoder = '{encoder}'"
    )
    for name, num in counted:
        _create(server, made.format("", name))
        num_done += num
        progress(num_done, num_all)
    # takes those of the partitions for its own
    server.execute(f"CREATE {made.format(index, 'vectors')}")


def _create(server: ServerDatabase, what: str) -> None:
    """Makes an index; by one process where there is no room for memory that several share."""
    server.execute("SAVEPOINT before")
    try:
        server.execute(f"CREATE {what}")
    except (errors.DiskFull, errors.OutOfMemory):
        server.execute("ROLLBACK TO before")
        server.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        server.execute(f"CREATE {what}")
    server.execute("RELEASE before")
