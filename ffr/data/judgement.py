"""One judgement of a record, for all who read data.

A fault of a record makes it unusable; a fault of one of its queries makes that query unusable
alone. What cannot be used is refused, or left out by `--skip-bad`; `ffr data check` lists it. So
what the check calls good is what training, evaluation and the rest use.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ffr.answer import format_answer
from ffr.data.findings import Finding
from ffr.data.forms.formats import read_record
from ffr.data.forms.predictions import example_of_prediction, prediction_from_json
from ffr.data.index import RecordFile, parse_record
from ffr.data.pictures import PictureMemory
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.images import find_image, image_fault
from ffr.text import is_url


class ModelRules(Protocol):
    """What a model cannot take; `ffr.models.rules` knows it of vision-language models."""

    def picture(self, width: int, height: int) -> str:
        """What keeps the model from taking a picture of this size; empty for nothing.

        In the words that follow the picture's name in an error.
        """

    def example(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """What keeps it from taking a whole example, as a sentence; empty for nothing.

        Args:
            example: The example; its pictures are sound.
            sizes: Width and height of its pictures, by source.
        """


@runtime_checkable
class RoomRules(ModelRules, Protocol):
    """What a model that is asked cannot take, and what it has no room for."""

    def no_room(self, example: Example, sizes: Mapping[str, tuple[int, int]]) -> str:
        """What keeps it from answering an example that it could take; empty for nothing.

        Such an example may stay in the data, where it counts as answered wrongly.

        Args:
            example: The example; its pictures are sound.
            sizes: Width and height of its pictures, by source.
        """


NO_ROOM = "no-room"
"""The kind of a finding that a model has no room for a prompt and its answer."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A record after it was judged.

    Args:
        examples: All that could be read of it, the digests of their pictures in them.
        findings: All that is wrong with it.
    """

    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        """What makes the record, or a query of it, unusable."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def usable(self) -> list[tuple[int, Example]]:
        """The examples that can be used, with their numbers in the record."""
        if any(finding.query is None for finding in self.errors):
            return []
        bad = {finding.query for finding in self.errors}
        return [
            (number, example) for number, example in enumerate(self.examples) if number not in bad
        ]


@dataclass
class _Pairs:
    """The pairs of dialogue and query that were seen, some hundred bytes each.

    Two dialogues that say and show the same are one only where they have one id: chats of a line or
    two may well be equal.
    """

    records: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("Q"))
    numbers: dict[int, int] = field(default_factory=dict)  # pair → place in the arrays

    def first(self, example: Example, record: int) -> tuple[int, bool] | None:
        """The record that had this pair first, and whether with the same answer.

        None where this one is the first.
        """
        answer = "" if example.fragment is None else format_answer(example.fragment)
        number = self.numbers.setdefault(
            _number_of(f"{example.key} {example.dialogue.id}"), len(self.numbers)
        )
        if number == len(self.records):
            self.records.append(record)
            self.answers.append(_number_of(answer))
            return None
        return self.records[number], self.answers[number] == _number_of(answer)


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


