"""The commands under `ffr data`: check, example, import, stats, convert, build, sample, download."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING

import click

from ffr.cli.output import print_json, progress_bar, say, say_aside
from ffr.errors import UsageError
from ffr.text import counted, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from ffr.data.check import CheckReport
    from ffr.data.dataset import ExampleDataset
    from ffr.data.stats import DatasetStats, Summary
    from ffr.dialogue import Example
    from ffr.progress import Progress

_path = click.Path(path_type=Path)
_image_root = click.option(
    "--image-root",
    type=_path,
    help="Folder that image paths are relative to.  [default: the file's own]",
)
_skip_bad = click.option(
    "--skip-bad", is_flag=True, help="Leave out records that cannot be used, and say how many."
)
_split = click.option(
    "--split", default="val", show_default=True, help="Part of a named set or folder."
)
_template = click.option(
    "--template",
    type=click.Choice(["zh", "en"]),
    default="zh",
    show_default=True,
    help="Words of prompts that are made.",
)
_query_position = click.option(
    "--query-position",
    type=click.Choice(["first", "last"]),
    default="first",
    show_default=True,
    help="Where the query stands in prompts that are made.",
)
_force = click.option("--force", is_flag=True, help="Put the result in the place of what is there.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NUM_ALIKE = 5
"""Faults that are alike and shown; the others are counted."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Check, count, convert, build and download dialogue files."""


@data.command()
@click.argument("path", type=_path)
@_image_root
@click.option("--no-images", is_flag=True, help="Do not look at the pictures.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Also list what this model cannot take: a folder, a run, a hub id, or `tiny`.",
)
@click.option("--all", "with_all", is_flag=True, help="Show every fault, however many are alike.")
@_json
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
        _print_report(report, with_all=with_all)
    if not report.is_good:
        context.exit(1)


def _print_report(report: CheckReport, *, with_all: bool) -> None:
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


@data.command()
@click.option(
    "--to",
    "form",
    type=click.Choice(["raw", "ms-swift", "predictions", "table"]),
    required=True,
    help="The form to write it in.",
)
@click.option("--out", "folder", type=_path, required=True, help="The folder to make.")
def example(form: str, folder: Path) -> None:
    """Write a small example of a form, with its picture, to start one's own file from.

    raw is the form to write by hand, table what `ffr data import` takes; docs/data.md explains all.
    """
    from ffr.data.example import write_example

    _refuse_existing(folder, force=False)
    files = [folder / name for name in write_example(form, folder)]
    for file in files:
        say(str(file))
    if form == "table":
        words = [*map(str, files), "--out", str(folder / "mine.jsonl")]
        say(f"Bring it in: ffr data import {join(words)}")
    else:
        say(f"Look at it: ffr data check {quote(str(files[0]))}")


@data.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_path)
@click.option(
    "--out",
    "target",
    type=_path,
    required=True,
    help="The file to write (.json or .jsonl, or .gz of them).",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(["table"]),
    help="What the files are.  [default: found by their content]",
)
@click.option(
    "--to",
    "target_form",
    type=click.Choice(["raw", "ms-swift"]),
    default="raw",
    show_default=True,
    help="The form to write.",
)
@click.option(
    "--column",
    "columns",
    metavar="NAME=COLUMN",
    multiple=True,
    help="What a column is called in the files: --column speaker=author.",
)
@click.option("--encoding", help="Of CSV files.  [default: UTF-8, or what their mark says]")
@_image_root
@_template
@_query_position
@_force
@click.pass_context
def import_command(
    context: click.Context,
    paths: tuple[Path, ...],
    target: Path,
    form: str | None,
    target_form: str,
    columns: tuple[str, ...],
    encoding: str | None,
    image_root: Path | None,
    template: str,
    query_position: str,
    force: bool,
) -> None:
    """Bring tables of one's own in: PATH... becomes a data file, which is checked.

    PATH... are a table of lines (dialogue_id, speaker, text, picture) and one of queries
    (dialogue_id, query, utterance_ids, image_ids), as CSV, .jsonl or Parquet.

    Or one table whose rows are whole records.
    """
    from ffr.data.check import check_file
    from ffr.data.importing import ImportChoices, import_files

    _refuse_existing(target, force)
    root = paths[0].parent if image_root is None else image_root
    choices = ImportChoices(_column_names(columns), encoding, root)
    imported = import_files(paths, form=form, choices=choices)
    count = _write(target, imported.examples, target_form, template, query_position, False)
    for note in imported.notes:
        say(note)
    say(f"{target}: {counted(count, 'record')}, {counted(len(imported.examples), 'query')}")
    has_images = any(example.dialogue.images for example in imported.examples)
    _note_outside_pictures(target, root, has_images)
    report = check_file(target)
    _print_report(report, with_all=False)
    if not report.is_good:
        context.exit(1)


