"""What the commands print.

Lines that nothing foreign can steer, JSON, and bars that show how far a piece of work is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ffr.text import json_text, visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from ffr.progress import Progress

_bars: list[Bar] = []
"""Those that are seen now."""


def say(text: str = "") -> None:
    """Prints a line, or several."""
    _print(text, is_aside=False)


def say_aside(text: str) -> None:
    """Prints a line to the error stream, where it does not stand in the way of what is printed."""
    _print(text, is_aside=True)


def _print(text: str, *, is_aside: bool) -> None:
    # a line would stand behind a bar on the same row
    for bar in reversed(_bars):
        bar.stop()
    click.echo(visible(text), err=is_aside)
    for bar in _bars:
        bar.start()


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints a value as JSON, on one line where `indent` is None.

    Raises:
        ValueError: for a number that is not finite, which JSON cannot say.
    """
    click.echo(json_text(value, indent=indent))


class progress_bar:  # noqa: N801 - reads as the function it stands for
    """A bar on stderr that is gone once the work is done, or nothing.

    Args:
        asked: Whether it is wanted; None where stderr is a terminal.
        what: What is done, or what is counted; it stands before the bar.
        total: How many items there are; None until it is told.
        unit: What stands behind the numbers; `bytes` shows sizes and speed.
    """

    def __init__(
        self, asked: bool | None, what: str, total: int | None = None, *, unit: str = ""
    ) -> None:
        import sys

        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        from ffr.terminal import PlainConsole

        is_shown = sys.stderr.isatty() if asked is None else asked
        counts: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(unit)]
        if unit == "bytes":
            counts = [DownloadColumn(), TransferSpeedColumn()]
        self._bar = Bar(
            TextColumn(what),
            BarColumn(),
            *counts,
            TimeRemainingColumn(),
            console=PlainConsole(stderr=True),
            disable=not is_shown,
            transient=True,
        )
        self._is_shown = is_shown
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        if self._is_shown:
            _bars.append(self._bar)
        return self._advance

    def _advance(self, num_done: int, num_total: int | None) -> None:
        self._bar.update(self._task, completed=num_done, total=num_total)

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            _bars.remove(self._bar)
        self._bar.stop()
