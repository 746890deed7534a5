"""Two chats to try things on, one in English and one in Chinese, with pictures, queries and true answers."""

from __future__ import annotations

from pathlib import Path

CHATS_FILE = Path(__file__).parent / "chats.jsonl"
"""In the raw form; `scripts/draw_chats.py` makes it."""
