"""`ffr train`: training stages, from a recipe or a file, resumable."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.model_options import Option, with_options
from ffr.cli.output import say
from ffr.cli.setting_options import further_options, setting_options
from ffr.errors import FfrError, UsageError
from ffr.settings import (
    NEWEST,
    SCRATCH,
    EmbeddingConfig,
    GrpoConfig,
    ReaderConfig,
    SftConfig,
    StageConfig,
    closest,
    load_config,
    load_traced_config,
    named_model,
    recipes,
)
from ffr.settings import describe as describe_settings

if TYPE_CHECKING:
    from ffr.training.common.run import TrainResult
    from ffr.training.common.stage import Stage

_WIDE = 12
"""Longer values do not widen the column of values in a list of settings."""
_NAMED = ("dataset", "val_dataset", "image_root", "skip_bad", "seed")
"""Settings that the help page of every stage shows an option of."""

_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--config",
        "source",
        metavar="RECIPE|FILE",
        help="A recipe that comes with ffr, or a YAML file. [default: the recipe for the model]",
    ),
    *setting_options(StageConfig, _NAMED, of_recipe=True),
    click.option(
        "-o",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set any setting; --KEY VALUE does the same. See --list-settings.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="The run's folder. [default: runs/STAGE-MODEL-…]",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Go on with a run that was stopped.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop."),
    click.option(
        "--list-settings",
        is_flag=True,
        help="Print all settings as this command line has them, where each comes from, and the "
        "recipes, and stop.",
    ),
    click.option(
        "--progress/--no-progress",
        default=None,
        help="Progress bar. [default: where the output is a terminal]",
    ),
)


class _StageCommand(click.Command):
    """A stage's command: of an option that it lacks, it names the one that is meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            typed = error.option_name.lstrip("-").replace("-", "_")
            flags = {
                "model" if item.name == "model" else flag.lstrip("-").replace("-", "_"): flag
                for item in self.params
                for flag in item.opts
                if flag.startswith("--")
            }
            meant = closest(typed, flags)
            if meant is None:
                raise
            raise UsageError(
                f"there is no option {error.option_name}; did you mean {flags[meant]}?"
            ) from None


def _stage_options(kind: type[StageConfig], shown: tuple[str, ...]) -> Option:
    """All options of a stage.

    Args:
        kind: Its settings.
        shown: Settings of its own that its help page shows an option of.
    """
    own = setting_options(kind, shown, of_recipe=True)
    return with_options(*own, *_OPTIONS, *further_options(kind, (*shown, *_NAMED)))


@click.group()
def train() -> None:
    """Train a model: `ffr train sft` is the cold start, `ffr train grpo` comes after it.

    `ffr train reader` trains the small retriever for a CPU, `ffr train embedding` an encoder.
    """


@train.command(cls=_StageCommand)
@_stage_options(SftConfig, ("model",))
def sft(**options: Any) -> None:
    """Cold start: supervised fine-tuning on dialogues with true answers.

    Bare `ffr train sft` trains the embedded tiny model on the bundled sample. The run's folder
    holds settings, figures, checkpoints, the adapter and a merged model that `ffr eval` and plain
    transformers load.
    """
    _run_stage(SftConfig, **options)


@train.command(cls=_StageCommand)
@_stage_options(GrpoConfig, ("model", "curriculum"))
def grpo(**options: Any) -> None:
    """Second stage: GRPO, which trains a model on the rewards of its own answers.

    Bare `ffr train grpo` goes on from the newest finished SFT run under ./runs, on the bundled
    sample. Each prompt passes through the model once for all answers to it. Kill it at any point;
    --resume goes on to the bit.
    """
    _run_stage(GrpoConfig, **options)


@train.command(cls=_StageCommand)
@_stage_options(ReaderConfig, ("model", "encoder"))
def reader(**options: Any) -> None:
    """A small retriever for a CPU: a network over the vectors of a frozen sentence encoder.

    Bare `ffr train reader` trains one from nothing on the bundled sample; `--from reader` trains
    the one that comes with ffr further, on labels of your own. The run's folder holds settings,
    figures, checkpoints, and the reader that `ffr eval --model RUN` asks.
    """
    _run_stage(ReaderConfig, **options)


