"""The embedded text–image encoder.

A CLIP of a third of a million parameters that knows the generated world and nothing else.
"""

from __future__ import annotations

from pathlib import Path

TINY_CLIP_FOLDER = Path(__file__).parent / "base"
"""The encoder's folder, as plain transformers load it."""
