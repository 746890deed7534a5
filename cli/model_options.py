"""What commands that ask a model of a data set share: their options and the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ffr.progress import Progress

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

BATCH_TOKENS = click.option(
    "--batch-tokens", type=click.IntRange(1), default=16_384, show_default=True, help="Prompt tokens at once."
)
MAX_NEW_TOKENS = click.option(
    "--max-new-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest answer."
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
DTYPE = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="Type of the weights. [default: auto = float32 on a CPU, as in the files on a GPU]",
)
LIMIT = click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N queries only.")
SKIP_BAD = click.option("--skip-bad", is_flag=True, help="Leave bad records out, counted, instead of stopping.")
IMAGE_ROOT = click.option(
    "--image-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder that image paths are relative to."
)
TEMPLATE = click.option(
    "--template", type=click.Choice(["zh", "en"]), help="Prompt template. [default: the model's, else the file's]"
)
QUERY_POSITION = click.option(
    "--query-position",
    type=click.Choice(["first", "last"]),
    help="Query before or after the dialogue. [default: likewise]",
)
TRUST_REMOTE_CODE = click.option(
    "--trust-remote-code", is_flag=True, help="Run code that comes with the model; only for a model you trust."
)
PROGRESS = click.option(
    "--progress/--no-progress", default=None, help="Progress bar. [default: where stderr is a terminal]"
)


def data_options(*, split: str) -> tuple[Option, ...]:
    """`--dataset` and `--split`.

    Args:
        split: The default part of a named set.
    """
    return (
        click.option(
            "--dataset", default="sample", show_default=True, metavar="NAME|PATH", help="A named set or a data file."
        ),
        click.option("--split", default=split, show_default=True, help="Part of a named set."),
    )


def with_options(*options: Option) -> Option:
    """A command with options, which help lists in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class progress_bar:  # noqa: N801 - reads as the function it stands for
    """A bar on stderr, or nothing.

    Args:
        asked: Whether it is wanted; None where stderr is a terminal.
        total: How many items there are.
        what: What they are.
    """

    def __init__(self, asked: bool | None, total: int, what: str = "answers") -> None:
        import sys

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        is_shown = sys.stderr.isatty() if asked is None else asked
        self._bar = Bar(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not is_shown,
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._advance

    def _advance(self, num_done: int, num_total: int) -> None:
        self._bar.update(self._task, completed=num_done, total=num_total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
