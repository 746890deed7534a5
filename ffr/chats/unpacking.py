"""Pictures of an export as files that can be opened: where they lie, or unpacked by their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from ffr.chats.export_files import ExportFiles
from ffr.files import make_folder, make_private_folder, replaced_file

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def picture_file(
    export: ExportFiles, file: str, folder: Path, *, is_private: bool = False
) -> tuple[Path, bytes]:
    """Where a picture of an export lies, and the SHA-256 of its bytes.

    One that lies in an archive is unpacked into a folder, once, under a name made of its bytes: what
    an archive calls a file never decides what a file of ours is called.

    Args:
        export: The export.
        file: Its name there.
        folder: Where pictures out of archives go; made where it is missing.
        is_private: For its owner alone to read.

    Raises:
        DataError: where it cannot be read, or written.
    """
    data = export.media(file)
    digest = hashlib.sha256(data).digest()
    found = export.media_path(file)
    if found is not None:
        return found.absolute(), digest
    suffix = PurePosixPath(file).suffix.lower()
    target = folder / (digest.hex() + (suffix if suffix in _SUFFIXES else ""))
    if not target.is_file():
        (make_private_folder if is_private else make_folder)(folder)
        with replaced_file(target, is_private=is_private) as write:
            write(data)
    return target.absolute(), digest
