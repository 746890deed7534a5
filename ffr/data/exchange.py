"""Records that are no data file of ours: lists, data frames, parquet, arrow, sets of the hub.

They become a data file in the cache, named by its content, and are then judged like any other.
Pictures that a table holds in itself become files beside it. `to_hf` goes the other way.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from ffr.answer import AnswerStyle, format_answer, wrap_answer
from ffr.data.forms.arrow import TABLE_SUFFIXES, arrow_rows, undecoded
from ffr.data.forms.formats import read_record
from ffr.data.home import data_home
from ffr.data.index import parse_record
from ffr.dialogue import Example
from ffr.errors import DataError, UsageError
from ffr.files import dump_record, make_folder, replaced_path, write_bytes
from ffr.images import as_location
from ffr.prompt import IMAGE_MARK, QueryPosition, prompt_of
from ffr.text import described, one_line

_PROMPT, _FILES = "prompt", "image_files"
_OF_TRAINERS = (
    _PROMPT,
    _FILES,
    "images",
    "completion",
    "query",
    "utterances",
    "image_utterance_ids",
    "answer_style",
)
"""Columns that `to_hf` writes for trainers; prompt, solution and paths say all that they do."""

_MAX_SUFFIX = 6


# -- into a data file ------------------------------------------------------------------------------


def file_of_table(data: Any, split: str) -> Path:
    """The data file that says what a table says.

    Args:
        data: A list of records (dicts of the ms-swift or the raw form), a `datasets.Dataset` or
            `DatasetDict`, a data frame, the path of a .parquet or .arrow file or of a folder that
            `save_to_disk` wrote, or the id of a set on the hub.
        split: The part of a set that has several.

    Raises:
        ValueError: where it is no such thing, or an entry is no record.
        UsageError: where the set or its part is not to be had.
        DataError: where a file cannot be read, or the cache cannot be written.
    """
    folder = data_home().parent / "tables"
    lines = [
        dump_record(_record_of(row, number, folder / "pictures"), where=f"record {number}") + b"\n"
        for number, row in enumerate(_rows_of(data, split))
    ]
    if not lines:
        raise ValueError("the data hold no record; give at least one")
    content = b"".join(lines)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.jsonl"
    _write_once(path, content, folder)
    return path


def _write_once(path: Path, content: bytes, root: Path) -> None:
    if path.is_file():
        return
    try:
        make_folder(path.parent)
        with replaced_path(path) as scratch:
            write_bytes(scratch, content)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); see that there is room, or set FFR_DATA_HOME "
            "to another folder",
            where=str(root),
        ) from error


def _rows_of(data: Any, split: str) -> Iterable[Any]:
    import datasets

    if isinstance(data, str | Path):
        data = _opened(data, split)
    if isinstance(data, Mapping):
        if not isinstance(data, datasets.DatasetDict):
            raise ValueError("the data are one dict; give a list of records, [{…}, …]")
        if split not in data:
            parts = ", ".join(map(str, data))
            raise UsageError(f"the data have no part {split!r}; they have {parts}; say split=…")
        data = data[split]
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a data frame
        return list(data.to_dict(orient="records"))
    if isinstance(data, datasets.Dataset):
        return _rows_of_dataset(data)
    if isinstance(data, bytes) or not isinstance(data, Iterable):
        found = described(data)
        raise ValueError(
            f"{found} are no data; give the name of a set, a file, a list of records or a Dataset"
        )
    return data


def _opened(location: str | Path, split: str) -> Any:
    path = Path(location)
    if path.suffix in TABLE_SUFFIXES:
        return arrow_rows(path, with_bytes=True)
    if path.is_dir():
        return _saved_rows(path, split)
    import datasets

    try:
        return datasets.load_dataset(str(location), split=split)
    except Exception as error:
        # what it raises has no common base below Exception
        if not isinstance(error, OSError | ValueError | RuntimeError | LookupError | TypeError):
            raise
        raise UsageError(
            f"no data file or set {str(location)!r} here, and its part {split!r} cannot be had "
            f"from the hub ({one_line(error)}); name a file, or see that the hub can be reached"
        ) from error


def _saved_rows(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a folder that `save_to_disk` wrote: of a set, or of one with several parts."""
    if (folder / "dataset_dict.json").is_file():
        parts = _saved_json(folder / "dataset_dict.json").get("splits")
        if not isinstance(parts, list) or split not in parts:
            said = ", ".join(map(str, parts)) if isinstance(parts, list) else "none"
            raise UsageError(
                f"{folder.name}: the data have no part {split!r}; they have {said}; say split=…"
            )
        folder = folder / split
    files = _saved_json(folder / "state.json").get("_data_files")
    for entry in files if isinstance(files, list) else []:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(
                f"names {described(name)} as a file of its rows; write the set anew",
                where=str(folder / "state.json"),
            )
        yield from arrow_rows(folder / name, with_bytes=True)


