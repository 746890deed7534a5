"""The data's file formats: ms-swift and raw records ⇄ examples, and prediction files; read strictly, written atomically.

A record of the ms-swift form is one example; a record of the raw form is one dialogue with one or more queries. What a record
says beyond its form's keys is kept in `Example.meta` (unknown keys of the record under `EXTRA_KEYS`, those of raw lines under
`EXTRA_LINE_KEYS`), so that writing an example gives back what was read.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

from ffr.answer import format_answer, parse_strict
from ffr.data.index import RecordFile, kind_of, parse_record
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Image, Utterance
from ffr.errors import DataError, UsageError
from ffr.images import find_image, is_url
from ffr.prompt import TEMPLATES, QueryPosition, check_markers, parse_user_prompt, prompt_of, render

DataFormat = Literal["ms-swift", "raw"]

EXTRA_KEYS = "_extra"
"""In `Example.meta`: keys of the record that its form does not know."""
EXTRA_LINE_KEYS = "_extra_lines"
"""In `Example.meta`: for each line of a raw dialogue, the keys that the form does not know; absent where there are none."""
CAPTIONS = "image_captions"
"""In the meta of ms-swift records: entry i is the caption of image i; absent where no image has one."""

_MS_SWIFT_KEYS = ("dialogue_id", "images", "messages", "solution", "meta")
_RAW_KEYS = ("dialogue_id", "dialogue", "query_text", "gt_turns", "meta")
_RAW_LINE_KEYS = ("speaker", "utterance_idx", "utterance")
_IMAGE_KEYS = ("path", "image_url", "url")
_ROLES = ("system", "user", "assistant")
_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a record should not have: an error makes it unusable, a warning does not."""

    kind: str
    message: str
    is_error: bool = True


class _FaultyError(Exception):
    """Raised inside the readers once a part cannot be read any further; what was wrong is among the findings."""


