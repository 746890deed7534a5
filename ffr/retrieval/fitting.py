"""The data that a retriever is fitted on, where it is: other than what is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ffr.data.catalog import NAMED_SETS, load_dataset
from ffr.data.dataset import FirstExamples
from ffr.data.judgement import ModelRules
from ffr.dialogue import Example
from ffr.errors import UsageError
from ffr.progress import Progress, Say
from ffr.retrieval.embedding import check_fit_part
from ffr.settings import AnswerConfig

Bar = Callable[[int], AbstractContextManager[Progress | None]]
"""Makes the bar of a fit from its number of queries."""

OR_A_THRESHOLD = ", or give --threshold"


@dataclass(frozen=True)
class AskedData:
    """The data that is asked, as a retriever needs to know it that is fitted on other data.

    Args:
        examples: What is asked.
        dataset: What the user called the data.
        split: Part of a named set; None for a file.
        image_root: Folder that its image paths are relative to.
        skip_bad: Leave bad records out.
    """

    examples: Sequence[Example]
    dataset: str
    split: str | None
    image_root: str | Path | None = None
    skip_bad: bool = False


def data_to_fit(
    settings: AnswerConfig, dataset: str, split: str | None, or_else: str = OR_A_THRESHOLD
) -> str:
    """The name of the data on which is fitted what is not given.

    Args:
        settings: How an encoder is asked.
        dataset: What the user called the data that is asked.
        split: Part of a named set; None for a file.
        or_else: What might be done in place of fitting, behind a comma.

    Raises:
        UsageError: where none is named, and the data that is asked is all there is.
    """
    if settings.fit_dataset is not None:
        return settings.fit_dataset
    if split is None:
        why = "what is similar enough or likely is fitted on data that is not evaluated"
        remedy = f"name some with --fit-dataset{or_else}"
        raise UsageError(f"{why}, and {dataset} is all there is; {remedy}")
    entry = NAMED_SETS.get(dataset)
    if entry is not None and settings.fit_split not in entry.splits:
        why = f"what is similar enough must be fitted, and the set {dataset} has no part {settings.fit_split}"
        raise UsageError(f"{why}; name data with --fit-dataset{or_else}")
    return dataset


def data_fitted_on(
    asked: AskedData,
    settings: AnswerConfig,
    what: str,
    *,
    takes_images: bool,
    rules: ModelRules | None,
    say: Say,
    or_else: str = OR_A_THRESHOLD,
) -> tuple[Sequence[Example], str, str | None]:
    """Opens the data to fit on, of which nothing is asked.

    Args:
        asked: The data that is asked.
        settings: Name the other data.
        what: Is fitted, in a word or two.
        takes_images: Whether pictures are looked at.
        rules: What the data must not hold.
        say: Gets a line about it.
        or_else: As for `data_to_fit`.

    Returns:
        Its examples, what it is called, and the part of a named set.

    Raises:
        UsageError: where none is named, or a query is asked of both.
        DataError: where it cannot be read.
    """
    dataset = data_to_fit(settings, asked.dataset, asked.split, or_else)
    own_root = (
        settings.fit_image_root
        if settings.fit_dataset is not None
        else settings.fit_image_root or asked.image_root
    )
    data = load_dataset(
        dataset,
        split=settings.fit_split,
        image_root=own_root,
        skip_bad=asked.skip_bad,
        require_images=takes_images,
        rules=rules,
        echo=say,
    )
    fit = data if settings.fit_limit is None else FirstExamples(data, settings.fit_limit)
    check_fit_part(asked.examples, fit, takes_images=takes_images, or_else=or_else)
    split = None if Path(dataset).is_file() else settings.fit_split
    part = f" ({split})" if split is not None else ""
    say(f"Fitting {what} on {dataset}{part}, {len(fit)} queries")
    return fit, dataset, split
