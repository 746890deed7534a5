"""Asks a retriever every query, writes answers as they come, goes on where it stopped, scores.

An output folder holds `evaluation.json` (what is evaluated: a later call that differs is refused),
`predictions.jsonl` (in the order of the work while it runs, in the order of the data at the end),
`per_query.csv` and `results.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffr.answer import format_answer
from ffr.data.dataset import data_identity
from ffr.dialogue import Example
from ffr.embedding import Encoder
from ffr.evaluation.bootstrap import interval_table, undefined_note
from ffr.evaluation.coherence import CoherenceMeter
from ffr.evaluation.per_query import QueryName, write_per_query
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import ScoreTable, malformed_note
from ffr.progress import Progress
from ffr.provenance import command, git_hash, now, versions
from ffr.retrieval.answer_log import FAILURE, ask_all, open_answer_log
from ffr.retrieval.interface import Retriever, add_usage
from ffr.retrieval.lexical import BASELINE_PREFIX, BASELINES, BaselineRetriever
from ffr.retrieval.submitted import SUBMITTED
from ffr.text import counted

_MAX_NAMED = 5
"""How many of the queries that could not be answered a note names."""


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
    max_failures: int | None = None,
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
        max_failures: More queries than this that cannot be answered end the evaluation; None for no
            bound.

    Returns:
        The results, as they stand in `results.json`.

    Raises:
        UsageError: where the folder holds another evaluation.
        DataError: where not one query can be answered, more than `max_failures` cannot, or the
            folder cannot be used.
    """
    started, clock = now(), time.monotonic()
    data = data_identity(examples)
    settings = {"seed": seed, "wrong_pictures": shown is not None}
    identity = {
        "model": retriever.identity,
        "data_fingerprint": data.fingerprint,
        "settings": settings,
    }
    identity["versions"] = {
        name: version for name, version in versions().items() if name != "platform"
    }
    with open_answer_log(out, json.loads(json.dumps(identity)), len(examples)) as log:
        num_resumed = log.num_answers
        ask_all(
            examples, examples if shown is None else shown, retriever, log, progress, max_failures
        )
        asked = time.monotonic()
        table, num_cut_off = ScoreTable(), 0
        failures: list[str] = []
        names: list[QueryName] = []
        usages: list[dict[str, Any]] = []  # tokens and costs, where the retriever tells them
        meter = CoherenceMeter(encoder) if encoder is not None else None
        # a baseline that is itself measured needs no second row
        tables = {
            name: (BaselineRetriever(name, seed=seed), ScoreTable())
            for name in baselines
            if BASELINE_PREFIX + name != retriever.name
        }
        for index, (example, record) in enumerate(
            zip(examples, log.in_order(examples), strict=True)
        ):
            failure = record.get(FAILURE)
            failures += [failure] if failure is not None else []
            read = table.add_example(example, record["response"], is_failed=failure is not None)
            if example.fragment is not None:
                num_utterances = len(example.dialogue.utterances)
                names.append(QueryName(index, example.dialogue.id, example.query, num_utterances))
            num_cut_off += bool(record.get("is_cut_off"))
            if isinstance(record.get("usage"), dict):
                usages.append(record["usage"])
            if meter is not None and example.fragment is not None:
                meter.add(example, read)
            for baseline, its_table in tables.values():
                its_table.add_example(example, format_answer(baseline.fragment(example)))
        log.finish()
    rows, summary = table.rows(), table.summary()
    summary["answers"] |= {"num_cut_off": num_cut_off, "num_failed": len(failures)}
    if usages:
        summary["usage"] = add_usage(usages)
    if meter is not None:
        summary["coherence"] = meter.summary()
    results = Results(
        model={"label": retriever.name, **retriever.identity},
        data={
            "dataset": dataset,
            "split": split,
            **asdict(data),
            "num_examples": len(examples),
            "num_left_out": num_left_out,
        },
        settings=settings,
        summary=summary,
        baselines={
            BASELINE_PREFIX + name: its_table.summary() for name, (_, its_table) in tables.items()
        },
        notes=_notes(
            summary,
            num_left_out,
            failures,
            is_control=shown is not None,
            is_file=retriever.identity.get("kind") == SUBMITTED,
        )
        + malformed_note(table)
        + undefined_note(rows),
        provenance={
            "command": command(),
            "started_at": started,
            "finished_at": now(),
            "seconds": round(time.monotonic() - clock, 3),
            "seconds_asking": round(asked - clock, 3),
            "num_answers_resumed": num_resumed,
            "versions": versions(),
            "git_hash": git_hash(),
            **_places(dataset, examples),
        },
        intervals=interval_table(rows, seed=seed),
    )
    write_per_query(out, names, rows)
    results.save(out)
    return results


def _places(dataset: str, examples: Sequence[Example]) -> dict[str, str]:
    """Where the file of the data and its pictures lie, for readers in another folder."""
    path = Path(dataset)
    if not path.is_file():
        return {}
    root = examples[0].image_root if examples else None
    found = {"data_path": str(path.absolute())}
    if root is not None and root.absolute() != path.absolute().parent:
        found["image_root"] = str(root.absolute())
    return found


def _notes(
    summary: dict[str, Any],
    num_left_out: int,
    failures: list[str],
    *,
    is_control: bool,
    is_file: bool,
) -> list[str]:
    notes = []
    answers = summary["answers"]
    if is_control:
        notes.append(
            "CONTROL WITH WRONG PICTURES: every picture was replaced by one of another dialogue; "
            "this is no result of the model."
        )
    if num_left_out:
        notes.append(
            counted(
                num_left_out,
                "bad record or query of the data was left out.",
                "bad records or queries of the data were left out.",
            )
        )
    if failures:
        more = f" (the first {_MAX_NAMED} of {len(failures)})" if len(failures) > _MAX_NAMED else ""
        fault = (
            "have no prediction in the file and count as wrong. Which"
            if is_file
            else "could not be answered and count as wrong; the same command asks them again. Why"
        )
        notes.append(
            f"{len(failures)} of {answers['num_answers']} queries {fault}{more}: "
            + " · ".join(failures[:_MAX_NAMED])
        )
    if answers["num_without_truth"]:
        notes.append(
            f"{counted(answers['num_without_truth'], 'query has', 'queries have')} no true "
            "answer; answered, "
            "not scored."
        )
    if answers["num_cut_off"]:
        notes.append(
            f"{counted(answers['num_cut_off'], 'answer was', 'answers were')} cut off at the "
            "longest length; raise "
            "--max-new-tokens, or see --constrained."
        )
    return notes
