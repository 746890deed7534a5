"""What the readers of benchmarks share: parts of their files with places, questions, the account.

A benchmark labels, for each question to a long talk, the lines that answer it; these are the true
answers here. Its module says how a record becomes a `Talk`; `read_talks` makes examples of talks,
and the `Account` tells what could not be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from ffr.data.findings import shown
from ffr.data.forms.raw import EXTRA_LINE_KEYS
from ffr.data.index import RecordFile, kind_of, parse_record
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance
from ffr.errors import DataError
from ffr.prompt import check_markers
from ffr.text import counted, is_url

NOTHING = "nothing"
"""Where `Example.meta["truth"]` says so, the talk holds no answer: the empty fragment is right."""
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a benchmark's record, and where it stands; what it must be is asked of it.

    Args:
        value: What JSON has there.
        where: File and line of the record.
        name: The way to it inside the record, such as `qa[3].evidence`; empty for the record.

    >>> record = Part({"qa": [{"question": "who?"}]}, "a.json:1")
    >>> [item["question"].text for item in record["qa"].items]
    ['who?']
    >>> record["qa"].items[0]["evidence"]
    Traceback (most recent call last):
        ...
    ffr.errors.DataError: a.json:1: qa[0] has no "evidence"; take the file as it was published
    """

    value: Any
    where: str
    name: str = ""

    def fail(self, says: str) -> NoReturn:
        """Raises DataError: this part, and what is wrong with it."""
        raise DataError(f"{self.name or 'the record'} {says}", where=self.where)

    def _require(self, kind: type, wanted: str) -> Any:
        if not isinstance(self.value, kind) or isinstance(self.value, bool):
            self.fail(f"is {kind_of(self.value)}, not {wanted}; take the file as it was published")
        return self.value

    def find(self, key: str) -> Part | None:
        """The value of a key of this object; None where it has none, or null."""
        value = self._require(dict, "an object").get(key)
        way = f"{self.name}.{key}" if self.name else key
        return None if value is None else Part(value, self.where, way)

    def find_keys(self) -> list[str]:
        """The keys of this object."""
        return list(self._require(dict, "an object"))

    def __getitem__(self, key: str) -> Part:
        found = self.find(key)
        if found is None:
            self.fail(f'has no "{key}"; take the file as it was published')
        return found

    @property
    def items(self) -> list[Part]:
        """The members of this list."""
        values = self._require(list, "a list")
        return [
            Part(value, self.where, f"{self.name}[{number}]") for number, value in enumerate(values)
        ]

    @property
    def text(self) -> str:
        said: str = self._require(str, "a text")
        return said

    @property
    def words(self) -> str:
        """A text that is not empty."""
        return self.text if self.text.strip() else self.fail("is empty; write a text")

    def texts(self, key: str) -> list[str]:
        """The texts in the list that a key has; none where it has no list."""
        found = self.find(key)
        return [] if found is None else [item.text for item in found.items]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a talk: one turn, or one round.

    Args:
        speaker: Who says it.
        segments: Its words and pictures in order.
        about: What is kept beside it: its name in the benchmark, session, time.
    """

    speaker: str
    segments: Sequence[str | Image]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a talk.

    Args:
        query: Its words.
        evidence: Positions of the lines that answer it; none where nothing in the talk does.
        meta: What is kept with it, `category` among it.
        is_unanswered: Whether the benchmark says that the talk holds no answer.
        left_out: Why it cannot be used; empty where it can.
    """

    query: str
    evidence: Sequence[int]
    meta: Mapping[str, Any]
    is_unanswered: bool = False
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Talk:
    """A record of a benchmark: the lines of one dialogue, and the questions to it.

    Args:
        id: Its name; empty where it has none but its file's.
        lines: Its lines in order.
        questions: The questions to it.
    """

    id: str
    lines: Sequence[Line]
    questions: Sequence[Question]