def _column_names(given: Sequence[str]) -> dict[str, str]:
    """The names of columns in the files, by the names that are wanted."""
    from ffr.data.keys import COLUMNS

    names: dict[str, str] = {}
    for item in given:
        wanted, equals, column = item.partition("=")
        if not equals or not column or wanted not in COLUMNS:
            raise UsageError(
                f"--column {item} is not NAME=COLUMN; NAME is one of {', '.join(COLUMNS)}"
            )
        names[wanted] = column
    return names


@data.command()
@click.argument("dataset")
@_split
@_image_root
@_skip_bad
@_json
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
@click.argument("source", metavar="IN", type=_path)
@click.argument("target", metavar="OUT", type=_path)
@click.option(
    "--to", "form", type=click.Choice(["ms-swift", "raw"]), required=True, help="The form to write."
)
@_template
@_query_position
@click.option(
    "--drop-prompts",
    is_flag=True,
    help="To raw: let go of prompts in words other than the built-in ones.",
)
@_image_root
@_skip_bad
@_force
def convert(
    source: Path,
    target: Path,
    form: str,
    template: str,
    query_position: str,
    drop_prompts: bool,
    image_root: Path | None,
    skip_bad: bool,
    force: bool,
) -> None:
    """Write a data file in another form or layout.

    OUT ends in .json or .jsonl, with .gz to pack it.

    What the other form cannot hold is an error, never left out in silence. Prompts of the file stay
    as they are.
    """
    from ffr.data.catalog import load_dataset

    _refuse_existing(target, force)
    examples = load_dataset(
        source, image_root=image_root, skip_bad=skip_bad, require_images=False, echo=say_aside
    )
    with progress_bar(None, "converting", unit="examples") as progress:
        count = _write(
            target, _with_progress(examples, progress), form, template, query_position, drop_prompts
        )
    say(f"{target}: {counted(count, 'record')}, {counted(len(examples), 'example')}")
    _note_kept_prompts(form, examples)
    _note_changed_answers(form, examples)
    if form == "ms-swift" and any(
        line.speaker != line.speaker.lower() and example.prompt is None
        for example in examples
        for line in example.dialogue.utterances
    ):
        say("Note: prompts have speakers in lower case; their capitals are not kept.")
    _note_outside_pictures(
        target, examples.image_root, any(example.dialogue.images for example in examples)
    )


@data.command()
@click.argument("source", metavar="FILE")
@click.option(
    "--out",
    "target",
    type=_path,
    required=True,
    help="The file to write (.json or .jsonl, or .gz of them).",
)
@click.option(
    "--topics",
    "num_topics",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Topics joined.",
)
@click.option(
    "--interleaved",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of dialogues whose topics alternate.",
)
@click.option(
    "--absent",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of examples that match nothing.",
)
@click.option(
    "--num-dialogues",
    type=click.IntRange(1),
    help="Long dialogues.  [default: each short one used once]",
)
@click.option("--seed", type=int, default=0, show_default=True)
@_split
@_template
@_query_position
@_image_root
@_skip_bad
@_force
def build(
    source: str,
    target: Path,
    num_topics: int,
    interleaved: float,
    absent: float,
    num_dialogues: int | None,
    seed: int,
    split: str,
    template: str,
    query_position: str,
    image_root: Path | None,
    skip_bad: bool,
    force: bool,
) -> None:
    """Join short dialogues into long ones, as MLDR was made.

    Every dialogue of FILE counts as one about a single topic: the `topic` in its meta, or else its
    query. The same seed gives the same bytes.
    """
    from ffr.data.build import build_long, short_dialogues_of
    from ffr.data.catalog import load_dataset

    _refuse_existing(target, force)
    examples = load_dataset(
        source,
        split=split,
        image_root=image_root,
        skip_bad=skip_bad,
        require_images=False,
        echo=say_aside,
    )
    short = short_dialogues_of(examples)
    made = build_long(
        short,
        num_topics=num_topics,
        interleaved_share=interleaved,
        absent_share=absent,
        num_dialogues=num_dialogues,
        name=target.name.partition(".")[0],
        seed=seed,
    )
    count = _write(target, made, "ms-swift", template, query_position, False)
    say(
        f"{target}: {counted(count, 'example')} from {counted(len(short), 'short dialogue')} (seed {seed})"
    )
    has_images = any(line.images for item in short for line in item.utterances)
    _note_outside_pictures(target, examples.image_root, has_images)


