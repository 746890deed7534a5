"""`ffr index`: the chats that were read, and how to be rid of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.chat_options import ChatCall, answering_options, index_option, model_options
from ffr.cli.model_options import with_options
from ffr.cli.output import print_json, progress_bar, say, say_aside
from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.corpus.store import Store, StoredChat

MOST_FAULTS = 20
"""Faults that are printed; the rest is counted."""


@click.group()
def index() -> None:
    """Read chats beforehand, list who speaks, list and check what was read, or forget it."""


@index.command()
@click.argument("chats", nargs=-1, metavar="[CHAT]...", type=click.Path(path_type=Path))
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

    CHAT is what `ffr retrieve` takes, a folder of such, or a data set by its name. What is there
    already as it is, is not read again. Without CHAT what is missing is made, as the vectors of
    another --encoder. With --shard or --ray the vectors are made as files, on any number of
    machines.
    """
    from ffr.corpus.store import Store
    from ffr.text import counted

    named = ChatCall(chats=chats, **call)
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
        say(f'{counted(len(read), "chat")} in {store.place}; next: ffr retrieve "…"')


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
    chats = patiently(lambda: named.read(store), say_aside) or store.numbers()
    encoder, tagger = indexing_parts(
        store,
        named.model,
        AnswerConfig(),
        encoder=named.encoder,
        image_model=named.image_model,
    )
    job: dict[str, Any] = {"say": say_aside, "bar": named.progress}
    if ray_address is None:
        num_made = embed_shard(store, chats, encoder, tagger, shard, folder, **job)
    else:
        from ffr.corpus.ray_embedding import embed_by_ray

        num_made = embed_by_ray(store, chats, encoder, tagger, ray_address, folder, **job)
    what = "" if shard.of == 1 else f"shard {shard}: "
    say(f"{what}{counted(num_made, 'vector')} made; next: ffr index merge {folder}")


@index.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_options(*model_options)
def merge(
    shards: tuple[Path, ...],
    index_folder: Path | None,
    model: str,
    encoder: str | None,
    image_model: str | None,
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
        kept, tagger = indexing_parts(
            store, model, AnswerConfig(), encoder=encoder, image_model=image_model
        )
        num_added = merge_shards(
            store,
            kept,
            tagger,
            shards,
            say=say_aside,
            bar=lambda what, total: progress_bar(None, what, total or None),
        )
        say(f'{counted(num_added, "vector")} merged into {store.folder}; next: ffr retrieve "…"')


@index.command("list")
@index_option
@click.option("--json", "is_json", is_flag=True, help="Print them as JSON.")
def list_command(index_folder: str | Path | None, is_json: bool) -> None:
    """List the chats that a store keeps, the files that brought them, and its size on the disk."""
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
        if is_json:
            print_json(
                {
                    "folder": store.place,
                    "num_bytes": size_of(store),
                    "chats": [_as_json(chat) for chat in chats],
                }
            )
            return
        for chat in chats:
            say(
                f"{chat.id}  {one_line(chat.title, 60) or '(no title)'} ({chat.app}): {chat.summary}"
            )
            for source in chat.sources:
                say(f"   {source}")
        size = size_of(store)
        say(f"{counted(len(chats), 'chat')}, {size / 1e6:,.1f} MB in {folder}")


@index.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--same", "is_same", is_flag=True, help="These names are one person's, the first's.")
@click.option("--apart", "is_apart", is_flag=True, help="These are people of their own again.")
@index_option
def people(
    names: tuple[str, ...], is_same: bool, is_apart: bool, index_folder: Path | None
) -> None:
    """List who speaks in the chats, or say who is one person under several names.

    `ffr index people --same "Ann" "Ann Lee" "+351 912 345 678"` has them be Ann wherever people are
    asked for or shown. A name counts in all chats; 2/Ann is the Ann of chat 2.
    """
    from ffr.corpus.people import join_people, part_people
    from ffr.corpus.store import Store
    from ffr.text import counted, one_line

    if (is_same and is_apart) or bool(names) != (is_same or is_apart):
        raise UsageError("names go with --same or with --apart; without names, everyone is listed")
    with Store(index_folder) as store:
        if is_same:
            person = join_people(store, names)
            also = ", ".join(one_line(name, 40) for name in person.names[1:])
            chats = counted(len(person.chats), "chat")
            say(f"{one_line(person.name, 40)}{' is also ' if also else ''}{also}, in {chats}")
        elif is_apart:
            number = part_people(store, names)
            said = (
                "1 is a person of its own" if number == 1 else f"{number} are people of their own"
            )
            say(f"{said} again")
        else:
            _list_people(store)


def _list_people(store: Store) -> None:
    from ffr.corpus.people import everyone, perhaps_same
    from ffr.text import counted, one_line

    titles = {chat.id: one_line(chat.title, 40) or "(no title)" for chat in store.chats()}
    found = everyone(store)
    for person in found:
        chats = [f"{titles[number]} (chat {number})" for number in person.chats]
        more = f", and {len(chats) - 5} more" if len(chats) > 5 else ""
        me = " (me)" if person.is_me else ""
        say(
            f"{one_line(person.name, 40)}{me}: {counted(person.num_messages, 'message')} in "
            f"{', '.join(chats[:5])}{more}"
        )
        if len(person.names) > 1:
            say(f"   also {', '.join(one_line(name, 40) for name in person.names[1:])}")
    say(counted(len(found), "person", "people"))
    for people_ in perhaps_same(store):
        names = " ".join(f'"{one_line(person.name, 40)}"' for person in people_)
        say(f"perhaps one person, by a number: ffr index people --same {names}")


@index.command()
@index_option
def verify(index_folder: str | Path | None) -> None:
    """Check every message, vector, digest and file of a store.

    Exit code 0 where all is as it was written, 1 where something is not, with what to do.
    """
    from ffr.corpus.store import Store
    from ffr.corpus.verifying import verify as look_through
    from ffr.errors import DataError
    from ffr.text import counted

    with Store(index_folder) as store:
        verdict = look_through(store)
        for line in [*verdict.notes, *verdict.faults[:MOST_FAULTS]]:
            say(line)
        if len(verdict.faults) > MOST_FAULTS:
            say(f"… and {counted(len(verdict.faults) - MOST_FAULTS, 'fault')} more")
        looked = ", ".join(f"{number:,} {what}" for what, number in verdict.num_checked.items())
        if not verdict.is_whole:
            raise DataError(
                f"{counted(len(verdict.faults), 'fault')} in {looked}", where=store.place
            )
        how = "byte for byte as it was written" if verdict.was_sealed else "well, and sealed now"
        say(f"{store.place}: {'well' if store.is_remote else how}; {looked}")


@index.command()
@index_option
def compact(index_folder: str | Path | None) -> None:
    """Pack a store: what nobody has any more, and vectors that are damaged, leave the disk.

    The next `ffr index add`, or question, makes vectors again that are missing.
    """
    from ffr.corpus.store import Store
    from ffr.corpus.verifying import compact_store

    with Store(index_folder) as store:
        before, after = compact_store(store)
        say(f"{store.place}: {before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB now")


def _as_json(chat: StoredChat) -> dict[str, Any]:
    first, last = (None if day is None else day.isoformat() for day in (chat.first, chat.last))
    return {
        "id": chat.id,
        "title": chat.title,
        "app": chat.app,
        "num_messages": chat.num_messages,
        "num_pictures": chat.num_pictures,
        "num_missing": chat.num_missing,
        "num_people": chat.num_people,
        "first": first,
        "last": last,
        "sources": list(chat.sources),
    }


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
