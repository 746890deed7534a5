"""What commands share: how options are added, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffr.progress import Progress

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def with_options(*options: Option) -> Option:
    """A command with options, which help lists in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class progress_bar:  # noqa: N801 - reads as the function it stands for
    """A bar on stderr, or nothing.

    Args:
        asked: Whether it is wanted; None where stderr is a terminal.
        total: How many items there are.
        what: What they are.
    """

    def __init__(self, asked: bool | None, total: int, what: str = "answers") -> None:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        is_shown = sys.stderr.isatty() if asked is None else asked
        self._bar = Bar(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._advance

    def _advance(self, num_done: int, num_total: int) -> None:
        self._bar.update(self._task, completed=num_done, total=num_total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
