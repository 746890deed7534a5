"""Finds every fault of a data file.

`check_file` reads each record, decodes each picture once, and compares records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffr.data.findings import Finding
from ffr.data.forms.formats import read_record
from ffr.data.forms.predictions import PredictionRecord, example_of_prediction, prediction_from_json
from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Example
from ffr.errors import DataError
from ffr.images import probe_image
from ffr.progress import Progress
from ffr.text import is_url


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a file.

    Args:
        where: File and line, for people.
        line: Number of the line that the record begins on, from 1.
        kind: A short word to count by, such as `unknown-key`.
        message: What was found and what to do.
        is_error: False for a warning, which does not make the record bad.
    """

    where: str
    line: int
    kind: str
    message: str
    is_error: bool = True


@dataclass
class CheckReport:
    """What was found in a file; counts are of records unless their name says otherwise."""

    path: Path
    num_records: int = 0
    num_good: int = 0
    num_examples: int = 0
    num_dialogues: int = 0
    num_image_files: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def errors(self) -> list[Fault]:
        return [fault for fault in self.faults if fault.is_error]

    @property
    def warnings(self) -> list[Fault]:
        return [fault for fault in self.faults if not fault.is_error]

    @property
    def is_good(self) -> bool:
        return not self.errors

    def grouped_warnings(self) -> list[tuple[Fault, int]]:
        """Each warning once: the first place it was found at, and in how many records it was."""
        counts: dict[tuple[str, str], int] = {}
        first: dict[tuple[str, str], Fault] = {}
        for fault in self.warnings:
            key = (fault.kind, fault.message)
            counts[key] = counts.get(key, 0) + 1
            first.setdefault(key, fault)
        return [(first[key], count) for key, count in counts.items()]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "path": str(self.path),
            "num_records": self.num_records,
            "num_good": self.num_good,
            "num_bad": self.num_records - self.num_good,
            "num_examples": self.num_examples,
            "num_dialogues": self.num_dialogues,
            "num_image_files": self.num_image_files,
            "faults": [
                {
                    "where": fault.where,
                    "line": fault.line,
                    "severity": "error" if fault.is_error else "warning",
                    "kind": fault.kind,
                    "message": fault.message,
                }
                for fault in self.faults
            ],
        }


def check_file(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    check_images: bool = True,
    progress: Progress | None = None,
) -> CheckReport:
    """Checks a data file (ms-swift, raw, or predictions) and lists all that is wrong with it.

    Args:
        path: The file.
        image_root: Folder that relative image paths are resolved against; the file's own folder if
            None.
        check_images: Look up and decode the pictures; each file once, however many records use it.
        progress: Gets the number of records done and in all.

    Raises:
        DataError: where the file as a whole cannot be read (missing, empty, in UTF-16, …).
    """
    path = Path(path)
    records = RecordFile(path)
    checker = _Checker(path.parent if image_root is None else Path(image_root), check_images)
    report = CheckReport(path)
    fallback = path.name.partition(".")[0]
    for index, data in enumerate(records):
        where = records.where(index)
        findings = checker.findings(data, where, f"{fallback}-{index + 1}")
        report.num_records += 1
        report.num_good += not any(finding.is_error for finding in findings)
        for finding in findings:
            report.faults.append(Fault(where, records.line(index), finding.kind, finding.message, finding.is_error))
        if progress is not None:
            progress(index + 1, len(records))
    if records.tail_fault is not None:
        place = records.tail_fault.where or path.name
        line = int(place.rpartition(":")[2])
        report.faults.append(Fault(place, line, "layout", records.tail_fault.message))
    report.num_examples = checker.num_examples
    report.num_dialogues = len(checker.dialogues)
    report.num_image_files = len(checker.images)
    return report


class _Checker:
    """What has been seen so far in a file: 16 to 64 bytes for each pair, dialogue and picture."""

    def __init__(self, image_root: Path, check_images: bool) -> None:
        self.image_root = image_root
        self.check_images = check_images
        self.num_examples = 0
        self.pairs: dict[str, str] = {}  # (dialogue, query) → where first
        self.contents: dict[str, tuple[str, str]] = {}  # dialogue id → content, where first
        self.dialogues: set[str] = set()
        self.images: dict[str, str] = {}  # source → what is wrong, or nothing

    def findings(self, data: bytes | DataError, where: str, fallback_id: str) -> list[Finding]:
        if isinstance(data, DataError):
            return [Finding("too-long", data.message)]
        try:
            record = parse_record(data, where)
        except DataError as error:
            return [Finding("json", error.message)]
        if "response" in record:
            examples, findings = self._prediction(record, where)
        else:
            examples, findings = read_record(record, fallback_id=fallback_id, image_root=self.image_root)
        self.num_examples += len(examples)
        for example in examples:
            findings += self._repeats(example, where)
        if self.check_images:
            findings += self._images(examples, record)
        return findings

    def _prediction(self, record: Mapping[str, Any], where: str) -> tuple[list[Example], list[Finding]]:
        try:
            prediction: PredictionRecord = prediction_from_json(record, where)
            if not prediction.messages:
                message = 'no "messages": without the dialogue only formats can be judged'
                return [], [Finding("no-prompt", message, is_error=False)]
            return [example_of_prediction(prediction, image_root=self.image_root)], []
        except DataError as error:
            return [], [Finding("prediction", error.message)]

    def _repeats(self, example: Example, where: str) -> list[Finding]:
        found: list[Finding] = []
        if example.key in self.pairs:
            first = self.pairs[example.key]
            found.append(Finding("pair-twice", f"the same dialogue with the same query stands at {first}; remove one"))
        self.pairs.setdefault(example.key, where)
        content, first = self.contents.setdefault(example.dialogue.id, (example.dialogue.fingerprint, where))
        if content != example.dialogue.fingerprint:
            found.append(
                Finding(
                    "id-twice", f'the dialogue id "{example.dialogue.id}" has another content at {first}; rename one'
                )
            )
        self.dialogues.add(example.dialogue.fingerprint)
        return found

    def _images(self, examples: list[Example], record: Mapping[str, Any]) -> list[Finding]:
        found: list[Finding] = []
        if examples:
            sources = [image.source for image in examples[0].dialogue.images]
        else:
            # the record is bad already; its pictures are looked at all the same, where they are
            # plain paths
            given = record.get("images")
            sources = [item for item in given if isinstance(item, str)] if isinstance(given, list) else []
        for source in dict.fromkeys(sources):
            if source not in self.images:
                self.images[source] = self._fault_of(source)
            if self.images[source]:
                found.append(Finding("image", self.images[source]))
        return list(dict.fromkeys(found))

    def _fault_of(self, source: str) -> str:
        try:
            probe_image(source if is_url(source) else self.image_root / source)
        except DataError as error:
            return error.message
        return ""
