"""The embedded default.

A Qwen2-VL architecture of half a million parameters, for trying the tool, for tests and for CI.
"""

from __future__ import annotations

from pathlib import Path

TINY_FOLDER = Path(__file__).parent / "base"
"""The model's folder, as `--model` and plain transformers load it."""
