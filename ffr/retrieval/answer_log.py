"""The answers of a retriever on disk.

Asked in batches, written as they come, taken up where they stopped.

A folder holds `evaluation.json` (what is asked of whom: a later call that differs is refused) and
`predictions.jsonl` (in the order of the work while it runs, in the order of the data at the end,
with its checksum in `SHA256SUMS`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ffr.answer import format_answer
from ffr.data.forms.predictions import IMAGE_DIGESTS, PredictionRecord, prediction_to_json
from ffr.dialogue import Example
from ffr.errors import DataError, UsageError
from ffr.files import (
    CHECKSUMS_FILE,
    check_as_written,
    cut_off,
    dump_record,
    open_to_append,
    owned_folder,
    remove,
    replace_json,
    replaced_file,
    write_checksums,
    write_through,
)
from ffr.progress import Progress
from ffr.retrieval.interface import (
    Answer,
    Retriever,
    answers_of,
)

IDENTITY_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.jsonl"
FAILURE = "failure"
"""Under this key a line says why its query could not be answered; a later call asks again."""


def ask_all(
    examples: Sequence[Example],
    shown: Sequence[Example],
    retriever: Retriever,
    log: AnswerLog,
    progress: Progress | None,
    max_failures: int | None = None,
) -> None:
    """Asks a retriever what the log does not have yet, and writes the answers as they come.

    Args:
        examples: The data.
        shown: What the retriever sees in place of it, one for one.
        retriever: What answers.
        log: Takes the answers.
        progress: Is told how far the work is.
        max_failures: More queries than this that cannot be answered end the work; None for no
            bound.

    Raises:
        DataError: where there are more, or where not one of all queries can be answered.
    """
    if progress is not None:
        progress(log.num_answers, len(examples))
    if log.num_answers == len(examples):
        return
    # the same batches as without an interruption, so that the answers are the same to the bit
    batches = [batch for batch in retriever.plan(shown) if not log.has_all(batch)]
    failures: list[str] = []
    with closing(answers_of(retriever, batches, shown)) as stream:
        for number, answers in stream:
            failures += [answer.failure for answer in answers if answer.failure is not None]
            lines = [
                _line(index, examples[index], shown[index], retriever, answer)
                for index, answer in zip(batches[number], answers, strict=True)
            ]
            log.append(batches[number], lines)
            if progress is not None:
                progress(log.num_answers, len(examples))
            if max_failures is not None and len(failures) > max_failures:
                raise DataError(
                    f"{failures[-1]} (this is failure {len(failures)}, and max_failures is "
                    f"{max_failures}: stopped; the answers so far "
                    "are kept)"
                )
    if len(failures) == len(examples):
        raise DataError(
            failures[0]
            if len(failures) == 1
            else f"none of {len(failures)} queries can be answered; the first: {failures[0]}"
        )


def _line(
    index: int, example: Example, shown: Example, retriever: Retriever, answer: Answer
) -> bytes:
    prompt = retriever.prompt(shown)
    messages = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    messages += [
        {"role": "user", "content": prompt.user},
        {"role": "assistant", "content": answer.response},
    ]
    sources = tuple(image.source for image in example.dialogue.images)
    digests = [image.digest for image in example.dialogue.images]
    shown_sources = tuple(image.source for image in shown.dialogue.images)
    prediction = PredictionRecord(
        dialogue_id=example.dialogue.id,
        response=answer.response,
        labels=None if example.fragment is None else format_answer(example.fragment),
        messages=tuple(messages),
        images=sources,
        logprobs=answer.logprobs,
        extra={
            "key": example.key,
            "index": index,
            **({IMAGE_DIGESTS: digests} if any(digests) else {}),
            **({"is_cut_off": True} if answer.is_cut_off else {}),
            **({FAILURE: answer.failure} if answer.failure is not None else {}),
            **answer.extra,
            **({"shown_images": list(shown_sources)} if shown_sources != sources else {}),
        },
    )
    return (
        dump_record(
            prediction_to_json(prediction), where=f"the answer for dialogue {example.dialogue.id!r}"
        )
        + b"\n"
    )


class AnswerLog:
    """The answers of a retriever on disk.

    One line each, a batch at a time, found again after an interruption.
    """

    def __init__(self, path: Path, num_examples: int) -> None:
        check_as_written(path, otherwise="delete the folder to evaluate again")
        self._path = path
        self._checksums = path.with_name(CHECKSUMS_FILE)
        self._offsets: dict[int, tuple[int, int]] = {}  # index → where its line begins, its length
        self._num_examples = num_examples
        end = self._read()
        if path.exists() and path.stat().st_size > end:
            # a last line that was being written when the evaluation stopped
            cut_off(path, end)
        self._file = open_to_append(path)

    @property
    def num_answers(self) -> int:
        return len(self._offsets)

    def has_all(self, batch: Sequence[int]) -> bool:
        return all(index in self._offsets for index in batch)

    def _read(self) -> int:
        """Finds the lines and returns where the last whole one ends."""
        position = 0
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    record = json.loads(line)
                    index = record["index"]
                    is_ours = isinstance(index, int) and 0 <= index < self._num_examples
                except (ValueError, KeyError, TypeError, RecursionError):
                    is_ours = False
                if not is_ours:
                    raise DataError(
                        "is not a line of this evaluation; delete the folder to evaluate again, or "
                        "pass another --out",
                        where=f"{self._path}:{number}",
                    )
                if FAILURE not in record:
                    self._offsets[index] = (position, len(line))
                position += len(line)
        return position

    def append(self, batch: Sequence[int], lines: Sequence[bytes]) -> None:
        """Writes the lines of a batch through to the disk."""
        remove(self._checksums)  # of a file that is not whole yet there are none
        position = self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines))
        write_through(self._file)
        for index, line in zip(batch, lines, strict=True):
            self._offsets[index] = (position, len(line))
            position += len(line)

    def in_order(self, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        """The answers in the order of the data."""
        for index, (example, line) in enumerate(zip(examples, self._lines(), strict=True)):
            record: dict[str, Any] = json.loads(line)
            if record.get("key") != example.key or not isinstance(record.get("response"), str):
                raise DataError(
                    f"the answer of index {index} is not one to this data; delete the folder to "
                    "evaluate again",
                    where=str(self._path),
                )
            yield record

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for index in range(self._num_examples):
                offset, length = self._offsets[index]
                file.seek(offset)
                yield file.read(length)

    def finish(self) -> None:
        """Puts the file in the order of the data, and its checksum beside it."""
        self._file.close()
        offsets = [self._offsets[index][0] for index in range(self._num_examples)]
        is_whole = sum(length for _, length in self._offsets.values()) == self._path.stat().st_size
        if not is_whole or offsets != sorted(offsets):
            with replaced_file(self._path) as write:
                for line in self._lines():
                    write(line)
        if not self._checksums.exists():
            write_checksums(self._path.parent, [self._path.name])

    def close(self) -> None:
        self._file.close()


@contextmanager
def open_answer_log(out: Path, identity: dict[str, Any], num_examples: int) -> Iterator[AnswerLog]:
    """The log of a folder, opened to be added to and closed at the end.

    Args:
        out: The folder; made where it is missing.
        identity: What decides the answers; a folder that holds answers of another one is refused.
        num_examples: How many answers there will be.

    Raises:
        UsageError: where the folder holds another evaluation, or another process works on it.
        DataError: where it cannot be used.
    """
    with _said_in_words(out), owned_folder(out):
        path = out / IDENTITY_FILE
        if path.exists():
            _compare(path, identity)
        elif (out / PREDICTIONS_FILE).exists():
            raise UsageError(
                f"{out} holds a {PREDICTIONS_FILE} of something else; pass another --out, or score "
                "it with --predictions"
            )
        else:
            replace_json(path, identity)
        with (
            closing(AnswerLog(out / PREDICTIONS_FILE, num_examples)) as log,
            _said_in_words(out, "written to"),
        ):
            yield log


@contextmanager
def _said_in_words(out: Path, what: str = "used as output folder") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "is there room?" if what == "written to" else "pass another --out"
        raise DataError(f"cannot be {what} ({error.strerror}); {remedy}", where=str(out)) from error


def _compare(path: Path, identity: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            "cannot be read; delete the folder to evaluate again", where=str(path)
        ) from error
    if found == identity:
        return
    names = sorted(_differences(found, identity)) or ["all"]
    raise UsageError(
        f"{path.parent} holds an evaluation that differs in {', '.join(names)}; pass another "
        "--out, or delete the folder"
    )


def _differences(found: Any, asked: dict[str, Any]) -> set[str]:
    if not isinstance(found, dict):
        return set()
    different = {key for key in found.keys() | asked.keys() if found.get(key) != asked.get(key)}
    if different & {"model", "settings", "versions"}:
        for part in ("model", "settings", "versions"):
            if part in different and isinstance(found.get(part), dict):
                different.remove(part)
                different |= {f"{part} {name}" for name in _differences(found[part], asked[part])}
    return different
