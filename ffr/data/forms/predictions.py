"""Prediction files: one answer a line, with the prompt it answers.

Read strictly, written atomically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from ffr.data.findings import FaultyError, Findings
from ffr.data.forms.fields import read_id, read_images, read_messages
from ffr.data.forms.formats import read_record
from ffr.data.index import RecordFile, parse_record
from ffr.dialogue import Example
from ffr.errors import DataError


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


IMAGE_DIGESTS = "image_digests"
"""In a prediction's `extra`.

SHA-256 of the bytes of each picture, null where they were not read.
"""
_PREDICTION_KEYS = ("dialogue_id", "response", "labels", "messages", "images", "logprobs")


def prediction_from_json(record: Mapping[str, Any], where: str) -> PredictionRecord:
    """Reads a line of a prediction file.

    Raises:
        DataError: with what is wrong in it.

    >>> logprobs = {"content": [{"logprob": -0.5}]}
    >>> record = {"dialogue_id": "d", "response": "[0]", "logprobs": logprobs}
    >>> prediction_from_json(record, "p:1").logprobs
    (-0.5,)
    """
    findings = Findings()
    try:
        response = findings.require_key(
            record, "response", str, "write the model's answer there as a text"
        )
        labels = record.get("labels")
        if labels is not None:
            findings.require(labels, str, '"labels"', "write the true answer as a text")
        messages = record.get("messages")
        if messages is not None:
            read_messages(messages, Findings())
        return PredictionRecord(
            dialogue_id=read_id(record, findings, ""),
            response=response,
            labels=labels,
            messages=tuple(messages or ()),
            images=tuple(read_images(record.get("images"), findings)),
            logprobs=_read_logprobs(record.get("logprobs"), findings),
            extra={key: value for key, value in record.items() if key not in _PREDICTION_KEYS},
        )
    except FaultyError as error:
        faults = [finding.message for finding in findings if finding.is_error]
        message = (
            faults[0]
            if faults
            else "messages are not a list of {role, content} in order; correct them"
        )
        raise DataError(message, where=where) from error


def _read_logprobs(value: Any, findings: Findings) -> tuple[float, ...] | None:
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
    record: dict[str, Any] = {
        "dialogue_id": prediction.dialogue_id,
        "response": prediction.response,
    }
    if prediction.labels is not None:
        record["labels"] = prediction.labels
    record["messages"] = [dict(message) for message in prediction.messages]
    record["images"] = list(prediction.images)
    if prediction.logprobs is not None:
        record["logprobs"] = {"content": [{"logprob": value} for value in prediction.logprobs]}
    return {
        **record,
        **{key: value for key, value in prediction.extra.items() if key not in _PREDICTION_KEYS},
    }


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
    known = prediction.extra.get(IMAGE_DIGESTS)
    if not isinstance(known, list) or len(known) != len(prediction.images):
        return examples[0]
    # of one's own answers it is known which pictures they were given to
    digests = {
        source: digest
        for source, digest in zip(prediction.images, known, strict=True)
        if isinstance(digest, str)
    }
    return replace(examples[0], dialogue=examples[0].dialogue.with_digests(digests))


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
