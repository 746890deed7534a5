"""GRPO from settings to a run folder with a merged model: start model, data order, rewards, start-up check, training."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import lightning as L
import torch

from ffr.data.dataset import ExampleDataset
from ffr.embedding import CachedEncoder, Encoder
from ffr.embedding.policy import PolicyEncoder
from ffr.encoders import open_encoder
from ffr.errors import DataError, ModelError, UsageError
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.progress import Progress, Say
from ffr.retrieval.vlm import VlmRetriever
from ffr.run_log import REWARD_CURVES
from ffr.runs import RUNS_FOLDER, ModelSource, Status, newest_finished_run, resolve_model
from ffr.settings import GrpoConfig, to_yaml
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
    newest_step,
    quiet_libraries,
    run_stage,
)
from ffr.training.common.grouping import group_queries
from ffr.training.curriculum.callback import CurriculumCallback
from ffr.training.curriculum.difficulty import load_difficulties, score_dataset
from ffr.training.curriculum.order import (
    DataOrder,
    Difficulty,
    Level,
    OnlineOrder,
    PacedOrder,
    PaperOrder,
    ShuffledOrder,
    assign_levels,
    kept_items,
)
from ffr.training.curriculum.plot import draw_level_mix, draw_scatter
from ffr.training.grpo.loader import PromptLoader
from ffr.training.grpo.module import GrpoModule, figure_columns
from ffr.training.grpo.reward_terms import RewardTerm, load_reward
from ffr.training.grpo.rewards import (
    FragmentF1Reward,
    FragmentOrderReward,
    OverlongPenalty,
    format_reward,
    fragment_mcc_reward,
)
from ffr.training.grpo.rollout import Sampler, columns_of
from ffr.training.grpo.samples import SampleLog

_NUM_LONGEST = 8
"""Examples that look longest; they are encoded to find the one that is."""


def start_model(config: GrpoConfig, root: Path) -> tuple[GrpoConfig, ModelSource]:
    """The settings with the start model named, and where it is.

    Raises:
        UsageError: where the newest SFT run is asked for and there is none, or the model is not here.
    """
    if config.model != "newest":
        return config, resolve_model(config.model)
    run = newest_finished_run(root, "sft")
    if run is None:
        raise UsageError(
            f"no finished SFT run under {root} to start from; run `ffr train sft` first, or name a model with --from"
        )
    return dataclasses.replace(config, model=str(run)), resolve_model(str(run))


def train_grpo(
    config: GrpoConfig,
    *,
    recipe: str = "tiny",
    run: Path | None = None,
    resume: bool = False,
    root: Path = Path(RUNS_FOLDER),
    echo: Say = print,
    progress: bool = True,
) -> TrainResult:
    """Runs GRPO from its settings to a run folder with a merged model.

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
        FfrError: for anything wrong with settings, data, model or rewards.
    """
    config, source = start_model(config, root)
    _check_settings(config)

    def fit(preparation: Preparation) -> tuple[Status, dict[str, float]]:
        return _fit(config, preparation)

    return run_stage(
        config, source, fit, recipe=recipe, run=run, resume=resume, root=root, echo=echo, progress=progress
    )


def describe_grpo(config: GrpoConfig, *, recipe: str, root: Path = Path(RUNS_FOLDER), echo: Say = print) -> None:
    """What a training would do, without doing it: start model, data, steps, rewards, settings (`--dry-run`).

    Raises:
        FfrError: for whatever would stop the training at its start.
    """
    quiet_libraries()
    config, source = start_model(config, root)
    _check_settings(config)
    train_data, val_data = load_data(config, echo)
    vlm = load_base(config, source.location)
    make_trainable(config, vlm)
    sharing = PrefixSharing(
        vlm, is_wanted=config.prompt_sharing == "auto", pad_to_multiple_of=config.pad_to_multiple_of
    )
    builder = make_prompt_builder(config, vlm)
    if config.pack_queries:
        check_packing(builder)
    terms = reward_terms(config, vlm)
    longest, encoded = _longest(train_data, builder)
    num_steps = _num_steps(config, len(train_data))
    echo(
        f"Would train {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) with recipe {recipe}"
    )
    echo(
        f"data fingerprint {train_data.fingerprint[:16]}; validation {len(val_data) if val_data is not None else 0} examples"
    )
    echo(
        f"{num_steps} steps of {_prompts_per_step(config)} prompts with {config.num_generations} answers each"
        + (" at most: the curriculum leaves items out" if config.curriculum == "paper" else "")
    )
    echo("rewards: " + ", ".join(f"{term.name} × {term.weight:g}" for term in terms))
    echo(
        "prompts pass through the model once for all their answers"
        if sharing.is_active
        else f"prompts are repeated for each answer: {sharing.reason}"
    )
    echo(f"longest prompt {train_data.where(longest)}: {encoded.num_tokens} tokens")
    echo(to_yaml(config).rstrip())


def _check_settings(config: GrpoConfig) -> None:
    if not config.lora_rank and config.kl_coefficient:
        raise UsageError(
            "the divergence is taken from the model without its adapter: set lora_rank, or kl_coefficient=0"
        )


def reward_terms(config: GrpoConfig, vlm: Vlm) -> list[RewardTerm]:
    """The rewards that the settings ask for, with their weights.

    Raises:
        UsageError: where none has a weight, or one of the user's own cannot be found.
    """
    terms = [
        RewardTerm("format", format_reward, config.format_weight),
        RewardTerm("f1", FragmentF1Reward(config.f1_beta, config.length_discount), config.f1_weight),
        RewardTerm("order", FragmentOrderReward(_reward_encoder(config, vlm)), config.order_weight)
        if config.order_weight
        else None,
        RewardTerm("mcc", fragment_mcc_reward, config.mcc_weight),
        RewardTerm("overlong", OverlongPenalty(config.max_new_tokens, config.overlong_tokens), 1.0)
        if config.overlong_tokens
        else None,
        *_own_rewards(config.rewards),
    ]
    weighted = [term for term in terms if term is not None and term.weight]
    if not weighted:
        raise UsageError("no reward has a weight; set f1_weight, order_weight, format_weight, mcc_weight or rewards")
    return weighted


def _own_rewards(text: str | None) -> list[RewardTerm]:
    terms = []
    for part in filter(None, (item.strip() for item in (text or "").split(","))):
        name, equals, weight = part.partition("=")
        try:
            value = float(weight) if equals else 1.0
        except ValueError:
            raise UsageError(f"setting rewards: {weight!r} in {part!r} is not a number") from None
        terms.append(RewardTerm(name.rpartition(":")[2], load_reward(name), value))
    return terms


def _reward_encoder(config: GrpoConfig, vlm: Vlm) -> Encoder:
    # an export beside a policy on a GPU may work on the CPU, where ONNX Runtime cannot use the GPU
    device = "auto" if vlm.device.type == "cuda" else vlm.device.type
    encoder = open_encoder(config.encoder, device=device, policy=PolicyEncoder(vlm))
    if not encoder.takes_images:
        raise UsageError(
            f"setting encoder: {config.encoder} encodes texts only, and the order reward compares texts with pictures; "
            "name an encoder of both, or set order_weight=0"
        )
    if config.encoder_cache_dir is None:
        return encoder
    # a policy's fingerprint names its weights alone, and its vectors of images depend on their size too
    folder = Path(config.encoder_cache_dir) / f"{config.max_image_pixels}-pixels"
    return CachedEncoder(encoder, folder, max_bytes=config.encoder_cache_mb * 2**20)


def _prompts_per_step(config: GrpoConfig) -> int:
    return config.batch_size * config.accumulate * config.devices


def _num_steps(config: GrpoConfig, num_items: int) -> int:
    steps = max(1, -(-round(num_items * config.epochs) // _prompts_per_step(config)))
    return steps if config.max_steps is None else min(steps, config.max_steps)


def _longest(data: ExampleDataset, builder: PromptBuilder) -> tuple[int, Encoded]:
    """The index of the longest prompt, and the prompt: the longest in tokens of those that look longest."""
    lengths = [example_length(example) for example in data]
    candidates = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[:_NUM_LONGEST]
    encoded = {index: builder(data[index], where=data.where(index)) for index in candidates}
    longest = max(encoded, key=lambda index: encoded[index].num_tokens)
    return longest, encoded[longest]


def _data_order(config: GrpoConfig, vlm: Vlm, preparation: Preparation) -> tuple[DataOrder, int, list[Level] | None]:
    """The order of the data, the steps of the training, and each item's level where it is known."""
    data = preparation.train_data
    if config.curriculum is None:
        groups = group_queries(data) if config.pack_queries else None
        return ShuffledOrder(len(data), config.seed, groups), _num_steps(config, len(data)), None
    difficulties = _difficulties(config, vlm, preparation)
    levels = assign_levels(difficulties)
    kept = kept_items(difficulties, levels) if config.curriculum == "paper" else list(range(len(data)))
    counts = ", ".join(f"{levels.count(level)} {level}" for level in ("easy", "medium", "confusing", "hard"))
    preparation.say(f"curriculum {config.curriculum}: {counts}; {len(kept)} of {len(data)} items are trained on")
    num_steps = _num_steps(config, len(kept))
    num_draws = num_steps * _prompts_per_step(config)
    if config.curriculum == "paper":
        return PaperOrder(levels, kept, config.seed), num_steps, levels
    if config.curriculum == "paced":
        return PacedOrder(difficulties, num_draws, config.seed, config.pace_start_share), num_steps, levels
    return OnlineOrder(difficulties, num_draws, config.seed), num_steps, levels


