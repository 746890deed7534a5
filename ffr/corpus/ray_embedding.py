"""Vectors of a store's texts made by a Ray cluster, and written as files of one shard.

Ray Data gives texts to workers, each with the encoder, and gives those of a worker that dies to
another. A vector does not depend on what its text is given out with, so the files merge into what
one machine makes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ffr.corpus.indexing import Bar, written_order
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.shard_files import Shard, write_shard_file
from ffr.corpus.sharding import left_of_shard
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder, weights_of
from ffr.embedding.interface import embed_each
from ffr.errors import DataError, UsageError
from ffr.progress import Say
from ffr.text import one_line

if TYPE_CHECKING:
    import pyarrow

LOCAL = "local"
_TEXTS_OF_A_BLOCK = 1024
"""What a worker is given at once, and loses where it dies."""
_TEXTS_OF_A_FILE = 8192


def embed_by_ray(
    store: Store,
    chats: Sequence[int],
    encoder: StoredEncoder,
    tagger: StoredTagger | None,
    address: str,
    folder: Path,
    *,
    say: Say,
    bar: Bar,
) -> int:
    """Writes the vectors of texts that have none as files into a folder, made by a cluster.

    Args:
        store: As in `embed_shard`, like all others.
        chats: As there.
        encoder: As there; a folder that it names must be there on each machine.
        tagger: As there.
        address: The cluster's, `auto` for the one that this machine belongs to, `local` for the
            cores of this machine.
        folder: As there.
        say: As there.
        bar: As there.

    Returns:
        How many vectors were made.

    Raises:
        UsageError: where Ray is not installed, or no cluster is there.
        DataError: where a worker fails of itself, or a file cannot be written.
    """
    shard = Shard(1, 1)
    left = left_of_shard(store, chats, encoder, tagger, shard, folder, say=say, bar=bar)
    order = written_order(left)
    if not order:
        return 0
    with bar("indexing", len(order)) as progress:
        num_done = 0
        for keys, vectors in _batches(order, [left[key] for key in order], encoder, address):
            write_shard_file(folder, shard, encoder.key, keys, vectors)
            num_done += len(keys)
            progress(num_done, len(order))
    return len(order)


def _batches(
    keys: Sequence[bytes], texts: Sequence[str], encoder: StoredEncoder, address: str
) -> Iterator[tuple[list[bytes], torch.Tensor]]:
    """Digests and vectors, a file's worth at a time, in the order in which they are done."""
    import pyarrow

    ray = _connected(address)
    try:
        num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        table = pyarrow.table(
            {
                "key": pyarrow.array(keys, pyarrow.binary()),
                # as the encoder takes it: half a surrogate pair has no place in Arrow
                "text": [text.encode("utf-8", "replace").decode() for text in texts],
            }
        )
        # blocks of our own: a task that cut them would wait for a core that the workers have
        blocks = [
            table.slice(start, _TEXTS_OF_A_BLOCK)
            for start in range(0, len(keys), _TEXTS_OF_A_BLOCK)
        ]
        made = ray.data.from_arrow(blocks).map_batches(
            _Embedder,
            fn_constructor_args=(encoder.name, encoder.weights_digest, encoder.line_prefix),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(blocks))),
            num_cpus=1,
        )
        for batch in made.iter_batches(batch_size=_TEXTS_OF_A_FILE, batch_format="pyarrow"):
            rows = batch.column("vector").combine_chunks()
            width = rows.type.list_size
            flat = torch.from_numpy(rows.flatten().to_numpy(zero_copy_only=False).copy())
            yield batch.column("key").to_pylist(), flat.reshape(-1, width)
    except ray.exceptions.RayError as error:
        raise DataError(
            f"a worker of the Ray cluster failed ({one_line(str(error).strip(), 400)}); see to it, "
            "and give the command again: what is written is kept"
        ) from None
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    """Ray, connected to the cluster.

    Raises:
        UsageError: where it is not installed, or no cluster is there.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError(
            "Ray is not installed here; pip install 'ffr-vlm[ray]', or embed with --shard I/N"
        ) from None
    # its usage report goes to a server of its makers
    import os

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=None if address == LOCAL else address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray {one_line(address, 60)}: no cluster is there ({one_line(str(error), 200)}); "
            "start one with `ray start --head`, or say local"
        ) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


class _Embedder:
    """A worker: an encoder that is loaded once.

    Args:
        name: Of the encoder.
        weights_digest: Of its weights, which must be those of the index.
        line_prefix: Stands before every line.
    """

    def __init__(self, name: str, weights_digest: str, line_prefix: str) -> None:
        from ffr.encoders import open_encoder

        torch.set_num_threads(1)
        self._encoder = open_encoder(name)
        self._prefix = line_prefix
        if weights_of(self._encoder) != weights_digest:
            raise ValueError(f"{name} has other weights on this machine than those of the index")

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Keys and texts → keys and vectors."""
        import pyarrow

        texts = [self._prefix + text for text in batch.column("text").to_pylist()]
        vectors = embed_each(self._encoder, texts)
        flat = pyarrow.array(vectors.numpy().reshape(-1))
        rows = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        return pyarrow.table({"key": batch.column("key"), "vector": rows})