@train.command(cls=_StageCommand)
@_stage_options(EmbeddingConfig, ("model", "hard_negatives"))
def embedding(**options: Any) -> None:
    """A sentence encoder: queries come to lie close to their fragments, away from others.

    Bare `ffr train embedding` trains `e5` further on the bundled sample (extra `embedding`). The
    run's folder holds settings, figures, checkpoints, and the encoder that `--encoder RUN` and
    `ffr eval --model embedding:RUN` take.
    """
    _run_stage(EmbeddingConfig, **options)


def _run_stage(
    kind: type[StageConfig],
    *,
    source: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    list_settings: bool,
    progress: bool | None,
    **settings: object,
) -> None:
    """Does what the options of a stage's command ask for; the rest of them are settings."""
    if list_settings:
        _list_settings(kind, source, overrides, settings, resume)
        return
    job = {"say": say, "progress": _wants_progress(progress)}
    if resume is not None:
        if source is not None or out is not None:
            raise UsageError(
                "--resume takes its settings and its folder from the run; leave --config and --out "
                "out"
            )
        named = tuple(f"{name}={value}" for name, value in settings.items() if value is not None)
        config = _resumed_config(kind, resume, (*named, *overrides))
        if config is None:
            from ffr.files import clear_litter

            # of a process that was killed as it put its things away; of a disk that is only read,
            # nothing can be taken
            with suppress(OSError):
                clear_litter(resume)
            say(
                f"{resume} is finished; nothing is left to train (to train its model further: "
                f"{'--model' if kind is SftConfig else '--from'} {resume})"
            )
            return
        _start(config, dry_run=dry_run, run=resume, resume=True, **job)
        return
    source = source or _recipe_for(kind, overrides, settings)
    config = load_config(kind, source=source, overrides=overrides, settings=settings)
    from ffr.runs import is_unbegun

    # a process that the first one started finds the folder made by it
    if out is not None and "LOCAL_RANK" not in os.environ and not is_unbegun(out):
        raise UsageError(
            f"{out}: this folder is not empty; name a new one, or go on with the run by --resume "
            f"{out}"
        )
    _start(config, dry_run=dry_run, recipe=source, run=out, **job)


def _start(config: StageConfig, *, dry_run: bool, **job: Any) -> None:
    """Trains, or says what would be trained; `job` is what a `Job` takes."""
    from ffr.training.common.run import is_first_process
    from ffr.training.common.stage import Job, describe, train

    result: TrainResult | None = None
    if isinstance(config, EmbeddingConfig):
        # by a trainer of its own: what Lightning needs of a stage means nothing there
        from ffr.training.embedding import run as of_encoder

        if dry_run:
            of_encoder.describe(config, Job(**job))
        else:
            result = of_encoder.train(config, Job(**job))
    elif dry_run:
        describe(_stage(config.stage), config, Job(**job))
    else:
        result = train(_stage(config.stage), config, Job(**job))
    if result is None:
        return
    if is_first_process():
        _say_end(config.stage, result)
    if result.status == "interrupted":
        raise click.exceptions.Exit(130)


def _stage(name: str) -> Stage[Any]:
    if name == "sft":
        from ffr.training.sft.stage import SftStage

        return SftStage()
    if name == "reader":
        from ffr.training.reader.stage import ReaderStage

        return ReaderStage()
    from ffr.training.grpo.stage import GrpoStage

    return GrpoStage()


def _recipe_for(
    kind: type[StageConfig], overrides: tuple[str, ...], settings: dict[str, object]
) -> str:
    """The recipe of the model that the command line names, or would take."""
    from ffr.runs import RUNS_FOLDER, ModelSource, newest_sft_run, resolve_model
    from ffr.training.common.recipe import recipe_of

    model = named_model(kind, overrides, settings)
    if model == SCRATCH or kind is EmbeddingConfig:
        return recipe_of(kind.stage, ModelSource(model, model))
    if model == NEWEST:
        model = str(newest_sft_run(Path(RUNS_FOLDER)))
    return recipe_of(kind.stage, resolve_model(model))


