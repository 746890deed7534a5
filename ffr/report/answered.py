"""An evaluation read back: each query with dialogue, pictures, truth, answer and figures."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ffr.answer import LenientAnswer, read_response
from ffr.data.catalog import load_dataset
from ffr.data.dataset import ExampleDataset, FirstExamples, data_identity
from ffr.data.index import RecordFile, parse_record
from ffr.data.stats import language_of
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import DataError, FfrError, UsageError
from ffr.evaluation.predictions import example_of_record, read_truth, score_predictions
from ffr.evaluation.results import RESULTS_FILE, Results
from ffr.evaluation.scoring import TRUTH_SLICES, density_slice, length_slice
from ffr.files import check_as_written
from ffr.metrics.functional.figures import FIGURES, confusion_counts, sample_figures_of
from ffr.metrics.functional.ratios import F1, PRECISION, RECALL
from ffr.progress import Say
from ffr.retrieval.answer_log import FAILURE, PREDICTIONS_FILE
from ffr.run_log import METRICS_FILE
from ffr.runs import RECORD_FILE
from ffr.text import counted

UNKNOWN = "unknown"

SHOWN_COLUMNS = [FIGURES.index(figure) for figure in (PRECISION, RECALL, F1)]
"""Columns of what is shown of a single answer: precision, recall and F1."""


@dataclass(frozen=True)
class AnsweredQuery:
    """One query of an evaluation with what is known of it.

    Args:
        index: Its position in the evaluation, from 0.
        dialogue_id: The dialogue's id, as the record has it.
        response: The answer's text.
        read: What `ffr.answer.read_response` reads from it.
        truth: The true fragment; None where it is unknown.
        example: Dialogue and query; None where the record's prompt cannot be read as a dialogue.
        prompt: The prompt's text, where there is no example.
        locations: Path or URL of each picture of the dialogue, as the model saw it.
        is_cut_off: Whether the answer was stopped at the longest length.
        failure: Why there is no answer; None where there is one.
    """

    index: int
    dialogue_id: str
    response: str
    read: LenientAnswer
    truth: Fragment | None
    example: Example | None
    prompt: str = ""
    locations: tuple[str | Path, ...] = ()
    is_cut_off: bool = False
    failure: str | None = None

    @property
    def prediction(self) -> Fragment:
        return self.read.fragment

    @property
    def query(self) -> str:
        return "" if self.example is None else self.example.query

    @property
    def dialogue(self) -> Dialogue | None:
        return None if self.example is None else self.example.dialogue

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of utterances and of images of the dialogue; (0, 0) where there is none."""
        return (
            (0, 0)
            if self.dialogue is None
            else (len(self.dialogue.utterances), len(self.dialogue.images))
        )

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the answer's form; ids that the dialogue lacks among it."""
        if self.failure is not None:
            return (f"none: {self.failure}",)
        num_utterances, num_images = (None, None) if self.dialogue is None else self.sizes
        return self.read.within(num_utterances, num_images).problems

    @property
    def is_well_formed(self) -> bool:
        return self.read.is_well_formed

    @cached_property
    def figures(self) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
        """(precision, recall, F1) of utterances and of images; None where the truth is unknown."""
        if self.truth is None:
            return None
        if self.failure is not None:
            return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
        counts = confusion_counts([self.prediction], [self.truth], [self.sizes[0]], [self.sizes[1]])
        utterance, image = sample_figures_of(counts)[0][:, SHOWN_COLUMNS].tolist()
        return (utterance[0], utterance[1], utterance[2]), (image[0], image[1], image[2])

    @property
    def joint_f1(self) -> float | None:
        """Mean of the utterances' and the images' F1; None where the truth is unknown."""
        return None if self.figures is None else (self.figures[0][2] + self.figures[1][2]) / 2

    @cached_property
    def slices(self) -> dict[str, str]:
        """The query's slice in each table of `SLICES`; "unknown" where it cannot be told."""
        dialogue, truth = self.dialogue, self.truth
        density = None if dialogue is None or truth is None else density_slice(truth, self.sizes[0])
        return {
            "by_length": UNKNOWN if dialogue is None else length_slice(self.sizes[0]),
            "by_density": density or UNKNOWN,
            "by_truth": UNKNOWN if truth is None else TRUTH_SLICES[not truth.is_empty],
            "by_language": UNKNOWN if dialogue is None else language_of(dialogue),
        }


