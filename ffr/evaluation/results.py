"""`results.json`: everything that an evaluation says, and where it comes from.

The form is checked whole on reading, here and nowhere else: whoever holds a `Results` that was
loaded may look up every figure of this ffr without asking whether it is there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ffr.errors import DataError
from ffr.evaluation.figures import EXACT_MATCH, FIGURE_NAMES, SCORE_NAMES
from ffr.evaluation.harness import HARNESS_KEYS, harness_keys
from ffr.evaluation.scoring import SLICES
from ffr.files import replaced_file
from ffr.progress import Say
from ffr.text import address_hint, one_line

RESULTS_FILE = "results.json"
SCHEMA = 2
"""Version of the form. 2: what was not measured is null (1 had 0, and left empty slices out)."""


@dataclass
class Results:
    """The result of one evaluation.

    Args:
        model: What answered: its name and all that decides its answers.
        data: The data: name, fingerprint, number of examples, how many records were left out.
        settings: Seed, limit, controls.
        summary: The figures, as `ffr.evaluation.scoring.ScoreTable.summary` gives them.
        baselines: The figures of each trivial baseline on the same data.
        notes: What a reader must know beside the figures, in sentences.
        provenance: Versions, command and times; the only part that two runs of the same command
            differ in (and what `harness_keys` repeats of it).
        intervals: How sure the figures are, as `ffr.evaluation.bootstrap.interval_table` gives it;
            empty where none were computed.
        schema: Version of this form.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    summary: dict[str, Any]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def label(self) -> str:
        """What answered, in a word."""
        return str(self.model.get("label", "unnamed"))

    @property
    def num_scored(self) -> int:
        """How many answers the figures are of; where it is 0 every figure is None."""
        return int(self.summary["answers"]["num_scored"])

    def interval(
        self, table: str, figure: str, name: str | None = None
    ) -> tuple[float, float] | None:
        """The interval of a figure; None where there is none.

        Args:
            table: `scores`, `strict_scores`, or a table of slices such as `by_length`.
            figure: The figure's name.
            name: The slice, in a table of slices.
        """
        found = self.intervals.get(table)
        for key in (figure,) if name is None else (name, figure):
            found = found.get(key) if isinstance(found, dict) else None
        return (found[0], found[1]) if found else None

    def to_json(self) -> str:
        """The content of the file: strict JSON, in which a number is never NaN or infinite.

        Raises:
            DataError: where a number is; such a result says nothing.
        """
        content = asdict(self)
        return sealed_json(content | harness_keys(content))

    def save(self, folder: Path) -> Path:
        """Writes `results.json` into a folder, whole or not at all, and tells where.

        Raises:
            DataError: where the folder cannot be written to, or a number is not finite.
        """
        return self.save_as(folder / RESULTS_FILE)

    def save_as(self, path: Path) -> Path:
        """Writes the file under another name, such as that of a baseline; as `save`."""
        content = self.to_json().encode("utf-8", "backslashreplace")
        with replaced_file(path) as write:
            write(content)
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads a file that `save` wrote.

        Raises:
            DataError: where it is missing, something else, of another form, or damaged.
        """
        where_else = _where_else(path)
        path = path / RESULTS_FILE if path.is_dir() else path
        try:
            data = path.read_bytes()
            content = json.loads(data.decode("utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"not found{address_hint(path)}; {where_else}", where=str(path)
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"is not a results file of ffr ({one_line(error)})", where=str(path)
            ) from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, int) or "summary" not in content:
            raise DataError("is not a results file of ffr; `ffr eval` writes one", where=str(path))
        if schema != SCHEMA:
            raise DataError(
                f"has form {schema} but this ffr reads form {SCHEMA}; evaluate again",
                where=str(path),
            )
        try:
            ours = {name: value for name, value in content.items() if name not in HARNESS_KEYS}
            _Form.model_validate({name: value for name, value in ours.items() if name != "schema"})
        except ValidationError as error:
            raise DataError(_fault_words(error), where=str(path)) from None
        has_broken_seal = is_seal_broken(data, content)
        content["provenance"].pop(_SEAL, None)
        if has_broken_seal:
            raise DataError(
                f"is not what was written (its {_SEAL} says so); restore it, or evaluate again",
                where=str(path),
            )
        return cls(**ours)


# -- the seal -----------------------------------------------------------------------------------

_SEAL = "sha256"
"""In the provenance: SHA-256 of the file's bytes with 64 zeros in the place of this.

