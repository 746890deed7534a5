"""`ffr train`: training stages, from a recipe or a file, resumable."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ffr.errors import UsageError


@click.group()
def train() -> None:
    """Train a model; `ffr train sft` is the cold start."""


@train.command()
@click.option(
    "--config", "source", metavar="RECIPE|FILE", help="A recipe that comes with ffr, or a YAML file. [default: tiny]"
)
@click.option("--model", metavar="MODEL", help="`tiny`, a folder, a run, or a hub id.")
@click.option("--dataset", metavar="NAME|PATH", help="A named set (sample, mldr, …) or a file.")
@click.option("--val-dataset", metavar="NAME|PATH", help="Validation data; a named set brings its own.")
@click.option("--image-root", metavar="DIR", help="Folder that image paths are relative to.")
@click.option("--skip-bad", is_flag=True, default=None, help="Leave bad records out, counted, instead of stopping.")
@click.option("-o", "overrides", metavar="KEY=VALUE", multiple=True, help="Set any setting; see --list-settings.")
@click.option("--seed", type=int, help="Seed of data order, adapter and dropout.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="The run's folder. [default: runs/sft-…]")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was stopped.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--list-settings", is_flag=True, help="Print all settings and recipes, and stop.")
@click.option("--progress/--no-progress", default=None, help="Progress bar. [default: where the output is a terminal]")
def sft(
    source: str | None,
    model: str | None,
    dataset: str | None,
    val_dataset: str | None,
    image_root: str | None,
    skip_bad: bool | None,
    overrides: tuple[str, ...],
    seed: int | None,
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    list_settings: bool,
    progress: bool | None,
) -> None:
    """Cold start: supervised fine-tuning on dialogues with true answers.

    Bare `ffr train sft` trains the embedded tiny model on the bundled sample. The run's folder holds settings, figures,
    checkpoints, the adapter and a merged model that `ffr eval` and plain transformers load.
    """
    from ffr.config import SftConfig, describe, load_config, recipes

    if list_settings:
        width = max(len(name) for name, _, _ in describe(SftConfig))
        for name, default, text in describe(SftConfig):
            click.echo(f"{name:<{width}}  {text} [{default}]")
        click.echo("\nrecipes:")
        for name, text in recipes("sft").items():
            click.echo(f"{name:<{width}}  {text}")
        return
    settings = {
        "model": model,
        "dataset": dataset,
        "val_dataset": val_dataset,
        "image_root": image_root,
        "skip_bad": skip_bad,
        "seed": seed,
    }
    if resume is not None:
        _resume(resume, source, {**settings, "out": out}, overrides, progress)
        return
    config = load_config(SftConfig, source=source, overrides=overrides, settings=settings)
    recipe = source or "tiny"
    # a process that the first one started finds the folder made by it
    if out is not None and "LOCAL_RANK" not in os.environ and any(out.glob("*")):
        raise UsageError(f"{out}: this folder is not empty; name a new one, or go on with the run by --resume {out}")
    from ffr.training import describe_sft, train_sft

    if dry_run:
        describe_sft(config, recipe=recipe, echo=click.echo)
        return
    _finish(train_sft(config, recipe=recipe, run=out, echo=click.echo, progress=_wants_progress(progress)))


def _resume(
    run: Path, source: str | None, settings: dict[str, object], overrides: tuple[str, ...], progress: bool | None
) -> None:
    from ffr.runs import RunRecord

    if source is not None or overrides or any(value is not None for value in settings.values()):
        raise UsageError("--resume takes its settings from the run; give no others, or start a new run")
    if not run.is_dir():
        raise UsageError(f"{run}: no such run folder")
    if RunRecord.load(run).status == "finished":
        click.echo(f"{run} is finished; nothing is left to train")
        return
    from ffr.training import load_run_config, train_sft

    config = load_run_config(run)
    recipe = run.name
    _finish(train_sft(config, recipe=recipe, run=run, resume=True, echo=click.echo, progress=_wants_progress(progress)))


def _wants_progress(asked: bool | None) -> bool:
    import sys

    return sys.stdout.isatty() if asked is None else asked


def _finish(result: object) -> None:
    from ffr.training import TrainResult

    assert isinstance(result, TrainResult)
    if result.status == "interrupted":
        click.echo(f"stopped; go on with `ffr train sft --resume {result.run}`")
        raise click.exceptions.Exit(130)
    figures = result.figures
    if "val_joint_f1" in figures:
        click.echo(
            f"finished: validation F1 {figures['val_utterance_f1']:.3f} (utterances), {figures['val_image_f1']:.3f} (images)"
        )
    else:
        click.echo("finished")
    click.echo(f"the run: {result.run}  ·  next: ffr eval --model {result.run}")
