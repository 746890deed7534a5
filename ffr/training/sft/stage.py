"""The cold start from settings to a run folder with a merged model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lightning as L

from ffr.data.dataset import ExampleDataset
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.progress import Say
from ffr.prompt import MAX_SHARED_QUERIES
from ffr.runs import RUNS_FOLDER, Status, resolve_model
from ffr.settings import SftConfig, to_yaml
from ffr.training.common.assembly import (
    Preparation,
    TrainResult,
    check_packing,
    example_length,
    fit_module,
    load_base,
    load_data,
    make_prompt_builder,
    make_trainable,
    quiet_libraries,
    run_stage,
)
from ffr.training.common.grouping import group_queries
from ffr.training.sft.loader import Item, StepLoader
from ffr.training.sft.module import SftModule
from ffr.training.sft.packing import QueryPacker
from ffr.training.sft.plan import TrainPlan

COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
)  # fmt: skip
_CHARACTERS_PER_ANSWER = 80
"""What an answer and the marks around its query add to a group's length when batches are grouped, in characters of prompt."""


def train_sft(
    config: SftConfig,
    *,
    recipe: str = "tiny",
    run: Path | None = None,
    resume: bool = False,
    root: Path = Path(RUNS_FOLDER),
    echo: Say = print,
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


def describe_sft(config: SftConfig, *, recipe: str, echo: Say = print) -> None:
    """What a training would do, without doing it: data, steps, sizes, settings (`--dry-run`).

    Raises:
        FfrError: for whatever would stop the training at its start.
    """
    quiet_libraries()
    source = resolve_model(config.model)
    train_data, val_data = load_data(config, echo)
    vlm = load_base(config, source.location)
    make_trainable(config, vlm)
    builder = make_prompt_builder(config, vlm)
    groups = _groups(config, builder, train_data)
    sharing = _sharing(config, builder)
    plan = _plan(config, train_data, groups)
    encode, _ = _encoding(builder, train_data, groups, sharing, echo)
    longest = max(range(len(groups)), key=lambda number: plan.lengths[number])
    encoded = encode(longest)
    trained = sum(p.numel() for p in vlm.parameters() if p.requires_grad)
    total = sum(p.numel() for p in vlm.parameters())
    echo(
        f"Would train {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) with recipe {recipe}"
    )
    echo(
        f"data fingerprint {train_data.fingerprint[:16]}; validation {len(val_data) if val_data is not None else 0} examples"
    )
    echo(
        f"{plan.num_steps} optimizer steps of up to {plan.items_per_step} {'groups' if sharing else 'examples'}; "
        f"{trained:,} of {total:,} weights trained"
    )
    where = train_data.where(groups[longest][0])
    if sharing is None:
        echo(f"longest example {where}: {encoded.num_tokens} tokens with its answer")
    else:
        sizes = [len(group) for group in groups]
        echo(
            f"{len(train_data)} examples in {len(groups)} groups of {min(sizes)} to {max(sizes)} queries on one dialogue "
            f"(at most {MAX_SHARED_QUERIES})" + ("" if sharing.reason is None else f"; {_why_repeated(sharing.reason)}")
        )
        echo(f"longest group {where}: {encoded.num_tokens} tokens with its {sizes[longest]} queries and answers")
    echo(to_yaml(config).rstrip())


def _groups(config: SftConfig, builder: PromptBuilder, data: ExampleDataset) -> list[list[int]]:
    """Indices of the examples of each of the plan's items: one, or the queries of a dialogue where these are packed.

    Raises:
        UsageError: where they are to be packed and the query does not stand behind the dialogue.
    """
    if not config.pack_queries:
        return [[index] for index in range(len(data))]
    check_packing(builder)
    return group_queries(data)


def _sharing(config: SftConfig, builder: PromptBuilder) -> PrefixSharing | None:
    return PrefixSharing(builder.vlm, pad_to_multiple_of=config.pad_to_multiple_of) if config.pack_queries else None


def _why_repeated(reason: str) -> str:
    return f"dialogues are repeated for each of their queries, which takes more time and memory: {reason}"


def _plan(config: SftConfig, data: ExampleDataset, groups: list[list[int]]) -> TrainPlan:
    sizes = [(example_length(example), len(example.query) + _CHARACTERS_PER_ANSWER) for example in data]
    lengths = [length for length, _ in sizes]
    if config.pack_queries:
        lengths = [lengths[group[0]] + sum(sizes[index][1] for index in group) for group in groups]
    return TrainPlan(
        lengths=lengths,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        num_processes=config.devices,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )


def _encoding(
    builder: PromptBuilder, data: ExampleDataset, groups: list[list[int]], sharing: PrefixSharing | None, say: Say
) -> tuple[Callable[[int], Item], Callable[[int], int]]:
    """What encodes an item of the plan, and what counts its answer tokens."""
    if sharing is not None:
        packer = QueryPacker(builder, data, groups, is_shared=sharing.is_active, say=say)
        return packer, packer.count_answer_tokens

    def encode(index: int) -> Encoded:
        return builder(data[index], with_answer=True, where=data.where(index))

    def count_answer_tokens(index: int) -> int:
        return builder.count_answer_tokens(data[index])

    return encode, count_answer_tokens


def _fit(config: SftConfig, preparation: Preparation) -> tuple[Status, dict[str, float]]:
    quiet_libraries()
    L.seed_everything(config.seed, verbose=False)
    vlm = load_base(config, preparation.source.location)
    builder = make_prompt_builder(config, vlm)
    groups = _groups(config, builder, preparation.train_data)
    make_trainable(config, vlm)
    sharing = _sharing(config, builder)
    if sharing is not None and sharing.reason is not None:
        preparation.say(_why_repeated(sharing.reason))
    vlm.train()
    plan = _plan(config, preparation.train_data, groups)
    fingerprints = {**preparation.fingerprints, "model": vlm.fingerprint}
    module = SftModule(vlm, config, num_steps=plan.num_steps, fingerprints=fingerprints, sharing=sharing)
    encode, count_answer_tokens = _encoding(builder, preparation.train_data, groups, sharing, preparation.say)
    loader = StepLoader(
        plan,
        encode,
        count_answer_tokens,
        process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
        num_processes=config.devices,
        num_workers=config.num_workers,
    )
    return fit_module(preparation, module, loader, builder, columns=COLUMNS)
