"""Run folders: what a run leaves on disk, how one is found, and what `--model` may name.

A run folder holds `run.json` (the record: stage, status, seed, fingerprints, versions),
`config.yaml` (the resolved configuration), `metrics.csv`, `tensorboard/`, `checkpoints/`,
`adapter/`, `merged/` (a plain Hugging Face folder) and `curve.png`; of a reader, `reader/` in place
of the two, of a sentence encoder `encoder/`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ffr.errors import ModelError, UsageError
from ffr.files import is_passing, make_folder, make_new_folder, replace_json
from ffr.text import is_url, one_line

RUNS_FOLDER = "runs"
RECORD_FILE = "run.json"
CONFIG_FILE = "config.yaml"
READER = "reader"
"""The reader that comes with ffr, and the folder of a run that holds the one it made."""
ENCODER = "encoder"
"""The folder of a run that holds the sentence encoder it made."""
READER_FILE = "reader.json"
"""By which a reader's folder is known."""
Status = Literal["running", "interrupted", "failed", "finished"]


@dataclass
class RunRecord:
    """What `run.json` says of a run: enough to trace every number that it wrote."""

    stage: str
    status: Status
    started_at: str
    seed: int
    model: str
    dataset: str
    data_fingerprint: str = ""
    val_fingerprint: str = ""
    config_fingerprint: str = ""
    recipe: str = ""
    num_left_out: int = 0
    num_val_left_out: int = 0
    finished_at: str | None = None
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    def save(self, run: Path) -> None:
        """Writes the record whole or not at all."""
        replace_json(run / RECORD_FILE, asdict(self))

    @classmethod
    def load(cls, run: Path) -> RunRecord:
        """Reads a run's record.

        Raises:
            ModelError: where the folder has none or it cannot be read.
        """
        path = run / RECORD_FILE
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes(), strict=True)
        except FileNotFoundError:
            raise ModelError(
                f"no {RECORD_FILE} here; this is not the folder of a training run", str(run)
            ) from None
        except (OSError, ValueError) as error:
            reason = _fault_words(error) if isinstance(error, ValidationError) else str(error)
            raise ModelError(
                f"cannot be read as the record of a run ({reason}); restore or delete it", str(path)
            ) from None


def _fault_words(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    return ": ".join([*map(str, fault["loc"]), fault["msg"].lower()])


def new_run_folder(root: Path, stage: str, model: str) -> Path:
    """Makes the next folder `<root>/<stage>-<model>-<number>`.

    Two processes never get the same one.
    """
    make_folder(root)
    number = 1
    while not make_new_folder(run := root / f"{stage}-{model}-{number:03d}"):
        number += 1
    return run


def is_unbegun(run: Path) -> bool:
    """Whether a folder holds nothing of a run but what comes before its record (locks, scratch).

    Such a run was stopped before it began, and the command that started it may start it anew.
    Hidden files of another hand, such as `.git`, make it a folder of somebody's own.

    >>> from ffr.files import temporary_folder
    >>> with temporary_folder() as folder:
    ...     make_folder(folder / "run" / ".git")
    ...     is_unbegun(folder), is_unbegun(folder / "elsewhere"), is_unbegun(folder / "run")
    (False, True, False)
    """
    return all(path.name == CONFIG_FILE or is_passing(path.name) for path in run.glob("*"))


def newest_finished_run(root: Path, stage: str | None = None) -> Path | None:
    """The run under `root` that finished last; None where there is none."""
    found: list[tuple[str, Path]] = []
    for path in root.glob(f"*/{RECORD_FILE}"):
        try:
            record = RunRecord.load(path.parent)
        except ModelError:
            continue
        if record.status == "finished" and (stage is None or record.stage == stage):
            found.append((record.finished_at or "", path.parent))
    return max(found)[1] if found else None


def newest_sft_run(root: Path) -> Path:
    """The run that GRPO starts from where none is named.

    Raises:
        UsageError: where there is none.
    """
    run = newest_finished_run(root, "sft")
    if run is None:
        raise UsageError(
            f"no finished SFT run under {root} to start from; run `ffr train sft` first, or name a "
            "model with --from"
        )
    return run


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are, and what to call it.

    Args:
        location: A folder, or a hub id.
        label: The name that a person gave: `tiny`, a run's name, a folder, a hub id.
        run: The run folder where the model is a run's.
    """

    location: str
    label: str
    run: Path | None = None

    @property
    def is_reader(self) -> bool:
        """Whether it is a reader, and no vision-language model."""
        return (Path(self.location) / READER_FILE).is_file()

    @property
    def has_files(self) -> bool:
        """Whether its files are in a folder here, not to be fetched from the hub."""
        return Path(self.location).is_dir()


def is_reader(spec: str) -> bool:
    """Whether a text names a reader: the one that comes with ffr, a reader's folder, or its run's.

    >>> is_reader("reader"), is_reader("tiny")
    (True, False)
    """
    if spec == READER:
        return True
    places = (Path(spec) / READER_FILE, Path(spec) / READER / READER_FILE)
    try:
        return any(place.is_file() for place in places)
    except (OSError, ValueError):  # a name that no file can have
        return False


def resolve_model(spec: str) -> ModelSource:
    """Tells which model `--model` means.

    `tiny`, `reader`, a run folder (its merged model or reader), a model folder, or a hub id.

    Raises:
        UsageError: where the run has no model to use, or the text is a path that does not exist.

    >>> resolve_model("Qwen/Qwen2-VL-2B-Instruct").location
    'Qwen/Qwen2-VL-2B-Instruct'
    """
    if spec == "tiny":
        from ffr.shipped.tiny import TINY_FOLDER

        return ModelSource(str(TINY_FOLDER), "tiny")
    if spec == READER:
        from ffr.shipped.reader import READER_FOLDER

        return ModelSource(str(READER_FOLDER), READER)
    if spec.startswith(("http://", "https://")):
        raise UsageError(
            f"{spec} is an address; a server is written api:{spec.partition('#')[0]}#MODEL"
        )
    if is_url(spec):
        # what the library takes for a name of the hub is none
        named = spec.removeprefix("file://").removeprefix("file:")
        is_file = spec.startswith("file:") and named
        remedy = (
            f"a folder is named by its path: {named}"
            if is_file
            else "fetch the model, and name its folder"
        )
        raise UsageError(
            f"{one_line(spec, 80)} is an address, and --model takes none such; {remedy}"
        )
    path = Path(spec)
    if (path / RECORD_FILE).is_file():
        if (path / ENCODER).is_dir():
            raise UsageError(
                f"{spec}: this run made a sentence encoder, which is asked as embedding:{spec}"
            )
        if is_reader(spec):
            return ModelSource(str(path / READER), path.name, path)
        merged = path / "merged"
        if not (merged / "config.json").is_file():
            status = RunRecord.load(path).status
            raise UsageError(
                f"{spec}: this run is {status} and has no model yet; finish it with `ffr "
                f"train … --resume {spec}`"
            )
        return ModelSource(str(merged), path.name, path)
    if path.is_dir():
        return ModelSource(spec, spec)
    looks_like_path = (
        spec.startswith((".", "/", "~")) or spec.count("/") != 1 or path.parent.is_dir()
    )
    if looks_like_path:
        raise UsageError(
            f"{spec}: no such model folder or run; name one, a hub id (owner/name), "
            "`reader`, or `tiny`"
        )
    return ModelSource(spec, spec)