def _saved_json(path: Path) -> dict[str, Any]:
    try:
        return dict(parse_record(path.read_bytes(), str(path)))
    except OSError as error:
        raise DataError(
            f"cannot be read as a table ({error.strerror}); name a file, or a folder that the "
            "library datasets wrote with save_to_disk",
            where=str(path),
        ) from error


def _rows_of_dataset(data: Any) -> Iterator[Any]:
    """The rows of a `datasets.Dataset`, pictures as the bytes or the path that it holds."""
    features = undecoded(data.features)
    for row in data.with_format("arrow"):
        yield features.decode_example(row.to_pylist()[0])


def example_of_row(row: Mapping[str, Any]) -> Example:
    """The example that a row of `to_hf` came from, but for captions and `meta`.

    Raises:
        ValueError: where it is no such row.
        DataError: where what it says cannot be read.

    >>> from ffr.dialogue import Dialogue, Fragment
    >>> example = Example(Dialogue.of([("Ann", "hi")]), "greeting", Fragment((0,)))
    >>> example_of_row(to_hf([example])[0]).key == example.key
    True
    """
    record = _record_of(row, 0, data_home().parent / "tables" / "pictures")
    examples, findings = read_record(record)
    if not examples:
        faults = "; ".join(finding.message for finding in findings if finding.is_error)
        raise DataError(f"the row cannot be read as an example: {faults}")
    return examples[0]


def _record_of(row: Any, number: int, pictures: Path) -> dict[str, Any]:
    """A row as a record of a data file."""
    if not isinstance(row, Mapping):
        found = described(row)
        raise ValueError(f"record {number} is {found}; give a dict of the ms-swift or the raw form")
    record = {
        str(key): _plain(value, pictures) for key, value in row.items() if not _is_none(value)
    }
    if _PROMPT in record and "messages" not in record and "dialogue" not in record:
        record["messages"] = record[_PROMPT]
    if _PROMPT in record or _FILES in record:
        files = record.get(_FILES, record.get("images"))
        record = {key: value for key, value in record.items() if key not in _OF_TRAINERS}
        if files is not None:
            record["images"] = files
    if isinstance(record.get("messages"), list):
        record["messages"] = [_flat(message) for message in record["messages"]]
    return record


def _is_none(value: Any) -> bool:
    """Whether a cell is empty: columns hold None, or NaN in a data frame, where a record has none."""
    return value is None or (isinstance(value, float) and value != value)


def _plain(value: Any, pictures: Path) -> Any:
    """A value as JSON has it; a picture becomes a file, and is its path."""
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "path"}:
            return _picture(value["bytes"], value["path"], pictures)
        return {str(k): _plain(v, pictures) for k, v in value.items() if not _is_none(v)}
    if isinstance(value, list | tuple):
        return [_plain(item, pictures) for item in value]
    if isinstance(value, PIL.Image.Image):
        return _picture_file(value, pictures)
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "ndim", 0) == 3:
        return _picture_file(as_location(value).image, pictures)  # type: ignore[union-attr]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), pictures)
    return value


def _picture(content: bytes | None, path: str | None, pictures: Path) -> str | None:
    """The path of a picture of a table: its own, or that of the file made of its bytes."""
    if content is None:
        return path
    suffix = Path(path or "").suffix
    digest = hashlib.sha256(content).hexdigest()
    name = digest + (suffix if len(suffix) <= _MAX_SUFFIX and suffix[1:].isalnum() else "")
    target = pictures / digest[:2] / name
    _write_once(target, content, pictures)
    return str(target.resolve())