Files that were written before there was one have none."""
_NO_SEAL = "0" * 64
_MAX_NAMED = 10
"""Evaluations of a run that a sentence names."""


def sealed_json(content: dict[str, Any]) -> str:
    """Results as strict JSON whose `provenance` seals the whole.

    Args:
        content: JSON-ready, with an object under `provenance`.

    Raises:
        DataError: where a number is not finite.

    >>> text = sealed_json({"a": 1, "provenance": {}})
    >>> is_seal_broken(text.encode(), json.loads(text))
    False
    >>> is_seal_broken(text.replace("1", "2", 1).encode(), json.loads(text))
    True
    """
    content = content | {"provenance": content["provenance"] | {_SEAL: _NO_SEAL}}
    try:
        text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise DataError(
            f"a figure is no finite number ({one_line(error)}); look for NaN in the model's "
            "weights or "
            "the encoder's vectors"
        ) from error
    seal = _seal_of(text.encode("utf-8", "backslashreplace"), _NO_SEAL)
    return text.replace(_seal_entry(_NO_SEAL).decode(), _seal_entry(seal).decode(), 1)


def is_seal_broken(data: bytes, content: dict[str, Any]) -> bool:
    """Whether a file of results is not what was written; one without a seal is taken as it is.

    Args:
        data: Its bytes.
        content: The same, read.
    """
    provenance = content.get("provenance")
    seal = provenance.get(_SEAL) if isinstance(provenance, dict) else None
    return seal is not None and _seal_of(data, str(seal)) != seal


def _seal_of(data: bytes, seal: str) -> str:
    """What the seal of a file should be that has this one."""
    head, _, tail = data.partition(_seal_entry(seal))
    return hashlib.sha256(head + _seal_entry(_NO_SEAL) + tail).hexdigest()


def _seal_entry(seal: str) -> bytes:
    return f'"{_SEAL}": "{seal}"'.encode()


def results_meant(path: Path, say: Say) -> Path:
    """What is meant where a run is named for its results: its evaluation, where it has just one.

    Args:
        path: A folder or file.
        say: Is told which evaluation is taken.

    Returns:
        The folder of that evaluation; the path as it is where it is no run, or one with several.
    """
    found = [] if (path / RESULTS_FILE).exists() else evaluations_of(path)
    if len(found) != 1:
        return path
    say(f"{path} has one evaluation, which is taken: {found[0]}")
    return found[0]


def evaluations_of(folder: Path) -> list[Path]:
    """The folders of a run's evaluations."""
    try:
        return sorted(path.parent for path in folder.glob(f"eval/*/{RESULTS_FILE}"))
    except OSError:
        return []


def _where_else(path: Path) -> str:
    """Where the results of a run are, or what writes them."""
    found = evaluations_of(path)
    if found:
        more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
        return (
            f"this run's evaluations are {', '.join(map(str, found[:_MAX_NAMED]))}{more}; name one"
        )
    return "`ffr eval` writes it"


# -- the form -----------------------------------------------------------------------------------


