"""Output on a terminal: a console that foreign words cannot steer, and how tables look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ffr.text import one_line, visible


class PlainConsole(Console):
    """A console that shows every character as it is.

    No markup, no emoji codes, and control characters as signs.

    Args:
        stderr: Whether it writes to standard error.
        is_coloured: Whether it may have colours.
        file: What it writes to in the place of the terminal.
        width: Its columns; None for those of the terminal.
    """

    def __init__(
        self,
        *,
        stderr: bool = False,
        is_coloured: bool = True,
        file: IO[str] | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__(
            stderr=stderr,
            file=file,
            width=width,
            color_system="auto" if is_coloured else None,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """A text before it is measured and laid out, so that its signs have their room."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What is written, segment by segment.

        The console's own control codes are segments of another kind.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class Label:
    """A name in a table that gives way to the figures beside it: cut in its middle, on one line.

    Put it into a column that may wrap, beside columns that may not.

    >>> Label("a/long/path/to/model").within(12)
    'a/l…to/model'
    """

    LEAST_WIDTH = 8
    """Cells that are kept at least."""

    def __init__(self, text: str, style: str = "") -> None:
        self._text, self._style = one_line(text), style

    def within(self, width: int) -> str:
        """The name in so many cells at most: its beginning and, twice as long, its end."""
        if cell_len(self._text) <= width:
            return self._text
        before = (width - 1) // 3
        begin = set_cell_size(self._text, before)
        end = self._text
        while cell_len(end) > width - 1 - before:
            end = end[1:]
        return f"{begin}…{end}"

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = cell_len(self._text)
        return Measurement(min(width, self.LEAST_WIDTH), width).with_maximum(options.max_width)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType]:
        yield Text(self.within(options.max_width), style=self._style, no_wrap=True)


def plain_table(title: str | None = None) -> Table:
    """A table with a line below its head and no frame."""
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left"
    )
