"""`ffr data`: check, example, stats, sample, download; the others are in `data_files`."""

from __future__ import annotations

from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING

import click

from ffr.cli.data_files import build, convert, import_command
from ffr.cli.data_options import (
    PATH_TYPE,
    force_option,
    image_root_option,
    json_option,
    print_report,
    refuse_existing,
    skip_bad_option,
    split_option,
)
from ffr.cli.output import print_json, progress_bar, say, say_aside
from ffr.errors import UsageError
from ffr.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from ffr.data.dataset import ExampleDataset
    from ffr.data.stats import DatasetStats, Summary


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Check, count, convert, build and download dialogue files."""


@data.command()
@click.argument("path", type=PATH_TYPE)
@image_root_option
@click.option("--no-images", is_flag=True, help="Do not look at the pictures.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Also list what this model cannot take: a folder, a run, a hub id, or `tiny`.",
)
@click.option("--all", "with_all", is_flag=True, help="Show every fault, however many are alike.")
@json_option
@click.pass_context
def check(
    context: click.Context,
    path: Path,
    image_root: Path | None,
    no_images: bool,
    model: str | None,
    with_all: bool,
    as_json: bool,
) -> None:
    """List the faults of a data file with file, line and remedy; exit with 1 if a record is bad.

    Of many faults alike the first are shown and the others counted.
    Takes .json, .jsonl and either as .gz, in ms-swift or raw form, and prediction files.
    """
    from ffr.data.check import check_file

    rules = None
    if model is not None:
        from ffr.evaluation.room import with_room
        from ffr.retrieval.rules import vlm_rules
        from ffr.runs import resolve_model
        from ffr.settings import AnswerConfig

        if no_images:
            raise UsageError(
                "--model has no meaning beside --no-images: what it cannot take is seen in the "
                "pictures"
            )
        source = resolve_model(model)
        # a reader takes whatever is sound
        if not source.is_reader:
            rules = with_room(vlm_rules(source.location), AnswerConfig())
    with progress_bar(None, "checking", unit="records") as progress:
        report = check_file(
            path, image_root=image_root, check_images=not no_images, rules=rules, progress=progress
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report, with_all=with_all)
    if not report.is_good:
        context.exit(1)


@data.command()
@click.option(
    "--to",
    "form",
    type=click.Choice(["raw", "ms-swift", "predictions", "table"]),
    required=True,
    help="The form to write it in.",
)
@click.option("--out", "folder", type=PATH_TYPE, required=True, help="The folder to make.")
def example(form: str, folder: Path) -> None:
    """Write a small example of a form, with its picture, to start one's own file from.

    raw is the form to write by hand, table what `ffr data import` takes; docs/data.md explains all.
    """
    from ffr.data.example import write_example

    refuse_existing(folder, force=False)
    files = [folder / name for name in write_example(form, folder)]
    for file in files:
        say(str(file))
    if form == "table":
        words = [*map(str, files), "--out", str(folder / "mine.jsonl")]
        say(f"Bring it in: ffr data import {join(words)}")
    else:
        say(f"Look at it: ffr data check {quote(str(files[0]))}")


@data.command()
@click.argument("dataset")
@split_option
@image_root_option
@skip_bad_option
@json_option
def stats(dataset: str, split: str, image_root: Path | None, skip_bad: bool, as_json: bool) -> None:
    """Print the figures of a set: turns, images, topics, fragments, empty answers, languages.

    DATASET is a named set (sample, wechat-sample, mldr, wechat) or a path.
    """
    from ffr.data.catalog import load_dataset
    from ffr.data.stats import dataset_stats

    examples = load_dataset(
        dataset,
        split=split,
        image_root=image_root,
        skip_bad=skip_bad,
        require_images=False,
        echo=say_aside,
    )
    figures = dataset_stats(examples)
    if as_json:
        print_json(
            {
                "path": str(examples.path),
                "fingerprint": examples.fingerprint,
                "num_left_out": examples.num_left_out,
                **figures.to_json(),
            }
        )
        return
    from ffr.terminal import PlainConsole

    console = PlainConsole()
    console.print(_stats_table(examples, figures), _counts_table(examples, figures))
    console.print("¹ of answers that are not empty  ² turns of the answer / turns of the dialogue")


def _stats_table(examples: ExampleDataset, figures: DatasetStats) -> Table:
    from rich.table import Table

    table = Table(title=str(examples.path), title_justify="left")
    for column in ("", "mean", "median", "least", "most"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, summary: Summary, *, digits: int = 0) -> None:
        ends = (f"{value:.{digits}f}" for value in (summary.minimum, summary.maximum))
        table.add_row(name, f"{summary.mean:.2f}", f"{summary.median:.{max(digits, 1)}f}", *ends)

    add("turns a dialogue", figures.turns)
    add("images a dialogue", figures.images)
    add("speakers a dialogue", figures.speakers)
    add("queries a dialogue", figures.queries)
    if figures.num_with_topics:
        add(f"topics a dialogue ({figures.num_with_topics:,} tell)", figures.topics)
    add("characters a turn", figures.turn_chars)
    add("characters a query", figures.query_chars)
    add("turns an answer ¹", figures.fragment_utterances)
    add("images an answer ¹", figures.fragment_images)
    add("density ¹ ²", figures.density, digits=2)
    return table


def _counts_table(examples: ExampleDataset, figures: DatasetStats) -> Table:
    from rich.table import Table

    table = Table(show_header=False)
    none = figures.num_examples - figures.num_with_answer
    for name, value in (
        ("examples", f"{figures.num_examples:,}"),
        ("dialogues", f"{figures.num_dialogues:,}"),
        ("images", f"{figures.num_images:,}"),
        ("empty answers", f"{figures.num_empty_answers:,}"),
        ("answers with an image", f"{figures.num_image_answers:,}"),
        ("examples without a known answer", f"{none:,}"),
        ("contiguous answers ¹", f"{figures.contiguous_share:.1%}"),
        (
            "dialogues by turns",
            ", ".join(f"{name}: {count:,}" for name, count in figures.lengths.items()),
        ),
        (
            "dialogues by language",
            ", ".join(f"{name}: {count:,}" for name, count in figures.languages.items()),
        ),
        ("records left out", f"{examples.num_left_out:,}"),
        ("fingerprint", examples.fingerprint[:16]),
    ):
        table.add_row(name, value)
    return table


@data.command()
@click.option("--out", "folder", type=PATH_TYPE, required=True, help="The folder to make.")
@click.option(
    "--name",
    type=click.Choice(["sample", "wechat-sample"]),
    default="sample",
    show_default=True,
    help="Which sample.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes."
)
def sample(folder: Path, name: str, seed: int) -> None:
    """Generate an embedded sample set, text and pictures, into a new folder."""
    from ffr.data.catalog import generate_sample

    refuse_existing(folder, force=False)
    generate_sample(name, folder, seed)
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            say(f"{path}: {counted(sum(1 for _ in file), 'example')}")
    say(f"Use it by its path: ffr data stats {quote(str(folder))}")


@data.command()
@click.argument("name", type=click.Choice(["mldr", "wechat"]))
@click.option("--url", help="Web address of the published .tar.")
@click.option("--archive", type=PATH_TYPE, help="A copy of it on this machine.")
@click.option("--sha256", help="What the archive's SHA-256 must be.  [default: record it only]")
@click.option(
    "--max-gigabytes",
    type=click.FloatRange(0, min_open=True),
    default=50.0,
    show_default=True,
    help="Bound of its size.",
)
@force_option
def download(
    name: str,
    url: str | None,
    archive: Path | None,
    sha256: str | None,
    max_gigabytes: float,
    force: bool,
) -> None:
    """Fetch a published set (taken up again where it was cut), check it, and unpack it safely.

    The publishers' address is not built in: pass it as --url, or a local copy as --archive.
    """
    from ffr.data.catalog import NAMED_SETS, locate
    from ffr.data.download import install
    from ffr.data.home import data_home

    if url is None and archive is None:
        raise UsageError(
            f"no address of {name} is built in: pass the publishers' as --url URL, or a copy on "
            "this machine as --archive FILE"
        )
    with progress_bar(None, "downloading", unit="bytes") as progress:
        result = install(
            data_home() / name,
            url=url,
            archive=archive,
            sha256=sha256,
            max_bytes=int(max_gigabytes * 1e9),
            replace=force,
            progress=progress,
        )
    say(
        f"{result.folder}: {counted(result.num_files, 'file')} from "
        f"{counted(result.num_bytes, 'byte')}"
    )
    say(f"SHA-256 {result.sha256} ({'as required' if sha256 else 'recorded; none was required'})")
    for split in NAMED_SETS[name].splits:
        try:
            path, root = locate(name, split=split)
            say(f"{split}: {path} (images relative to {root})")
        except UsageError as error:
            say(f"{split}: {error}")


for _command in (import_command, convert, build):
    data.add_command(_command)
