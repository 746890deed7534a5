"""Vectors of texts on disk: one matrix an encoder, in which each different text has one row.

A row is known by its text's digest. Rows are added at the end and written before the database says
that they are there, so that whoever is killed loses the last batch alone.

Shapes: n texts, D width of the encoder's vectors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.adding import text_key
from ffr.corpus.finite import check_finite
from ffr.corpus.nearest import LISTS_FILES, ON_DISK, Matrix, lacks_lists, make_lists
from ffr.corpus.schema import whole
from ffr.corpus.store import Store
from ffr.embedding.interface import Encoder, embed_each
from ffr.embedding.packaged import laid_out_folder
from ffr.embedding.question import QuestionEncoder, weights_state
from ffr.errors import DataError, ModelError
from ffr.files import make_private_file, open_from, remove, write_through
from ffr.parts import FragmentParts, Pictures, Texts, as_texts
from ffr.progress import Progress

if TYPE_CHECKING:
    from ffr.corpus.postgres.vectors import ServerVectors

VECTOR_FILES = "vectors-*.f32"
_FEW = 400
_KEPT_QUERIES = 256
# more than this at once is no question
_FEW_QUESTIONS = 8


class StoredVectors:
    """The vectors that one encoder gave the texts of a store, as rows of a file.

    Args:
        store: The store.
        encoder: Names the encoder's weights and the prefix of its lines.
        width: D; None where rows are there already.

    Raises:
        DataError: where the file is shorter than the database says.
    """

    def __init__(self, store: Store, encoder: str, width: int | None = None) -> None:
        self._store = store
        self._encoder = encoder
        found = store.rows("SELECT * FROM matrices WHERE encoder = ?", [encoder])
        if not found:
            if width is None:
                raise DataError("has no vectors of this encoder", where=str(store.folder))
            # nothing is written before there is a row
            found = store.rows(
                "SELECT ? AS file, ? AS width, 0 AS num_rows",
                [f"vectors-{encoder[:16]}-0.f32", width],
            )
        (row,) = found
        self._path: Path = store.folder / row["file"]
        self.width: int = row["width"]
        self.num_rows: int = row["num_rows"]
        self._mapped: NDArray[np.float32] | None = None
        self._compared: Matrix | None = None
        if width is not None and width != self.width:
            raise ModelError(
                f"makes vectors of {width} numbers, and the store has {self.width} of it; name "
                "another folder with --index",
                encoder,
            )
        if self.num_rows and not _is_whole(self._path, self.num_rows * self._stride):
            raise DataError(
                "is shorter than the store says; forget the store with `ffr index forget --all` "
                "and ask again",
                where=str(self._path),
            )

    @property
    def _stride(self) -> int:
        return self.width * ON_DISK.itemsize

    def matrix(self) -> NDArray[np.float32]:
        """(rows, D) all vectors, as the disk has them: nothing is read until it is used."""
        if not self.num_rows:
            return np.zeros((0, self.width), np.float32)
        # once: whoever forgets a chat meanwhile puts another file in the place of this one
        if self._mapped is None:
            shape = (self.num_rows, self.width)
            self._mapped = cast(
                NDArray[np.float32], np.memmap(self._path, ON_DISK, mode="r", shape=shape)
            )
        return self._mapped

    def compared(self) -> Matrix:
        """All vectors, to be compared with queries."""
        if self._compared is None:
            self._compared = Matrix(self.matrix(), self._path)
        return self._compared

    def lacks_lists(self) -> bool:
        """Whether it is so large that it wants an inverted file, and lacks one of its rows."""
        return lacks_lists(self._path, self.num_rows)

    def make_lists(self, progress: Progress) -> None:
        """Makes the inverted file."""
        make_lists(self._path, self.num_rows, self.width, progress)
        self._compared = None

    def places(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The rows of texts, by their digests; those that have none are left out."""
        found: dict[bytes, int] = {}
        different = list(dict.fromkeys(keys))
        for start in range(0, len(different), _FEW):
            part = different[start : start + _FEW]
            marks = ",".join("?" * len(part))
            rows = self._store.rows(
                f"SELECT key, place FROM vectors WHERE encoder = ? AND key IN ({marks})",
                [self._encoder, *part],
            )
            found |= {row["key"]: row["place"] for row in rows}
        return found

    def of(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """(D,) the vectors of texts, by their digests; those that have none are left out."""
        places = self.places(keys)
        matrix = self.matrix() if places else None
        return {} if matrix is None else {key: matrix[place] for key, place in places.items()}

    def hold(self) -> None:
        """Opens the rows as they are now.

        Raises:
            FileNotFoundError: where another process just put others in their place.
        """
        self.matrix()

    def add(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Writes the vectors of texts that have none yet.

        Args:
            keys: n digests of texts, all different.
            vectors: (n, D) float32.

        Raises:
            DataError: where one is no vector of finite numbers.
        """
        check_finite(self._store, keys, vectors)
        data = vectors.numpy().astype(ON_DISK).tobytes()
        make_private_file(self._path)
        with open_from(self._path, self.num_rows * self._stride) as file:
            file.write(data)
            write_through(file)
        first = self.num_rows
        with whole(self._store.database):
            self._store.database.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                [(self._encoder, key, first + number) for number, key in enumerate(keys)],
            )
            self._store.database.execute(
                "INSERT INTO matrices VALUES (?, ?, ?, ?) ON CONFLICT(encoder) DO UPDATE SET "
                "file = excluded.file, num_rows = excluded.num_rows",
                [self._encoder, self._path.name, self.width, first + len(keys)],
            )
        self.num_rows = first + len(keys)
        self._mapped = self._compared = None


class StoredEncoder:
    """An encoder whose vectors of a store's texts come from the disk; others are made anew.

    What is asked for is never written: queries leave no trace in a store.

    Args:
        store: The store.
        load: Gives the encoder, once a text is asked for that has no vector.
        name: What the user called the encoder.
        weights_digest: Names its weights.
        line_prefix: Stands before every line, as the reader was trained.
        takes_images: Whether it embeds pictures too, whose vectors are kept then.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[], Encoder],
        *,
        name: str,
        weights_digest: str,
        line_prefix: str,
        takes_images: bool = False,
    ) -> None:
        self.takes_images = takes_images
        self._store = store
        self._load = load
        self._loaded: Encoder | None = None
        self._light: QuestionEncoder | None = None
        self._vectors: StoredVectors | ServerVectors | None = None
        self._prefix = line_prefix
        self._name = name
        self._digest = weights_digest
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def name(self) -> str:
        return self._name

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def weights_digest(self) -> str:
        """The encoder's own."""
        return self._digest

    @property
    def key(self) -> str:
        """Names encoder and prefix: vectors of two are never compared."""
        return text_key(f"{self._digest} {self._prefix}").hex()

    @property
    def line_prefix(self) -> str:
        """Stands before every line."""
        return self._prefix

    @property
    def encoder(self) -> Encoder:
        """The encoder itself, loaded the first time."""
        if self._loaded is None:
            loaded = self._load()
            if weights_of(loaded) != self._digest:
                raise ModelError(
                    "has other weights than those that the reader was trained with; install the "
                    "version that it names",
                    self._name,
                )
            self._loaded = loaded
        return self._loaded

    def _few(self, texts: list[str]) -> Tensor:
        """(n, D) vectors of texts that are not kept: of a few, without loading the encoder whole.

        That is done where the encoder's file is the very one that was loaded whole before.
        """
        folder = laid_out_folder(self._name)
        state = "" if folder is None else weights_state(folder)
        if self._loaded is None and folder is not None and len(texts) <= _FEW_QUESTIONS:
            seen = self._store.rows(
                "SELECT 1 FROM seen_weights WHERE encoder = ? AND state = ?", [self._digest, state]
            )
            if seen:
                if self._light is None:
                    self._light = QuestionEncoder(folder)
                return self._light.embed_texts(texts)
        return self.encoder.embed_texts(texts).float().cpu()

    def remember_weights(self) -> None:
        """Notes the file of the encoder that was loaded whole, by which it is known again."""
        folder = laid_out_folder(self._name)
        if folder is not None and self._loaded is not None:
            with whole(self._store.database):
                self._store.database.execute(
                    "INSERT INTO seen_weights VALUES (?, ?) "
                    "ON CONFLICT(encoder) DO UPDATE SET state = excluded.state",
                    [self._digest, weights_state(folder)],
                )

    @property
    def vectors(self) -> StoredVectors | ServerVectors:
        """The rows of the store."""
        if self._vectors is None:
            known = self._store.rows("SELECT 1 FROM matrices WHERE encoder = ?", [self.key])
            width = None if known else int(self.encoder.embed_texts(["a"]).shape[-1])
            if self._store.is_remote:
                from ffr.corpus.postgres.vectors import ServerVectors

                self._vectors = ServerVectors(self._store, self.key, width)
            else:
                self._vectors = StoredVectors(self._store, self.key, width)
        return self._vectors

    @property
    def has_vectors(self) -> bool:
        """Whether the store has any of it."""
        return bool(self._store.rows("SELECT 1 FROM matrices WHERE encoder = ?", [self.key]))

    def forget_questions(self) -> None:
        """Lets go of the vectors of texts that are not kept on the disk."""
        self._kept.clear()

    def refresh(self) -> None:
        """Looks anew at what the disk has."""
        self._vectors = None

    def hold(self) -> None:
        """Opens the rows as they are now, so that they stay when another process packs them anew.

        Raises:
            DataError: where they are not there, as where another process just did so.
        """
        try:
            self.vectors.hold()
        except FileNotFoundError as error:
            raise DataError("are not there", where=str(error.filename)) from None

    def embed_texts(self, texts: Texts) -> Tensor:
        """(n, D) float32, L2-normalised."""
        read = as_texts(texts)
        stored = self.vectors
        found: list[Tensor | None] = [self._recalled(text) for text in read]
        lines = {
            number: text_key(text.removeprefix(self._prefix))
            for number, text in enumerate(read)
            if found[number] is None and text.startswith(self._prefix)
        }
        kept = stored.of(list(lines.values()))
        for number, key in lines.items():
            if key in kept:
                found[number] = torch.from_numpy(np.array(kept[key]))
        missing = list(
            dict.fromkeys(text for text, vector in zip(read, found, strict=True) if vector is None)
        )
        made = dict(zip(missing, self._few(missing), strict=True)) if missing else {}
        for text, vector in made.items():
            self._remember(text, vector.clone())
        if not read:
            return torch.zeros(0, stored.width)
        return torch.stack(
            [made[text] if row is None else row for text, row in zip(read, found, strict=True)]
        )

    def _recalled(self, text: str) -> Tensor | None:
        if text in self._kept:
            self._kept.move_to_end(text)
        return self._kept.get(text)

    def _remember(self, text: str, vector: Tensor) -> None:
        self._kept[text] = vector
        if len(self._kept) > _KEPT_QUERIES:
            self._kept.popitem(last=False)

    def embed_images(self, images: Pictures) -> Tensor:
        """As the encoder's own: what a picture shows is not kept here.

        Raises:
            UsageError: where it is an encoder of texts alone.
        """
        return self.encoder.embed_images(images)

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """As the encoder's own.

        Raises:
            UsageError: where it is an encoder of texts alone.
        """
        return self.encoder.embed_fragments(fragments)

    def embed_lines(self, lines: Sequence[str]) -> Tensor:
        """(n, D) the vectors that a store keeps of lines, given without their prefix.

        They do not depend on which lines are given together.
        """
        return embed_each(self.encoder, [self._prefix + text for text in lines])


