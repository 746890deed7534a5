"""`ffr retrieve`: the part of a chat that a question means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ffr.cli.chat_options import ChatCall, answering_options
from ffr.cli.filter_options import FilterCall, ShownCall, filter_options, shown_options
from ffr.cli.model_options import with_options
from ffr.cli.output import say
from ffr.errors import UsageError


@click.command()
@click.argument("query")
@click.argument(
    "chats", nargs=-1, metavar="[CHAT]...", type=click.Path(path_type=Path, exists=False)
)
@click.option(
    "--top", type=click.IntRange(1), default=3, show_default=True, help="How many fragments."
)
@click.option("--interactive", is_flag=True, help="Ask on, one question a line.")
@with_options(*filter_options, *answering_options, *shown_options)
def retrieve(
    query: str,
    chats: tuple[Path, ...],
    top: int,
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
    from ffr.corpus.store import Store

    shown = ShownCall(html, is_json, plain)
    if interactive and is_json:
        raise UsageError("--interactive and --json are two ways to be answered; choose one")
    narrowing = FilterCall.taken_from(call)
    named = ChatCall(chats=chats, **call)
    with Store(named.index_folder, is_new_allowed=bool(chats)) as store:
        filters = narrowing.filters(store, named.read(store))
        archive = named.open(store, filters.chats)
        shown.show(archive.ask(query, filters, top=top), archive)
        while interactive:
            try:
                query = click.prompt("", prompt_suffix="? ", default="", show_default=False)
            except click.Abort:
                say()
                return
            if not query.strip():
                return
            shown.show(archive.ask(query, filters, top=top), archive)
