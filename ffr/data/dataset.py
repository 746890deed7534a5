"""The examples of a data file: checked whole at the door, then each read when it is asked for."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from ffr.answer import format_answer
from ffr.data.forms.formats import read_record
from ffr.data.index import RecordFile, parse_record
from ffr.data.judgement import NO_ROOM, ModelRules, RecordJudge, fallback_id_of
from ffr.data.pictures import PictureMemory
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.notebook import table
from ffr.text import counted

NUM_SHOWN_EXAMPLES = 10
"""Examples that a notebook shows."""

NUM_SHOWN_REASONS = 10
"""Reasons for leaving something out that are kept and shown."""


class ExampleDataset(Sequence[Example]):
    """The examples of a file, each read when it is asked for; made by `open_dataset`.

    Attributes:
        path: The file.
        image_root: Folder that relative image paths are resolved against.
        identity: What names the examples.
        num_left_out: Records, and single queries of records, that `skip_bad` left out.
        left_out: The first reasons for that, `NUM_SHOWN_REASONS` at most.
        num_unanswerable: Queries that stayed though the model has no room to answer them.
        unanswerable: The first reasons for that, likewise.
    """

    def __init__(
        self,
        path: Path,
        *,
        image_root: Path | None,
        skip_bad: bool,
        require_images: bool,
        require_truths: bool,
        rules: ModelRules | None,
    ) -> None:
        self.path = path
        self.image_root = path.parent if image_root is None else image_root
        self.num_left_out = 0
        self.left_out: tuple[str, ...] = ()
        self.num_unanswerable = 0
        self.unanswerable: tuple[str, ...] = ()
        self._records = RecordFile(path)
        self._records.refuse_foreign()
        self._record_of, self._part_of = array("Q"), array("L")
        with PictureMemory() as memory:
            judge = RecordJudge(
                self._records,
                self.image_root,
                memory,
                needs_images=require_images,
                needs_truths=require_truths,
                rules=rules,
                keeps_unanswerable=not skip_bad,
            )
            self._read_all(judge, skip_bad)
        self._digests = judge.digests
        self._last: tuple[int, list[Example]] | None = (
            None  # a record's examples, most often asked for in a row
        )

    def _read_all(self, judge: RecordJudge, skip_bad: bool) -> None:
        found = IdentityOfData()
        reasons: list[str] = []

        def leave_out(error: DataError) -> None:
            if not skip_bad:
                raise error
            self.num_left_out += 1
            if len(reasons) < NUM_SHOWN_REASONS:
                reasons.append(str(error))

        for index, data in enumerate(self._records):
            judged = judge.judge(index, data)
            usable = judged.usable
            # a record counts once, whatever the number of its faults
            for finding in judged.errors if usable else judged.errors[:1]:
                leave_out(DataError(finding.message, where=self._where(index, finding.query)))
            for finding in judged.findings:
                if finding.kind == NO_ROOM and not finding.is_error:
                    self.num_unanswerable += 1
                    if len(self.unanswerable) < NUM_SHOWN_REASONS:
                        place = self._where(index, finding.query)
                        self.unanswerable += (f"{place}: {finding.message}",)
            for part, example in usable:
                self._record_of.append(index)
                self._part_of.append(part)
                found.add(example)
        if self._records.tail_fault is not None:
            leave_out(self._records.tail_fault)
        if not self._record_of:
            raise DataError(
                f"holds no usable record; the first fault: {reasons[0]}", where=self.path.name
            )
        self.left_out = tuple(reasons)
        self.identity = found.identity()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the examples in order.

        Dialogue with the bytes of its pictures, query, answer.

        The same whatever the file's form, and wherever it and its pictures lie.
        """
        return self.identity.fingerprint

    def _examples(self, index: int, data: bytes | DataError) -> list[Example]:
        """The examples of a record that was judged."""
        if isinstance(data, DataError):
            raise data
        record = parse_record(data, self._records.where(index))
        fallback_id = fallback_id_of(self.path, index)
        examples, _ = read_record(record, fallback_id=fallback_id, image_root=self.image_root)
        dialogue = examples[0].dialogue.with_digests(self._digests)
        return [replace(example, dialogue=dialogue) for example in examples]

    def to_hf(self, **options: Any) -> Any:
        """The examples as a `datasets.Dataset` for TRL: `ffr.data.exchange.to_hf`."""
        from ffr.data.exchange import to_hf

        return to_hf(self, **options)

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'example')} of {self.path.name}>"

    def _repr_html_(self) -> str:
        shown = [self[index] for index in range(min(len(self), NUM_SHOWN_EXAMPLES))]
        left_out = f"; {self.num_left_out} left out" if self.num_left_out else ""
        return table(
            ["", "dialogue", "utterances", "images", "query", "answer"],
            [
                [
                    str(index),
                    example.dialogue.id,
                    str(len(example.dialogue.utterances)),
                    str(len(example.dialogue.images)),
                    example.query,
                    "" if example.fragment is None else format_answer(example.fragment),
                ]
                for index, example in enumerate(shown)
            ],
            caption=f"{self.path.name}: {counted(len(self), 'example')}{left_out}",
            foot="…" if len(self) > len(shown) else "",
        )

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
            examples = self._examples(record, data)
            while position < len(self) and self._record_of[position] == record:
                yield examples[self._part_of[position]]
                position += 1

    def where(self, index: int) -> str:
        """File and line of an example, for people: `dev.jsonl:17`."""
        position = self._position(index)
        record = self._record_of[position]
        several = (position > 0 and self._record_of[position - 1] == record) or (
            position + 1 < len(self) and self._record_of[position + 1] == record
        )
        return self._where(record, self._part_of[position] if several else None)

    def _where(self, record: int, query: int | None) -> str:
        return self._records.where(record) + (f", query {query}" if query is not None else "")

    def _position(self, index: int) -> int:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return position