def _difficulties(config: GrpoConfig, vlm: Vlm, preparation: Preparation) -> list[Difficulty]:
    data, say = preparation.train_data, preparation.say
    if config.difficulty is not None:
        return load_difficulties(Path(config.difficulty), data)
    say("the start model answers the training data once, to find out what is hard for it")
    retriever = VlmRetriever(
        vlm,
        name=preparation.source.label,
        template=config.template,
        query_position=config.query_position,
        max_new_tokens=config.max_new_tokens,
        batch_tokens=config.val_batch_tokens,
        with_logprobs=True,
    )
    scored = score_dataset(data, retriever, dataset=config.dataset, split=config.split, progress=_told_by_tenths(say))
    say(f"difficulties: {scored.table}")
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        draw_scatter(scored.difficulties, preparation.run / "difficulty.png", title=preparation.run.name)
    return list(scored.difficulties)


def _told_by_tenths(say: Say) -> Progress:
    told = [0]

    def progress(num_done: int, num_all: int | None) -> None:
        tenth = 10 * num_done // max(1, num_all or 1)
        if tenth > told[0]:
            told[0] = tenth
            say(f"  {num_done} of {num_all} answered")

    return progress


def _fit(config: GrpoConfig, preparation: Preparation) -> tuple[Status, dict[str, float]]:
    quiet_libraries()
    L.seed_everything(config.seed, verbose=False)
    data, say = preparation.train_data, preparation.say
    _check_truths(data)
    vlm = load_base(config, preparation.source.location)
    vlm.name = preparation.source.label
    order, num_steps, levels = _data_order(config, vlm, preparation)
    make_trainable(config, vlm)
    sharing = PrefixSharing(
        vlm, is_wanted=config.prompt_sharing == "auto", pad_to_multiple_of=config.pad_to_multiple_of
    )
    if sharing.reason is not None:
        say(f"prompts pass through the model once for each answer, which is slow: {sharing.reason}")
    vlm.train()
    builder = make_prompt_builder(config, vlm)
    if config.pack_queries:
        check_packing(builder)
    terms = reward_terms(config, vlm)
    module = GrpoModule(
        vlm,
        config,
        num_steps=num_steps,
        fingerprints={**preparation.fingerprints, "model": vlm.fingerprint},
        sharing=sharing,
        sampler=Sampler(vlm, config, terms, columns_of(builder, data), is_cache_shared=sharing.is_active),
    )

    def encode(index: int) -> Encoded:
        return builder(data[index], where=data.where(index))

    loader = PromptLoader(
        order,
        encode,
        num_steps=num_steps,
        prompts_per_step=_prompts_per_step(config),
        process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
        num_processes=config.devices,
        num_workers=config.num_workers,
        dialogue_numbers=_dialogue_numbers(data) if config.pack_queries else None,
    )
    if config.startup_check:
        _try_longest(config, module, builder, data)
    curriculum = CurriculumCallback(order, levels)
    last_step = newest_step(preparation)
    samples = SampleLog(preparation.run, every_steps=config.show_samples_every_steps, last_step=last_step, say=say)
    status, figures = fit_module(
        preparation,
        module,
        loader,
        builder,
        columns=figure_columns([term.name for term in terms]),
        callbacks=[curriculum, samples],
        more_figures=lambda: curriculum.figures,
        curves=REWARD_CURVES,
        curves_label="reward",
        is_manual=True,
    )
    if status == "finished" and levels is not None and module.global_rank == 0:
        draw_level_mix(preparation.run / "metrics.csv", preparation.run / "levels.png", title=preparation.run.name)
    return status, figures


