"""What is usual among strangers to an encoder that was trained, as a file beside its weights.

With it a query is held against many dialogues as the reader's own encoder holds it:
`Background.across_dialogues`, and less what lies close to any query.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ffr.errors import ModelError
from ffr.files import write_bytes
from ffr.reader.likeness import Background
from ffr.text import one_line

BACKGROUND_FILE = "background.safetensors"

MAX_BYTES = 64 * 2**20
"""A file beyond this is not opened: 1,500 lines and 500 queries of two languages have 3 MB."""

_MADE_BY = "encoder"
_REMEDY = "restore it, or train the encoder again"


def write_background(folder: Path, background: Background, weights_digest: str) -> None:
    """Writes it into an encoder's folder, in half precision: it is averages of it that count.

    Args:
        folder: The folder.
        background: Its vectors.
        weights_digest: SHA-256 of the weights that made them.
    """
    kept = {"lines": background.lines, "queries": background.queries}
    halves = {name: value.half().contiguous() for name, value in kept.items()}
    write_bytes(folder / BACKGROUND_FILE, save(halves, {_MADE_BY: weights_digest}))


def read_background(folder: Path, weights_digest: str) -> Background | None:
    """What `write_background` wrote into an encoder's folder; None where there is nothing.

    Args:
        folder: The folder.
        weights_digest: SHA-256 of the encoder's weights.

    Raises:
        ModelError: where it is damaged, or other weights made it.
    """
    path = folder / BACKGROUND_FILE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("it is too large")
        with safe_open(path, "pt") as file:
            made_by = (file.metadata() or {}).get(_MADE_BY)
            lines, queries = (file.get_tensor(name).float() for name in ("lines", "queries"))
        background = Background(lines, queries)
        if not bool(lines.isfinite().all() and queries.isfinite().all()):
            raise ValueError("it holds NaN or infinite numbers")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot be read as an encoder's background ({one_line(error, 120)}); {_REMEDY}",
            str(path),
        ) from None
    if made_by != weights_digest:
        raise ModelError(f"was made by other weights than those beside it; {_REMEDY}", str(path))
    return background
