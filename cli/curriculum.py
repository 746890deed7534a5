"""`ffr curriculum`: how hard each item of a training set is for a model, and its level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

import click

from ffr.cli.eval_options import EvalCall, is_given
from ffr.cli.model_options import with_options
from ffr.cli.output import progress_bar, say
from ffr.cli.setting_options import setting_options
from ffr.errors import UsageError
from ffr.settings import without_effect
from ffr.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from ffr.retrieval.interface import Retriever
    from ffr.training.curriculum.order import Difficulty


_ASKING = (
    "batch_tokens", "max_new_tokens", "device", "dtype", "limit", "skip_bad", "image_root",
    "template", "query_position", "max_failures", "trust_remote_code", "progress",
)  # fmt: skip


@click.group()
def curriculum() -> None:
    """Order training data by difficulty; `ffr curriculum score` measures it."""


@curriculum.command()
@click.pass_context
@with_options(
    *setting_options(EvalCall, ["dataset"]),
    click.option("--split", default="train", show_default=True, help="Part of a named set."),
    click.option(
        "--model",
        metavar="MODEL",
        help="A run, a folder, a hub id, `tiny` or `reader`. [default: the newest finished SFT run under "
        "./runs, else tiny]",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Output folder. [default: the user's cache, by model, data and settings]",
    ),
    *setting_options(EvalCall, _ASKING),
)
def score(
    ctx: click.Context,
    /,
    dataset: str,
    split: str,
    model: str | None,
    out: Path | None,
    batch_tokens: int,
    max_new_tokens: int,
    device: str,
    dtype: str,
    limit: int | None,
    skip_bad: bool,
    image_root: Path | None,
    template: str | None,
    query_position: str | None,
    max_failures: int | None,
    trust_remote_code: bool,
    progress: bool | None,
) -> None:
    """Let a model answer every item once, and divide the items into levels by how it did.

    Levels follow from the F1 and the entropy of the answers.
    The output folder gets difficulty.csv and scatter.png beside the answers; the same command
    goes on where it was stopped, and asks the model nothing where it had finished.
    """
    from ffr.runs import resolve_model

    label, spec = _choose(model)
    source = resolve_model(spec)
    if source.is_reader:
        _refuse_options_of_vlms(ctx)
    is_file = Path(dataset).is_file()
    say(f"Scoring {label} on {dataset}" + ("" if is_file else f" ({split})"))
    from ffr.data.catalog import load_dataset
    from ffr.data.dataset import FirstExamples
    from ffr.evaluation.room import with_room
    from ffr.retrieval.opening import reader_retriever, vlm_retriever
    from ffr.retrieval.rules import vlm_rules
    from ffr.settings import AnswerConfig
    from ffr.training.curriculum.difficulty import DIFFICULTY_FILE, score_dataset
    from ffr.training.curriculum.plot import draw_scatter

    asking = AnswerConfig(
        template=template,  # type: ignore[arg-type]
        query_position=query_position,  # type: ignore[arg-type]
        max_new_tokens=max_new_tokens,
        device=device,
    )
    rules = (
        None
        if source.is_reader
        else with_room(vlm_rules(source.location, trust_remote_code=trust_remote_code), asking)
    )
    data = load_dataset(
        dataset,
        split=split,
        image_root=image_root,
        skip_bad=skip_bad,
        require_truths=True,
        rules=rules,
        echo=say,
    )
    examples = data if limit is None else FirstExamples(data, limit)
    retriever: Retriever
    if source.is_reader:
        retriever = reader_retriever(source, asking, source.label)
    else:
        retriever = vlm_retriever(
            source,
            name=source.label,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            template=template,
            query_position=query_position,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            with_logprobs=True,
        )
    say(f"{counted(len(examples), 'query')}")
    with progress_bar(progress, "answers", len(examples)) as advance:
        try:
            scored = score_dataset(
                examples, retriever, out, progress=advance, max_failures=max_failures
            )
        except KeyboardInterrupt:
            say("\nStopped; the same command goes on from here.")
            raise click.exceptions.Exit(130) from None
    draw_scatter(
        scored.difficulties, scored.folder / "scatter.png", title=f"{source.label} on {dataset}"
    )
    from ffr.terminal import PlainConsole

    PlainConsole().print(_level_table(scored.difficulties))
    if scored.num_failed:
        say(
            f"{counted(scored.num_failed, 'item')} could not be answered, scored as wrong; the "
            "same command "
            "asks again"
        )
    say(f"Table: {scored.folder / DIFFICULTY_FILE}  ·  picture: {scored.folder / 'scatter.png'}")
    if limit is not None:
        say("(a table of the first queries only: ffr train grpo takes one of the whole data)")
        return
    words = ["--from", spec, "--dataset", dataset, *([] if is_file else ["--split", split])]
    words += ["--image-root", str(image_root)] if image_root is not None else []
    words += ["--skip-bad"] if skip_bad else []
    words += ["--trust-remote-code"] if trust_remote_code else []
    words += ["--template", template] if template is not None else []
    words += ["--query-position", query_position] if query_position is not None else []
    words += ["--curriculum", "--difficulty", str(scored.folder / DIFFICULTY_FILE)]
    say(f"next: ffr train grpo {join(words)}")


def _refuse_options_of_vlms(ctx: click.Context) -> None:
    """Sees that no option is given that would change nothing for a reader.

    Raises:
        UsageError: naming the first.
    """
    without = without_effect("reader", EvalCall)
    for name in _ASKING:
        if name in without and is_given(ctx, name):
            raise UsageError(
                f"{EvalCall.called(name)} has no meaning beside a reader, which reads no prompt "
                "and writes no text; leave it out"
            )


def _choose(model: str | None) -> tuple[str, str]:
    """What the first line calls the model, and what `--model` would name it by."""
    from ffr.runs import RUNS_FOLDER, newest_finished_run

    if model is not None and model.startswith("baseline:"):
        raise UsageError(
            "a baseline's answers have no probabilities, of which difficulty is made; name a model"
        )
    if model is not None:
        return model, model
    run = newest_finished_run(Path(RUNS_FOLDER), "sft")
    if run is None:
        return "tiny (no finished SFT run under ./runs)", "tiny"
    return f"the newest finished SFT run {run}", str(run)


def _level_table(difficulties: Sequence[Difficulty]) -> Table:
    """Rows: levels, then all; columns: items, those the paper's rule keeps, mean F1 and entropy."""
    from ffr.terminal import plain_table
    from ffr.training.curriculum.order import LEVELS, assign_levels, kept_items

    levels = assign_levels(difficulties)
    kept = set(kept_items(difficulties, levels))
    table = plain_table()
    table.add_column("level", no_wrap=True)
    for header in ("items", "kept", "mean F1", "mean entropy"):
        table.add_column(header, justify="right", no_wrap=True)
    for name in (*LEVELS, "all"):
        rows = [index for index, level in enumerate(levels) if name in (level, "all")]
        means = ["-", "-"]
        if rows:
            means = [
                f"{sum(difficulties[index].f1 for index in rows) / len(rows):.3f}",
                f"{sum(difficulties[index].entropy for index in rows) / len(rows):.3f}",
            ]
        table.add_row(name, str(len(rows)), str(len(kept.intersection(rows))), *means)
    return table
