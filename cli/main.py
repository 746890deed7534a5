"""The `ffr` command.

Its groups are imported when they are called, its errors become one sentence and an exit code.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ffr import __version__
from ffr.cli.output import say_aside
from ffr.errors import FfrError
from ffr.text import visible

_COMMANDS = {
    # name: (module, attribute, one line for `ffr --help`), in the order that help shows
    "quickstart": (
        "ffr.cli.quickstart",
        "quickstart",
        "Make the sample, train on it, and measure, in one go.",
    ),
    "retrieve": ("ffr.cli.retrieve", "retrieve", "Find the part of a chat that a question means."),
    "search": ("ffr.cli.search", "search", "Search all chats that were read, many at once."),
    "serve": ("ffr.cli.serve", "serve", "Search and read chats on a page in your browser."),
    "index": ("ffr.cli.index", "index", "Read chats, list those that were read, forget them."),
    "train": ("ffr.cli.train", "train", "Train a model: sft, then grpo."),
    "curriculum": ("ffr.cli.curriculum", "curriculum", "Find out what is hard for a model."),
    "eval": ("ffr.cli.eval", "eval_command", "Measure a model, a baseline, or a prediction file."),
    "bench": ("ffr.cli.bench", "bench", "Measure a table of models, settings and data sets."),
    "compare": ("ffr.cli.compare", "compare", "Set results on the same data side by side."),
    "gate": ("ffr.cli.gate", "gate", "Pass or fail a result against a baseline."),
    "report": ("ffr.cli.report", "report", "Write an evaluation as a web page to look at."),
    "show": ("ffr.cli.show", "show", "Print a dialogue with what is true and what was found."),
    "runs": ("ffr.cli.runs", "runs", "List training runs, look at one, clear away what failed."),
    "card": ("ffr.cli.card", "card", "Write figures into a model's card, or check every digit."),
    "push": ("ffr.cli.push", "push", "Upload a run's model with its card to the hub."),
    "export": ("ffr.cli.export", "export", "Write a tower or an encoder as ONNX, and measure it."),
    "data": ("ffr.cli.data", "data", "Check, count, convert, build and download dialogue files."),
    "doctor": ("ffr.cli.doctor", "doctor", "Show versions, devices and data, and what is missing."),
    "completion": ("ffr.cli.completion", "completion", "Print the shell's completion script."),
}


_NOBODY_READS = 141
"""The exit code of a process that a broken pipe ended: 128 and the signal's number."""


_OUTSIDE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENAMETOOLONG,
    }
)
"""What a disk may do to any command; no fault of ours."""


class _LazyGroup(click.Group):
    """A group whose commands are imported only when one is run or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with _quiet_where_nobody_reads():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _quiet_where_nobody_reads():
                return super().invoke(ctx)
        except FfrError as error:
            raise _Failure(error) from error
        except KeyboardInterrupt:
            raise _Stopped from None
        except OSError as error:
            if error.errno not in _OUTSIDE:
                raise
            place = f"{error.filename}: " if error.filename else ""
            raise _Failure(
                FfrError(
                    f"{place}{error.strerror}; see to its room and its rights, or name another "
                    "place"
                )
            ) from error


@contextmanager
def _quiet_where_nobody_reads() -> Iterator[None]:
    """Ends as a signal would where the reader of our output has gone (`ffr … | head`).

    Nothing is left to say.
    """
    try:
        yield
    except BrokenPipeError:
        # or Python would find the pipe broken once more as it ends, and say so
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(_NOBODY_READS) from None


class _Failure(click.ClickException):
    def __init__(self, error: FfrError) -> None:
        super().__init__(visible(str(error)))
        setattr(self, "exit_code", error.exit_code)  # noqa: B010 - click declares it on the class


class _Stopped(click.ClickException):
    """Ctrl-C where a command does not itself see to it, as trainings do between two steps."""

    exit_code = 130  # 128 and the signal's number, as shells have it

    def __init__(self) -> None:
        super().__init__("stopped by Ctrl-C; what was written whole stays")

    def show(self, file: Any = None) -> None:
        say_aside(f"\n{self.message}")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ffr")
def ffr() -> None:
    """Fine-grained fragment retrieval: find the part of a long chat that a query means.

    A part is words and pictures.
    """


def main() -> None:
    """Runs the command line; the entry point of the `ffr` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal that cannot show a character shows its number, and the work is not lost
            stream.reconfigure(errors="backslashreplace")
    ffr.main(standalone_mode=True)


if __name__ == "__main__":
    main()
