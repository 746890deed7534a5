"""Scores anyone's prediction file without a model; counts and names what it lacks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ffr.answer import format_answer, parse_strict
from ffr.data.dataset import IdentityOfData
from ffr.data.forms.predictions import IMAGE_DIGESTS, example_of_prediction, prediction_from_json
from ffr.data.index import RecordFile, parse_record
from ffr.data.stats import language_of
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError
from ffr.evaluation.bootstrap import interval_table, undefined_note
from ffr.evaluation.per_query import QueryName, write_per_query
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import ScoreTable, malformed_note
from ffr.files import replaced_file
from ffr.prompt import IMG_ID_END, IMG_ID_START, UTT_ID_END, UTT_ID_START
from ffr.provenance import command, git_hash, now, versions
from ffr.retrieval.answer_log import FAILURE
from ffr.retrieval.lexical import BASELINE_PREFIX, BASELINES, BaselineRetriever
from ffr.text import counted

_MAX_SHOWN_FAULTS = 10
_UTTERANCE_MARK = re.compile(re.escape(UTT_ID_START) + r"([0-9]{1,6})" + re.escape(UTT_ID_END))
_IMAGE_MARK = re.compile(re.escape(IMG_ID_START) + r"([0-9]{1,6})" + re.escape(IMG_ID_END))


def score_predictions(
    path: str | Path, *, seed: int = 0, with_baselines: bool = True, out: Path | None = None
) -> Results:
    """Scores a prediction file (`response` and `labels` on each line; the published form).

    The dialogue's size, which true negatives need, is taken from the prompt in `messages`. Where
    that cannot be read as a dialogue, it is the largest id between the prompt's markers; where
    there are no markers, the largest id that the truth names (and at least the number of `images`).
    Lines that are no JSON object are left out; a line whose `labels` are not strictly an answer
    within its dialogue (`read_truth`) is counted and not scored; a line without a readable
    `response` scores as a malformed answer. All are counted.

    Args:
        path: A .jsonl file or .json list, plain or .gz.
        seed: Seed of the random baseline.
        with_baselines: Also compute the trivial baselines, where the dialogues can be read from
            every scored line.
        out: A folder that gets `per_query.csv`; None for none.

    Raises:
        DataError: where the file cannot be read at all, or holds no answer.
    """
    started = now()
    path = Path(path)
    records = RecordFile(path)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    table = ScoreTable()
    baselines = {name: (BaselineRetriever(name, seed=seed), ScoreTable()) for name in BASELINES}
    digest, identity = hashlib.sha256(), IdentityOfData()
    num_examples = 0
    names: list[QueryName] = []

    def note(kind: str, message: str) -> None:
        counts[kind] += 1
        if len(faults) < _MAX_SHOWN_FAULTS:
            faults.append(message)

    for index, data in enumerate(records):
        where = records.where(index)
        try:
            if isinstance(data, DataError):
                raise data
            record = parse_record(data, where)
        except DataError as error:
            note("num_unreadable_lines", str(error))
            continue
        digest.update(data + b"\n")
        response = record.get("response")
        if not isinstance(response, str):
            note(
                "num_without_response",
                f'{where}: no text under "response"; counted as a malformed answer',
            )
            response = ""
        example = example_of_record(record, where)
        truth, fault = read_truth(record, example)
        if fault is not None:
            note("num_without_labels", f"{where}: {fault}; not scored")
        language = "unknown"
        if example is not None:
            language = language_of(example.dialogue)
            num_utterances, num_images = (
                len(example.dialogue.utterances),
                len(example.dialogue.images),
            )
            dialogue = example.dialogue.fingerprint
            num_examples += 1
            identity.add(dataclasses.replace(example, fragment=truth))
        else:
            num_utterances, num_images, kind = _sizes(record, truth)
            counts[kind] += 1
            dialogue = str(record.get("dialogue_id", index))
        table.add(
            response,
            truth,
            num_utterances=num_utterances,
            num_images=num_images,
            dialogue=dialogue,
            language=language,
            is_failed=isinstance(record.get(FAILURE), str),
        )
        if truth is not None:
            name = str(record.get("dialogue_id", index))
            query = "" if example is None else example.query
            names.append(QueryName(index, name, query, num_utterances))
        if example is not None and truth is not None and with_baselines:
            for baseline, its_table in baselines.values():
                its_table.add(
                    format_answer(baseline.fragment(example)),
                    truth,
                    num_utterances=num_utterances,
                    num_images=num_images,
                    dialogue=dialogue,
                    language=language,
                )
    if records.tail_fault is not None:
        note("num_unreadable_lines", str(records.tail_fault))
    summary = table.summary()
    if not summary["answers"]["num_answers"]:
        first = f"; the first fault: {faults[0]}" if faults else ""
        raise DataError(
            f"none of its {counted(len(records), 'line')} can be read{first}", where=path.name
        )
    num_with_dialogue = len(baselines["everything"][1])
    rows = table.rows()
    if out is not None:
        write_per_query(out, names, rows)
    about_data: dict[str, Any] = {"dataset": path.name, "split": None}
    if num_examples == len(records) and not counts:
        # the very data are known, as when `ffr eval` reads them itself
        about_data |= dataclasses.asdict(identity.identity())
    return Results(
        model={
            "label": path.name,
            "kind": "predictions",
            "path": str(path),
            "fingerprint": digest.hexdigest(),
        },
        data={**about_data, "num_examples": len(records), **dict(sorted(counts.items()))},
        settings={"seed": seed},
        summary=summary,
        baselines={
            BASELINE_PREFIX + name: its_table.summary()
            for name, (_, its_table) in baselines.items()
            if len(table) and num_with_dialogue == len(table)
        },
        notes=_notes(counts, faults, with_baselines and num_with_dialogue < len(table))
        + malformed_note(table)
        + undefined_note(rows),
        provenance={
            "command": command(),
            "started_at": started,
            "finished_at": now(),
            "versions": versions(),
            "git_hash": git_hash(),
        },
        intervals=interval_table(rows, seed=seed),
    )


def read_truth(
    record: Mapping[str, Any], example: Example | None
) -> tuple[Fragment | None, str | None]:
    """The true fragment that a line of a prediction file names, read strictly.

    Or None and why it names none.

    A truth is never guessed at, as an answer may be: it must keep to the format and name ids that
    the dialogue has.

    Args:
        record: The line.
        example: Its dialogue; None where that cannot be read: then the markers in its prompt tell
            the size, if there are any.

    >>> said = "<|utt_ids_start|>[3-7]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> read_truth({"labels": said}, None)[1]
    'no readable answer under "labels" (not in the answer format)'
    """
    given = {key: record[key] for key in ("labels", "solution") if record.get(key) is not None}
    if not given:
        return None, 'no readable answer under "labels" (there is none)'
    sizes = _sizes_of(record, example)
    found: list[Fragment] = []
    for key, text in given.items():
        fragment = parse_strict(text) if isinstance(text, str) else None
        if fragment is None:
            return None, f'no readable answer under "{key}" (not in the answer format)'
        for word, ids, size in zip(
            ("utterance", "image"), (fragment.utterance_ids, fragment.image_ids), sizes, strict=True
        ):
            if size is not None and max(ids, default=-1) >= size:
                return (
                    None,
                    f'no readable answer under "{key}" ({word} {max(ids)} is none of the '
                    f"dialogue's {size})",
                )
        found.append(Fragment.of(fragment.utterance_ids, fragment.image_ids))
    if found[0] != found[-1]:
        return None, 'no readable answer under "labels" ("solution" says another)'
    return found[0], None


def _sizes_of(record: Mapping[str, Any], example: Example | None) -> tuple[int | None, int | None]:
    """Number of utterances and of images as the dialogue or the prompt's markers have it.

    None where neither does.
    """
    if example is not None:
        return len(example.dialogue.utterances), len(example.dialogue.images)
    num_utterances, num_images, kind = _sizes(record, None)
    return (num_utterances, num_images) if kind == "num_sized_by_markers" else (None, None)


def copy_predictions(path: str | Path, target: Path) -> None:
    """Writes the lines of a scored prediction file that can be read, each with its query's key.

    So `ffr compare` pairs them with the answers of others, wherever the first file is by then.

    Raises:
        DataError: where either file cannot be used.
    """
    records = RecordFile(Path(path))
    with replaced_file(target) as write:
        for index, data in enumerate(records):
            if isinstance(data, DataError):
                continue
            try:
                record = parse_record(data, records.where(index))
            except DataError:
                continue  # counted by `score_predictions`
            example = example_of_record(record, records.where(index))
            if example is not None:
                record["key"] = example.key
            write(
                (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
            )


def example_of_record(
    record: Mapping[str, Any], where: str, *, image_root: Path | None = None
) -> Example | None:
    """The dialogue and query of a line; None where its messages are no prompt of ours."""
    # the answers have been read before, and their faults must not hide the dialogue
    stripped = {
        key: record[key]
        for key in ("dialogue_id", "messages", "images", IMAGE_DIGESTS)
        if key in record
    }
    try:
        prediction = prediction_from_json({**stripped, "response": ""}, where)
        return example_of_prediction(prediction, image_root=image_root, where=where)
    except DataError:
        return None


def _sizes(record: Mapping[str, Any], truth: Fragment | None) -> tuple[int, int, str]:
    """Number of utterances and of images as far as they can be told, and what they were told by.

    Answers have no say in it: an invented id must not make true negatives.
    """
    text = _prompt_text(record.get("messages"))
    named = truth or Fragment()
    listed = record.get("images")
    num_listed = len(listed) if isinstance(listed, list) else 0
    utterance_marks = [int(item) for item in _UTTERANCE_MARK.findall(text)]
    image_marks = [int(item) for item in _IMAGE_MARK.findall(text)]
    if utterance_marks:
        num_images = max([*image_marks, num_listed - 1], default=-1) + 1
        return max(utterance_marks) + 1, num_images, "num_sized_by_markers"
    num_utterances = max(named.utterance_ids, default=-1) + 1
    return num_utterances, max([num_listed - 1, *named.image_ids]) + 1, "num_sized_by_answers"


def _prompt_text(messages: Any) -> str:
    if not isinstance(messages, list):
        return ""
    contents = [
        message.get("content")
        for message in messages
        if isinstance(message, dict) and message.get("role") != "assistant"
    ]
    return "\n".join(content for content in contents if isinstance(content, str))


_SENTENCES = {
    "num_unreadable_lines": ("line", "could not be read: left out"),
    "num_without_response": ("line", "without a response: malformed"),
    "num_without_labels": ("line", "without readable labels: not scored"),
    "num_sized_by_markers": (
        "prompt",
        "not readable as a dialogue: its size is the largest id between the markers",
    ),
    "num_sized_by_answers": (
        "line",
        "without a dialogue with markers: its size (for true negatives, so for MCC) is the largest "
        "id that the true answer names",
    ),
}


def _notes(counts: Counter[str], faults: list[str], lacks_baselines: bool) -> list[str]:
    notes = [
        f"{counted(counts[kind], what)} {said}."
        for kind, (what, said) in _SENTENCES.items()
        if counts[kind]
    ]
    if lacks_baselines:
        notes.append("No baselines: not every scored line holds its dialogue.")
    num_faults = sum(
        counts[kind]
        for kind in ("num_unreadable_lines", "num_without_response", "num_without_labels")
    )
    if faults:
        more = f" (the first {len(faults)} of {num_faults})" if num_faults > len(faults) else ""
        notes.append(f"Faults{more}: " + " · ".join(faults))
    return notes
