"""The cold start from settings to a run folder with a merged model."""

from __future__ import annotations

import os
from pathlib import Path

import lightning as L

from ffr.config import SftConfig, to_yaml
from ffr.data.formats import ExampleDataset
from ffr.models.vlm import Encoded
from ffr.runs import RUNS_FOLDER, Status, resolve_model
from ffr.sft.loader import StepLoader
from ffr.sft.module import SftModule
from ffr.sft.plan import TrainPlan
from ffr.training.assembly import (
    Preparation,
    TrainResult,
    example_length,
    fit_module,
    load_base,
    load_data,
    make_encoder,
    make_trainable,
    quiet_libraries,
    run_stage,
)
from ffr.training.callback import Echo

COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
)  # fmt: skip


def train_sft(
    config: SftConfig,
    *,
    recipe: str = "tiny",
    run: Path | None = None,
    resume: bool = False,
    root: Path = Path(RUNS_FOLDER),
    echo: Echo = print,
    progress: bool = True,
) -> TrainResult:
    """Runs the cold start from its settings to a run folder with a merged model.

    Args:
        config: The settings.
        recipe: What the run's folder is called after.
        run: The run folder; None makes the next one under `root`.
        resume: Whether `run` holds a run to go on with.
        root: Folder of the runs.
        echo: Takes the lines that a person should see.
        progress: Whether a progress bar is drawn.

    Returns:
        The run folder, its status (`finished`, or `interrupted` after SIGTERM or Ctrl-C) and the last figures.

    Raises:
        FfrError: for anything wrong with settings, data or model, before any training where it can be known before.
    """

    def fit(preparation: Preparation) -> tuple[Status, dict[str, float]]:
        return _fit(config, preparation)

    return run_stage(
        config,
        resolve_model(config.model),
        fit,
        recipe=recipe,
        run=run,
        resume=resume,
        root=root,
        echo=echo,
        progress=progress,
    )


def describe_sft(config: SftConfig, *, recipe: str, echo: Echo = print) -> None:
    """What a training would do, without doing it: data, steps, sizes, settings (`--dry-run`).

    Raises:
        FfrError: for whatever would stop the training at its start.
    """
    quiet_libraries()
    source = resolve_model(config.model)
    train_data, val_data = load_data(config, echo)
    vlm = load_base(config, source.location)
    make_trainable(config, vlm)
    plan = _plan(config, train_data)
    encoder = make_encoder(config, vlm)
    longest = max(range(len(train_data)), key=lambda index: plan.lengths[index])
    encoded = encoder(train_data[longest], with_answer=True, where=train_data.where(longest))
    trained = sum(p.numel() for p in vlm.parameters() if p.requires_grad)
    total = sum(p.numel() for p in vlm.parameters())
    echo(
        f"Would train {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) with recipe {recipe}"
    )
    echo(
        f"data fingerprint {train_data.fingerprint[:16]}; validation {len(val_data) if val_data is not None else 0} examples"
    )
    echo(
        f"{plan.num_steps} optimizer steps of up to {plan.examples_per_step} examples; {trained:,} of {total:,} weights trained"
    )
    echo(f"longest example {train_data.where(longest)}: {encoded.num_tokens} tokens with its answer")
    echo(to_yaml(config).rstrip())


def _plan(config: SftConfig, data: ExampleDataset) -> TrainPlan:
    return TrainPlan(
        lengths=[example_length(example) for example in data],
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        num_processes=config.devices,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )


def _fit(config: SftConfig, preparation: Preparation) -> tuple[Status, dict[str, float]]:
    quiet_libraries()
    L.seed_everything(config.seed, verbose=False)
    vlm = load_base(config, preparation.source.location)
    make_trainable(config, vlm)
    vlm.train()
    train_data = preparation.train_data
    plan = _plan(config, train_data)
    encoder = make_encoder(config, vlm)
    fingerprints = {**preparation.fingerprints, "model": vlm.fingerprint}
    module = SftModule(vlm, config, num_steps=plan.num_steps, fingerprints=fingerprints)

    def encode(index: int) -> Encoded:
        return encoder(train_data[index], with_answer=True, where=train_data.where(index))

    def count_answer_tokens(index: int) -> int:
        fragment = train_data[index].fragment
        assert fragment is not None
        return vlm.count_answer_tokens(fragment)

    loader = StepLoader(
        plan,
        encode,
        count_answer_tokens,
        process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
        num_processes=config.devices,
        num_workers=config.num_workers,
    )
    return fit_module(preparation, module, loader, encoder, columns=COLUMNS)
