"""`ffr train`: training stages, from a recipe or a file, resumable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ffr.cli.model_options import Option, with_options
from ffr.cli.output import say
from ffr.cli.setting_options import setting_options
from ffr.errors import UsageError
from ffr.settings import GrpoConfig, SftConfig, StageConfig, load_config, recipes
from ffr.settings import describe as describe_settings

if TYPE_CHECKING:
    from ffr.training.common.run import TrainResult
    from ffr.training.common.stage import Stage

_NAMED = ("dataset", "val_dataset", "image_root", "skip_bad", "seed")
"""Settings with an option of their own in every stage."""

_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--config",
        "source",
        metavar="RECIPE|FILE",
        help="A recipe that comes with ffr, or a YAML file. [default: tiny]",
    ),
    *setting_options(StageConfig, _NAMED, of_recipe=True),
    click.option(
        "-o",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set any setting; see --list-settings.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="The run's folder. [default: runs/STAGE-…]",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Go on with a run that was stopped.",
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop."),
    click.option("--list-settings", is_flag=True, help="Print all settings and recipes, and stop."),
    click.option(
        "--progress/--no-progress",
        default=None,
        help="Progress bar. [default: where the output is a terminal]",
    ),
)


_KINDS: dict[str, type[StageConfig]] = {"sft": SftConfig, "grpo": GrpoConfig}
_ALIASES = {"lr": "learning_rate", "num_train_epochs": "epochs"}
"""What other trainers call a setting."""


class _StageCommand(click.Command):
    """A stage's command: of an option that is a setting without one, it says how it is set."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            typed = error.option_name.lstrip("-").replace("-", "_")
            name = _ALIASES.get(typed, typed)
            known = [item for item, _, _ in describe_settings(_KINDS[self.name or ""])]
            if name not in known:
                raise
            raise UsageError(
                f"there is no option {error.option_name}; set it with -o {name}=VALUE"
            ) from None


@click.group()
def train() -> None:
    """Train a model: `ffr train sft` is the cold start, `ffr train grpo` comes after it."""


@train.command(cls=_StageCommand)
@with_options(*setting_options(SftConfig, ["model"], of_recipe=True), *_OPTIONS)
def sft(**options: Any) -> None:
    """Cold start: supervised fine-tuning on dialogues with true answers.

    Bare `ffr train sft` trains the embedded tiny model on the bundled sample. The run's folder
    holds settings, figures, checkpoints, the adapter and a merged model that `ffr eval` and plain
    transformers load.
    """
    _run_stage(SftConfig, **options)


@train.command(cls=_StageCommand)
@with_options(*setting_options(GrpoConfig, ["model", "curriculum"], of_recipe=True), *_OPTIONS)
def grpo(**options: Any) -> None:
    """Second stage: GRPO, which trains a model on the rewards of its own answers.

    Bare `ffr train grpo` goes on from the newest finished SFT run under ./runs, on the bundled
    sample. Each prompt passes through the model once for all answers to it. Kill it at any point;
    --resume goes on to the bit.
    """
    _run_stage(GrpoConfig, **options)


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
        _list_settings(kind)
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
            say(
                f"{resume} is finished; nothing is left to train (to train its model further: "
                f"--model {resume})"
            )
            return
        _start(config, dry_run=dry_run, recipe=resume.name, run=resume, resume=True, **job)
        return
    config = load_config(kind, source=source, overrides=overrides, settings=settings)
    from ffr.runs import is_unbegun

    # a process that the first one started finds the folder made by it
    if out is not None and "LOCAL_RANK" not in os.environ and not is_unbegun(out):
        raise UsageError(
            f"{out}: this folder is not empty; name a new one, or go on with the run by --resume "
            f"{out}"
        )
    _start(config, dry_run=dry_run, recipe=source or "tiny", run=out, **job)


def _start(config: StageConfig, *, dry_run: bool, **job: Any) -> None:
    """Trains, or says what would be trained; `job` is what a `Job` takes."""
    from ffr.training.common.stage import Job, describe, train

    stage = _stage(config.stage)
    if dry_run:
        describe(stage, config, Job(**job))
        return
    _finish(config.stage, train(stage, config, Job(**job)))


def _stage(name: str) -> Stage[Any]:
    if name == "sft":
        from ffr.training.sft.stage import SftStage

        return SftStage()
    from ffr.training.grpo.stage import GrpoStage

    return GrpoStage()


def _list_settings(kind: type[StageConfig]) -> None:
    width = max(len(name) for name, _, _ in describe_settings(kind))
    for name, default, text in describe_settings(kind):
        say(f"{name:<{width}}  {text} [{default}]")
    say("\nrecipes:")
    for name, text in recipes(kind.stage).items():
        say(f"{name:<{width}}  {text}")


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

    # a setting that the run was not started with is refused though nothing is left to train
    config = load_run_config(kind, run, overrides)
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


def _finish(stage: str, result: TrainResult) -> None:
    if result.status == "interrupted":
        say(f"stopped; go on with `ffr train {stage} --resume {result.run}`")
        raise click.exceptions.Exit(130)
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
    say(f"the run: {result.run}  ·  next: ffr eval --model {result.run}")