class RecordJudge:
    """Judges the records of a file one after the other.

    Args:
        records: The file.
        image_root: Folder that relative image paths are resolved against.
        memory: Looks at pictures; None = they are not looked at, and count by their names.
        needs_images: Whether a picture that cannot be used is a fault. Where it is none, pictures
            that can be read count by their bytes all the same, so that the data are known by the
            same fingerprint.
        needs_truths: Whether a query without a true answer is a fault.
        rules: What the model at hand cannot take; None for no model.
        keeps_unanswerable: Whether a query that the model has no room for is usable all the same.
        takes_predictions: Whether records of prediction files are read too.

    Attributes:
        digests: SHA-256 of each picture's bytes, by source, where they were read.
        sizes: Width and height of each picture that was decoded, by source.
    """

    def __init__(
        self,
        records: RecordFile,
        image_root: Path,
        memory: PictureMemory | None,
        *,
        needs_images: bool = True,
        needs_truths: bool = False,
        rules: ModelRules | None = None,
        keeps_unanswerable: bool = False,
        takes_predictions: bool = False,
    ) -> None:
        self.digests: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self._records = records
        self._image_root = image_root
        self._memory = memory
        self._needs_images = needs_images
        self._needs_truths = needs_truths
        self._rules = rules
        self._room = rules if isinstance(rules, RoomRules) else None
        self._keeps_unanswerable = keeps_unanswerable
        self._takes_predictions = takes_predictions
        self._pairs = _Pairs()
        self._faults: dict[str, str] = {}  # source → what is wrong with the picture, or nothing

    @property
    def num_image_files(self) -> int:
        """Pictures that were looked at or looked for."""
        return len(self._faults)

    def judge(self, index: int, data: bytes | DataError) -> Judged:
        """Judges a record.

        Args:
            index: Its number in the file.
            data: Its bytes, or what kept them from being read.
        """
        if isinstance(data, DataError):
            return Judged((), (Finding("too-long", data.message),))
        where = self._records.where(index)
        try:
            record = parse_record(data, where)
        except DataError as error:
            return Judged((), (Finding("json", error.message),))
        examples, findings = self._read(record, where, index)
        if self._memory is not None:
            for source in dict.fromkeys(_sources(examples, record)):
                fault = self._fault_of(source, self._memory)
                if fault and self._needs_images:
                    findings.append(Finding("image", fault))
        if examples:
            # the queries of a record share their dialogue
            dialogue = examples[0].dialogue.with_digests(self.digests)
            examples = [replace(example, dialogue=dialogue) for example in examples]
        if not any(finding.is_error for finding in findings):
            for number, example in enumerate(examples):
                query = number if len(examples) > 1 else None
                kind, fault = self._fault_of_query(example, index)
                if fault:
                    findings.append(Finding(kind, fault, query=query))
                elif self._room and (fault := self._room.no_room(example, self.sizes)):
                    is_error = not self._keeps_unanswerable
                    findings.append(Finding(NO_ROOM, fault, is_error, query))
        return Judged(tuple(examples), tuple(findings))

    def _read(
        self, record: Mapping[str, Any], where: str, index: int
    ) -> tuple[list[Example], list[Finding]]:
        if not self._takes_predictions or "response" not in record:
            fallback_id = fallback_id_of(self._records.path, index)
            return read_record(record, fallback_id=fallback_id, image_root=self._image_root)
        try:
            prediction = prediction_from_json(record, where)
            if not prediction.messages:
                message = 'no "messages": without the dialogue only formats can be judged'
                return [], [Finding("no-prompt", message, is_error=False)]
            return [example_of_prediction(prediction, image_root=self._image_root)], []
        except DataError as error:
            return [], [Finding("prediction", error.message)]

    def _fault_of(self, source: str, memory: PictureMemory) -> str:
        """What is wrong with a picture.

        Each is looked at once, and its digest and size are noted.
        """
        if source in self._faults:
            return self._faults[source]
        fault = ""
        try:
            path = find_image(source if is_url(source) else self._image_root / source)
            if self._needs_images:
                picture = memory.look_at(path)
                self.digests[source] = picture.digest
                self.sizes[source] = size = (picture.width, picture.height)
                reason = "" if self._rules is None else self._rules.picture(*size)
                fault = image_fault(path, reason).message if reason else ""
            else:
                self.digests[source] = memory.digest_of(path)
        except DataError as error:
            fault = error.message
        self._faults[source] = fault
        return fault

    def _fault_of_query(self, example: Example, index: int) -> tuple[str, str]:
        """The kind of what is wrong with a query of a sound record, and a sentence.

        Two empty texts for nothing.
        """
        if self._needs_truths and example.fragment is None:
            return "no-answer", "has no true answer; add `solution`, or leave the query out"
        if self._rules is not None and (fault := self._rules.example(example, self.sizes)):
            return "not-for-model", fault
        first = self._pairs.first(example, index)
        if first is None:
            return "", ""
        place = "this record" if first[0] == index else self._records.where(first[0])
        if first[1]:
            return (
                "pair-twice",
                f"the same dialogue with the same query stands at {place}; remove one",
            )
        return (
            "pair-contradicts",
            f"the same dialogue with the same query stands at {place} with another answer; keep "
            "the right one",
        )


def fallback_id_of(path: Path, index: int) -> str:
    """The id of a record's dialogue where it says none."""
    return f"{path.name.partition('.')[0]}-{index + 1}"


def _sources(examples: Sequence[Example], record: Mapping[str, Any]) -> list[str]:
    if examples:
        return [image.source for image in examples[0].dialogue.images]
    # the record is bad already; its pictures are looked at all the same, where they are plain paths
    given = record.get("images")
    return [item for item in given if isinstance(item, str)] if isinstance(given, list) else []
