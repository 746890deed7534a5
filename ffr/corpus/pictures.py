"""Pictures of chats: laid out where they can be opened, known by their bytes, and put into words.

Pictures that lie in an archive are unpacked into the store, so that whoever shows or looks at one
needs a path alone; those of a folder stay where they are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ffr.chats.export_files import ExportFiles
from ffr.chats.unpacking import picture_file
from ffr.corpus.adding import text_key
from ffr.corpus.database import Row
from ffr.corpus.schema import whole
from ffr.corpus.store import Store
from ffr.corpus.terms import terms_of
from ffr.embedding.ocr import OcrIfInstalled
from ffr.embedding.question import weights_state
from ffr.embedding.tagger import (
    TaggerIfInstalled,
    ZeroShotTagger,
    class_names,
    installed_tagger,
)
from ffr.errors import DataError, FfrError
from ffr.images import Location
from ffr.progress import Progress
from ffr.text import counted, one_line

_log = logging.getLogger(__name__)

MEDIA_FOLDER = "media"
_BATCH = 16


def waiting_pictures(store: Store) -> Sequence[Row]:
    """Source and file of every picture that was not looked for yet, with the path of its export."""
    return store.rows(
        "SELECT DISTINCT attached.source, attached.file, sources.path FROM attached "
        "JOIN sources ON sources.id = attached.source "
        "LEFT JOIN files ON files.source = attached.source AND files.file = attached.file "
        "WHERE files.source IS NULL ORDER BY sources.path"
    )


def untagged_pictures(store: Store, tagger: StoredTagger) -> Sequence[Row]:
    """Digest and path of every picture that has no words yet; none where there is no tagger."""
    if tagger.digest is None:
        return []
    return store.rows(
        "SELECT digest, min(path) AS path FROM files WHERE digest IS NOT NULL AND digest NOT IN "
        "(SELECT digest FROM shown WHERE looker = ?) GROUP BY digest",
        [tagger.digest],
    )


def lay_out_pictures(store: Store, progress: Progress | None = None) -> list[str]:
    """Finds or unpacks every picture of the store that was not seen yet.

    Args:
        store: The store.
        progress: Is told how many are done.

    Returns:
        What is wrong with some, a line each.
    """
    waiting = waiting_pictures(store)
    exports: dict[str, ExportFiles] = {}
    num_lost, first = 0, ""
    for number, row in enumerate(waiting, 1):
        path: str | None = None
        digest: bytes | None = None
        try:
            if row["path"] not in exports:
                exports = {row["path"]: ExportFiles(row["path"])}
            found, digest = picture_file(
                exports[row["path"]], row["file"], store.folder / MEDIA_FOLDER, is_private=True
            )
            path = str(found)
        except FfrError as error:
            num_lost += 1
            first = first or str(error)
        with whole(store.database):
            store.database.execute(
                "INSERT INTO files VALUES (?, ?, ?, ?)", [row["source"], row["file"], path, digest]
            )
        if progress is not None:
            progress(number, len(waiting))
    if not num_lost:
        return []
    return [f"{counted(num_lost, 'picture')} cannot be read, the first is {first}"]


class StoredTagger(TaggerIfInstalled):
    """Words for a store's pictures, kept there by the pictures' bytes: what they show, and their text.

    The image tagger says what a picture shows; where `rapidocr` is installed too, the text in it
    stands behind that, and is found by its words.

    Args:
        store: The store.
        image_model: An encoder of texts and images that says what a picture shows in the place of
            the tagger: a folder, a hub id, or `tiny-clip`.
    """

    def __init__(self, store: Store, image_model: str | None = None) -> None:
        self._store = store
        self._ocr = OcrIfInstalled()
        self._image_model = image_model

    @cached_property
    def _zero_shot(self) -> ZeroShotTagger:
        from ffr.encoders import open_encoder

        assert self._image_model is not None
        return ZeroShotTagger(open_encoder(self._image_model), class_names())

    @property
    def digest(self) -> str | None:
        """Names what looks at pictures, which is loaded for one alone that has no words yet."""
        shows = installed_tagger()
        if self._image_model is not None:
            shows = f"{self._image_model} {weights_state(Path(self._image_model))}"
        return " ".join(filter(None, [shows, self._ocr.digest])) or None

    def words(self, pictures: Sequence[Location]) -> list[str]:
        """For each picture its words; "" where nothing looks, or it cannot be opened."""
        if not pictures or self.digest is None:
            return [""] * len(pictures)
        found: dict[str, str] = {}
        different = list(dict.fromkeys(map(str, pictures)))
        for start in range(0, len(different), 400):
            part = different[start : start + 400]
            marks = ",".join("?" * len(part))
            found |= {
                row["path"]: row["words"]
                for row in self._store.rows(
                    "SELECT path, words FROM files JOIN shown USING (digest) "
                    f"WHERE looker = ? AND path IN ({marks})",
                    [self.digest, *part],
                )
            }
        return [
            found[str(location)] if str(location) in found else self._looked_at(location)
            for location in pictures
        ]

    def _looked_at(self, location: Location) -> str:
        try:
            return self.look(location)[0]
        except DataError as error:
            _log.warning("%s; it is found by where it stands", error)
            return ""

    def look(self, location: Location) -> tuple[str, str]:
        """A picture's words, and the text in it alone.

        Raises:
            DataError: where it cannot be opened.
        """
        if self._image_model is not None:
            (shows,) = self._zero_shot.words([location])
        else:
            shows = "" if installed_tagger() is None else super().words([location])[0]
        text = self._ocr.text(location)
        return (f"{shows}: {one_line(text, 400)}" if shows and text else shows or text), text


def tag_pictures(store: Store, tagger: StoredTagger, progress: Progress | None = None) -> list[str]:
    """Puts every picture of the store into words that has none yet, and keeps these.

    Args:
        store: The store.
        tagger: Gives the words.
        progress: Is told how many are done.

    Returns:
        What is wrong with some, a line each.
    """
    waiting = untagged_pictures(store, tagger)
    num_lost, first = 0, ""
    for start in range(0, len(waiting), _BATCH):
        batch = waiting[start : start + _BATCH]
        seen: list[tuple[str, str]] = []
        for row in batch:
            try:
                seen.append(tagger.look(Path(row["path"])))
            except DataError as error:
                num_lost += 1
                first = first or str(error)
                seen.append(("", ""))
        with whole(store.database):
            for row, (words, text) in zip(batch, seen, strict=True):
                id_ = store.database.insert(
                    "INSERT INTO shown(digest, looker, words, words_key, text) "
                    "VALUES (?, ?, ?, ?, ?)",
                    [row["digest"], tagger.digest, words, text_key(words), text],
                )
                if text:
                    store.database.add_words("shown_words", [(id_, " ".join(terms_of(text)))])
        if progress is not None:
            progress(min(start + _BATCH, len(waiting)), len(waiting))
    if not num_lost:
        return []
    return [f"{counted(num_lost, 'picture')} cannot be looked at, the first is {first}"]


def forget_unseen(store: Store) -> None:
    """Takes what pictures show out of the database that no chat has any more."""
    for row in store.rows(
        "SELECT id, text FROM shown WHERE digest NOT IN "
        "(SELECT digest FROM files WHERE digest IS NOT NULL)"
    ):
        if row["text"]:
            terms = " ".join(terms_of(row["text"]))
            store.database.forget_words("shown_words", [(row["id"], terms)])
        store.database.execute("DELETE FROM shown WHERE id = ?", [row["id"]])