@dataclass
class Account:
    """What became of all that stands in a benchmark's files.

    Args:
        unit: What a line is: `turn` or `round`.
    """

    unit: str
    num_talks: int = 0
    num_lines: int = 0
    num_pictures: int = 0
    num_missing_pictures: int = 0
    num_nothing: int = 0
    dropped: list[str] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def place(self, names: Part, positions: Mapping[str, int]) -> list[int]:
        """The positions of the lines that a list of evidence names.

        A name that no line has is dropped, and counted; one text may name several lines.
        """
        found: list[int] = []
        for item in names.items:
            for name in item.text.replace(";", " ").replace(",", " ").split():
                if name in positions:
                    found.append(positions[name])
                else:
                    self.drop(item, name)
        return found

    def drop(self, label: Part, value: object) -> None:
        """Counts a label that names what its talk does not have."""
        self.dropped.append(f"{shown(value)} at {label.where}, {label.name}")

    def picture(self, source: str | None, caption: str, root: Path | None) -> str | Image:
        """A picture where its file is here; in its place the words that came with it."""
        self.num_pictures += 1
        if source is not None and _is_here(source, root or Path()):
            return Image(source, caption)
        self.num_missing_pictures += 1
        return f"[picture: {caption}]" if caption else "[picture]"

    @property
    def num_asked(self) -> int:
        return self.kept.total() + self.left_out.total()

    def notes(self) -> list[str]:
        """What there is to say, a line each."""
        talks, lines = counted(self.num_talks, "dialogue"), counted(self.num_lines, self.unit)
        notes = [
            f"{talks} of {lines}",
            f"{self.kept.total():,} of {counted(self.num_asked, 'question')} taken"
            + (f", {self.num_nothing:,} of them answered by nothing" if self.num_nothing else ""),
        ]
        by_category = [f"{name} {count:,}" for name, count in sorted(self.kept.items())]
        if by_category:
            notes.append(f"by category: {', '.join(by_category)}")
        notes += [f"left out: {count:,} {why}" for why, count in sorted(self.left_out.items())]
        if self.dropped:
            labels = counted(len(self.dropped), "label")
            notes.append(
                f"dropped: {labels} of evidence that the dialogue does not have, the first "
                f"{self.dropped[0]}"
            )
        if self.num_missing_pictures:
            notes.append(
                f"{self.num_missing_pictures:,} of {counted(self.num_pictures, 'picture')} not "
                "here; in their place stand the words that came with them"
            )
        return notes


def _is_here(source: str, root: Path) -> bool:
    """Whether a picture's file is there; what Git LFS leaves in its place is none."""
    if is_url(source) or "\0" in source or not source.strip():
        return False
    try:
        if not (root / source).is_file():
            return False
        with (root / source).open("rb") as file:
            return not file.read(len(_LFS_POINTER)).startswith(_LFS_POINTER)
    except OSError:
        return False


def read_talks(
    paths: Sequence[Path],
    talk_of: Callable[[Part, Account], Talk],
    *,
    unit: str,
    image_root: Path | None = None,
) -> tuple[list[Example], Account]:
    """Reads the files of a benchmark.

    Args:
        paths: The files; they are read by their names, so that the halves are always the same.
        talk_of: Makes a talk of a record.
        unit: What a line is: `turn` or `round`.
        image_root: Goes into the examples.

    Returns:
        The examples, with `category`, `half` (odd or even: of the dialogue's number from 1) and
        `truth` (evidence or nothing) in their meta; and the account.

    Raises:
        DataError: with the place of the first fault.
    """
    account = Account(unit)
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (path.name, str(path))):
        records = RecordFile(path, may_be_one=True)
        for index, data in enumerate(records):
            if isinstance(data, DataError):
                raise data
            where = records.where(index)
            talk = talk_of(Part(parse_record(data, where), where), account)
            stem = path.name.partition(".")[0]
            name = talk.id or (stem if len(records) == 1 else f"{stem}-{index + 1}")
            if name in seen:
                raise DataError(
                    f"the dialogue {shown(name)} stands at {seen[name]} too; name each file once",
                    where=where,
                )
            seen[name] = where
            talk = replace(talk, id=name)
            account.num_talks += 1
            examples += _examples(talk, account, where, image_root)
        if records.tail_fault is not None:
            raise records.tail_fault
    return examples, account


def _examples(talk: Talk, account: Account, where: str, root: Path | None) -> list[Example]:
    if not talk.lines:
        raise DataError(f"holds no {account.unit}; take the file as it was published", where=where)
    account.num_lines += len(talk.lines)
    dialogue = Dialogue(
        talk.id, tuple(Utterance(line.speaker, tuple(line.segments)) for line in talk.lines)
    )
    try:
        check_markers(dialogue, *(question.query for question in talk.questions))
    except DataError as error:
        raise DataError(f"{error.where}: {error.message}", where=where) from error
    about = [dict(line.about) for line in talk.lines]
    half = "even" if account.num_talks % 2 == 0 else "odd"
    examples: dict[str, Example] = {}
    for question in talk.questions:
        why = question.left_out
        if not why and not question.evidence and not question.is_unanswered:
            why = f"without a {account.unit} as evidence"
        if not why and question.query in examples:
            why = "asked before of the same dialogue in the same words"
        if why:
            account.left_out[why] += 1
            continue
        lines = set(question.evidence)
        hosts = enumerate(dialogue.image_utterance_ids)
        fragment = Fragment.of(lines, (index for index, host in hosts if host in lines))
        truth = NOTHING if fragment.is_empty else "evidence"
        account.num_nothing += truth == NOTHING
        account.kept[str(question.meta["category"])] += 1
        meta = {**question.meta, "half": half, "truth": truth, EXTRA_LINE_KEYS: about}
        examples[question.query] = Example(
            dialogue, question.query, fragment, None, root, MappingProxyType(meta)
        )
    return list(examples.values())
