"""The named data sets.

Which there are, where they lie, and how a name or a path becomes examples.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.data.dataset import ExampleDataset, open_dataset
from ffr.data.forms.arrow import TABLE_SUFFIXES
from ffr.data.forms.formats import read_record
from ffr.data.home import data_home
from ffr.data.index import RecordFile, parse_record
from ffr.data.judgement import ModelRules
from ffr.errors import DataError, UsageError
from ffr.files import remove, replaced_folder
from ffr.progress import Say
from ffr.text import address_hint, counted, is_url

_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")

SAVED_TABLE_FILES = ("dataset_info.json", "dataset_dict.json")
"""What a folder holds that `save_to_disk` of the library datasets wrote."""


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A data set with a name.

    Args:
        name: What `--dataset` takes.
        splits: Its parts.
        is_generated: Whether it is made here on first use (otherwise it is downloaded).
        words: For each split of a downloaded set, words that its file's name may have.
    """

    name: str
    splits: tuple[str, ...]
    is_generated: bool
    words: tuple[tuple[str, ...], ...] = ()


NAMED_SETS = {
    entry.name: entry
    for entry in (
        NamedSet("sample", ("train", "grpo", "val"), is_generated=True),
        NamedSet("wechat-sample", ("val",), is_generated=True),
        NamedSet(
            "mldr",
            ("train", "grpo", "val"),
            is_generated=False,
            words=(
                ("sft", "train", "coldstart", "cold_start"),
                ("grpo", "rl"),
                ("val", "test", "eval"),
            ),
        ),
        NamedSet(
            "wechat", ("val",), is_generated=False, words=(("val", "test", "eval", "wechat"),)
        ),
    )
}

SAMPLE_SEED = 0
"""The seed that the samples of the catalog are generated with."""


def load_dataset(
    spec: Any,
    *,
    split: str = "val",
    image_root: str | Path | None = None,
    skip_bad: bool = False,
    require_images: bool = True,
    require_truths: bool = False,
    rules: ModelRules | None = None,
    echo: Say | None = None,
) -> ExampleDataset:
    """Opens a named set, a file, a set of the hub, or records at hand: `ffr.load_dataset`.

    Args:
        spec: `mldr`, `wechat`, `sample`, `wechat-sample`; the path of a data file (.json, .jsonl,
            plain or .gz; .parquet, .arrow), or of a folder with one file a split; the hub id of a
            set (`owner/name`); a list of records, a `datasets.Dataset` or a data frame.
        split: Which part of a set or folder; of no matter for a file or records.
        image_root: Folder that relative image paths are resolved against; where None, the data
            file's own, and the working folder for a set of the hub and for records.
        skip_bad: Leave out records that cannot be used, and say so through `echo`, instead of
            failing at the first.
        require_images: Every picture must decode; False for uses that look at no picture.
        require_truths: Every query must have a true answer.
        rules: What the model at hand cannot take; None for no model.
        echo: Gets a line about what was generated or left out; None for silence.

    Raises:
        UsageError: for a name or split that does not exist, or a set that is not here; with the
            ways out.
        DataError: where the file cannot be used.
        ValueError: where it is no such thing.

    >>> line = {"speaker": "Ann", "utterance": "the bus is late"}
    >>> record = {"dialogue_id": "d1", "dialogue": [line], "query_text": "bus", "gt_turns": [0]}
    >>> len(load_dataset([record]))
    1
    """
    path, default_root = locate(spec, split=split, echo=echo)
    dataset = open_dataset(
        path,
        image_root=image_root if image_root is not None else default_root,
        skip_bad=skip_bad,
        require_images=require_images,
        require_truths=require_truths,
        rules=rules,
    )
    if echo is not None:
        check = "`ffr data check`" if rules is None else "`ffr data check --model`"
        for count, reasons, what in (
            (
                dataset.num_left_out,
                dataset.left_out,
                ("bad record or query left out", "bad records or queries left out"),
            ),
            (
                dataset.num_unanswerable,
                dataset.unanswerable,
                (
                    "query cannot be answered and will count as wrong (--skip-bad leaves it out)",
                    "queries cannot be answered and will count as wrong (--skip-bad leaves them "
                    "out)",
                ),
            ),
        ):
            if not count:
                continue
            echo(f"{path.name}: {counted(count, *what)}:")
            for reason in reasons:
                echo(f"  {reason}")
            if count > len(reasons):
                echo(f"  and {count - len(reasons)} more; {check} lists all")
    return dataset


def locate(spec: Any, *, split: str = "val", echo: Say | None = None) -> tuple[Path, Path | None]:
    """The data file of a name, path or table, and the folder of its images where it is another.

    Raises:
        UsageError: as `load_dataset`.
        ValueError: likewise.
    """
    if not isinstance(spec, str | Path):
        return _locate_table(spec, split, Path())
    entry = NAMED_SETS.get(str(spec))
    if entry is None:
        return _locate_path(Path(spec), split)
    if split not in entry.splits:
        raise UsageError(
            f"the set {entry.name} has no part {split!r}; it has {', '.join(entry.splits)}"
        )
    folder = data_home() / entry.name
    if entry.is_generated:
        from ffr.data.sample import is_outdated

        if is_outdated(folder):
            if echo is not None:
                echo(
                    f"The set {entry.name} in {folder} was made by another version of ffr; it is "
                    "made anew"
                )
            remove(folder)
        if not folder.is_dir():
            if echo is not None:
                echo(f"Generating the set {entry.name} (seed {SAMPLE_SEED}) into {folder}")
            generate_sample(entry.name, folder)
        return _file_of_split(folder, split), None
    if not folder.is_dir():
        raise UsageError(
            f"the set {entry.name} is not here: fetch it with `ffr data download {entry.name} "
            "--url URL` "
            f"(or --archive FILE), or pass the path of your own copy as --dataset PATH"
        )
    return _file_by_words(entry, folder, split)


