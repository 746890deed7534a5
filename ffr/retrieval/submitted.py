"""Someone else's answers as a retriever: a file joined with our data by dialogue id and query.

A line is `{"dialogue_id", "query", "response"}` or `{"dialogue_id", "query", "utterance_ids",
"image_ids"}`; in place of `query` it may have the `messages` of a prediction file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.answer import format_answer
from ffr.data.findings import FaultyError, Findings
from ffr.data.forms.fields import read_id
from ffr.data.forms.predictions import example_of_prediction, prediction_from_json
from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.errors import DataError
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer
from ffr.text import one_line

SUBMITTED = "submitted"
"""The kind of model that such answers count as in results."""
_ID_KEYS = ("utterance_ids", "image_ids")
_MAX_SHOWN = 60


@dataclass(frozen=True)
class _Line:
    response: str
    where: str


class SubmittedRetriever:
    """Answers from a file; a query that the file does not answer fails, and so counts as wrong.

    Args:
        path: The file, .jsonl or a .json list, plain or .gz.

    Raises:
        DataError: where a line cannot be read, or answers a query for the second time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        records = RecordFile(path)
        if records.tail_fault is not None:
            raise records.tail_fault
        digest = hashlib.sha256()
        self._lines: dict[tuple[str, str], _Line] = {}
        for index, data in enumerate(records):
            where = records.where(index)
            if isinstance(data, DataError):
                raise data
            digest.update(data + b"\n")
            record = parse_record(data, where)
            key = _key_of(record, where)
            if key in self._lines:
                raise DataError(
                    f"answers {_named(key)} as {self._lines[key].where} does; keep one of them",
                    where=where,
                )
            self._lines[key] = _Line(_response_of(record, where), where)
        self._fingerprint = digest.hexdigest()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": SUBMITTED, "file": self.path.name, "fingerprint": self._fingerprint}

    def check_all_asked(self, examples: Sequence[Example], num_left_out: int) -> str | None:
        """Sees that every line answers a query of the data.

        Args:
            examples: All of the data, whatever part of it is evaluated.
            num_left_out: Bad records of the data that were left out: lines may belong to them.

        Returns:
            What a person should know; None for nothing.

        Raises:
            DataError: naming the first line that answers none, where none was left out, or the
                first query that the data has twice.
        """
        asked: set[tuple[str, str]] = set()
        for example in examples:
            key = example.dialogue.id, example.query.strip()
            if key in asked:
                raise DataError(
                    f"the data asks {_named(key)} of two dialogues of that id, which answers by id "
                    "and query cannot tell apart; give them ids of their own"
                )
            asked.add(key)
        unasked = [key for key in self._lines if key not in asked]
        if not unasked:
            return None
        first = unasked[0]
        if num_left_out:
            return (
                f"! {len(unasked)} of {len(self._lines)} predictions answer no query of the data, "
                f"of which {num_left_out} bad records were left out; the first: "
                f"{self._lines[first].where}, {_named(first)}"
            )
        has_dialogue = any(key[0] == first[0] for key in asked)
        why = "has other queries on that dialogue" if has_dialogue else "has no dialogue of that id"
        raise DataError(
            f"answers {_named(first)}, and the data {why} (so do {len(unasked)} of "
            f"{len(self._lines)} lines); name the data that the file belongs to, or take the line "
            "out",
            where=self._lines[first].where,
        )

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [[index] for index in range(len(examples))]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        return [self._answer(example) for example in examples]

    def _answer(self, example: Example) -> Answer:
        key = example.dialogue.id, example.query.strip()
        line = self._lines.get(key)
        if line is None:
            return Answer("", failure=f"no prediction for {_named(key)}")
        return Answer(line.response)


def _named(key: tuple[str, str]) -> str:
    return f"dialogue {one_line(key[0], _MAX_SHOWN)!r}, query {one_line(key[1], _MAX_SHOWN)!r}"


def _key_of(record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Dialogue id and query of a line."""
    if record.get("dialogue_id") is None:
        raise DataError('no "dialogue_id"; write the id that the data has', where=where)
    findings = Findings()
    try:
        dialogue_id = read_id(record, findings, "")
    except FaultyError:
        raise DataError(next(iter(findings)).message, where=where) from None
    query = record.get("query")
    if query is None and record.get("messages") is not None:
        # a prediction file of ours, or of the published form
        bare = {
            name: record[name] for name in ("dialogue_id", "messages", "images") if name in record
        }
        prediction = prediction_from_json({**bare, "response": ""}, where)
        query = example_of_prediction(prediction, where=where).query
    if not isinstance(query, str):
        raise DataError(
            'no text under "query"; write the query that is answered, as the data has it',
            where=where,
        )
    return dialogue_id, query.strip()


def _response_of(record: Mapping[str, Any], where: str) -> str:
    """The answer of a line as a text; ids are written out in order, repeats and all."""
    has_ids = [name for name in _ID_KEYS if name in record]
    if "response" in record and not has_ids:
        if not isinstance(record["response"], str):
            raise DataError(
                '"response" is no text; write the model\'s answer as it came', where=where
            )
        return record["response"]
    if "response" in record or not has_ids:
        raise DataError(
            'write "response", or "utterance_ids" and "image_ids": one of the two', where=where
        )
    utterance_ids, image_ids = (_ids(record.get(name, []), name, where) for name in _ID_KEYS)
    return format_answer(Fragment(utterance_ids, image_ids))


def _ids(value: object, name: str, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    ):
        raise DataError(f'"{name}" is no list of ids; write whole numbers from 0', where=where)
    return tuple(value)