def _picture_file(image: PIL.Image.Image, pictures: Path) -> str:
    if path := getattr(image, "filename", ""):
        return str(Path(path).resolve())
    packed = io.BytesIO()
    image.save(packed, "PNG")
    return str(_picture(packed.getvalue(), "picture.png", pictures))


def _flat(message: Any) -> Any:
    """A message whose content is a text: pictures of a list of parts are marks in it."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    parts = [
        IMAGE_MARK if isinstance(part, dict) and part.get("type") == "image" else part.get("text")
        for part in message["content"]
        if isinstance(part, dict)
    ]
    return {**message, "content": "".join(part for part in parts if isinstance(part, str))}


# -- out of examples -------------------------------------------------------------------------------


def to_hf(
    examples: Sequence[Example],
    *,
    template: str | None = None,
    query_position: QueryPosition | None = None,
    answer_style: AnswerStyle = "bare",
    with_images: bool = False,
) -> Any:
    """Examples as a `datasets.Dataset` whose columns TRL's trainers and ffr's rewards take.

    Args:
        examples: The examples.
        template: `zh` or `en`; None = the file's own prompt, else `zh`.
        query_position: `first` or `last`; None likewise.
        answer_style: `think` asks for a thought before the answer.
        with_images: A column `images` with the pictures, decoded when they are asked for, and
            prompts whose content is a list of parts with an image part where each goes: what TRL's
            trainers take for vision-language models.

    Returns:
        Columns `dialogue_id`, `query`, `prompt` (messages), `completion` (the message that SFT
        teaches, or None), `solution` (the true answer's text, or None), `image_files` (paths),
        `utterances` (texts), `image_utterance_ids`, `answer_style`; what `ffr.rewards` takes for
        `images` is `image_files`. `ffr.load_dataset` reads it back, but for captions and `meta`.

    Raises:
        DataError: where a text holds one of the task's markers.
    """
    import datasets

    rows = [
        _row_of(example, template, query_position, answer_style, with_images)
        for example in examples
    ]
    text = datasets.Value("string")
    said: Any = datasets.List({"type": text, "text": text}) if with_images else text
    messages = datasets.List({"role": text, "content": said})
    features = {
        "dialogue_id": text,
        "query": text,
        "prompt": messages,
        "completion": messages,
        "solution": text,
        "image_files": datasets.List(text),
        "utterances": datasets.List(text),
        "image_utterance_ids": datasets.List(datasets.Value("int64")),
        "answer_style": text,
    }
    if with_images:
        features["images"] = datasets.List(datasets.Image())
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def _row_of(
    example: Example,
    template: str | None,
    query_position: QueryPosition | None,
    answer_style: AnswerStyle,
    with_images: bool,
) -> dict[str, Any]:
    asked = prompt_of(
        example, template=template, query_position=query_position, answer_style=answer_style
    )
    prompt: list[dict[str, Any]] = []
    if asked.system is not None:
        prompt.append({"role": "system", "content": asked.system})
    prompt.append({"role": "user", "content": asked.user})
    solution = None if example.fragment is None else format_answer(example.fragment)
    completion = None
    if solution is not None:
        completion = [{"role": "assistant", "content": wrap_answer(solution, answer_style)}]
    if with_images:
        prompt = [_in_parts(message) for message in prompt]
        completion = completion and [_in_parts(message) for message in completion]
    files = [
        location if isinstance(location, str) else str(location.resolve())
        for location in example.image_locations()
    ]
    return {
        "dialogue_id": example.dialogue.id,
        "query": example.query,
        "prompt": prompt,
        "completion": completion,
        "solution": solution,
        "image_files": files,
        "utterances": [utterance.text for utterance in example.dialogue.utterances],
        "image_utterance_ids": list(example.dialogue.image_utterance_ids),
        "answer_style": answer_style,
        **({"images": files} if with_images else {}),
    }


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    texts = message["content"].split(IMAGE_MARK)
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        parts += [{"type": "image", "text": None}] if number else []
        parts += [{"type": "text", "text": text}] if text else []
    return {**message, "content": parts}
