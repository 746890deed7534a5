"""A training's run folder and record: made at the start, kept true, found again on resuming."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ffr.data.catalog import NAMED_SETS
from ffr.data.dataset import ExampleDataset
from ffr.embedding.loading import SHIPPED
from ffr.embedding.packaged import PACKAGED
from ffr.errors import DataError, ModelError, UsageError
from ffr.files import OWNER_FILE, owned_folder, remove, remove_if_empty, replace_text
from ffr.provenance import command, now, versions
from ffr.run_log import METRICS_FILE
from ffr.runs import (
    CONFIG_FILE,
    READER,
    RECORD_FILE,
    ModelSource,
    RunRecord,
    Status,
    is_unbegun,
    new_run_folder,
)
from ffr.settings import (
    NEWEST,
    SCRATCH,
    StageConfig,
    config_fingerprint,
    load_resumed,
    resumed_fingerprint,
    to_yaml,
)

Config = TypeVar("Config", bound=StageConfig)
_RUN_FOLDER_VARIABLE = "FFR_RUN_FOLDER"
_NAMES_OF_FILES: dict[str, Collection[str]] = {
    "model": ("tiny", READER, NEWEST, SCRATCH, *PACKAGED),
    "dataset": NAMED_SETS,
    "val_dataset": NAMED_SETS,
    "image_root": (),
    "difficulty": (),
    "encoder": ("policy", *SHIPPED, *PACKAGED),
}
"""Settings that may name a file or folder, and what they may name else."""


@dataclass(frozen=True)
class TrainResult:
    """Where a training left its files, and how it ended."""

    run: Path
    status: Status
    figures: dict[str, float]


def is_first_process() -> bool:
    """Whether this process speaks and writes for all."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


@contextmanager
def run_folder(
    run: Path | None, root: Path, stage: str, model: str, *, resume: bool
) -> Iterator[Path]:
    """The run's folder, the same one in all processes.

    The first process makes it and hands its name to those that it starts. A new run that fails
    before its first step takes with it what it wrote.

    Args:
        run: The folder; None makes the next one under `root`.
        root: Folder of the runs.
        stage: Stands in the name of a new folder.
        model: Likewise.
        resume: Whether the folder holds a run that is gone on with.

    Raises:
        UsageError: where processes were started from outside, so that none could hand a name on,
            or where another process trains into the folder.
    """
    handed = os.environ.get(_RUN_FOLDER_VARIABLE)
    if not is_first_process() or (handed and int(os.environ.get("WORLD_SIZE", "1")) > 1):
        if run is None and not handed:
            raise UsageError(
                "several processes were started from outside; name the run's folder with --out"
            )
        yield run or Path(str(handed))
        return
    is_ours = run is None or not run.exists()
    if run is None:
        run = new_run_folder(root, stage, model)
    try:
        with owned_folder(run):
            os.environ[_RUN_FOLDER_VARIABLE] = str(run.resolve())
            is_new = not resume and is_unbegun(run)
            try:
                yield run
            except BaseException:
                if is_new and not has_begun(run):
                    _clear(run)
                raise
            finally:
                os.environ.pop(_RUN_FOLDER_VARIABLE, None)
    except BaseException:
        if is_ours:
            remove_if_empty(run)
        raise


def has_begun(run: Path) -> bool:
    """Whether a run came as far as its first step."""
    return (run / METRICS_FILE).exists()


def _clear(run: Path) -> None:
    # what keeps us from it is most likely what stopped the run, and that is what is told
    with suppress(OSError):
        for path in run.iterdir():
            if path.name != OWNER_FILE:
                remove(path)


def with_absolute_paths(config: Config) -> Config:
    """The settings with the files and folders that they name in full, so that a run goes on from any folder.

    Names of sets, of models that come with ffr, and of the hub stay as they are.
    """
    changed: dict[str, Any] = {}
    for name, reserved in _NAMES_OF_FILES.items():
        value = getattr(config, name, None)
        if not isinstance(value, str) or value in reserved:
            continue
        # an encoder's kind stands before its folder: `onnx:DIR`
        kind, colon, rest = value.partition(":") if name == "encoder" else ("", "", value)
        path = Path(rest if colon else value)
        if path.exists():
            changed[name] = (kind + colon if colon else "") + str(path.absolute())
    return replace(config, **changed)


