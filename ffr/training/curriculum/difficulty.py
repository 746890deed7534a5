"""How hard each item of a data set is for a model: F1 and entropy of its one answer to each.

A folder of scores is a folder of `ffr.retrieval.answer_log` (so it is taken up where it was
stopped, and a finished one asks the model nothing) with the table `difficulty.csv` in it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffr.answer import format_answer, read_answer
from ffr.data.dataset import data_fingerprint
from ffr.data.forms.predictions import PredictionFile
from ffr.data.home import data_home
from ffr.dialogue import Example, Fragment
from ffr.errors import DataError
from ffr.files import check_as_written, replaced_file, write_checksums
from ffr.metrics.functional import fragment_counts, sample_figures_from_counts
from ffr.metrics.functional.figures import F1
from ffr.progress import Progress
from ffr.provenance import versions
from ffr.retrieval.answer_log import FAILURE, PREDICTIONS_FILE, ask_all, open_answer_log
from ffr.retrieval.interface import Retriever
from ffr.retrieval.reader import ENTROPY
from ffr.retrieval.vlm import VlmRetriever
from ffr.text import one_line
from ffr.training.curriculum.order import Difficulty, assign_levels, kept_items

DIFFICULTY_FILE = "difficulty.csv"
_BOUND = "max_new_tokens"
COLUMNS = ("index", "dialogue_id", "key", "truth", "f1", "entropy", "is_empty", "level", "kept")


@dataclass(frozen=True)
class ScoredDataset:
    """The difficulties of a data set, and the folder that holds them.

    Args:
        folder: Has `difficulty.csv`, and the answers that it was made of.
        difficulties: One for each example, in the order of the data.
        num_failed: How many items could not be answered; they count as answered wrong.
    """

    folder: Path
    difficulties: list[Difficulty]
    num_failed: int = 0

    @property
    def table(self) -> Path:
        """The file that `load_difficulties` reads."""
        return self.folder / DIFFICULTY_FILE


def entropy_of_tokens(logprobs: Sequence[float]) -> float:
    """Entropy of an answer's token probabilities after they are made to sum to one, in nats.

    0 for an empty answer.

    H = −Σ_i q_i ln q_i with q_i = p_i / Σ_j p_j, where p_i is the probability of the answer's i-th
    token (the end of the turn is one of them). Source: paper F2RVLM. n tokens that are equally
    probable give ln n, so that longer answers tend to have more.

    Raises:
        ValueError: where a value is no log-probability: above 0, infinite or not a number.

    >>> round(entropy_of_tokens([math.log(0.6), math.log(0.2)]), 4)  # q = (0.75, 0.25)
    0.5623
    """
    if not logprobs:
        return 0.0
    if not all(math.isfinite(value) and value <= 1e-6 for value in logprobs):
        raise ValueError("a log-probability is a finite number of at most 0")
    # relative to the largest, so that no probability underflows that matters
    highest = max(logprobs)
    parts = [math.exp(value - highest) for value in logprobs]
    total = math.fsum(parts)
    mean = (
        math.fsum(part * (value - highest) for part, value in zip(parts, logprobs, strict=True))
        / total
    )
    return max(0.0, math.log(total) - mean)


def difficulty_of(response: str, truth: Fragment, logprobs: Sequence[float]) -> Difficulty:
    """The difficulty of an item from the model's answer to it.

    F1 is the mean of the utterances' and the images' F1 of this one answer, read leniently; a
    modality whose truth is empty scores 1 where the answer names none of it and 0 otherwise, as in
    `ffr.metrics`.

    >>> answer = "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> difficulty_of(answer, Fragment((1,)), [0.0, 0.0])  # F1 is 2/3 (utterances) and 1 (images)
    Difficulty(f1=0.8333333333333333, entropy=0.6931471805599453, is_empty=False)
    """
    # F1 does not look at true negatives, so the dialogue's size is of no matter
    figures = sample_figures_from_counts(
        fragment_counts([read_answer(response)], [truth], [0], [0])
    )
    return Difficulty(float(figures[0, :, F1].mean()), entropy_of_tokens(logprobs), truth.is_empty)


def default_cache_folder(model_fingerprint: str, data_fingerprint: str) -> Path:
    """Where the scores of a model on a data set lie: `difficulty/` beside the named sets' folder.

    Args:
        model_fingerprint: Hex digits that name the model and all else that decides its answers; see
            `answers_fingerprint`.
        data_fingerprint: Hex digits that name the data.
    """
    return data_home().parent / "difficulty" / f"{model_fingerprint[:16]}-{data_fingerprint[:16]}"


def answers_fingerprint(retriever: Retriever) -> str:
    """SHA-256 over all that decides a retriever's answers: its identity, and package versions.

    The bound on the length of an answer is no part of it, since most bounds are never reached; see
    `cached_folder`.
    """
    content = json.dumps([_unbounded(retriever.identity), _package_versions()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def cached_folder(retriever: Retriever, fingerprint: str) -> tuple[Path, int | None]:
    """The folder in the cache for the scores of a retriever, and the bound that they were made with.

    That is the retriever's own folder; where it holds no table yet, one that was made with another
    bound on the tokens of an answer and in which no answer reached this bound or that one: the
    answers would be the same.

    Args:
        retriever: The model.
        fingerprint: Names the data.
    """
    bound = retriever.identity.get(_BOUND)
    own = default_cache_folder(answers_fingerprint(retriever), fingerprint)
    if bound is None:
        return own, None
    mine = own.with_name(f"{own.name}-{bound}")
    if not (mine / DIFFICULTY_FILE).is_file():
        for table in sorted(own.parent.glob(f"{own.name}-*/{DIFFICULTY_FILE}")):
            theirs = table.parent.name.removeprefix(f"{own.name}-")
            if theirs.isdecimal() and _none_reached(table.parent, min(bound, int(theirs))):
                return table.parent, int(theirs)
    return mine, bound


def _none_reached(folder: Path, bound: int) -> bool:
    """Whether every answer of a folder ended of itself within so many tokens."""
    try:
        return all(
            prediction.logprobs is not None
            and len(prediction.logprobs) <= bound
            and not {FAILURE, "is_cut_off"} & prediction.extra.keys()
            for prediction in PredictionFile(folder / PREDICTIONS_FILE)
        )
    except DataError:
        return False


def _unbounded(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != _BOUND}


def _package_versions() -> dict[str, str]:
    return {name: version for name, version in versions().items() if name != "platform"}


def score_dataset(
    examples: Sequence[Example],
    retriever: Retriever,
    out: Path | None = None,
    *,
    progress: Progress | None = None,
    max_failures: int | None = None,
) -> ScoredDataset:
    """Lets a model answer every item of a data set and writes `difficulty.csv`.

    Args:
        examples: The data, with the true answers.
        retriever: The model; its answers must carry log-probabilities.
        out: The folder; None = `cached_folder`.
        progress: Is told how far the work is.
        max_failures: More items than this that cannot be answered end the work; None for no bound.

    Raises:
        DataError: where an example has no true answer, an answer no log-probabilities, or the
            folder cannot be used; where not one item can be answered, or more than `max_failures`.
        UsageError: where the folder holds the answers of another model, or to other data.
        ValueError: where weights of the model are trainable.
    """
    if isinstance(retriever, VlmRetriever) and any(
        weight.requires_grad for weight in retriever.vlm.parameters()
    ):
        # the model's fingerprint leaves trainable weights out: answers of other weights would be
        # taken for its own
        raise ValueError(
            "score a model before its weights are made trainable or adapters are added"
        )
    for index, example in enumerate(examples):
        if example.fragment is None:
            raise DataError(
                "it has no true answer, and difficulty is measured against one; choose data with "
                "answers",
                where=f"example {index} (dialogue {example.dialogue.id!r})",
            )
    fingerprint = data_fingerprint(examples)
    model = dict(retriever.identity)
    if out is None:
        out, bound = cached_folder(retriever, fingerprint)
        if bound is not None:
            model[_BOUND] = bound
    identity = {
        "model": model,
        "data_fingerprint": fingerprint,
        # nothing is drawn and no picture is another one's; they stand here as in the folders of
        # `ffr eval`, so that folders that were begun as such are gone on with
        "settings": {"seed": 0, "wrong_pictures": False},
        "versions": _package_versions(),
    }
    with open_answer_log(out, json.loads(json.dumps(identity)), len(examples)) as log:
        ask_all(examples, examples, retriever, log, progress, max_failures)
        for _ in log.in_order(examples):
            pass  # refuses a line that is no answer to this data
        log.finish()
    path = out / PREDICTIONS_FILE
    difficulties: list[Difficulty] = []
    num_failed = 0
    for number, (example, prediction) in enumerate(
        zip(examples, PredictionFile(path), strict=True), start=1
    ):
        if FAILURE in prediction.extra:
            # wrong, as in an evaluation; there is no answer whose tokens could be more or less sure
            num_failed += 1
            difficulties.append(
                Difficulty(0.0, 0.0, example.fragment is not None and example.fragment.is_empty)
            )
            continue
        assert example.fragment is not None
        if ENTROPY in prediction.extra:
            found = difficulty_of(prediction.response, example.fragment, ())
            entropy = _entropy_of(prediction.extra[ENTROPY], f"{path}:{number}")
            difficulties.append(replace(found, entropy=entropy))
            continue
        if prediction.logprobs is None:
            raise DataError(
                "the answer has no log-probabilities, of which entropy is made; let the retriever "
                "give them",
                where=f"{path}:{number}",
            )
        difficulties.append(
            difficulty_of(prediction.response, example.fragment, prediction.logprobs)
        )
    scored = ScoredDataset(out, difficulties, num_failed)
    write_difficulties(scored.table, examples, difficulties)
    write_checksums(out, [PREDICTIONS_FILE, DIFFICULTY_FILE])
    return scored


def _entropy_of(value: Any, where: str) -> float:
    """What a reader's answer says of its decisions.

    Raises:
        DataError: where it is none.
    """
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise DataError(
            f"{ENTROPY} is {one_line(repr(value), 40)}, no entropy; score the data anew",
            where=where,
        )
    return float(value)


def write_difficulties(
    path: Path, examples: Sequence[Example], difficulties: Sequence[Difficulty]
) -> None:
    """Writes the table of a data set: one row an example, numbers with all their digits.

    The file appears whole or not at all.

    Raises:
        DataError: where it cannot be written.
    """
    levels = assign_levels(difficulties)
    kept = set(kept_items(difficulties, levels))
    text = io.StringIO()
    # texts are quoted, since an id may hold any character
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for index, (example, item, level) in enumerate(
        zip(examples, difficulties, levels, strict=True)
    ):
        writer.writerow(
            [
                index,
                *_facts_of(example),
                item.f1,
                item.entropy,
                int(item.is_empty),
                level,
                int(index in kept),
            ]
        )
    with replaced_file(path) as write:
        write(text.getvalue().encode("utf-8", "backslashreplace"))


def _facts_of(example: Example) -> tuple[str, str, str]:
    truth = "" if example.fragment is None else format_answer(example.fragment)
    return example.dialogue.id, example.key, truth


def load_difficulties(path: Path, examples: Sequence[Example]) -> list[Difficulty]:
    """Reads the table of a data set.

    Args:
        path: The file, or the folder it is in.
        examples: The data that it must be of: the same dialogues, queries and true answers in the
            same order.

    Raises:
        DataError: where it is missing, damaged, or of other data.
    """
    path = path / DIFFICULTY_FILE if path.is_dir() else path
    check_as_written(path, otherwise="write it anew with `ffr curriculum score`")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            header = tuple(reader.fieldnames or ())
            rows = list(reader)
    except FileNotFoundError:
        raise DataError("not found; `ffr curriculum score` writes it", where=str(path)) from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"cannot be read as a table ({one_line(error)}); write it anew with `ffr curriculum score`",
            where=str(path),
        ) from error
    if header != COLUMNS:
        raise DataError(
            "is not a table of difficulties (its columns differ); write it anew with `ffr "
            "curriculum score`",
            where=str(path),
        )
    if len(rows) != len(examples):
        raise DataError(
            f"has {len(rows)} items, but the data has {len(examples)}; score this data with `ffr "
            "curriculum score`",
            where=str(path),
        )
    difficulties: list[Difficulty] = []
    for index, (row, example) in enumerate(zip(rows, examples, strict=True)):
        _, key, truth = _facts_of(example)
        if (row["key"], row["truth"]) != (key, truth):
            raise DataError(
                f"item {index} is of other data (the query or answer of dialogue "
                f"{example.dialogue.id!r} differs); score "
                "this data with `ffr curriculum score`",
                where=str(path),
            )
        difficulties.append(_difficulty_of_row(row, path, index))
    levels = assign_levels(difficulties)
    kept = set(kept_items(difficulties, levels))
    for index, (row, level) in enumerate(zip(rows, levels, strict=True)):
        # a level that was changed by hand would be passed over by all that makes levels from f1 and
        # entropy
        if (row["level"], row["kept"]) != (level, str(int(index in kept))):
            raise DataError(
                f"item {index} stands as {row['level']!r}, kept {row['kept']}, but its f1 and "
                f"entropy make it {level!r}, kept "
                f"{int(index in kept)}; write it anew with `ffr curriculum score`",
                where=str(path),
            )
    return difficulties


def _difficulty_of_row(row: dict[str, str], path: Path, index: int) -> Difficulty:
    try:
        item = Difficulty(
            float(row["f1"]), float(row["entropy"]), {"0": False, "1": True}[row["is_empty"]]
        )
        is_right = row["index"] == str(index) and 0 <= item.f1 <= 1 and 0 <= item.entropy < math.inf
    except (ValueError, KeyError, TypeError):
        is_right = False
    if not is_right:
        raise DataError(
            f"item {index} has a number that cannot be; write it anew with `ffr curriculum score`",
            where=str(path),
        )
    return item
