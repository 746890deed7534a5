"""`ffr index`: the chats that were read, and how to be rid of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ffr.cli.chat_options import ChatCall, answering_options, index_option
from ffr.cli.model_options import with_options
from ffr.cli.output import say
from ffr.errors import UsageError


@click.group()
def index() -> None:
    """Read chats beforehand, list those that were read, or forget them."""


@index.command()
@click.argument(
    "chats", nargs=-1, required=True, metavar="CHAT...", type=click.Path(path_type=Path)
)
@with_options(*answering_options)
def add(chats: tuple[Path, ...], **call: Any) -> None:
    """Read chats and make all that a question needs, without asking one.

    CHAT is what `ffr retrieve` takes. What is there already as it is, is not read again.
    """
    from ffr.corpus.store import Store
    from ffr.text import counted

    named = ChatCall(chats, **call)
    with Store(named.index_folder, is_new_allowed=True) as store:
        read = named.read(store)
        named.open(store, read)
        say(f'{counted(len(read), "chat")} in {store.place}; next: ffr retrieve "…"')


@index.command("list")
@index_option
def list_command(index_folder: str | Path | None) -> None:
    """List the chats that a store keeps, with what it takes on the disk."""
    from ffr.corpus.forgetting import finish_forgetting, size_of
    from ffr.corpus.schema import DATABASE
    from ffr.corpus.store import Store, default_store
    from ffr.text import counted, one_line

    folder = default_store() if index_folder is None else index_folder
    if isinstance(folder, Path) and not (folder / DATABASE).is_file():
        say(f'No chat is kept in {folder}; `ffr retrieve "…" CHAT` reads one')
        return
    with Store(folder) as store:
        finish_forgetting(store)
        chats = store.chats()
        for chat in chats:
            say(
                f"{chat.id}  {one_line(chat.title, 60) or '(no title)'} ({chat.app}): {chat.summary}"
            )
            for source in chat.sources:
                say(f"   {source}")
        size = size_of(store)
        say(f"{counted(len(chats), 'chat')}, {size / 1e6:,.1f} MB in {folder}")


@index.command()
@click.argument("chats", nargs=-1, metavar="[TITLE|NUMBER]...")
@click.option("--all", "is_all", is_flag=True, help="All of them: the whole folder.")
@index_option
def forget(chats: tuple[str, ...], is_all: bool, index_folder: str | Path | None) -> None:
    """Take chats off the disk: their words, vectors and small pictures.

    The exports that they were read from stay where they are.
    """
    from ffr.corpus.forgetting import forget_chats, forget_store
    from ffr.corpus.store import Store, default_store
    from ffr.text import counted

    if bool(chats) == is_all:
        raise UsageError("name the chats to forget, as `ffr index list` shows them, or give --all")
    folder = default_store() if index_folder is None else index_folder
    if is_all:
        forget_store(folder)
        say(f"{folder}: forgotten, with all that was in it")
        return
    with Store(folder) as store:
        ids = [store.named(name).id for name in chats]
        forget_chats(store, ids)
        say(f"{folder}: {counted(len(set(ids)), 'chat')} forgotten")