class Evaluation:
    """Results and answers on disk; made by `open_evaluation`.

    Attributes:
        predictions: The prediction file.
        run: The folder of the training run that the results lie in; None where they lie elsewhere.
        notes: What could not be found, in sentences.
    """

    def __init__(
        self,
        results: Results | None,
        predictions: Path,
        *,
        examples: Sequence[Example] | None,
        image_root: Path,
        notes: list[str],
        run: Path | None,
    ) -> None:
        self._stated_results = results
        self.predictions = predictions
        self.run = run
        self.notes = notes
        self._records = RecordFile(predictions)
        self._examples = examples
        self._image_root = image_root
        if examples is not None and len(examples) != len(self._records):
            raise DataError(
                f"has {counted(len(self._records), 'answer')} but the data "
                f"{counted(len(examples), 'query')}; name the "
                "data it belongs to",
                where=str(predictions),
            )

    @cached_property
    def results(self) -> Results:
        """What `results.json` says, or the scores of a prediction file that stands alone."""
        return self._stated_results or score_predictions(self.predictions)

    def __len__(self) -> int:
        """Number of lines of the prediction file, unreadable ones among them."""
        return len(self._records)

    def __iter__(self) -> Iterator[AnsweredQuery]:
        """The answers in the order of the file.

        `results.notes` count lines that are no JSON object.

        Raises:
            DataError: where an answer is not one to the data that was opened.
        """
        of_data: Iterator[Example | None] = (
            itertools.repeat(None) if self._examples is None else iter(self._examples)
        )
        for index, (data, example) in enumerate(zip(self._records, of_data, strict=False)):
            where = self._records.where(index)
            try:
                if isinstance(data, DataError):
                    raise data
                record = parse_record(data, where)
            except DataError:
                continue
            yield self._read(index, record, example, where)

    def _read(
        self, index: int, record: Mapping[str, Any], of_data: Example | None, where: str
    ) -> AnsweredQuery:
        example = example_of_record(record, where, image_root=self._image_root)
        if of_data is not None:
            if example is not None and _texts_of(example) != _texts_of(of_data):
                raise DataError(
                    "answers another query than the data has there; name the data it belongs to",
                    where=where,
                )
            example = of_data
        response = record.get("response")
        response = response if isinstance(response, str) else ""
        shown = record.get("shown_images")
        locations: tuple[str | Path, ...] = ()
        if example is not None:
            locations = tuple(example.image_locations())
            if (
                isinstance(shown, list)
                and len(shown) == len(locations)
                and all(isinstance(at, str) for at in shown)
            ):
                # the control with wrong pictures: what the model saw
                locations = tuple(shown)
        identity = record.get("dialogue_id", index)
        return AnsweredQuery(
            index=index,
            dialogue_id=str(identity) if isinstance(identity, str | int) else str(index),
            response=response,
            read=read_response(response),
            truth=read_truth(record, example)[0] if of_data is None else of_data.fragment,
            example=example,
            prompt="" if example is not None else _prompt_of(record),
            locations=locations,
            is_cut_off=bool(record.get("is_cut_off")),
            failure=failure if isinstance(failure := record.get(FAILURE), str) else None,
        )


def _prompt_of(record: Mapping[str, Any]) -> str:
    messages = record.get("messages")
    contents = (
        [item.get("content") for item in messages or () if isinstance(item, dict)]
        if isinstance(messages, list)
        else []
    )
    return "\n\n".join(content for content in contents if isinstance(content, str))