def describe_sets() -> list[tuple[str, str, str]]:
    """For each named set.

    Its name, what is here of it, and what to do if something is missing (else an empty text).
    """
    rows: list[tuple[str, str, str]] = []
    for entry in NAMED_SETS.values():
        folder = data_home() / entry.name
        if folder.is_dir():
            rows.append((entry.name, f"here, {folder}", ""))
        elif entry.is_generated:
            rows.append((entry.name, "generated on first use", ""))
        else:
            rows.append(
                (
                    entry.name,
                    "not here",
                    f"ffr data download {entry.name} --url URL, or --archive FILE",
                )
            )
    return rows


def _locate_table(table: Any, split: str, root: Path) -> tuple[Path, Path]:
    # heavy, and most data are files of ours
    from ffr.data.exchange import file_of_table

    return file_of_table(table, split), root


def _locate_path(path: Path, split: str) -> tuple[Path, Path | None]:
    if path.suffix in TABLE_SUFFIXES and path.exists():
        return _locate_table(path, split, path.parent)
    if path.is_dir():
        if any((path / name).exists() for name in SAVED_TABLE_FILES):
            return _locate_table(path, split, path)
        return _file_of_split(path, split), None
    if is_hub_id(path):
        return _locate_table(str(path), split, Path())
    if not path.exists():
        nearest = difflib.get_close_matches(str(path), NAMED_SETS, 1, 0.6)
        hint = (
            f"did you mean {nearest[0]}?"
            if nearest
            else f"the named sets are {', '.join(NAMED_SETS)}"
        )
        raise UsageError(f"no data file or set {str(path)!r}{address_hint(path)}; {hint}")
    return path, None


def is_hub_id(spec: str | Path) -> bool:
    """Whether a name can be that of a set on the hub, `owner/name`, and is no path here.

    >>> is_hub_id("someone/chats"), is_hub_id("./chats"), is_hub_id("data/dev.jsonl")
    (True, False, False)
    """
    owner, slash, name = str(spec).partition("/")
    is_plain = bool(slash and owner and name) and "/" not in name and owner[0] not in ".~"
    is_file = name.endswith((*_SUFFIXES, *TABLE_SUFFIXES))
    return is_plain and not is_file and not Path(owner).exists() and not is_url(spec)


def _file_of_split(folder: Path, split: str) -> Path:
    for suffix in _SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return path
    raise UsageError(
        f"{folder} has no file {split}.jsonl or {split}.json; pass the path of a data file"
    )


def _file_by_words(entry: NamedSet, folder: Path, split: str) -> tuple[Path, Path]:
    """The file of a downloaded set whose name tells the split.

    What the publishers call it is not known for sure.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.name.endswith(_SUFFIXES)
        # what a Mac puts into archives beside each file bears its name
        and not path.name.startswith("._")
        and "__MACOSX" not in path.relative_to(folder).parts
        and path.is_file()
    )
    exact = [path for path in files if path.name.partition(".")[0] == split]
    words = entry.words[entry.splits.index(split)]
    candidates = exact or [
        path for path in files if any(word in path.name.lower() for word in words)
    ]
    if len(candidates) > 1:
        # a name such as grpo_train.jsonl tells two splits; the words of another split rule it out
        others = [
            word
            for other, row in zip(entry.splits, entry.words, strict=True)
            if other != split
            for word in row
        ]
        own = [path for path in candidates if not any(word in path.name.lower() for word in others)]
        candidates = own or candidates
    if len(candidates) != 1:
        names = (
            ", ".join(str(path.relative_to(folder)) for path in (candidates or files)[:8])
            or "no data file at all"
        )
        raise UsageError(
            f"which file under {folder} is the part {split!r} cannot be told (found: {names}); "
            f"pass its path as --dataset, or rename it to {split}.jsonl"
        )
    return candidates[0], _image_root(candidates[0], folder)


def _image_root(path: Path, folder: Path) -> Path:
    """The folder on the way from the file up to the set's own that the first picture lies under.

    Else the file's own.
    """
    source = _first_picture(path)
    if source is not None:
        for candidate in (path.parent, *path.parent.parents):
            if (candidate / source).is_file():
                return candidate
            if candidate == folder:
                break
    return path.parent


def _first_picture(path: Path) -> str | None:
    """The source of the first picture that a data file names."""
    records = RecordFile(path)
    for index, data in enumerate(records):
        if isinstance(data, DataError):
            continue
        try:
            examples, _ = read_record(parse_record(data, records.where(index)))
        except DataError:
            continue
        for example in examples:
            for image in example.dialogue.images:
                return image.source
    return None


def generate_sample(name: str, folder: Path, seed: int = SAMPLE_SEED) -> None:
    """Generates a sample set into a new folder, which appears whole or not at all.

    Raises:
        UsageError: for a name that is no sample.
        DataError: where the folder cannot be written.
    """
    from ffr.data.sample import write_sample

    try:
        # another process may be quicker with the same content
        with replaced_folder(folder, keep_existing=True) as scratch:
            write_sample(scratch, name, seed)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); see that there is room, or choose another "
            "folder "
            "(FFR_DATA_HOME for named sets)",
            where=str(folder),
        ) from error
