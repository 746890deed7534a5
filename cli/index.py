"""`ffr index`: the chats that were read, and how to be rid of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.chat_options import ChatCall, answering_options, index_option, model_options
from ffr.cli.model_options import with_options
from ffr.cli.output import progress_bar, say, say_aside
from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.corpus.store import Store


@click.group()
def index() -> None:
    """Read chats beforehand, list those that were read, or forget them."""


@index.command()
@click.argument(
    "chats", nargs=-1, required=True, metavar="CHAT...", type=click.Path(path_type=Path)
)
@with_options(*answering_options)
@click.option(
    "--shard",
    metavar="I/N",
    help="Make the vectors of part I of N alone, for `ffr index merge`; auto: what torchrun gives.",
)
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="Have a Ray cluster make them; local: the cores of this machine.  (extra `ray`)",
)
@click.option(
    "--shards",
    "shard_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where --shard and --ray write vectors.",
)
def add(
    chats: tuple[Path, ...],
    shard: str | None,
    ray_address: str | None,
    shard_folder: Path | None,
    **call: Any,
) -> None:
    """Read chats and make all that a question needs, without asking one.

    CHAT is what `ffr retrieve` takes. What is there already as it is, is not read again.
    With --shard or --ray the vectors are made as files, on any number of machines.
    """
    from ffr.corpus.store import Store
    from ffr.text import counted

    named = ChatCall(chats, **call)
    is_apart = shard is not None or ray_address is not None
    if shard is not None and ray_address is not None:
        raise UsageError("--shard and --ray are two ways of one thing; give one")
    if is_apart != (shard_folder is not None):
        raise UsageError("--shards is the folder of --shard or --ray; give both")
    with Store(named.index_folder, is_new_allowed=True) as store:
        if shard_folder is not None:
            _add_apart(store, named, shard, ray_address, shard_folder)
            return
        read = named.read(store)
        named.open(store, read)
        say(f'{counted(len(read), "chat")} in {store.folder}; next: ffr retrieve "…"')


def _add_apart(
    store: Store, named: ChatCall, words: str | None, ray_address: str | None, folder: Path
) -> None:
    """Reads the chats, and has the vectors of their lines written as files."""
    from ffr.corpus.opening import indexing_parts
    from ffr.corpus.shard_files import Shard
    from ffr.corpus.sharding import embed_shard, patiently
    from ffr.settings import AnswerConfig
    from ffr.text import counted

    shard = Shard(1, 1) if words is None else Shard.of_words(words, os.environ)
    read = patiently(lambda: named.read(store), say_aside)
    encoder, tagger = indexing_parts(store, named.model, AnswerConfig(), named.image_model)
    job: dict[str, Any] = {"say": say_aside, "bar": named.progress}
    if ray_address is None:
        num_made = embed_shard(store, read, encoder, tagger, shard, folder, **job)
    else:
        from ffr.corpus.ray_embedding import embed_by_ray

        num_made = embed_by_ray(store, read, encoder, tagger, ray_address, folder, **job)
    what = "" if shard.of == 1 else f"shard {shard}: "
    say(f"{what}{counted(num_made, 'vector')} made; next: ffr index merge {folder}")


@index.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_options(*model_options)
def merge(
    shards: tuple[Path, ...], index_folder: Path | None, model: str, image_model: str | None
) -> None:
    """Bring the vectors that --shard or --ray made into the index that holds the chats.

    SHARDS are files or folders. The index then is, byte by byte, what one machine makes.
    """
    from ffr.corpus.opening import indexing_parts
    from ffr.corpus.sharding import merge_shards
    from ffr.corpus.store import Store
    from ffr.settings import AnswerConfig
    from ffr.text import counted

    with Store(index_folder) as store:
        encoder, tagger = indexing_parts(store, model, AnswerConfig(), image_model)
        num_added = merge_shards(
            store,
            encoder,
            tagger,
            shards,
            say=say_aside,
            bar=lambda what, total: progress_bar(None, what, total or None),
        )
        say(f'{counted(num_added, "vector")} merged into {store.folder}; next: ffr retrieve "…"')


@index.command("list")
@index_option
def list_command(index_folder: Path | None) -> None:
    """List the chats that a store keeps, with what it takes on the disk."""
    from ffr.corpus.forgetting import finish_forgetting, size_of
    from ffr.corpus.schema import DATABASE
    from ffr.corpus.store import Store, default_store
    from ffr.text import counted, one_line

    folder = default_store() if index_folder is None else index_folder
    if not (folder / DATABASE).is_file():
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
def forget(chats: tuple[str, ...], is_all: bool, index_folder: Path | None) -> None:
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
