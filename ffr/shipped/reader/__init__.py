"""The reader that comes with ffr: a small network over a sentence encoder's vectors, for a CPU."""

from __future__ import annotations

from pathlib import Path

READER_FOLDER = Path(__file__).parent / "base"
"""The reader's folder, as `--model` and `ffr.reader.model.Reader.load` read it."""