def _list_settings(
    kind: type[StageConfig],
    source: str | None,
    overrides: tuple[str, ...],
    settings: dict[str, object],
    resume: Path | None,
) -> None:
    """Prints the settings of a command line, each with where it comes from."""
    note = None
    if resume is not None:
        source = str(resume / "config.yaml")
    elif source is None:
        try:
            source = _recipe_for(kind, overrides, settings)
        except FfrError as error:
            note = f"no recipe was taken: {error}"
    config, origins = load_traced_config(
        kind, source=source, overrides=overrides, settings=settings
    )
    values = {name: _shown_value(getattr(config, name)) for name in origins}
    widths = [max(map(len, column)) for column in (values, origins.values())]
    wide = max(len(value) for value in values.values() if len(value) <= _WIDE)
    for name, _, text in describe_settings(kind):
        say(f"{name:<{widths[0]}}  {values[name]:<{wide}}  {origins[name]:<{widths[1]}}  {text}")
    say("\nrecipes:")
    for name, text in recipes(kind.stage).items():
        say(f"{name:<{widths[0]}}  {text}")
    if note is not None:
        say(f"\n! {note}")


def _shown_value(value: object) -> str:
    """A value as it may be typed."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _resumed_config(
    kind: type[StageConfig], run: Path, overrides: tuple[str, ...]
) -> StageConfig | None:
    """The settings of the run that --resume names; None where it is finished."""
    from ffr.runs import RunRecord, is_unbegun

    if not run.is_dir():
        raise UsageError(f"{run}: no such run folder")
    if is_unbegun(run):
        raise UsageError(
            f"{run}: no training was begun there; give the command that starts it, with --out {run}"
        )
    record = RunRecord.load(run)
    if record.stage != kind.stage:
        remedy = f"go on with it by `ffr train {record.stage} --resume {run}`"
        raise UsageError(f"{run} is a run of another stage; {remedy}")
    is_finished = record.status == "finished"
    if is_finished and not overrides:
        return None
    from ffr.training.common.run import load_run_config

    try:
        # a setting that the run was not started with is refused though nothing is left to train
        config = load_run_config(kind, run, overrides)
    except UsageError as error:
        if not is_finished:
            raise
        raise UsageError(
            f"{error}; the run is finished, and its model is trained further by a run that starts "
            f"from it: {'--model' if kind is SftConfig else '--from'} {run}"
        ) from None
    return None if is_finished else config


def _wants_progress(asked: bool | None) -> bool:
    import sys

    return sys.stdout.isatty() if asked is None else asked


def _never_a_signal(run: Path) -> bool:
    """Whether every prompt's answers earned the same in every step of a GRPO run."""
    from ffr.run_log import METRICS_FILE, read_metrics

    shares = [
        row["no_signal_share"]
        for row in read_metrics(run / METRICS_FILE)
        if "no_signal_share" in row
    ]
    return bool(shares) and min(shares) == 1


def _say_end(stage: str, result: TrainResult) -> None:
    """Says how a training ended, and what comes next."""
    if result.status == "interrupted":
        say(f"stopped; go on with `ffr train {stage} --resume {quote(str(result.run))}`")
        return
    if stage == "grpo" and _never_a_signal(result.run):
        say(
            "! in no step did an answer earn more than the others to its prompt, so nothing was "
            "learned; "
            "look at samples.jsonl, and begin from a model that SFT has taught the answer's form"
        )
    figures = result.figures
    if "val_joint_f1" in figures:
        utterances, images = figures["val_utterance_f1"], figures["val_image_f1"]
        say(f"finished: validation F1 {utterances:.3f} (utterances), {images:.3f} (images)")
    else:
        say("finished")
    model = f"{'embedding:' if stage == 'embedding' else ''}{result.run}"
    say(f"the run: {result.run}  ·  next: ffr eval --model {quote(model)}")
