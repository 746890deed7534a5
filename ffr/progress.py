"""How far a piece of work is, told as it goes."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Is told how many answers there are and how many there will be."""
