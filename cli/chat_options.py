"""What the commands share that are given chats: the exports, the store, how they are read and cut."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
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

answering_options: tuple[Option, ...] = (
    index_option,
    click.option(
        "--model",
        default="reader",
        show_default=True,
        metavar="NAME",
        help="What answers, as for `ffr eval`.",
    ),
    click.option(
        "--image-model",
        metavar="NAME",
        help="What says what pictures show: a CLIP or SigLIP folder.  [default: the image tagger]",
    ),
    form_option,
    *reading_options,
)


@dataclass(frozen=True)
class ChatCall:
    """What was said about chats and how they are asked.

    Args:
        chats: Exports, folders or data files; none for all that the store has.
        index_folder: The store; None for the default one.
        model: What answers.
        image_model: As in `open_archive`.
        form: As in `read_export`.
        me: Whose export it is.
        date_order: As in `ReadChoices`.
        pause_hours: As in `Cutting`.
        max_messages: Likewise.
        bar: Whether bars are shown; None where stderr is a terminal.
    """

    chats: Sequence[Path]
    index_folder: str | Path | None
    model: str
    image_model: str | None
    form: str | None
    me: str | None
    date_order: str | None
    pause_hours: float
    max_messages: int
    bar: bool | None = None

    def read(self, store: Store) -> tuple[int, ...]:
        """Reads what has changed into the store; the numbers of the chats that are meant.

        Raises:
            UsageError: where nothing is named and the store is empty.
        """
        from ffr.chats.cutting import Cutting
        from ffr.chats.stream import ReadChoices
        from ffr.corpus.opening import read_export

        found: list[int] = []
        for path in self.chats:
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
        if not self.chats and not store.numbers():
            raise UsageError(
                f"{store.place} has no chat yet; name an export: a file, a folder or a zip archive"
            )
        return tuple(dict.fromkeys(found))

    def open(self, store: Store, chats: Sequence[int]) -> Archive:
        """The store with its model, indexed."""
        from ffr.corpus.opening import open_archive
        from ffr.settings import AnswerConfig

        return open_archive(
            store,
            self.model,
            AnswerConfig(),
            chats=chats,
            image_model=self.image_model,
            say=say_aside,
            bar=self.progress,
        )

    def progress(self, what: str, total: int) -> AbstractContextManager[Progress]:
        """A bar of one piece of work."""
        return progress_bar(self.bar, what, total or None)