def open_dataset(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    skip_bad: bool = False,
    require_images: bool = True,
    require_truths: bool = False,
    rules: ModelRules | None = None,
) -> ExampleDataset:
    """Opens a data file and judges every record at the door.

    It is a .json list or .jsonl, plain or .gz, in ms-swift or raw form.

    Args:
        path: The file.
        image_root: Folder that relative image paths are resolved against; the file's own folder if
            None.
        skip_bad: Leave out what cannot be used (counted in `num_left_out`) instead of failing at
            the first.
        require_images: Every picture must decode; False for uses that look at no picture. The
            fingerprint covers the bytes of the pictures that can be read in either case.
        require_truths: Every query must have a true answer.
        rules: What the model at hand cannot take; None for no model.

    Raises:
        DataError: with file and line of the first fault, unless `skip_bad`; where no record is
            usable in any case.
    """
    return ExampleDataset(
        Path(path),
        image_root=None if image_root is None else Path(image_root),
        skip_bad=skip_bad,
        require_images=require_images,
        require_truths=require_truths,
        rules=rules,
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


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """What names data: SHA-256 over dialogue, query and answer of every example in order.

    Args:
        fingerprint: The pictures counted by their bytes, where these could be read, else by their
            names.
        text_fingerprint: The pictures counted by their places in the dialogue alone.
        num_unread_images: Pictures, over all examples, whose bytes could not be read.
    """

    fingerprint: str
    text_fingerprint: str
    num_unread_images: int


class IdentityOfData:
    """Adds up what names data, one example after the other."""

    def __init__(self) -> None:
        self._content, self._texts = hashlib.sha256(), hashlib.sha256()
        self._num_unread_images = 0

    def add(self, example: Example) -> None:
        dialogue = example.dialogue
        answer = "" if example.fragment is None else format_answer(example.fragment)
        for digest, name in (
            (self._content, dialogue.fingerprint),
            (self._texts, dialogue.text_fingerprint),
        ):
            content = json.dumps([name, example.query, answer], ensure_ascii=False)
            digest.update(content.encode("utf-8", "surrogatepass") + b"\n")
        self._num_unread_images += dialogue.num_unread_images

    def identity(self) -> DataIdentity:
        """What the examples so far come to."""
        return DataIdentity(
            self._content.hexdigest(), self._texts.hexdigest(), self._num_unread_images
        )


def data_fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 over dialogue, query and answer of every example in order; see `DataIdentity`.

    >>> from ffr.dialogue import Dialogue, Utterance
    >>> chat = Dialogue("d", (Utterance("a", ("hi",)),))
    >>> one, other = ([Example(chat, query)] for query in ("greeting", "farewell"))
    >>> data_fingerprint(one) == data_fingerprint(other)
    False
    """
    return data_identity(examples).fingerprint


def data_identity(examples: Iterable[Example]) -> DataIdentity:
    """What names data; pictures of examples that were made by hand are read here."""
    if isinstance(examples, ExampleDataset):
        return examples.identity
    found = IdentityOfData()
    with PictureMemory() as memory:
        for example in examples:
            found.add(
                _with_digests(example, memory) if example.dialogue.num_unread_images else example
            )
    return found.identity()


def _with_digests(example: Example, memory: PictureMemory) -> Example:
    digests: dict[str, str] = {}
    for image, location in zip(example.dialogue.images, example.image_locations(), strict=True):
        if image.digest is None and isinstance(location, Path):
            with suppress(DataError):
                digests[image.source] = memory.digest_of(location)
    return replace(example, dialogue=example.dialogue.with_digests(digests))
