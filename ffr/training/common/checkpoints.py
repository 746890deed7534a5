"""The checkpoints of a run on disk: written whole and through, with checksums, found again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from ffr.files import is_as_written, read_checksums, replaced_file, write_checksums
from ffr.progress import Say


def newest_checkpoint(folder: Path, say: Say = lambda text: None) -> Path | None:
    """The checkpoint of the latest step that is as it was written.

    A torn or changed one is passed over. Where a folder has no checksums, one that can be read will
    do.

    Args:
        folder: The run's `checkpoints/`.
        say: Is told which are passed over.
    """
    digests = read_checksums(folder)
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        if (
            is_as_written(path, digests.get(path.name))
            if digests is not None
            else _can_be_read(path)
        ):
            return path
        say(f"{path} is not as it was written (torn or changed): passed over")
    return None


def _can_be_read(path: Path) -> bool:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError):
        return False
    except Exception as error:
        # unpickling may raise its own kinds; they all mean that the file is no checkpoint of ours
        if type(error).__module__ not in ("pickle", "_pickle"):
            raise
        return False
    return True


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, written through, with their checksums beside."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint; its checksum is there before it."""
        path = Path(path)
        digest = hashlib.sha256()
        with replaced_file(path) as write:

            class Hashed:
                """The file, whose bytes are looked at on their way."""

                fault: OSError | None = None

                def write(self, data: bytes) -> int:
                    digest.update(data)
                    try:
                        return write(data)
                    except OSError as error:
                        self.fault = error
                        raise

                def flush(self) -> None:
                    """Is done at the end."""

            file = Hashed()
            try:
                torch.save(checkpoint, cast(IO[bytes], file))
            except RuntimeError:
                # torch's words for whatever the file said
                if file.fault is None:
                    raise
                raise file.fault from None
            kept = [other.name for other in path.parent.glob("step-*.ckpt") if other != path]
            known = read_checksums(path.parent)
            # a run that an older ffr began has none: its checkpoints get theirs now
            unknown = kept if known is None else []
            known = {name: value for name, value in (known or {}).items() if name in kept}
            write_checksums(path.parent, unknown, known={**known, path.name: digest.hexdigest()})


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.stem.removeprefix("step-"))
