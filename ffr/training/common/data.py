"""The data of a training: what the settings name, read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ffr.data.catalog import NAMED_SETS, load_dataset
from ffr.data.dataset import ExampleDataset
from ffr.data.judgement import ModelRules
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.progress import Say
from ffr.settings import StageConfig

_CHARACTERS_PER_IMAGE = 400
"""What a picture adds to an example's length when batches are grouped, in characters of prompt."""


def load_data(
    config: StageConfig, say: Say, rules: ModelRules | None = None
) -> tuple[ExampleDataset, ExampleDataset | None]:
    """Training and validation data that the settings name; None for no validation data.

    Args:
        config: The settings.
        say: Gets a line about what is generated or left out.
        rules: What the model cannot take; None for nothing known.

    Raises:
        FfrError: where they cannot be used.
    """
    image_root = Path(config.image_root) if config.image_root else None
    options: dict[str, Any] = {
        "image_root": image_root,
        "skip_bad": config.skip_bad,
        "rules": rules,
        "echo": say,
    }
    train_data = load_dataset(config.dataset, split=config.split, require_truths=True, **options)
    if len(train_data) == 0:
        raise DataError("holds no usable example to train on", where=config.dataset)
    if config.val_dataset is not None:
        return train_data, load_dataset(config.val_dataset, split=config.val_split, **options)
    if config.dataset in NAMED_SETS and config.val_split in NAMED_SETS[config.dataset].splits:
        return train_data, load_dataset(config.dataset, split=config.val_split, **options)
    say("no validation data: name some with --val-dataset to see figures of it while training")
    return train_data, None


def check_truths(data: ExampleDataset, fault: str, indices: Iterable[int]) -> None:
    """Sees that examples have true answers, before hours are spent in front of one without.

    Args:
        data: The data.
        fault: What is said of one that has none, and what an answer is needed for.
        indices: The examples that are looked at.

    Raises:
        DataError: with the place of the first that has none.
    """
    for index in indices:
        if data[index].fragment is None:
            raise DataError(f"{fault}; leave it out or add `solution`", where=data.where(index))


def example_length(example: Example) -> int:
    """About how long an example is, for grouping only."""
    lines = example.dialogue.utterances
    return sum(len(line.text) + 8 for line in lines) + _CHARACTERS_PER_IMAGE * len(
        example.dialogue.images
    )
