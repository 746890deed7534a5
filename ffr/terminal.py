"""Output on a terminal: a console that foreign words cannot steer, and how tables look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ffr.text import visible


class PlainConsole(Console):
    """A console that shows every character as it is.

    No markup, no emoji codes, and control characters as signs.
    """

    def __init__(self, *, stderr: bool = False, is_coloured: bool = True) -> None:
        super().__init__(
            stderr=stderr,
            color_system="auto" if is_coloured else None,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """A text before it is measured and laid out, so that its signs have their room."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is written, segment by segment.

        The console's own control codes are segments of another kind.
        """
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def plain_table(title: str | None = None) -> Table:
    """A table with a line below its head and no frame."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=title, title_justify="left")
