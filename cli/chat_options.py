"""What the commands share that are given chats: the exports, the store, how they are read and cut."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.model_options import Option
from ffr.cli.output import progress_bar, say_aside
from ffr.errors import UsageError

if TYPE_CHECKING:
    from ffr.corpus.archive import Archive
    from ffr.corpus.store import Store
    from ffr.progress import Progress


class _Index(click.Path):
    """A folder, or the URL of a server, in which no two strokes become one."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


index_option: Option = click.option(
    "--index",
    "index_folder",
    type=_Index(),
    metavar="DIR|URL",
    help="Folder that keeps what was read, or postgresql://HOST/DATABASE.  "
    "[default: ~/.cache/ffr/index]",
)

image_model_option: Option = click.option(
    "--image-model",
    metavar="NAME",
    help="What says what pictures show: a CLIP or SigLIP folder.  [default: the image tagger]",
)

encoder_option: Option = click.option(
    "--encoder",
    metavar="NAME",
    help="Whose vectors find dialogues: a folder of sentence-transformers, CLIP or SigLIP, or what "
    "else `ffr eval --model embedding:NAME` takes.  [default: the reader's]",
)

form_option: Option = click.option(
    "--as", "form", metavar="FORM", help="The form of the exports, such as whatsapp."
)

reading_options: tuple[Option, ...] = (
    click.option("--me", metavar="NAME", help="Whose export it is, where it does not tell."),
    click.option(
        "--date-order",
        type=click.Choice(["dmy", "mdy", "ymd"]),
        help="Day, month and year, where an export can be read two ways.",
    ),
    click.option(
        "--pause",
        "pause_hours",
        type=click.FloatRange(min=0),
        default=8.0,
        show_default=True,
        metavar="HOURS",
        help="A dialogue ends where nobody wrote for so long; 0: nowhere.",
    ),
    click.option(
        "--max-messages",
        type=click.IntRange(min=0),
        default=120,
        show_default=True,
        help="The longest dialogue; 0: no bound.",
    ),
)

model_options: tuple[Option, ...] = (
    index_option,
    click.option(
        "--model",
        default="reader",
        show_default=True,
        metavar="NAME",
        help="What answers, as for `ffr eval`.",
    ),
    encoder_option,
    image_model_option,
)

answering_options: tuple[Option, ...] = (*model_options, form_option, *reading_options)


@dataclass(frozen=True, kw_only=True)
class ArchiveCall:
    """What was said about an archive and how it is asked.

    Args:
        index_folder: The store; None for the default one.
        model: What answers.
        encoder: As in `open_archive`.
        image_model: Likewise.
        bar: Whether bars are shown; None where stderr is a terminal.
    """

    index_folder: str | Path | None
    model: str
    encoder: str | None
    image_model: str | None
    bar: bool | None = None

    def open(
        self,
        store: Store,
        chats: Sequence[int] = (),
        *,
        has_vectors: bool = False,
        ways: Sequence[str] | None = None,
    ) -> Archive:
        """The store with its model, indexed.

        Args:
            store: The store.
            chats: Those that are asked; none for all.
            has_vectors: As in `open_archive`.
            ways: Likewise; None for all.
        """
        with _uncollected():
            from ffr.corpus.opening import open_archive
            from ffr.corpus.ways import WAYS
            from ffr.settings import AnswerConfig

        return open_archive(
            store,
            self.model,
            AnswerConfig(),
            chats=chats,
            encoder=self.encoder,
            has_vectors=has_vectors,
            ways=WAYS if ways is None else ways,
            image_model=self.image_model,
            say=say_aside,
            bar=self.progress,
        )

    def progress(self, what: str, total: int) -> AbstractContextManager[Progress]:
        """A bar of one piece of work."""
        return progress_bar(self.bar, what, total or None)


@contextmanager
def _uncollected() -> Iterator[None]:
    """The first imports within are not looked through for garbage, neither meanwhile nor later.

    That had taken .7 s of the 3.0 of a question on 100,000 messages (benchmarks/README.md): whatever
    makes many objects has all that there are looked through.
    """
    is_first, is_on = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_first:
            gc.freeze()
        if is_on:
            gc.enable()


def check_filled(store: Store) -> None:
    """Refuses a store that has no chat.

    Raises:
        UsageError: likewise.
    """
    if not store.numbers():
        raise UsageError(
            f"{store.place} has no chat yet; name an export: a file, a folder or a zip archive"
        )


@dataclass(frozen=True, kw_only=True)
class ChatCall(ArchiveCall):
    """What was said about chats, and how they are asked.

    Args:
        chats: Exports, folders or data files; none for all that the store has.
        form: As in `read_export`.
        me: Whose export it is.
        date_order: As in `ReadChoices`.
        pause_hours: As in `Cutting`.
        max_messages: Likewise.
    """

    chats: Sequence[Path]
    form: str | None
    me: str | None
    date_order: str | None
    pause_hours: float
    max_messages: int

    def read(self, store: Store) -> tuple[int, ...]:
        """Reads what has changed into the store; the numbers of the chats that are meant.

        Raises:
            UsageError: where nothing is named and the store is empty.
        """
        if not self.chats:
            # a question on what is kept is answered without the readers of exports
            check_filled(store)
            return ()
        from ffr.chats.cutting import Cutting
        from ffr.chats.stream import ReadChoices
        from ffr.corpus.opening import read_export
        from ffr.corpus.sources import sources_of

        found: list[int] = []
        named = [path for name in self.chats for path in sources_of(name, self.form, say_aside)]
        for path in named:
            read = read_export(
                store,
                path,
                Cutting(self.pause_hours, self.max_messages),
                form=self.form,
                choices=ReadChoices(self.date_order, self.me),
                say=say_aside,
                bar=self.progress,
            )
            found += read.chats
        return tuple(dict.fromkeys(found))
