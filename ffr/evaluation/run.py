"""Asks a retriever every query of a data set, writes the answers as they come, takes up where it stopped, and scores.

An output folder holds `evaluation.json` (what is evaluated: a later call that differs is refused), `predictions.jsonl` (in
the order of the work while it runs, in the order of the data at the end) and `results.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ffr.answer import format_answer
from ffr.data.dataset import ExampleDataset
from ffr.data.forms.predictions import PredictionRecord, prediction_to_json
from ffr.data.stats import language_of
from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.embedding import Encoder
from ffr.errors import DataError, UsageError
from ffr.evaluation.bootstrap import interval_table, undefined_note
from ffr.evaluation.coherence import CoherenceMeter
from ffr.evaluation.results import PREDICTIONS_FILE, Results
from ffr.evaluation.scoring import ScoreTable, read_answer
from ffr.files import dump_record, replaced_file
from ffr.provenance import command, now, versions
from ffr.retrieval.interface import (
    BASELINE_PREFIX,
    BASELINES,
    Answer,
    BaselineRetriever,
    Retriever,
    add_usage,
    answers_of,
)

IDENTITY_FILE = "evaluation.json"

Progress = Callable[[int, int], None]
"""Is told how many answers there are and how many there will be."""


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


class WrongPictures(Sequence[Example]):
    """A control: every picture is replaced by one of another dialogue, while texts and answers stay.

    What image F1 is left shows how much of it comes from where a picture stands rather than from what it shows. The queries of
    one dialogue see the same wrong pictures.

    Args:
        examples: The data set.
        seed: Seed of the choice.

    Raises:
        UsageError: where no other dialogue has pictures to lend.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self._examples = examples
        self._seed = seed
        self._locations: dict[str, tuple[str, ...]] = {}
        for example in examples:
            if example.dialogue.images and example.dialogue.fingerprint not in self._locations:
                found = tuple(
                    str(location if _is_url(location) else Path(location).absolute())
                    for location in example.image_locations()
                )
                self._locations[example.dialogue.fingerprint] = found
        self._dialogues = sorted(self._locations)
        if len(self._dialogues) < 2:
            raise UsageError(
                "--wrong-pictures takes the pictures of other dialogues, and here only "
                f"{len(self._dialogues)} dialogue has any; choose other data"
            )

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return map(self._replace, self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self._replace(self._examples[index])

    def _replace(self, example: Example) -> Example:
        dialogue = example.dialogue
        if not dialogue.images:
            return example
        own = set(self._locations[dialogue.fingerprint])
        draw = random.Random(f"{self._seed} {dialogue.fingerprint}")
        shown: list[Image] = []
        for image in dialogue.images:
            # a picture may be in many dialogues: draw until one comes that this dialogue does not have
            for _ in range(1000):
                source = draw.choice(self._locations[draw.choice(self._dialogues)])
                if source not in own:
                    break
            else:
                raise UsageError(
                    f"--wrong-pictures found no picture that dialogue {dialogue.id!r} does not have; choose other data"
                )
            shown.append(dataclasses.replace(image, source=source))
        following = iter(shown)
        utterances = tuple(
            Utterance(line.speaker, tuple(part if isinstance(part, str) else next(following) for part in line.segments))
            for line in dialogue.utterances
        )
        return dataclasses.replace(example, dialogue=Dialogue(dialogue.id, utterances))


def _is_url(location: str | Path) -> bool:
    return isinstance(location, str) and "://" in location


def data_fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 over dialogue, query and answer of every example in order.

    >>> chat = Dialogue("d", (Utterance("a", ("hi",)),))
    >>> data_fingerprint([Example(chat, "greeting")]) == data_fingerprint([Example(chat, "farewell")])
    False
    """
    if isinstance(examples, ExampleDataset):
        return examples.fingerprint
    digest = hashlib.sha256()
    for example in examples:
        digest.update(fingerprint_line(example))
    return digest.hexdigest()


def fingerprint_line(example: Example) -> bytes:
    """What one example adds to the fingerprint of the data."""
    answer = "" if example.fragment is None else format_answer(example.fragment)
    content = json.dumps([example.dialogue.fingerprint, example.query, answer], ensure_ascii=False)
    return content.encode("utf-8", "surrogatepass") + b"\n"


def evaluate(
    examples: Sequence[Example],
    retriever: Retriever,
    out: Path,
    *,
    dataset: str,
    num_left_out: int = 0,
    split: str | None = None,
    seed: int = 0,
    shown: Sequence[Example] | None = None,
    baselines: Sequence[str] = tuple(BASELINES),
    encoder: Encoder | None = None,
    progress: Progress | None = None,
) -> Results:
    """Asks every query, scores the answers, and writes predictions and results into a folder.

    Args:
        examples: The data, with the true answers.
        retriever: What answers.
        out: The output folder; an evaluation that was stopped there is taken up.
        dataset: What the user called the data.
        num_left_out: Records that were left out on reading.
        split: The part of a named set.
        seed: Seed of whatever is drawn.
        shown: What the retriever sees in place of `examples`, one for one (`WrongPictures`).
        baselines: Trivial baselines that are computed beside it.
        encoder: Makes the vectors for fragment order coherence; None leaves that figure out.
        progress: Is told how far the work is.

    Returns:
        The results, as they stand in `results.json`.

    Raises:
        UsageError: where the folder holds another evaluation.
        DataError: where a picture cannot be opened, a prompt is too long, or the folder cannot be used.
    """
    started, clock = now(), time.monotonic()
    fingerprint = data_fingerprint(examples)
    settings = {"seed": seed, "wrong_pictures": shown is not None}
    identity = {"model": retriever.identity, "data_fingerprint": fingerprint, "settings": settings}
    identity["versions"] = {name: version for name, version in versions().items() if name != "platform"}
    with _log_of(out, json.loads(json.dumps(identity)), len(examples)) as log:
        num_resumed = log.num_answers
        _ask_all(examples, examples if shown is None else shown, retriever, log, progress)
        table, num_cut_off = ScoreTable(), 0
        usages: list[dict[str, Any]] = []  # tokens and costs, where the retriever tells them
        meter = CoherenceMeter(encoder) if encoder is not None else None
        # a baseline that is itself measured needs no second row
        tables = {
            name: (BaselineRetriever(name, seed=seed), ScoreTable())
            for name in baselines
            if BASELINE_PREFIX + name != retriever.name
        }
        for example, record in zip(examples, log.in_order(examples), strict=True):
            add_answer(table, example, record["response"])
            num_cut_off += bool(record.get("is_cut_off"))
            if isinstance(record.get("usage"), dict):
                usages.append(record["usage"])
            if meter is not None and example.fragment is not None:
                meter.add(example, read_answer(record["response"]))
            for baseline, its_table in tables.values():
                add_answer(its_table, example, baseline.answer([example])[0].response)
        log.finish()
    rows, summary = table.rows(), table.summary()
    summary["answers"]["num_cut_off"] = num_cut_off
    if usages:
        summary["usage"] = add_usage(usages)
    if meter is not None:
        summary["coherence"] = meter.summary()
    results = Results(
        model={"label": retriever.name, **retriever.identity},
        data={
            "dataset": dataset,
            "split": split,
            "fingerprint": fingerprint,
            "num_examples": len(examples),
            "num_left_out": num_left_out,
        },
        settings=settings,
        summary=summary,
        baselines={BASELINE_PREFIX + name: its_table.summary() for name, (_, its_table) in tables.items()},
        notes=_notes(summary, num_left_out, is_control=shown is not None) + undefined_note(rows),
        provenance={
            "command": command(),
            "started_at": started,
            "finished_at": now(),
            "seconds": round(time.monotonic() - clock, 3),
            "num_answers_resumed": num_resumed,
            "versions": versions(),
        },
        intervals=interval_table(rows, seed=seed),
    )
    results.save(out)
    return results


def add_answer(table: ScoreTable, example: Example, response: str) -> None:
    """Adds the answer to an example to a table."""
    dialogue = example.dialogue
    table.add(
        response,
        example.fragment,
        num_utterances=len(dialogue.utterances),
        num_images=len(dialogue.images),
        dialogue=dialogue.fingerprint,
        language=language_of(dialogue),
    )


def _notes(summary: dict[str, Any], num_left_out: int, *, is_control: bool) -> list[str]:
    notes = []
    answers = summary["answers"]
    if is_control:
        notes.append(
            "CONTROL WITH WRONG PICTURES: every picture was replaced by one of another dialogue; this is no result of the model."
        )
    if num_left_out:
        notes.append(f"{num_left_out} bad records of the data were left out.")
    if answers["num_without_truth"]:
        notes.append(f"{answers['num_without_truth']} queries have no true answer; they were answered and not scored.")
    if answers["num_cut_off"]:
        notes.append(
            f"{answers['num_cut_off']} answers were cut off at the longest length; raise --max-new-tokens, or see --constrained."
        )
    return notes


def _ask_all(
    examples: Sequence[Example],
    shown: Sequence[Example],
    retriever: Retriever,
    log: _AnswerLog,
    progress: Progress | None,
) -> None:
    if progress is not None:
        progress(log.num_answers, len(examples))
    if log.num_answers == len(examples):
        return
    # the same batches as without an interruption, so that the answers are the same to the bit
    batches = [batch for batch in retriever.plan(shown) if not log.has_all(batch)]
    with closing(answers_of(retriever, batches, shown)) as stream:
        for number, answers in stream:
            lines = [
                _line(index, examples[index], shown[index], retriever, answer)
                for index, answer in zip(batches[number], answers, strict=True)
            ]
            log.append(batches[number], lines)
            if progress is not None:
                progress(log.num_answers, len(examples))


def _line(index: int, example: Example, shown: Example, retriever: Retriever, answer: Answer) -> bytes:
    prompt = retriever.prompt(shown)
    messages = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    messages += [{"role": "user", "content": prompt.user}, {"role": "assistant", "content": answer.response}]
    sources = tuple(image.source for image in example.dialogue.images)
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
            **({"is_cut_off": True} if answer.is_cut_off else {}),
            **answer.extra,
            **({"shown_images": list(shown_sources)} if shown_sources != sources else {}),
        },
    )
    return dump_record(prediction_to_json(prediction), where=f"the answer for dialogue {example.dialogue.id!r}") + b"\n"


class _AnswerLog:
    """The answers of an evaluation on disk: one line each, a batch at a time, found again after an interruption."""

    def __init__(self, path: Path, num_examples: int) -> None:
        self._path = path
        self._offsets: dict[int, tuple[int, int]] = {}  # index → where its line begins, its length
        self._num_examples = num_examples
        end = self._read()
        if path.exists() and path.stat().st_size > end:
            # a last line that was being written when the evaluation stopped
            os.truncate(path, end)
        self._file = path.open("ab")

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
                    index = json.loads(line)["index"]
                    is_ours = isinstance(index, int) and 0 <= index < self._num_examples
                except (ValueError, KeyError, TypeError, RecursionError):
                    is_ours = False
                if not is_ours:
                    raise DataError(
                        "is not a line of this evaluation; delete the folder to evaluate again, or pass another --out",
                        where=f"{self._path}:{number}",
                    )
                self._offsets[index] = (position, len(line))
                position += len(line)
        return position

    def append(self, batch: Sequence[int], lines: Sequence[bytes]) -> None:
        """Writes the lines of a batch through to the disk."""
        position = self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        for index, line in zip(batch, lines, strict=True):
            self._offsets[index] = (position, len(line))
            position += len(line)

    def in_order(self, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        """The answers in the order of the data."""
        for index, (example, line) in enumerate(zip(examples, self._lines(), strict=True)):
            record: dict[str, Any] = json.loads(line)
            if record.get("key") != example.key or not isinstance(record.get("response"), str):
                raise DataError(
                    f"the answer of index {index} is not one to this data; delete the folder to evaluate again",
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
        """Puts the file in the order of the data."""
        self._file.close()
        offsets = [self._offsets[index][0] for index in range(self._num_examples)]
        is_whole = sum(length for _, length in self._offsets.values()) == self._path.stat().st_size
        if is_whole and offsets == sorted(offsets):
            return
        with replaced_file(self._path) as write:
            for line in self._lines():
                write(line)

    def close(self) -> None:
        self._file.close()


@contextmanager
def _log_of(out: Path, identity: dict[str, Any], num_examples: int) -> Iterator[_AnswerLog]:
    path = out / IDENTITY_FILE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _compare(path, identity)
        elif (out / PREDICTIONS_FILE).exists():
            raise UsageError(
                f"{out} holds a {PREDICTIONS_FILE} of something else; pass another --out, or score it with --predictions"
            )
        else:
            with replaced_file(path) as write:
                write((json.dumps(identity, ensure_ascii=False, indent=2) + "\n").encode())
        log = _AnswerLog(out / PREDICTIONS_FILE, num_examples)
    except OSError as error:
        raise DataError(
            f"cannot be used as output folder ({error.strerror}); pass another --out", where=str(out)
        ) from error
    try:
        yield log
    except OSError as error:
        raise DataError(f"cannot be written to ({error.strerror}); is there room?", where=str(out)) from error
    finally:
        log.close()


def _compare(path: Path, identity: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError("cannot be read; delete the folder to evaluate again", where=str(path)) from error
    if found == identity:
        return
    names = sorted(_differences(found, identity)) or ["all"]
    raise UsageError(
        f"{path.parent} holds an evaluation that differs in {', '.join(names)}; pass another --out, or delete the folder"
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