def open_evaluation(
    path: str | Path,
    *,
    dataset: str | Path | None = None,
    split: str | None = None,
    image_root: Path | None = None,
    echo: Say | None = None,
) -> Evaluation:
    """Opens what `ffr eval` wrote: a folder, its `results.json`, or a prediction file alone.

    Dialogues come from the data set where it is found and is the one that was measured (same
    fingerprint), else from the prompts in the prediction file. Pictures are looked for under
    `image_root`, else beside the data, else beside the prediction file.

    Args:
        path: The folder or file.
        dataset: Name or file of the data; None for the one that the results name.
        split: Part of a named set; None for the one that the results name.
        image_root: Folder that picture paths are relative to.
        echo: Gets a line about what is being generated or left out; None for silence.

    Raises:
        DataError: where something is missing, damaged, or belongs to something else.
        UsageError: where `dataset` is not the data that was measured.
    """
    path = Path(path)
    results, predictions = _results_and_predictions(path)
    notes: list[str] = []
    examples: ExampleDataset | FirstExamples | None = None
    if dataset is not None:
        examples = _find_data(results, str(dataset), split, image_root, echo, notes)
    elif results is not None and results.model.get("kind") != "predictions":
        named, root = str(results.data.get("dataset")), image_root
        path_then = results.provenance.get("data_path")
        if isinstance(path_then, str) and Path(path_then).is_file():
            # the name as it was typed may mean another file from here, or none
            named = path_then
            root_then = results.provenance.get("image_root")
            if root is None and isinstance(root_then, str):
                root = Path(root_then)
        try:
            examples = _find_data(results, named, split, root, echo, notes)
        except FfrError as error:
            notes.append(
                f"The data set {named} was not used ({error}); dialogues are read from the "
                "prompts. "
                "Name it with --dataset to have its pictures."
            )
    return Evaluation(
        results,
        predictions,
        examples=examples,
        image_root=image_root or predictions.parent,
        notes=notes,
        run=_run_of(path),
    )


def _texts_of(example: Example) -> tuple[str, str]:
    return example.dialogue.text_fingerprint, example.query


def _results_and_predictions(path: Path) -> tuple[Results | None, Path]:
    if not path.is_dir() and not _is_results(path):
        check_as_written(path, otherwise="evaluate again")
        return None, path
    results = Results.load(path)
    is_of_a_file = results.model.get("kind") == "predictions"
    if is_of_a_file:
        predictions = Path(str(results.model.get("path")))
        remedy = "put it back, or name the prediction file itself"
    else:
        predictions = (path if path.is_dir() else path.parent) / PREDICTIONS_FILE
        remedy = "it lies beside results.json; evaluate again"
    if not predictions.is_file():
        raise DataError(f"not found; {remedy}", where=str(predictions))
    check_as_written(predictions, otherwise="evaluate again")
    if is_of_a_file and _fingerprint_of(predictions) != results.model.get("fingerprint"):
        raise DataError("has changed since it was scored; score it again", where=str(predictions))
    return results, predictions


def _fingerprint_of(predictions: Path) -> str:
    """SHA-256 over the lines that can be read, as `score_predictions` takes it."""
    digest = hashlib.sha256()
    records = RecordFile(predictions)
    for index, data in enumerate(records):
        if isinstance(data, DataError):
            continue
        try:
            parse_record(data, records.where(index))
        except DataError:
            continue
        digest.update(data + b"\n")
    return digest.hexdigest()


def _is_results(path: Path) -> bool:
    if path.name == RESULTS_FILE:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError:
        return False
    return path.suffix == ".json" and head.startswith(b"{")


def _find_data(
    results: Results | None,
    dataset: str,
    split: str | None,
    image_root: Path | None,
    echo: Say | None,
    notes: list[str],
) -> ExampleDataset | FirstExamples:
    measured = {} if results is None else results.data
    chosen = split or measured.get("split") or "val"
    data = load_dataset(
        dataset, split=chosen, image_root=image_root, skip_bad=True, require_images=False, echo=echo
    )
    num_examples = measured.get("num_examples", len(data))
    examples = data if num_examples >= len(data) else FirstExamples(data, num_examples)
    stated = measured.get("fingerprint")
    if stated is None:
        return examples
    found = data_identity(examples)
    if found.fingerprint != stated:
        if found.text_fingerprint != measured.get("text_fingerprint"):
            raise UsageError(
                f"{dataset} is not the data that was measured: its fingerprint is another"
            )
        notes.append(
            f"The texts of {dataset} are those that were measured, but its pictures are not: they "
            "were changed since, or "
            "cannot be read."
        )
    return examples


def _run_of(path: Path) -> Path | None:
    """The run folder that a path lies in, as `ffr eval` puts it there: RUN/eval/NAME."""
    try:
        folders = path.resolve().parents
    except OSError:
        return None
    for folder in (path, *folders[:3]):
        if (folder / RECORD_FILE).is_file() and (folder / METRICS_FILE).is_file():
            return folder
    return None
