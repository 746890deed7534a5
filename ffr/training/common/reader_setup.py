"""The reader of a training, and the encoder whose vectors it reads, opened as the settings say."""

from __future__ import annotations

from pathlib import Path

from ffr.data.home import data_home
from ffr.embedding import CachedEncoder, load_encoder
from ffr.embedding.tagger import TaggerIfInstalled
from ffr.errors import UsageError
from ffr.reader.model import Reader
from ffr.runs import ModelSource


def open_text_encoder(name: str, folder: str | None, megabytes: int) -> CachedEncoder:
    """An encoder on the CPU, its vectors kept on disk, so that a run that goes on has the same bits.

    Args:
        name: A name of `ffr.embedding.PACKAGED`, a folder or a hub id.
        folder: Folder of the vectors; None for the user's cache.
        megabytes: Size bound of that folder.

    Raises:
        ModelError: where it cannot be loaded.
    """
    kept = Path(folder) if folder is not None else data_home().parent / "vectors"
    return CachedEncoder(load_encoder(name), kept, max_bytes=megabytes * 2**20)


def tagger_for(reader: Reader) -> TaggerIfInstalled | None:
    """What gives the pictures of a training words; None for a reader that never learned with any.

    Args:
        reader: The reader that training starts from.
    """
    return TaggerIfInstalled() if reader.settings.has_picture_words else None


def open_reader(source: ModelSource) -> Reader:
    """The reader that a training starts from.

    Args:
        source: What was named.

    Raises:
        UsageError: where it is no reader.
        ModelError: where it cannot be read.
    """
    if not source.is_reader:
        raise UsageError(
            f"{source.label} is no reader; name `reader`, a run of `ffr train reader`, or a "
            "reader's folder"
        )
    return Reader.load(source.location)
