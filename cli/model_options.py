"""What commands that ask a model of a data set share: their options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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