@data.command()
@click.option("--out", "folder", type=_path, required=True, help="The folder to make.")
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

    _refuse_existing(folder, force=False)
    generate_sample(name, folder, seed)
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            say(f"{path}: {counted(sum(1 for _ in file), 'example')}")
    say(f"Use it by its path: ffr data stats {quote(str(folder))}")


@data.command()
@click.argument("name", type=click.Choice(["mldr", "wechat"]))
@click.option("--url", help="Web address of the published .tar.")
@click.option("--archive", type=_path, help="A copy of it on this machine.")
@click.option("--sha256", help="What the archive's SHA-256 must be.  [default: record it only]")
@click.option(
    "--max-gigabytes",
    type=click.FloatRange(0, min_open=True),
    default=50.0,
    show_default=True,
    help="Bound of its size.",
)
@_force
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
        f"{result.folder}: {counted(result.num_files, 'file')} from {counted(result.num_bytes, 'byte')}"
    )
    say(f"SHA-256 {result.sha256} ({'as required' if sha256 else 'recorded; none was required'})")
    for split in NAMED_SETS[name].splits:
        try:
            path, root = locate(name, split=split)
            say(f"{split}: {path} (images relative to {root})")
        except UsageError as error:
            say(f"{split}: {error}")


def _write(
    target: Path,
    examples: Iterable[Example],
    form: str,
    template: str,
    query_position: str,
    drop_prompts: bool,
) -> int:
    from ffr.data.forms.formats import write_examples
    from ffr.data.pictures import with_paths_from

    return write_examples(
        target,
        with_paths_from(target.parent, examples),
        format="raw" if form == "raw" else "ms-swift",
        template=template,
        query_position="last" if query_position == "last" else "first",
        drop_prompts=drop_prompts,
    )


def _refuse_existing(target: Path, force: bool) -> None:
    if target.exists() and not force:
        remedy = (
            "name another folder"
            if target.is_dir()
            else "pass --force to replace it, or name another file"
        )
        raise UsageError(f"{target} is there already; {remedy}")


def _note_kept_prompts(form: str, examples: Sequence[Example]) -> None:
    """Says where options for prompts change nothing, for the file has prompts of its own."""
    context = click.get_current_context()
    given = [
        "--" + name.replace("_", "-")
        for name in ("template", "query_position")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    num_kept = (
        sum(example.prompt is not None for example in examples)
        if given and form == "ms-swift"
        else 0
    )
    if num_kept:
        verb = "leave" if len(given) > 1 else "leaves"
        say(
            f"Note: {num_kept:,} of {len(examples):,} examples have prompts of their own, "
            f"which {' and '.join(given)} {verb} as they are."
        )


def _note_changed_answers(form: str, examples: Iterable[Example]) -> None:
    """Says what the other form writes otherwise of the answers."""
    answers = [example.fragment for example in examples if example.fragment is not None]
    num_unordered = sum(item.image_ids != tuple(sorted(item.image_ids)) for item in answers)
    if form == "raw" and num_unordered:
        say(
            f"Note: {counted(num_unordered, 'answer')} with images in another order than the "
            "dialogue's, which the raw form does not keep."
        )
    if form == "ms-swift" and answers:
        say("Note: answers are written as `solution` and as what the assistant says, both.")


def _note_outside_pictures(target: Path, image_root: Path, has_images: bool) -> None:
    """Says where the pictures of a new file lie, if not below its folder."""
    if has_images and not image_root.resolve().is_relative_to(target.parent.resolve()):
        say(
            f"Note: its pictures stay in {image_root}, outside the folder of {target.name}; pages and "
            "servers are given such pictures with --outside-pictures alone"
        )


def _with_progress(examples: ExampleDataset, progress: Progress) -> Iterable[Example]:
    for number, example in enumerate(examples, 1):
        progress(number, len(examples))
        yield example
