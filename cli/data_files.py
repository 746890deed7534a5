"""The commands under `ffr data` that write a data file out of others: import, convert, build."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ffr.cli.chat_options import reading_options
from ffr.cli.data_options import (
    PATH_TYPE,
    force_option,
    image_root_option,
    print_report,
    query_position_option,
    refuse_existing,
    skip_bad_option,
    split_option,
    target_option,
    template_option,
)
from ffr.cli.model_options import with_options
from ffr.cli.output import progress_bar, say, say_aside
from ffr.errors import UsageError
from ffr.text import counted

if TYPE_CHECKING:
    from ffr.data.chat_import import ChatChoices
    from ffr.data.dataset import ExampleDataset
    from ffr.dialogue import Example
    from ffr.progress import Progress


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH_TYPE)
@target_option
@click.option(
    "--as",
    "form",
    metavar="FORM",
    help="What the files are: table, a benchmark (locomo, mem-gallery, longmemeval, qmsum), or a "
    "form of chats.  [default: found by their content]",
)
@click.option(
    "--to",
    "target_form",
    type=click.Choice(["raw", "ms-swift", "lines"]),
    help="The form to write; lines: of chats, a table without queries.  [default: raw, or lines "
    "of chats without --query]",
)
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="TEXT",
    help="Of chats: what is asked of each dialogue, or several.",
)
@click.option("--chat", "title", metavar="TITLE", help="Of chats: only this one.")
@click.option("--redact", is_flag=True, help="Of chats: give people and numbers other names.")
@with_options(*reading_options)
@click.option(
    "--column",
    "columns",
    metavar="NAME=COLUMN",
    multiple=True,
    help="What a column is called in the files: --column speaker=author.",
)
@click.option("--encoding", help="Of CSV files.  [default: UTF-8, or what their mark says]")
@image_root_option
@template_option
@query_position_option
@force_option
@click.pass_context
def import_command(
    context: click.Context,
    paths: tuple[Path, ...],
    target: Path,
    form: str | None,
    target_form: str | None,
    queries: tuple[str, ...],
    title: str | None,
    redact: bool,
    me: str | None,
    date_order: str | None,
    pause_hours: float,
    max_messages: int,
    columns: tuple[str, ...],
    encoding: str | None,
    image_root: Path | None,
    template: str,
    query_position: str,
    force: bool,
) -> None:
    """Bring tables or chats of one's own in: PATH... becomes a data file, which is checked.

    PATH... are a table of lines (dialogue_id, speaker, text, picture) and one of queries
    (dialogue_id, query, utterance_ids, image_ids), as CSV, .jsonl or Parquet.

    Or one table whose rows are whole records, or the files of a benchmark (docs/memory.md).

    Or chats as apps export them, files, folders or zip archives: with --query a data file that asks
    each dialogue; without, a table of lines, to be brought in again beside one of queries.
    """
    from ffr.chats.reading import FORMATS
    from ffr.data.chat_import import ChatChoices, is_chat
    from ffr.data.check import check_file
    from ffr.data.importing import READERS, ImportChoices, import_files

    refuse_existing(target, force)
    known = (*READERS, *(item.name for item in FORMATS))
    if form is not None and form not in known:
        raise UsageError(f"--as {form}: no such form; there are {', '.join(known)}")
    if form not in READERS and all(is_chat(path, form) for path in paths):
        from ffr.chats.cutting import Cutting
        from ffr.chats.stream import ReadChoices

        said = ChatChoices(
            form,
            ReadChoices(date_order, me),
            Cutting(pause_hours, max_messages),
            title,
            redact,
            target.parent / f"{target.name.partition('.')[0]}-media",
        )
        _import_chats(paths, target, said, queries, target_form, template, query_position)
        return
    if queries or title is not None or redact or target_form == "lines":
        raise UsageError(
            "--query, --chat, --redact and --to lines are for chats, and these files are none"
        )
    root = paths[0].parent if image_root is None else image_root
    choices = ImportChoices(_column_names(columns), encoding, root)
    imported = import_files(paths, form=form, choices=choices)
    count = _write(target, imported.examples, target_form or "raw", template, query_position, False)
    for note in imported.notes:
        say(note)
    say(f"{target}: {counted(count, 'record')}, {counted(len(imported.examples), 'query')}")
    has_images = any(example.dialogue.images for example in imported.examples)
    _note_outside_pictures(target, root, has_images)
    report = check_file(target)
    print_report(report, with_all=False)
    if not report.is_good:
        context.exit(1)


def _import_chats(
    paths: Sequence[Path],
    target: Path,
    said: ChatChoices,
    queries: Sequence[str],
    target_form: str | None,
    template: str,
    query_position: str,
) -> None:
    """Writes the dialogues of chats and says what was read."""
    from ffr.data.chat_import import asked_examples, cut_chats, line_rows
    from ffr.files import write_records

    if target_form not in (None, "lines") and not queries:
        raise UsageError(
            f"--to {target_form} asks something of each dialogue; give --query TEXT, or --to lines "
            "for a table of lines to which you add one of queries"
        )
    chats = [cut for path in paths for cut in cut_chats(path, said)]
    num_dialogues = sum(len(cut.dialogues) for cut in chats)
    if queries and target_form != "lines":
        examples = [example for cut in chats for example in asked_examples(cut, queries)]
        _write(target, examples, target_form or "raw", template, query_position, False)
        rest = f"{counted(len(examples), 'query', 'queries')}"
        onward = 'write true answers into it ("gt_turns"), then ffr eval --dataset'
    else:
        rest = counted(
            write_records(target, (row for cut in chats for row in line_rows(cut))), "line"
        )
        onward = f'ffr retrieve "…" {" ".join(map(str, paths))}'
    for cut in chats:
        for note in cut.notes:
            say(note)
    say(f"{target}: {counted(num_dialogues, 'dialogue')}, {rest}; next: {onward}")


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


@click.command()
@click.argument("source", metavar="IN", type=PATH_TYPE)
@click.argument("target", metavar="OUT", type=PATH_TYPE)
@click.option(
    "--to", "form", type=click.Choice(["ms-swift", "raw"]), required=True, help="The form to write."
)
@template_option
@query_position_option
@click.option(
    "--drop-prompts",
    is_flag=True,
    help="To raw: let go of prompts in words other than the built-in ones.",
)
@image_root_option
@skip_bad_option
@force_option
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

    refuse_existing(target, force)
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


@click.command()
@click.argument("source", metavar="FILE")
@target_option
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
@split_option
@template_option
@query_position_option
@image_root_option
@skip_bad_option
@force_option
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

    refuse_existing(target, force)
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
        f"{target}: {counted(count, 'example')} from {counted(len(short), 'short dialogue')} "
        f"(seed {seed})"
    )
    has_images = any(line.images for item in short for line in item.utterances)
    _note_outside_pictures(target, examples.image_root, has_images)


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
            f"Note: its pictures stay in {image_root}, outside the folder of {target.name}; "
            "pages and "
            "servers are given such pictures with --outside-pictures alone"
        )


def _with_progress(examples: ExampleDataset, progress: Progress) -> Iterable[Example]:
    for number, example in enumerate(examples, 1):
        progress(number, len(examples))
        yield example
