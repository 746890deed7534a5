"""The examples of a data file: checked whole at the door, then each read when it is asked for."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from ffr.answer import format_answer
from ffr.data.forms.formats import read_record
from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.images import find_image, probe_image


class ExampleDataset(Sequence[Example]):
    """The examples of a file, each read when it is asked for; made by `open_dataset`.

    Attributes:
        path: The file.
        image_root: Folder that relative image paths are resolved against.
        fingerprint: SHA-256 over the examples in order (dialogue, query, answer), whatever the
            file's form.
        num_left_out: Records that `skip_bad` left out.
        left_out: The first reasons for that, ten at most.
    """

    def __init__(self, path: Path, *, image_root: Path | None, skip_bad: bool, require_images: bool) -> None:
        self.path = path
        self.image_root = path.parent if image_root is None else image_root
        self.num_left_out = 0
        self.left_out: tuple[str, ...] = ()
        self._records = RecordFile(path)
        self._record_of, self._part_of = array("Q"), array("L")
        self._last: tuple[int, list[Example]] | None = None  # a record's examples, most often asked for in a row
        self._read_all(skip_bad, _ImageCheck(is_decoded=skip_bad) if require_images else None)

    def _read_all(self, skip_bad: bool, images: _ImageCheck | None) -> None:
        digest = hashlib.sha256()
        reasons: list[str] = []

        def leave_out(error: DataError) -> None:
            if not skip_bad:
                raise error
            self.num_left_out += 1
            if len(reasons) < 10:
                reasons.append(str(error))

        for index, data in enumerate(self._records):
            try:
                examples = self._examples(index, data)
                if images is not None:
                    images.check(examples[0], self._records.where(index))
            except DataError as error:
                leave_out(error)
                continue
            for part, example in enumerate(examples):
                self._record_of.append(index)
                self._part_of.append(part)
                digest.update(fingerprint_line(example))
        if self._records.tail_fault is not None:
            leave_out(self._records.tail_fault)
        if not self._record_of:
            raise DataError(f"holds no usable record; the first fault: {reasons[0]}", where=self.path.name)
        self.left_out = tuple(reasons)
        self.fingerprint = digest.hexdigest()

    def _examples(self, index: int, data: bytes | DataError) -> list[Example]:
        if isinstance(data, DataError):
            raise data
        where = self._records.where(index)
        record = parse_record(data, where)
        fallback_id = f"{self.path.name.partition('.')[0]}-{index + 1}"
        examples, findings = read_record(record, fallback_id=fallback_id, image_root=self.image_root)
        for finding in findings:
            if finding.is_error:
                raise DataError(finding.message, where=where)
        return examples

    def __len__(self) -> int:
        return len(self._record_of)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = self._position(index)
        record = self._record_of[position]
        last = self._last  # other threads put theirs there
        if last is None or last[0] != record:
            last = self._last = (record, self._examples(record, self._records.read(record)))
        return last[1][self._part_of[position]]

    def __iter__(self) -> Iterator[Example]:
        position = 0
        for record, data in enumerate(self._records):
            if position == len(self):
                return
            if self._record_of[position] != record:
                continue
            for example in self._examples(record, data):
                yield example
                position += 1

    def where(self, index: int) -> str:
        """File and line of an example, for people: `dev.jsonl:17`."""
        position = self._position(index)
        record = self._record_of[position]
        several = (position > 0 and self._record_of[position - 1] == record) or (
            position + 1 < len(self) and self._record_of[position + 1] == record
        )
        return self._records.where(record) + (f", query {self._part_of[position]}" if several else "")

    def _position(self, index: int) -> int:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return position


class _ImageCheck:
    """Sees that the pictures are there, each looked up once.

    Args:
        is_decoded: Decode them too: where bad records are left out none may turn up later.
    """

    def __init__(self, *, is_decoded: bool) -> None:
        self._look = probe_image if is_decoded else find_image
        self._found: set[int] = set()

    def check(self, example: Example, where: str) -> None:
        for image, location in zip(example.dialogue.images, example.image_locations(), strict=True):
            key = hash(image.source)
            if key not in self._found:
                self._look(location, where=where)
                self._found.add(key)


def open_dataset(
    path: str | Path, *, image_root: str | Path | None = None, skip_bad: bool = False, require_images: bool = True
) -> ExampleDataset:
    """Opens a data file and checks every record at the door.

    It is a .json list or .jsonl, plain or .gz, in ms-swift or raw form.

    Args:
        path: The file.
        image_root: Folder that relative image paths are resolved against; the file's own folder if
            None.
        skip_bad: Leave out what cannot be used (counted in `num_left_out`) instead of failing at
            the first.
        require_images: See that every picture's file is there, and decode it where `skip_bad`;
            False for uses that look at no picture.

    Raises:
        DataError: with file and line of the first fault, unless `skip_bad`; where no record is
            usable in any case.
    """
    return ExampleDataset(
        Path(path),
        image_root=None if image_root is None else Path(image_root),
        skip_bad=skip_bad,
        require_images=require_images,
    )


class FirstExamples(Sequence[Example]):
    """The first examples of a data set.

    Args:
        examples: The data set.
        num_examples: How many; all where there are fewer.
    """

    def __init__(self, examples: Sequence[Example], num_examples: int) -> None:
        self._examples = examples
        self._num_examples = min(num_examples, len(examples))

    def __len__(self) -> int:
        return self._num_examples

    def __iter__(self) -> Iterator[Example]:
        return itertools.islice(iter(self._examples), self._num_examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self._examples[range(self._num_examples)[index]]


def data_fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 over dialogue, query and answer of every example in order.

    >>> from ffr.dialogue import Dialogue, Utterance
    >>> chat = Dialogue("d", (Utterance("a", ("hi",)),))
    >>> data_fingerprint([Example(chat, "greeting")]) == data_fingerprint([Example(chat, "farewell")])
    False
    """
    if isinstance(examples, ExampleDataset):
        return examples.fingerprint
    digest = hashlib.sha256()
    for example in examples:
        digest.update(fingerprint_line(example))
    return digest.hexdigest()


def fingerprint_line(example: Example) -> bytes:
    """What one example adds to the fingerprint of the data."""
    answer = "" if example.fragment is None else format_answer(example.fragment)
    content = json.dumps([example.dialogue.fingerprint, example.query, answer], ensure_ascii=False)
    return content.encode("utf-8", "surrogatepass") + b"\n"