def weights_of(encoder: Encoder) -> str:
    """Names an encoder's weights: by their digest, else by all that decides its vectors."""
    digest = getattr(encoder, "weights_digest", None)
    return digest if isinstance(digest, str) else encoder.fingerprint


def is_any_kept(store: Store) -> bool:
    """Whether a store has vectors of any encoder."""
    return bool(store.rows("SELECT 1 FROM matrices LIMIT 1"))


def _is_whole(path: Path, size: int) -> bool:
    """Whether a file is there and has so many bytes at least."""
    try:
        return path.stat().st_size >= size
    except FileNotFoundError:
        return False


def compact(store: Store) -> None:
    """Takes the vectors of texts that no message has any more off the disk.

    So are those whose file is torn, to be made anew, and files that are left of a process that was
    killed here.
    """
    if store.is_remote:
        from ffr.corpus.postgres.vectors import compact as compact_server

        compact_server(store.database)
        return
    for row in store.rows("SELECT * FROM matrices"):
        kept = store.rows(
            "SELECT key, place FROM vectors WHERE encoder = ? AND (key IN "
            "(SELECT text_key FROM messages) OR key IN (SELECT words_key FROM shown) OR key IN "
            "(SELECT key FROM segments) OR key IN (SELECT digest FROM files)) "
            "ORDER BY place",
            [row["encoder"]],
        )
        old = store.folder / row["file"]
        if not _is_whole(old, row["num_rows"] * row["width"] * ON_DISK.itemsize):
            kept = []
        elif len(kept) == row["num_rows"]:
            continue
        stem, _, number = old.stem.rpartition("-")
        new = store.folder / f"{stem}-{int(number) + 1}.f32"
        shape = (row["num_rows"], row["width"])
        make_private_file(new)
        with open_from(new, 0) as file:
            matrix = np.memmap(old, ON_DISK, mode="r", shape=shape) if kept else None
            for start in range(0, len(kept), 4096):
                assert matrix is not None
                places = [item["place"] for item in kept[start : start + 4096]]
                file.write(np.ascontiguousarray(matrix[places]).tobytes())
            write_through(file)
        with whole(store.database):
            store.database.execute("DELETE FROM vectors WHERE encoder = ?", [row["encoder"]])
            store.database.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                [(row["encoder"], item["key"], place) for place, item in enumerate(kept)],
            )
            store.database.execute(
                "UPDATE matrices SET file = ?, num_rows = ? WHERE encoder = ?",
                [new.name, len(kept), row["encoder"]],
            )
    known = {row["file"] for row in store.rows("SELECT file FROM matrices")}
    for path in sorted(store.folder.glob(VECTOR_FILES)):
        if path.name not in known:
            remove(path)
    for path in sorted(store.folder.glob(LISTS_FILES)):
        if path.with_suffix(Path(VECTOR_FILES).suffix).name not in known:
            remove(path)
