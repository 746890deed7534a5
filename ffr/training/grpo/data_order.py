"""The order of the data that the settings ask for, with the difficulties that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffr.data.dataset import data_fingerprint
from ffr.progress import Progress, Say
from ffr.settings import GrpoConfig
from ffr.training.common.packs import packs_of_queries
from ffr.training.common.stage import Job, Start
from ffr.training.curriculum.difficulty import (
    DIFFICULTY_FILE,
    cached_folder,
    load_difficulties,
    score_dataset,
)
from ffr.training.curriculum.order import (
    LEVELS,
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
from ffr.training.grpo.data import num_steps_of, prompts_per_step
from ffr.training.grpo.policy import Policy


@dataclass(frozen=True)
class ChosenOrder:
    """An order of the data, and what belongs to it.

    Args:
        order: The order.
        num_steps: Steps of the training.
        levels: Each item's level; None where difficulties are not looked at, or not known yet.
        measured: The difficulties, where they were measured for this training.
        note: What a person should know of it.
    """

    order: DataOrder
    num_steps: int
    levels: Sequence[Level] | None = None
    measured: Sequence[Difficulty] | None = None
    note: str | None = None


def choose_order(start: Start[GrpoConfig], policy: Policy, job: Job) -> ChosenOrder:
    """The order that the settings ask for.

    Args:
        start: Settings and data.
        policy: The start model, still frozen: where no table of difficulties is named, it answers
            the data once, which takes long.
        job: A dry one stops short of that work, and says so in the note.

    Raises:
        FfrError: where the table of difficulties cannot be used, or no item is left to train on.
    """
    config, data = start.config, start.train_data
    if config.curriculum is None:
        packs = packs_of_queries(data) if config.pack_queries else None
        return ChosenOrder(
            ShuffledOrder(len(data), config.seed, packs), num_steps_of(config, len(data))
        )
    measured: Sequence[Difficulty] | None = None
    if config.difficulty is not None:
        difficulties = load_difficulties(Path(config.difficulty), data)
    else:
        found = _measure(start, policy, job)
        if found is None:
            return ChosenOrder(
                ShuffledOrder(len(data), config.seed),
                num_steps_of(config, len(data)),
                note=f"curriculum {config.curriculum}: the start model would first answer all "
                f"{len(data)} examples "
                "once, to find out what is hard for it"
                + ("; fewer items may be left" if _drops(config) else ""),
            )
        difficulties = measured = found
    levels = assign_levels(difficulties)
    kept = kept_items(difficulties, levels) if _drops(config) else list(range(len(data)))
    counts = ", ".join(f"{levels.count(level)} {level}" for level in LEVELS)
    note = (
        f"curriculum {config.curriculum}: {counts}; {len(kept)} of {len(data)} items are trained on"
    )
    num_steps = num_steps_of(config, len(kept))
    num_draws = num_steps * prompts_per_step(config)
    order: DataOrder
    if config.curriculum == "paper":
        order = PaperOrder(levels, kept, config.seed)
    elif config.curriculum == "paced":
        order = PacedOrder(difficulties, num_draws, config.seed, config.pace_start_share)
    else:
        order = OnlineOrder(difficulties, num_draws, config.seed)
    return ChosenOrder(order, num_steps, levels, measured, note)


def _drops(config: GrpoConfig) -> bool:
    """Whether the order leaves items out."""
    return config.curriculum == "paper"


def _measure(start: Start[GrpoConfig], policy: Policy, job: Job) -> list[Difficulty] | None:
    """The difficulties for the start model; None where a dry job finds none in the cache."""
    data = start.train_data
    retriever = policy.retriever(start.source.label)
    if job.is_dry:
        table = cached_folder(retriever, data_fingerprint(data))[0] / DIFFICULTY_FILE
        return load_difficulties(table, data) if table.is_file() else None
    job.say("the start model answers the training data once, to find out what is hard for it")
    scored = score_dataset(data, retriever, progress=_told_by_tenths(job.say))
    job.say(f"difficulties: {scored.table}")
    return scored.difficulties


def _told_by_tenths(say: Say) -> Progress:
    told = [0]

    def progress(num_done: int, num_all: int | None) -> None:
        tenth = 10 * num_done // max(1, num_all or 1)
        if tenth > told[0]:
            told[0] = tenth
            say(f"  {num_done} of {num_all} answered")

    return progress