class _Findings(list[Finding]):
    def error(self, kind: str, message: str) -> None:
        self.append(Finding(kind, message))

    def warning(self, kind: str, message: str) -> None:
        self.append(Finding(kind, message, is_error=False))

    def require(self, value: Any, kind: type, name: str, remedy: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            self.error("wrong-type", f"{name} is {kind_of(value)}; {remedy}")
            raise _FaultyError
        return value


def read_record(
    record: Mapping[str, Any], *, fallback_id: str = "", image_root: Path | None = None
) -> tuple[list[Example], list[Finding]]:
    """Reads one record of either form and lists all that is wrong with it.

    Args:
        record: The JSON object.
        fallback_id: The dialogue's id where the record has none.
        image_root: Goes into the examples.

    Returns:
        The examples (none where a finding is an error) and the findings.

    >>> examples, findings = read_record({"dialogue": [{"speaker": "a", "utterance": "hi"}], "query_text": "greeting"})
    >>> examples[0].query, [finding.kind for finding in findings]
    ('greeting', ['missing-id'])
    """
    findings = _Findings()
    examples: list[Example] = []
    try:
        if "messages" in record:
            examples = [_read_ms_swift(record, findings, fallback_id, image_root)]
        elif "dialogue" in record:
            examples = _read_raw(record, findings, fallback_id, image_root)
        else:
            nearest = [key for key in record if difflib.get_close_matches(key, ("messages", "dialogue"), 1, 0.8)]
            hint = f"; is {_shown(nearest[0])} misspelt?" if nearest else ""
            findings.error(
                "no-form", f'the record has neither "messages" (ms-swift form) nor "dialogue" (raw form){hint}'
            )
    except _FaultyError:
        pass
    if any(finding.is_error for finding in findings):
        return [], findings
    return examples, findings


def _read_ms_swift(record: Mapping[str, Any], findings: _Findings, fallback_id: str, root: Path | None) -> Example:
    if "response" in record:
        findings.error(
            "prediction", 'the record has a "response": a prediction file; use it with `ffr eval --predictions`'
        )
        raise _FaultyError
    meta = _read_meta(record, _MS_SWIFT_KEYS, findings)
    dialogue_id = _read_id(record, findings, fallback_id)
    sources = _read_images(record.get("images"), findings)
    captions = meta.pop(CAPTIONS, None)
    if captions is None:
        captions = [""] * len(sources)
    elif not isinstance(captions, list) or len(captions) != len(sources) or not _all_texts(captions):
        findings.error("wrong-type", f"meta {CAPTIONS} is not a list of {len(sources)} texts, one an image; correct it")
        raise _FaultyError
    images = tuple(map(Image, sources, captions))
    contents = _read_messages(record["messages"], findings)
    if "user" not in contents:
        findings.error("no-prompt", "messages have no user message; it holds the prompt")
        raise _FaultyError
    try:
        query, utterances = parse_user_prompt(contents["user"], images)
    except DataError as error:
        findings.error("prompt", error.message)
        raise _FaultyError from error
    fragment = _read_answers(record, contents.get("assistant"), len(utterances), len(images), findings)
    return Example(
        dialogue=Dialogue(dialogue_id, utterances),
        query=query,
        fragment=fragment,
        prompt=FilePrompt(user=contents["user"], system=contents.get("system")),
        image_root=root,
        meta=MappingProxyType(meta),
    )


def _read_meta(record: Mapping[str, Any], known: Sequence[str], findings: _Findings) -> dict[str, Any]:
    given = record.get("meta")
    meta: dict[str, Any] = dict(findings.require(given, dict, '"meta"', "write an object") if given is not None else {})
    if EXTRA_KEYS in meta:
        findings.error("reserved-key", f'"meta" has the key "{EXTRA_KEYS}", which is reserved; rename it')
        raise _FaultyError
    extra = {key: value for key, value in record.items() if key not in known}
    for key in extra:
        nearest = difflib.get_close_matches(key, [name for name in known if name not in record], 1, 0.75)
        hint = f'; did you mean "{nearest[0]}"?' if nearest else "; it is kept but not used"
        findings.warning("unknown-key", f"unknown key {_shown(key)}{hint}")
    if extra:
        meta[EXTRA_KEYS] = extra
    return meta


def _read_id(record: Mapping[str, Any], findings: _Findings, fallback_id: str) -> str:
    value = record.get("dialogue_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        findings.warning("missing-id", f'no "dialogue_id"; {_shown(fallback_id)} is used')
        return fallback_id
    text: str = findings.require(value, str, '"dialogue_id"', "write a text")
    return text


def _read_images(value: Any, findings: _Findings) -> list[str]:
    if value is None:
        return []
    entries = findings.require(value, list, '"images"', 'write a list of paths, such as ["a.png", "b.png"]')
    return [_read_image(entry, f"image {index}", findings) for index, entry in enumerate(entries)]


def _read_image(entry: Any, name: str, findings: _Findings) -> str:
    """The path or URL of an image in any spelling: a text, {"path"}, {"url"}, {"image_url"} (a text or {"url"})."""
    value = entry
    if isinstance(entry, dict):
        given = [key for key in _IMAGE_KEYS if isinstance(entry.get(key), str | dict)]
        if len(given) != 1:
            keys = " or ".join(f'"{key}"' for key in _IMAGE_KEYS)
            found = f"has {len(given)} of them" if given else "has none"
            findings.error(
                "image-spelling", f"{name} is an object that needs one of {keys} and {found}; write its path"
            )
            raise _FaultyError
        value = entry[given[0]]
        if isinstance(value, dict):
            value = value.get("url")
    source: str = findings.require(value, str, name, "write its path")
    if not source.strip() or "\0" in source:
        findings.error("image-spelling", f"{name} has an empty or impossible path; write the path of a picture")
        raise _FaultyError
    return source


def _read_messages(value: Any, findings: _Findings) -> dict[str, str]:
    """The content of each role's message."""
    messages = findings.require(value, list, '"messages"', "write a list of {role, content}")
    contents: dict[str, str] = {}
    last = -1
    for index, message in enumerate(messages):
        name = f"message {index}"
        findings.require(message, dict, name, "write {role, content}")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            findings.error("role", f"{name} has the role {_shown(role)}; roles are {', '.join(_ROLES)}")
            raise _FaultyError
        if _ROLES.index(role) <= last:
            findings.error(
                "role", f"{name} is a {role} message out of turn; one each of {', '.join(_ROLES)} in this order"
            )
            raise _FaultyError
        last = _ROLES.index(role)
        contents[role] = findings.require(message.get("content"), str, f"the content of {name}", "write a text")
        for key in message:
            if key not in ("role", "content"):
                findings.error("unknown-key", f"{name} has the unknown key {_shown(key)}; remove it")
    return contents


def _read_answers(
    record: Mapping[str, Any], assistant: str | None, num_utterances: int, num_images: int, findings: _Findings
) -> Fragment | None:
    given: dict[str, Fragment] = {}
    if (solution := record.get("solution")) is not None:
        text = findings.require(solution, str, '"solution"', "write the answer as a text")
        given['"solution"'] = _read_answer(text, '"solution"', num_utterances, num_images, findings)
    if assistant is not None:
        given["the assistant's answer"] = _read_answer(
            assistant, "the assistant's answer", num_utterances, num_images, findings
        )
    if not given:
        return None
    fragments = list(given.values())
    if fragments[0] != fragments[-1]:
        findings.error("two-answers", '"solution" and the assistant\'s answer differ; keep the right one')
    return fragments[0]


def _read_answer(text: str, name: str, num_utterances: int, num_images: int, findings: _Findings) -> Fragment:
    fragment = parse_strict(text)
    if fragment is None:
        findings.error(
            "answer-format",
            f"{name} is {_shown(text)}, not in the answer format; write {format_answer(Fragment((0,), ()))}",
        )
        raise _FaultyError
    check_ids(fragment, name, num_utterances, num_images, findings)
    return fragment


def check_ids(fragment: Fragment, name: str, num_utterances: int, num_images: int, findings: _Findings) -> None:
    """Adds a finding for ids that the dialogue does not have, and for ids that repeat."""
    for word, ids, count in (
        ("utterance", fragment.utterance_ids, num_utterances),
        ("image", fragment.image_ids, num_images),
    ):
        outside = [index for index in ids if index >= count]
        if outside:
            has = f"ids 0 to {count - 1}" if count else f"no {word}"
            findings.error(
                "id-range", f"{name} names {word} {outside[0]} but the dialogue has {has}; correct the answer"
            )
        if len(set(ids)) < len(ids):
            findings.warning("id-repeats", f"{name} names an {word} id twice; remove the repeats")


def _read_raw(record: Mapping[str, Any], findings: _Findings, fallback_id: str, root: Path | None) -> list[Example]:
    given_meta = record.get("meta")
    one_each = given_meta if isinstance(given_meta, list) else None
    meta = _read_meta({**record, "meta": None} if one_each is not None else record, _RAW_KEYS, findings)
    dialogue_id = _read_id(record, findings, fallback_id)
    lines = findings.require(
        record["dialogue"], list, '"dialogue"', "write a list of {speaker, utterance_idx, utterance}"
    )
    if not lines:
        findings.error("no-utterance", '"dialogue" is empty; a dialogue has utterances')
        raise _FaultyError
    utterances: list[Utterance] = []
    extra_lines: list[dict[str, Any]] = []
    for index, line in enumerate(lines):
        utterance, extra = _read_raw_line(line, index, findings)
        utterances.append(utterance)
        extra_lines.append(extra)
    unknown = sorted({key for extra in extra_lines for key in extra})
    for key in unknown:
        nearest = difflib.get_close_matches(key, _RAW_LINE_KEYS, 1, 0.75)
        hint = f'; did you mean "{nearest[0]}"?' if nearest else "; it is kept but not used"
        findings.warning("unknown-key", f"lines have the unknown key {_shown(key)}{hint}")
    if unknown:
        meta[EXTRA_LINE_KEYS] = extra_lines
    dialogue = Dialogue(dialogue_id, tuple(utterances))
    queries, answers = _read_raw_queries(record, findings)
    if one_each is not None and (
        len(one_each) != len(queries) or not all(isinstance(item, dict) and EXTRA_KEYS not in item for item in one_each)
    ):
        findings.error("wrong-type", f'"meta" is a list but not of {len(queries)} objects, one a query; correct it')
        raise _FaultyError
    examples: list[Example] = []
    for number, (query, turns) in enumerate(zip(queries, answers, strict=True)):
        try:
            check_markers(dialogue, query)
        except DataError as error:
            findings.error("marker", error.message)
            raise _FaultyError from error
        fragment = None
        if turns is not None:
            on_turns = set(turns)
            image_ids = (index for index, turn in enumerate(dialogue.image_utterance_ids) if turn in on_turns)
            fragment = Fragment(tuple(turns), tuple(image_ids))
            name = '"gt_turns"' if len(queries) == 1 else f'"gt_turns" of query {number}'
            check_ids(fragment, name, len(utterances), len(dialogue.images), findings)
        own_meta = {**one_each[number], **meta} if one_each is not None else meta
        examples.append(Example(dialogue, query, fragment, None, root, MappingProxyType(own_meta)))
    return examples


def _read_raw_line(line: Any, index: int, findings: _Findings) -> tuple[Utterance, dict[str, Any]]:
    name = f"line {index} of the dialogue"
    findings.require(line, dict, name, "write {speaker, utterance_idx, utterance}")
    position = line.get("utterance_idx", index)
    if isinstance(position, bool) or position != index:
        findings.error(
            "utterance-idx", f"{name} has utterance_idx {_shown(position)}; ids count from 0 in dialogue order"
        )
        raise _FaultyError
    speaker = findings.require(line.get("speaker"), str, f"the speaker of {name}", "write a text")
    said = line.get("utterance")
    if isinstance(said, str):
        said = [said]
    findings.require(said, list, f"the utterance of {name}", "write a text or a list of {image_url, caption}")
    segments: list[str | Image] = []
    for part in said:
        if isinstance(part, str):
            if part:
                segments.append(part)
            continue
        source = _read_image(part, f"an image of {name}", findings)
        caption = part.get("caption") if isinstance(part, dict) else None
        if caption is not None:
            findings.require(caption, str, f"a caption of {name}", "write a text")
        segments.append(Image(source, caption or ""))
    extra = {key: value for key, value in line.items() if key not in _RAW_LINE_KEYS}
    return Utterance(speaker, tuple(segments)), extra


def _read_raw_queries(record: Mapping[str, Any], findings: _Findings) -> tuple[list[str], Sequence[list[int] | None]]:
    queries = record.get("query_text")
    if isinstance(queries, str):
        queries = [queries]
    findings.require(queries, list, '"query_text"', "write a text or a list of texts")
    if not queries or not _all_texts(queries):
        findings.error("wrong-type", '"query_text" is a list without texts only; write a text or a list of texts')
        raise _FaultyError
    turns = record.get("gt_turns")
    if turns is None:
        return queries, [None] * len(queries)
    findings.require(turns, list, '"gt_turns"', "write a list of utterance ids, or one list a query")
    if len(queries) == 1 and not (turns and all(isinstance(item, list) for item in turns)):
        turns = [turns]
    if len(turns) != len(queries):
        findings.error(
            "gt-turns",
            f'"gt_turns" has {len(turns)} lists but "query_text" {len(queries)} queries; write one list a query',
        )
        raise _FaultyError
    for ids in turns:
        if not isinstance(ids, list) or not all(type(item) is int and item >= 0 for item in ids):
            findings.error(
                "gt-turns", f'"gt_turns" holds {_shown(ids)}; write lists of utterance ids, whole numbers from 0'
            )
            raise _FaultyError
    return queries, turns


def _all_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


class ExampleDataset(Sequence[Example]):
    """The examples of a file, each read when it is asked for; made by `open_dataset`.

    Attributes:
        path: The file.
        image_root: Folder that relative image paths are resolved against.
        fingerprint: SHA-256 over the examples in order (dialogue, query, answer), whatever the file's form.
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
        self._read_all(skip_bad, _ImageCheck() if require_images else None)

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
                answer = "" if example.fragment is None else format_answer(example.fragment)
                content = json.dumps([example.dialogue.fingerprint, example.query, answer], ensure_ascii=False)
                digest.update(content.encode("utf-8") + b"\n")
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
        return self._examples(record, self._records.read(record))[self._part_of[position]]

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
    """Sees that the pictures are there, each looked up once."""

    def __init__(self) -> None:
        self._found: set[int] = set()

    def check(self, example: Example, where: str) -> None:
        for image in example.dialogue.images:
            key = hash(image.source)
            if key not in self._found:
                location = image.source if is_url(image.source) else (example.image_root or Path()) / image.source
                find_image(location, where=where)
                self._found.add(key)


def open_dataset(
    path: str | Path, *, image_root: str | Path | None = None, skip_bad: bool = False, require_images: bool = True
) -> ExampleDataset:
    """Opens a data file (.json list or .jsonl, plain or .gz; ms-swift or raw form) and checks every record at the door.

    Args:
        path: The file.
        image_root: Folder that relative image paths are resolved against; the file's own folder if None.
        skip_bad: Leave out what cannot be used (counted in `num_left_out`) instead of failing at the first.
        require_images: See that every picture's file is there; False for uses that look at no picture.

    Raises:
        DataError: with file and line of the first fault, unless `skip_bad`; where no record is usable in any case.
    """
    return ExampleDataset(
        Path(path),
        image_root=None if image_root is None else Path(image_root),
        skip_bad=skip_bad,
        require_images=require_images,
    )


def example_to_record(
    example: Example, *, template: str = "zh", query_position: QueryPosition = "first"
) -> dict[str, Any]:
    """An example as a record of the ms-swift form, with its own prompt where it has one.

    Raises:
        DataError: where a text holds a marker, or a kept key collides with one of the form.

    >>> chat = Dialogue("d1", (Utterance("a", ("hi",)),))
    >>> record = example_to_record(Example(chat, "greeting", Fragment((0,), ())), template="en")
    >>> record["solution"], [message["role"] for message in record["messages"]]
    ('<|utt_ids_start|>[0]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>', ['system', 'user', 'assistant'])
    """
    prompt = example.prompt or render(example.dialogue, example.query, template=template, query_position=query_position)
    messages = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    messages.append({"role": "user", "content": prompt.user})
    record: dict[str, Any] = {
        "dialogue_id": example.dialogue.id,
        "images": [image.source for image in example.dialogue.images],
        "messages": messages,
    }
    if example.fragment is not None:
        answer = format_answer(example.fragment)
        messages.append({"role": "assistant", "content": answer})
        record["solution"] = answer
    meta, extra = _split_meta(example)
    if any(image.caption for image in example.dialogue.images):
        meta[CAPTIONS] = [image.caption for image in example.dialogue.images]
    if meta:
        record["meta"] = meta
    return _with_extra(record, extra, example)


def _split_meta(example: Example) -> tuple[dict[str, Any], Mapping[str, Any]]:
    meta = dict(example.meta)
    return meta, meta.pop(EXTRA_KEYS, {})


def _with_extra(record: dict[str, Any], extra: Mapping[str, Any], example: Example) -> dict[str, Any]:
    for key in extra:
        if key in (*_MS_SWIFT_KEYS, *_RAW_KEYS):
            raise DataError(
                f"the kept key {_shown(key)} means something else in the form that is to be written; rename it first",
                where=f"dialogue {example.dialogue.id!r}",
            )
    return {**record, **extra}


def examples_to_raw_record(examples: Sequence[Example], *, drop_prompts: bool = False) -> dict[str, Any]:
    """Examples on one dialogue as one record of the raw form.

    The raw form has no prompt and no list of image ids (a turn's images belong to it): where that would lose something, it
    fails.

    Args:
        examples: One or more, with one and the same dialogue.
        drop_prompts: Let go of prompts in other words than the built-in templates.

    Raises:
        DataError: where an answer or a prompt cannot be said in this form.
    """
    first = examples[0]
    dialogue, where = first.dialogue, f"dialogue {first.dialogue.id!r}"
    answers: list[list[int]] = []
    for example in examples:
        if not drop_prompts and example.prompt is not None and not _is_ours(example):
            raise DataError(
                "its prompt is in words of its own, which the raw form cannot hold; pass --drop-prompts to let go of them",
                where=where,
            )
        if example.fragment is None:
            continue
        turns = set(example.fragment.utterance_ids)
        on_turns = [index for index, turn in enumerate(dialogue.image_utterance_ids) if turn in turns]
        if sorted(set(example.fragment.image_ids)) != on_turns:
            raise DataError(
                f"the answer to {_shown(example.query)} has images {list(example.fragment.image_ids)} but its turns carry "
                f"{on_turns}; the raw form cannot say that, keep the ms-swift form",
                where=where,
            )
        answers.append(list(example.fragment.utterance_ids))
    if answers and len(answers) < len(examples):
        raise DataError("some of its queries have an answer and some have none; write them to two files", where=where)
    metas, extra = [], _split_meta(first)[1]
    for example in examples:
        meta, own_extra = _split_meta(example)
        assert own_extra == extra, "examples are grouped by what they share"
        metas.append(meta)
    extra_lines = metas[0].get(EXTRA_LINE_KEYS)
    for meta in metas:
        meta.pop(EXTRA_LINE_KEYS, None)
    lines: list[dict[str, Any]] = []
    for index, utterance in enumerate(dialogue.utterances):
        parts: list[Any] = [
            part if isinstance(part, str) else {"image_url": part.source, "caption": part.caption}
            for part in utterance.segments
        ]
        said: Any = parts
        if all(isinstance(part, str) for part in parts) and len(parts) <= 1:
            said = "".join(parts)
        own = extra_lines[index] if isinstance(extra_lines, list) and index < len(extra_lines) else {}
        lines.append({"speaker": utterance.speaker, "utterance_idx": index, "utterance": said, **own})
    single = len(examples) == 1
    record: dict[str, Any] = {
        "dialogue_id": dialogue.id,
        "dialogue": lines,
        "query_text": first.query if single else [example.query for example in examples],
    }
    if answers:
        record["gt_turns"] = answers[0] if single else answers
    if single and metas[0]:
        record["meta"] = metas[0]
    elif any(metas):
        record["meta"] = metas[0] if all(meta == metas[0] for meta in metas) else metas
    return _with_extra(record, extra, first)


def _is_ours(example: Example) -> bool:
    assert example.prompt is not None
    for name, template in TEMPLATES.items():
        if example.prompt.system == template.system:
            for position in ("first", "last"):
                if example.prompt == prompt_of(example, template=name, query_position=position):
                    return True
    return False


def write_examples(
    path: str | Path,
    examples: Iterable[Example],
    *,
    format: DataFormat = "ms-swift",  # noqa: A002 - the word that callers know
    template: str = "zh",
    query_position: QueryPosition = "first",
    drop_prompts: bool = False,
) -> int:
    """Writes examples to a .json list or a .jsonl file, packed if the name ends in .gz; the file appears whole or not at all.

    Args:
        path: The file; its folder is made.
        examples: What to write. Neighbours on one dialogue become one record of the raw form.
        format: `ms-swift` or `raw`.
        template: Template of the prompt where an example has none of its own.
        query_position: Likewise.
        drop_prompts: For `raw`: let go of prompts in other words than the built-in templates.

    Returns:
        The number of records written.

    Raises:
        DataError: where an example cannot be written in this form without loss, or the file cannot be written.
    """
    if format == "ms-swift":
        records: Iterable[dict[str, Any]] = (
            example_to_record(example, template=template, query_position=query_position) for example in examples
        )
    elif format == "raw":
        records = (examples_to_raw_record(group, drop_prompts=drop_prompts) for group in _grouped_by_dialogue(examples))
    else:
        raise UsageError(f"no format {format!r}; there are ms-swift and raw")
    return write_records(path, records)


def _grouped_by_dialogue(examples: Iterable[Example]) -> Iterator[list[Example]]:
    def shared(example: Example) -> tuple[Any, ...]:
        return (
            example.dialogue,
            example.fragment is None,
            example.meta.get(EXTRA_KEYS),
            example.meta.get(EXTRA_LINE_KEYS),
        )

    group: list[Example] = []
    for example in examples:
        if group and shared(group[0]) != shared(example):
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON objects to a .json list or a .jsonl file, packed if the name ends in .gz, and tells how many.

    Raises:
        UsageError: where the name ends in something else.
        DataError: where the file cannot be written or a record cannot be said in JSON.
    """
    path = Path(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("json", "jsonl"):
        raise UsageError(
            f"{path.name}: the name ends in .json, .jsonl, .json.gz or .jsonl.gz, so that the layout is known"
        )
    count = 0
    with replaced_file(path) as write:
        write(b"[" if kind == "json" else b"")
        for record in records:
            line = dump_record(record, where=f"{path.name}, record {count + 1}")
            if kind == "json":
                write((b",\n" if count else b"\n") + line)
            else:
                write(line + b"\n")
            count += 1
        write(b"\n]\n" if kind == "json" else b"")
    return count


def dump_record(record: Mapping[str, Any], *, where: str | None = None) -> bytes:
    """One record as a line of JSON in UTF-8, without the line break.

    Raises:
        DataError: where JSON cannot say it (NaN, half a surrogate pair, …).
    """
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"cannot be written as JSON ({error}); correct the value", where=where) from error


@contextmanager
def replaced_file(path: Path) -> Iterator[Callable[[bytes], int]]:
    """A function that writes to a temporary file beside `path` (packed for .gz), which takes its place at the end if all went well."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as plain:
            if path.suffix == ".gz":
                # no name and no time of day inside: the same records give the same bytes
                with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
                    yield packed.write
            else:
                yield plain.write
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); check the folder and its room", where=str(path)
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


@dataclass(frozen=True)
class PredictionRecord:
    """One line of a prediction file.

    Args:
        dialogue_id: The dialogue's id.
        response: The model's answer, as it came.
        labels: The true answer, as the file has it; None where it has none.
        messages: The chat messages the model was asked with.
        images: Path or URL of each image.
        logprobs: Log-probability of each token of the answer; None where the file has none.
        extra: Whatever else the line says.
    """

    dialogue_id: str
    response: str
    labels: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    images: tuple[str, ...] = ()
    logprobs: tuple[float, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


_PREDICTION_KEYS = ("dialogue_id", "response", "labels", "messages", "images", "logprobs")


def prediction_from_json(record: Mapping[str, Any], where: str) -> PredictionRecord:
    """Reads a line of a prediction file.

    Raises:
        DataError: with what is wrong in it.

    >>> prediction_from_json({"dialogue_id": "d", "response": "[0]", "logprobs": {"content": [{"logprob": -0.5}]}}, "p:1").logprobs
    (-0.5,)
    """
    findings = _Findings()
    try:
        if "response" not in record:
            findings.error("no-response", 'no "response"; a prediction file has the model\'s answer there')
            raise _FaultyError
        response = findings.require(record["response"], str, '"response"', "write the model's answer as a text")
        labels = record.get("labels")
        if labels is not None:
            findings.require(labels, str, '"labels"', "write the true answer as a text")
        messages = record.get("messages")
        if messages is not None:
            _read_messages(messages, _Findings())
        return PredictionRecord(
            dialogue_id=_read_id(record, findings, ""),
            response=response,
            labels=labels,
            messages=tuple(messages or ()),
            images=tuple(_read_images(record.get("images"), findings)),
            logprobs=_read_logprobs(record.get("logprobs"), findings),
            extra={key: value for key, value in record.items() if key not in _PREDICTION_KEYS},
        )
    except _FaultyError as error:
        faults = [finding.message for finding in findings if finding.is_error]
        message = faults[0] if faults else "messages are not a list of {role, content} in order; correct them"
        raise DataError(message, where=where) from error


def _read_logprobs(value: Any, findings: _Findings) -> tuple[float, ...] | None:
    if value is None:
        return None
    remedy = 'write {"content": [{"logprob": number}, …]}'
    content = findings.require(value, dict, '"logprobs"', remedy).get("content")
    if content is None:
        return None
    result: list[float] = []
    for entry in findings.require(content, list, "the content of logprobs", remedy):
        number = findings.require(entry, dict, "an entry of logprobs", remedy).get("logprob")
        if isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**53:
            number = float(number)
        result.append(findings.require(number, float, "a logprob", remedy))
    return tuple(result)


def prediction_to_json(prediction: PredictionRecord) -> dict[str, Any]:
    """A prediction as the published form has it."""
    record: dict[str, Any] = {"dialogue_id": prediction.dialogue_id, "response": prediction.response}
    if prediction.labels is not None:
        record["labels"] = prediction.labels
    record["messages"] = [dict(message) for message in prediction.messages]
    record["images"] = list(prediction.images)
    if prediction.logprobs is not None:
        record["logprobs"] = {"content": [{"logprob": value} for value in prediction.logprobs]}
    return {**record, **{key: value for key, value in prediction.extra.items() if key not in _PREDICTION_KEYS}}


def example_of_prediction(
    prediction: PredictionRecord, *, image_root: Path | None = None, where: str | None = None
) -> Example:
    """The example that a prediction answers, read from its messages, images and labels.

    Raises:
        DataError: where the messages hold no readable prompt, or the labels no readable answer.
    """
    messages = [message for message in prediction.messages if message.get("role") != "assistant"]
    record = {
        "dialogue_id": prediction.dialogue_id,
        "messages": messages,
        "images": list(prediction.images),
        "solution": prediction.labels,
    }
    examples, findings = read_record(record, image_root=image_root)
    for finding in findings:
        if finding.is_error:
            message = finding.message.replace('"solution"', '"labels"')
            raise DataError(message, where=where or f"prediction for {prediction.dialogue_id!r}")
    return examples[0]


class PredictionFile(Sequence[PredictionRecord]):
    """The predictions of a file, each read when it is asked for; made by `read_predictions`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records = RecordFile(path)
        if self._records.tail_fault is not None:
            raise self._records.tail_fault

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> PredictionRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[PredictionRecord]: ...

    def __getitem__(self, index: int | slice) -> PredictionRecord | Sequence[PredictionRecord]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"prediction {index} of {len(self)}")
        where = self.where(position)
        return prediction_from_json(parse_record(self._records.read(position), where), where)

    def where(self, index: int) -> str:
        """File and line of a prediction, for people: `predictions.jsonl:17`."""
        return self._records.where(index)


def read_predictions(path: str | Path) -> PredictionFile:
    """Opens a prediction file and checks every line at the door.

    Raises:
        DataError: with file and line of the first fault.
    """
    predictions = PredictionFile(Path(path))
    for _ in predictions:
        pass
    return predictions


def write_predictions(path: str | Path, predictions: Iterable[PredictionRecord]) -> int:
    """Writes predictions in the published form and tells how many; the file appears whole or not at all.

    Raises:
        DataError: where the file cannot be written.
    """
    return write_records(path, map(prediction_to_json, predictions))
