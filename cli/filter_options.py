"""What narrows a search down, and how what was found is shown: shared by retrieve and search."""

from __future__ import annotations

import os
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.model_options import Option
from ffr.cli.output import print_json, say_aside
from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.corpus.archive import Archive
    from ffr.corpus.filters import Filters
    from ffr.corpus.found import Found
    from ffr.corpus.store import Store


class _Days(click.ParamType):  # type: ignore[type-arg]
    """A day, a month or a year, as its first and its last day."""

    name = "day"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[date, date]:
        year, month, day = (*(int(part) for part in _parts(str(value))), None, None)[:3]
        try:
            first = date(year or 0, month or 1, day or 1)
            last_month = month or 12
        except ValueError:
            self.fail(f"{value} is no day; write 2023-05-12, 2023-05 or 2023", param, ctx)
        if day is not None:
            return first, first
        return first, date(first.year, last_month, monthrange(first.year, last_month)[1])


def _parts(written: str) -> list[str]:
    """Year, month and day as digits, as many as are written; none where it is no such thing."""
    parts = written.strip().split("-")
    is_one = len(parts) <= 3 and all(part.isascii() and part.isdigit() for part in parts)
    return parts if is_one and len(parts[0]) == 4 and max(map(len, parts)) <= 4 else ["0"]


filter_options: tuple[Option, ...] = (
    click.option(
        "--chat", "titles", multiple=True, metavar="TITLE", help="Only this chat, or these."
    ),
    click.option(
        "--by", multiple=True, metavar="NAME", help="Somebody who speaks in it, or several."
    ),
    click.option(
        "--since", type=_Days(), metavar="DAY", help="Its first day: 2023-05-12, 2023-05, 2023."
    ),
    click.option("--until", type=_Days(), metavar="DAY", help="Its last day, which counts."),
    click.option(
        "--has",
        type=click.Choice(["photo", "video", "voice", "file", "link", "sticker"]),
        help="What it carries.",
    ),
)

shown_options: tuple[Option, ...] = (
    click.option(
        "--html",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write what was found as one page.",
    ),
    click.option("--json", "is_json", is_flag=True, help="Print what was found as JSON."),
    click.option("--plain", is_flag=True, help="No colours, no pictures."),
)


@dataclass(frozen=True)
class FilterCall:
    """What was said to narrow a search down.

    Args:
        titles: Titles or numbers of chats.
        by: Names of people.
        since: First and last day of its first day.
        until: First and last day of its last day.
        has: What it carries.
    """

    titles: tuple[str, ...]
    by: tuple[str, ...]
    since: tuple[date, date] | None
    until: tuple[date, date] | None
    has: str | None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> FilterCall:
        """Takes what narrows down out of the values of all options."""
        return cls(**{name: given.pop(name) for name in ("titles", "by", "since", "until", "has")})

    def filters(self, store: Store, read: tuple[int, ...] = ()) -> Filters:
        """The filters.

        Args:
            store: Has the chats.
            read: Numbers of the chats that are meant if no title is named; none for all.

        Raises:
            UsageError: where there is no such chat, or no day is left.
        """
        from ffr.corpus.filters import Filters

        if self.titles:
            read = tuple(store.named(title, read).id for title in self.titles)
        return Filters(
            read,
            self.by,
            None if self.since is None else self.since[0],
            None if self.until is None else self.until[1],
            self.has or "",
        )


@dataclass(frozen=True)
class ShownCall:
    """How what was found is shown.

    Args:
        html: The page to write.
        is_json: Whether it is printed as JSON.
        plain: Whether colours and pictures are left out.
        says_how: Whether each hit says how it was found.

    Raises:
        UsageError: where the page's name is not one of a page.
    """

    html: Path | None
    is_json: bool
    plain: bool
    says_how: bool = False

    def __post_init__(self) -> None:
        if self.html is not None and self.html.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--html {self.html} is no page; let its name end in .html")

    def show(self, found: Found, archive: Archive) -> None:
        """Prints what was found, and writes the page."""
        from ffr.report.found import found_as_json, print_found
        from ffr.terminal import PlainConsole

        if self.is_json:
            print_json(found_as_json(found))
        else:
            environment = {} if self.plain else os.environ
            console = PlainConsole(is_coloured=not self.plain)
            print_found(
                found, archive.store, console, environment=environment, says_how=self.says_how
            )
        self.write_page([found], archive, found.query)

    def write_page(self, found: Sequence[Found], archive: Archive, title: str) -> None:
        """Writes the page, where one is asked for."""
        if self.html is not None:
            from ffr.files import replace_text
            from ffr.page.standalone import fragment_page
            from ffr.text import counted

            replace_text(self.html, fragment_page(found, archive.store, title=title))
            size = counted(sum(len(one.hits) for one in found), "fragment")
            say_aside(f"{self.html}: {size}, in one file; open it in a browser")
