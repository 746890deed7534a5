"""`ffr retrieve`: the part of a chat that a question means."""

from __future__ import annotations

import os
from calendar import monthrange
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.chat_options import ChatCall, answering_options
from ffr.cli.model_options import with_options
from ffr.cli.output import print_json, say, say_aside
from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.corpus.archive import Archive
    from ffr.corpus.filters import Filters


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


@click.command()
@click.argument("query")
@click.argument(
    "chats", nargs=-1, metavar="[CHAT]...", type=click.Path(path_type=Path, exists=False)
)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="How many fragments."
)
@click.option("--chat", "titles", multiple=True, metavar="TITLE", help="Only this chat, or these.")
@click.option("--by", multiple=True, metavar="NAME", help="Somebody who speaks in it, or several.")
@click.option(
    "--since", type=_Days(), metavar="DAY", help="Its first day: 2023-05-12, 2023-05, 2023."
)
@click.option("--until", type=_Days(), metavar="DAY", help="Its last day, which counts.")
@click.option(
    "--has",
    type=click.Choice(["photo", "video", "voice", "file", "link", "sticker"]),
    help="What it carries.",
)
@with_options(*answering_options)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what was found as one page.",
)
@click.option("--json", "is_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--interactive", is_flag=True, help="Ask on, one question a line.")
@click.option("--plain", is_flag=True, help="No colours, no pictures.")
def retrieve(
    query: str,
    chats: tuple[Path, ...],
    top: int,
    titles: tuple[str, ...],
    by: tuple[str, ...],
    since: tuple[date, date] | None,
    until: tuple[date, date] | None,
    has: str | None,
    html: Path | None,
    is_json: bool,
    interactive: bool,
    plain: bool,
    **call: Any,
) -> None:
    """Find the part of a chat that QUERY means, words and pictures together.

    CHAT is what an app exports, as it comes: a file, a folder or a zip archive of WhatsApp,
    Telegram, WeChat, Slack, Discord, Messenger, Instagram or LINE; or a data file. It is read once,
    and kept in a folder that only you can read; nothing leaves this machine. Without CHAT all
    chats are asked that were read before.

    Nothing found is an answer too: exit code 0.
    """
    from ffr.corpus.filters import Filters
    from ffr.corpus.store import Store

    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html {html} is no page; let its name end in .html")
    if interactive and is_json:
        raise UsageError("--interactive and --json are two ways to be answered; choose one")
    named = ChatCall(chats, **call)
    with Store(named.index_folder, is_new_allowed=bool(chats)) as store:
        read = named.read(store)
        if titles:
            read = tuple(store.named(title, read).id for title in titles)
        filters = Filters(
            read,
            by,
            None if since is None else since[0],
            None if until is None else until[1],
            has or "",
        )
        archive = named.open(store, read)
        _answer(archive, query, filters, top, html=html, is_json=is_json, plain=plain)
        while interactive:
            try:
                query = click.prompt("", prompt_suffix="? ", default="", show_default=False)
            except click.Abort:
                say()
                return
            if not query.strip():
                return
            _answer(archive, query, filters, top, html=html, is_json=False, plain=plain)


def _answer(
    archive: Archive,
    query: str,
    filters: Filters,
    top: int,
    *,
    html: Path | None,
    is_json: bool,
    plain: bool,
) -> None:
    from ffr.report.found import found_as_json, print_found
    from ffr.terminal import PlainConsole

    found = archive.ask(query, filters, top=top)
    if is_json:
        print_json(found_as_json(found))
    else:
        environment = {} if plain else os.environ
        console = PlainConsole(is_coloured=not plain)
        print_found(found, archive.store, console, environment=environment)
    if html is not None:
        from ffr.files import replace_text
        from ffr.page.standalone import fragment_page
        from ffr.text import counted

        replace_text(html, fragment_page(found, archive.store, title=query))
        say_aside(
            f"{html}: {counted(len(found.hits), 'fragment')}, in one file; open it in a browser"
        )