def configuration_of(config: StageConfig, resumed: Path | None) -> str:
    """What names the settings of a run: of one that is gone on with, what its checkpoints say.

    Args:
        config: The settings.
        resumed: The run folder that is gone on with; None for a new run.

    Raises:
        FfrError: where the folder's settings are not those that its record names.
    """
    if resumed is None:
        return config_fingerprint(config)
    return resumed_fingerprint(
        config, resumed / CONFIG_FILE, RunRecord.load(resumed).config_fingerprint
    )


def check_resumed(run: Path, data_fingerprint: str, val_fingerprint: str) -> RunRecord:
    """The record of a run that is gone on with.

    Args:
        run: The run folder.
        data_fingerprint: Names the training data.
        val_fingerprint: Names the validation data; empty for none.

    Raises:
        ModelError: where the data is not what the run began with.
    """
    record = RunRecord.load(run)
    for word, before, found in (
        ("training", record.data_fingerprint, data_fingerprint),
        ("validation", record.val_fingerprint, val_fingerprint),
    ):
        if before != found:
            what = f"the {word} data changed since the run began (its texts, answers or pictures)"
            raise ModelError(f"{what}; restore it, or start a new run", str(run))
    return record


@contextmanager
def kept_record(
    run: Path,
    config: StageConfig,
    source: ModelSource,
    data: tuple[ExampleDataset, ExampleDataset | None],
    *,
    configuration: str,
    resume: bool,
    recipe: str = "",
) -> Iterator[RunRecord]:
    """Writes `config.yaml` and the record of a run that begins, and the record again when it ends.

    The caller sets `status` and `results`; an exception makes the status `failed`. Only the first
    process writes. What the operating system refuses is said in a sentence.

    Args:
        run: The run folder.
        config: The settings.
        source: The model it starts from.
        data: Training data; validation data, if any.
        configuration: What names the settings; see `configuration_of`.
        resume: Whether the run is gone on with.
        recipe: The recipe or file that the settings of a new run come from; empty for none.

    Raises:
        ModelError: where it is resumed with other data than it began with.
        UsageError: where a new run's folder holds one by now.
        DataError: where a file cannot be written or read.
    """
    train_data, val_data = data
    record = RunRecord(
        stage=config.stage,
        status="running",
        started_at=now(),
        seed=config.seed,
        model=source.label,
        dataset=config.dataset,
        data_fingerprint=train_data.fingerprint,
        val_fingerprint=val_data.fingerprint if val_data is not None else "",
        config_fingerprint=configuration,
        recipe=recipe,
        num_left_out=train_data.num_left_out,
        num_val_left_out=val_data.num_left_out if val_data is not None else 0,
        versions=versions(),
        command=command(),
    )
    if resume:
        begun = check_resumed(run, record.data_fingerprint, record.val_fingerprint)
        record.started_at, record.recipe = begun.started_at, begun.recipe
    writes = is_first_process()
    if writes:
        if not resume:
            if (run / RECORD_FILE).exists():
                raise UsageError(f"{run}: another run was begun here meanwhile; name a new folder")
            replace_text(run / CONFIG_FILE, to_yaml(config))
        record.save(run)
    try:
        yield record
    except BaseException as error:
        record.status, record.error = "failed", f"{type(error).__name__}: {error}"
        if writes:
            # where there is no room for the record either, the first fault is what counts
            with suppress(DataError):
                _end(record, run)
        if isinstance(error, OSError):
            how = f"go on with `ffr train {config.stage} --resume {run}`"
            raise DataError(
                f"a file cannot be written or read ({error.strerror or error}); see to its room "
                f"and rights, and {how if resume or has_begun(run) else 'give the command again'}",
                where=str(error.filename or run),
            ) from error
        raise
    if writes:
        _end(record, run)


def _end(record: RunRecord, run: Path) -> None:
    record.finished_at = now()
    record.save(run)


def load_run_config(kind: type[Config], run: Path, overrides: Iterable[str] = ()) -> Config:
    """The settings that a run goes on with.

    Args:
        kind: The stage's settings.
        run: The run folder.
        overrides: As `ffr.settings.load_resumed` takes them.

    Raises:
        ModelError: where the folder is not a run's.
        UsageError: where an override would change the result.
    """
    RunRecord.load(run)
    path = run / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            "the run's config.yaml is missing; restore it or start a new run", str(run)
        )
    return load_resumed(kind, path, overrides)