class _Part(BaseModel):
    """An object of the file: its fields are checked, further ones are let through."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Whole(_Part):
    """The whole file, of which every entry is known."""

    model_config = ConfigDict(extra="forbid")


_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=-1, le=1)]
_Interval = Annotated[list[_Share], Field(min_length=2, max_length=2)]
_Intervals = dict[str, _Interval] | None


class _Answers(_Part):
    num_answers: _Count
    num_scored: _Count
    num_without_truth: _Count
    num_dialogues: _Count
    num_failed: _Count = 0
    num_malformed: _Count
    malformed_share: _Share | None
    problems: dict[str, _Count]
    num_empty_truths: _Count
    num_empty_answers: _Count
    num_both_empty: _Count
    num_true_images: _Count | None = None


class _Coherence(_Part):
    mean: _Share | None
    query_similarity: _Share | None = None
    num_answers: _Count
    encoder: str


def _part(form: str, **fields: Any) -> Any:
    """A form whose fields are known at run time only: the table of figures, the slices."""
    return create_model(form, __base__=_Part, **fields)


def _figures_form(form: str, names: tuple[str, ...], **more: Any) -> Any:
    return _part(form, **more, **dict.fromkeys(names, (_Share | None, ...)))


_Scores = _figures_form("_Scores", SCORE_NAMES)
_Slice = _figures_form(
    "_Slice", FIGURE_NAMES, num_answers=(_Count, ...), num_dialogues=(_Count, ...)
)
_Errors = _figures_form(
    "_Errors", ("sample_utterance_f1", "sample_image_f1", "sample_joint_f1", EXACT_MATCH)
)
_Slices = {
    table: (_part(table, **dict.fromkeys(names, (_Slice, ...))), ...)
    for table, names in SLICES.items()
}
_Summary = _part(
    "_Summary",
    answers=(_Answers, ...),
    scores=(_Scores, ...),
    strict_scores=(_Scores, ...),
    standard_errors=(_Errors, ...),
    coherence=(_Coherence | None, None),
    **_Slices,
)
_IntervalTable = _part(
    "_IntervalTable",
    level=(_Share, ...),
    num_resamples=(_Count, ...),
    seed=(int, ...),
    num_dialogues=(_Count, ...),
    scores=(_Intervals, ...),
    strict_scores=(_Intervals, ...),
    **dict.fromkeys(SLICES, (dict[str, _Intervals], ...)),
)


class _Fit(_Part):
    dataset: str
    split: str | None
    num_queries: _Count
    fingerprint: str
    utterance_f1: _Share
    image_f1: _Share


class _Selection(_Part):
    rule: str
    utterance: float
    image: float | None
    fit: _Fit | None


class _Model(_Part):
    label: str
    kind: str | None = None
    num_neighbours: _Count = 0
    selection: _Selection | None = None


class _Data(_Part):
    dataset: str
    num_examples: _Count
    split: str | None = None
    fingerprint: str | None = None


_Baselines: Any = dict[str, _Summary]  # type: ignore[valid-type]


class _Provenance(_Whole):
    """Of which every entry is known, so that a damaged seal is not taken for none."""

    command: Any = None
    started_at: Any = None
    finished_at: Any = None
    seconds: Any = None
    seconds_asking: Any = None
    git_hash: Any = None
    num_answers_resumed: Any = None
    versions: Any = None
    data_path: Any = None
    image_root: Any = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


_Form: Any = create_model(
    "_Form",
    __base__=_Whole,
    model=(_Model, ...),
    data=(_Data, ...),
    settings=(dict[str, Any], ...),
    summary=(_Summary, ...),
    baselines=(_Baselines, ...),
    notes=(list[str], ...),
    provenance=(_Provenance, ...),
    intervals=(_IntervalTable | Annotated[dict[str, Any], Field(max_length=0)], ...),
)


def _fault_words(error: ValidationError) -> str:
    """What is wrong with a file of the right form number, and what to do."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    name = str(fault["loc"][-1])
    if fault["type"] == "missing" and name in FIGURE_NAMES:
        return (
            f"has form {SCHEMA} but lacks the figure {name}, which this ffr reports; evaluate again"
        )
    place = ".".join(map(str, fault["loc"]))
    return f"is not a results file of ffr ({place}: {fault['msg'].lower()}); evaluate again"
