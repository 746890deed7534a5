"""What a piece of work tells while it goes on: a line, and how far it is."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line for the person who waits."""

Progress = Callable[[int, int | None], None]
"""Is told how much is done and how much there is in all (None where that is not known)."""