def _dialogue_numbers(data: ExampleDataset) -> list[int]:
    """For each item the number of its group of queries on one dialogue."""
    numbers = [0] * len(data)
    for number, group in enumerate(group_queries(data)):
        for index in group:
            numbers[index] = number
    return numbers


def _check_truths(data: ExampleDataset) -> None:
    for index, example in enumerate(data):
        if example.fragment is None:
            raise DataError(
                "has no true answer, which the rewards need; leave it out or add `solution`", where=data.where(index)
            )


def _try_longest(config: GrpoConfig, module: GrpoModule, builder: PromptBuilder, data: ExampleDataset) -> None:
    """Takes the longest prompt through a pass at once, so that a lack of memory shows before anything is trained.

    Raises:
        ModelError: naming the dialogue.
    """
    index, encoded = _longest(data, builder)
    try:
        module.try_longest(encoded)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_lack_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate" in str(error)
        if not is_lack_of_memory:
            raise
        raise ModelError(
            f"there is not enough memory for a step on the longest prompt, dialogue {data[index].dialogue.id!r} "
            f"({encoded.num_tokens} tokens), with {config.num_generations} answers of up to {config.max_new_tokens} tokens; "
            "lower answers_per_pass, batch_size, rollout_batch, max_new_tokens or max_image_pixels",
            data.where(index),
        ) from error
