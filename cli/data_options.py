"""The options that commands on data share, and what they say alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.cli.output import say
from ffr.errors import UsageError
from ffr.text import counted, one_line

if TYPE_CHECKING:
    from ffr.data.check import CheckReport

PATH_TYPE = click.Path(path_type=Path)
image_root_option = click.option(
    "--image-root",
    type=PATH_TYPE,
    help="Folder that image paths are relative to.  [default: the file's own]",
)
target_option = click.option(
    "--out",
    "target",
    type=PATH_TYPE,
    required=True,
    help="The file to write (.json or .jsonl, or .gz of them).",
)
skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Leave out records that cannot be used, and say how many."
)
split_option = click.option(
    "--split", default="val", show_default=True, help="Part of a named set or folder."
)
template_option = click.option(
    "--template",
    type=click.Choice(["zh", "en"]),
    default="zh",
    show_default=True,
    help="Words of prompts that are made.",
)
query_position_option = click.option(
    "--query-position",
    type=click.Choice(["first", "last"]),
    default="first",
    show_default=True,
    help="Where the query stands in prompts that are made.",
)
force_option = click.option(
    "--force", is_flag=True, help="Put the result in the place of what is there."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_NUM_ALIKE = 5
"""Faults that are alike and shown; the others are counted."""


def print_report(report: CheckReport, *, with_all: bool) -> None:
    """Prints the faults of a file, of many alike the first, and how many records are good.

    Args:
        report: What the check found.
        with_all: Print every fault, however many are alike.
    """
    for faults in report.alike_errors():
        shown = faults if with_all or len(faults) == _NUM_ALIKE + 1 else faults[:_NUM_ALIKE]
        for fault in shown:
            say(one_line(f"{fault.where}: {fault.message}", 1000))
        if len(shown) < len(faults):
            say(
                f"… and {len(faults) - len(shown):,} more like {shown[-1].where}, the last at "
                f"{faults[-1].where}; --all lists them"
            )
    for fault, count in report.grouped_warnings():
        often = f" (in {counted(count, 'record')})" if count > 1 else ""
        say(one_line(f"warning: {fault.where}: {fault.message}", 1000) + often)
    num_bad = report.num_records - report.num_good
    say(
        f"{report.path.name}: {report.num_good:,} of {report.num_records:,} records good, "
        f"{num_bad:,} bad; "
        f"{counted(len(report.errors), 'fault')}, {counted(len(report.warnings), 'warning')}; "
        f"{counted(report.num_dialogues, 'dialogue')}, {counted(report.num_examples, 'query')}, "
        f"{counted(report.num_image_files, 'picture')} looked at"
    )
    if num_bad:
        say("Correct them, or pass --skip-bad to `ffr train` and `ffr eval` to use the good ones.")


def refuse_existing(target: Path, force: bool) -> None:
    """Refuses to write where something is already.

    Raises:
        UsageError: where something is, and `force` does not say to replace it.
    """
    if target.exists() and not force:
        remedy = (
            "name another folder"
            if target.is_dir()
            else "pass --force to replace it, or name another file"
        )
        raise UsageError(f"{target} is there already; {remedy}")
