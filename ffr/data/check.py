"""Finds every fault of a data file: `check_file` lists what the judgement of its records finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffr.data.findings import Finding, shown
from ffr.data.index import RecordFile
from ffr.data.judgement import ModelRules, RecordJudge
from ffr.data.pictures import PictureMemory
from ffr.dialogue import Example
from ffr.progress import Progress

_NAME_OR_NUMBER = re.compile(r"\"[^\"]*\"|'[^']*'|(0x)?[0-9a-f]*[0-9][0-9a-f]*")
STRIP_RATIO = 100
"""Sides of a picture beyond this ratio are warned of where no model is named."""


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

    def alike_errors(self) -> list[list[Fault]]:
        """The faults in groups that differ in names and numbers only, in order of the first."""
        groups: dict[str, list[Fault]] = {}
        for fault in self.errors:
            key = f"{fault.kind} {_NAME_OR_NUMBER.sub('', fault.message)}"
            groups.setdefault(key, []).append(fault)
        return list(groups.values())

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
    rules: ModelRules | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Checks a data file (ms-swift, raw, or predictions) and lists all that is wrong with it.

    Args:
        path: The file.
        image_root: Folder that relative image paths are resolved against; the file's own folder if
            None.
        check_images: Look up and decode the pictures; each file once, however many records use it.
        rules: What a model cannot take; None for none.
        progress: Gets the number of records done and in all.

    Raises:
        DataError: where the file as a whole cannot be read (missing, empty, in UTF-16, …).
    """
    path = Path(path)
    records = RecordFile(path)
    records.refuse_foreign()
    report = CheckReport(path)
    names = _Names(records)
    with PictureMemory() as memory:
        judge = RecordJudge(
            records,
            path.parent if image_root is None else Path(image_root),
            memory if check_images else None,
            rules=rules,
            takes_predictions=True,
        )
        for index, data in enumerate(records):
            judged = judge.judge(index, data)
            findings = [*judged.findings, *names.findings(judged.examples, index)]
            if rules is None:
                findings += _strips(judged.examples, judge.sizes)
            report.num_records += 1
            report.num_good += not judged.errors
            report.num_examples += len(judged.examples)
            for finding in findings:
                where = records.where(index) + (
                    f", query {finding.query}" if finding.query is not None else ""
                )
                report.faults.append(
                    Fault(
                        where, records.line(index), finding.kind, finding.message, finding.is_error
                    )
                )
            if progress is not None:
                progress(index + 1, len(records))
    if records.tail_fault is not None:
        place = records.tail_fault.where or path.name
        line = int(place.rpartition(":")[2])
        report.faults.append(Fault(place, line, "layout", records.tail_fault.message))
    report.num_dialogues = len(names.dialogues)
    report.num_image_files = judge.num_image_files
    return report


def _strips(examples: Sequence[Example], sizes: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    """Warnings of pictures that some models refuse; which do is known where a model is named."""
    for image in dict.fromkeys(examples[0].dialogue.images if examples else ()):
        width, height = sizes.get(image.source, (1, 1))
        if max(width, height) > STRIP_RATIO * min(width, height):
            yield Finding(
                "strip",
                f"image {shown(image.source)} is a strip of {width}×{height} pixels, which many "
                "models refuse (Qwen's beyond "
                f"200:1, encoders of the CLIP family beyond {STRIP_RATIO}:1); cut it, or ask with "
                "--model",
                is_error=False,
            )


class _Names:
    """The names and contents of the dialogues seen so far.

    A name decides nothing, so what is odd about it is a warning.
    """

    def __init__(self, records: RecordFile) -> None:
        self.dialogues: set[str] = set()
        self._records = records
        self._contents: dict[
            str, tuple[str, int]
        ] = {}  # dialogue id → content, number of the record that had it first
        self._pairs: dict[str, tuple[str, int]] = {}  # dialogue and query → id, likewise

    def findings(self, examples: Sequence[Example], index: int) -> Iterator[Finding]:
        if not examples:
            return
        dialogue = examples[0].dialogue
        self.dialogues.add(dialogue.fingerprint)
        content, first = self._contents.setdefault(dialogue.id, (dialogue.fingerprint, index))
        if content != dialogue.fingerprint:
            place = self._records.where(first)
            yield self._warning(
                "id-twice",
                f'the dialogue id "{dialogue.id}" has another content at {place}; rename one',
            )
        for example in examples:
            name, first = self._pairs.setdefault(example.key, (dialogue.id, index))
            if name != dialogue.id:
                place = self._records.where(first)
                yield self._warning(
                    "pair-renamed",
                    f'the same dialogue with the same query stands at {place} as "{name}", and '
                    "counts twice; remove one",
                )

    @staticmethod
    def _warning(kind: str, message: str) -> Finding:
        return Finding(kind, message, is_error=False)
