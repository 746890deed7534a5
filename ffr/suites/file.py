"""What the file of a suite may say: pydantic models; their faults become sentences with a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticKnownError

from ffr.corpus.opening import NO_MODEL
from ffr.corpus.ways import WAYS
from ffr.errors import UsageError
from ffr.evaluation.corpus import ARCHIVE_FIGURES, GROUPS, ONE
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.scoring import SLICES
from ffr.retrieval.opening import choose_model
from ffr.settings import AnswerConfig, kind_of, nearest, without_effect
from ffr.settings.declaration import checked, words_of
from ffr.settings.words import fault, sentence
from ffr.settings.yaml import Document
from ffr.text import one_line

WHOLE = "all"
"""Stands for the whole data among the slices of a suite."""

DIALOGUE, ARCHIVE = "dialogue", "archive"
"""What a suite asks: each query of its own dialogue, or of a whole archive of dialogues."""

_ASKS = DIALOGUE, ARCHIVE

EVERY_KIND = ("*",)
"""Patterns of kinds of queries, where each query means its own dialogue."""

MAX_CELLS = 10_000
_MAX_LABEL = 120
_MAX_PATH = 4096
_KEY_ENDING = "_API_KEY"
_ANSWERS = "answers"
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


# -- values ----------------------------------------------------------------------------------------


def _text(most: int) -> Any:
    """One line of text."""

    def check(value: str, info: ValidationInfo) -> str:
        value = value.strip()
        if not value or not value.isprintable() or len(value) > most:
            what = f"`{info.field_name}` must be one line of 1 to {most} characters"
            raise fault(f"{what} that can be printed")
        return value

    return AfterValidator(check)


def _names(of_dialogues: Iterable[str], of_archives: Iterable[str] | None = None) -> Any:
    """Names that must exist, each once; of a suite that asks an archive perhaps others."""

    def check(names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        is_other = of_archives is not None and info.data.get("asks") == ARCHIVE
        known = of_archives if is_other and of_archives is not None else of_dialogues
        for number, name in enumerate(names):
            if name not in known:
                found = f"there is no {one_line(name)}{nearest(name, known)}"
                raise fault(f"`{info.field_name}`: {found}", number)
            if name in names[:number]:
                raise fault(f"`{info.field_name}`: {name} is given twice; give it once", number)
        return names

    return AfterValidator(check)


def _settings(value: Any, info: ValidationInfo) -> dict[str, Any]:
    """Some settings of asking, each checked; rules between them wait until all are there."""
    if not isinstance(value, dict):
        raise PydanticKnownError("dict_type")
    answers = (info.context or {}).get(_ANSWERS, AnswerConfig)
    if "trust_remote_code" in value:
        message = "a suite does not decide on trust; pass --trust-remote-code on the command line"
        raise fault(message, "trust_remote_code")
    try:
        found = checked(answers, value)
    except ValidationError as error:
        first = error.errors()[0]
        raise fault(one_line(words_of(answers, first)), *first["loc"]) from None
    variable = found.get("api_key_env")
    if variable is not None and not variable.endswith(_KEY_ENDING):
        message = f"`api_key_env` names a variable that ends in {_KEY_ENDING}"
        raise fault(f"{message}, so that no other secret goes out", "api_key_env")
    return found


def _model(name: str) -> str:
    """What can be wrong with a name whatever lies here; a folder is looked for in its turn."""
    if kind_of(name) != "vlm":
        try:
            choose_model(name)
        except UsageError as error:
            raise fault(str(error)) from None
    return name


Text = Annotated[str, Strict(), _text(_MAX_LABEL)]
PathText = Annotated[str, Strict(), _text(_MAX_PATH)]
Given = Annotated[Mapping[str, Any], BeforeValidator(_settings)]
Share = Annotated[
    float,
    Strict(),
    Field(ge=-100, le=100),
    AfterValidator(lambda percent: round(percent / 100, 12)),
]
"""A percentage in the file, as papers print them."""


def _labelled(key: str) -> Callable[[Any], Any]:
    """Where a part of the file has no label, it is called by another of its keys."""

    def label(data: Any) -> Any:
        if isinstance(data, dict) and "label" not in data and key in data:
            return {**data, "label": data[key]}
        return data

    return label


# -- parts -----------------------------------------------------------------------------------------


@dataclass(frozen=True, config=_CONFIG)
class SuiteModel:
    """One model of a suite, or figures that others report.

    Args:
        label: What the table calls it.
        model: What `ffr eval --model` takes; None where figures are reported.
        group: The part of the table it stands in; may be empty.
        settings: Its own settings.
        ways: By which dialogues of an archive are recalled; None for all of them.
        reported: Data set's label → figure → its value as a share; None where it is measured.
    """

    label: Text
    model: Annotated[PathText, AfterValidator(_model)] | None = None
    group: Text = ""
    settings: Given = field(default_factory=dict)
    ways: Annotated[tuple[str, ...], Field(min_length=1), _names(WAYS)] | None = None
    reported: Mapping[str, Mapping[str, Share]] | None = None

    _label = model_validator(mode="before")(_labelled("model"))

    @model_validator(mode="after")
    def _is_one_of_two(self, info: ValidationInfo) -> SuiteModel:
        if (self.model is None) == (self.reported is None):
            either = "either `model` (what to measure) or `reported` (figures that others print)"
            raise fault(f"a model has {either}")
        for key in ("settings", "ways"):
            if self.model is None and getattr(self, key):
                raise fault(f"reported figures have no `{key}`", key)
        if self.model is not None:
            for name in self.settings:
                if name in _without(self.model, info):
                    message = f"{name} has no effect on {self.model}; take it out"
                    raise fault(message, "settings", name)
        return self


@dataclass(frozen=True, config=_CONFIG)
class SuiteSetting:
    """One way in which every model is asked."""

    label: Text
    settings: Given = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _inline(cls, data: Any) -> Any:
        """Settings stand beside the label in the file."""
        if not isinstance(data, dict):
            return data
        own = {"label": data["label"]} if "label" in data else {}
        return {**own, "settings": {name: data[name] for name in data if name != "label"}}


@dataclass(frozen=True, config=_CONFIG)
class SuiteDataset:
    """One data set of a suite.

    Args:
        label: What the table calls it.
        dataset: A named set or a file.
        split: Part of a named set.
        image_root: Folder that image paths are relative to.
        limit: The first so many queries only.
        skip_bad: Leave bad records out, counted.
        corpus: A named set or a file, whose dialogues are the archive beside those of the data set;
            None where each query is asked of its own dialogue.
        specific: Patterns of the kinds of queries that mean one dialogue of the archive.
        settings: Settings for every model on this data.
    """

    label: Text
    dataset: PathText
    split: Text = "val"
    image_root: PathText | None = None
    limit: Annotated[int, Strict(), Field(ge=1, le=2**32 - 1)] | None = None
    skip_bad: Annotated[bool, Strict()] = False
    corpus: PathText | None = None
    specific: Annotated[tuple[Text, ...], Field(min_length=1)] = EVERY_KIND
    settings: Given = field(default_factory=dict)

    _label = model_validator(mode="before")(_labelled("dataset"))

    @property
    def split_asked(self) -> str | None:
        """The part of a named set; None for a file."""
        return None if Path(self.dataset).is_file() else self.split


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class SuiteFile:
    """What a suite's file says, part by part."""

    asks: Literal["dialogue", "archive"] = "dialogue"
    figures: Annotated[tuple[str, ...], Field(min_length=1), _names(FIGURE_NAMES, ARCHIVE_FIGURES)]
    models: Annotated[tuple[SuiteModel, ...], Field(min_length=1, max_length=MAX_CELLS)]
    datasets: (
        Annotated[tuple[SuiteDataset, ...], Field(min_length=1, max_length=MAX_CELLS)] | None
    ) = None
    title: Annotated[str, Strict(), _text(500)] | None = None
    seed: Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)] = 0
    slices: Annotated[tuple[str, ...], Field(min_length=1), _names((WHOLE, *SLICES), GROUPS)] = (
        WHOLE,
    )
    defaults: Given = field(default_factory=dict)
    settings: (
        Annotated[tuple[SuiteSetting, ...], Field(min_length=1, max_length=MAX_CELLS)] | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _first_group(cls, data: Any) -> Any:
        """Of an archive the queries that mean one dialogue, where nothing else is said."""
        if isinstance(data, dict) and data.get("asks") == ARCHIVE:
            return {"slices": [ONE], **data}
        return data

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> SuiteFile:
        """What only an archive has stands beside no other suite, nor the other way round."""
        is_archive = self.asks == ARCHIVE
        for number, model in enumerate(self.models):
            if not is_archive and model.ways is not None:
                raise fault(_only_archive("`ways`"), "models", number, "ways")
            if not is_archive and model.model == NO_MODEL:
                raise fault(_only_archive(f"the model `{NO_MODEL}`"), "models", number, "model")
        for number, dataset in enumerate(self.datasets or ()):
            place = "datasets", number
            if is_archive and dataset.corpus is None:
                raise fault("a data set of a suite that asks an archive needs `corpus`", *place)
            for key, plain in _OF_ARCHIVE.items() if not is_archive else _OF_DIALOGUE.items():
                if getattr(dataset, key) != plain:
                    raise fault(_no_effect(key, is_archive=is_archive), *place, key)
        return self

    @model_validator(mode="after")
    def _labels(self) -> SuiteFile:
        _check_labels("datasets", "data sets", self.datasets or ())
        _check_labels("settings", "settings", self.settings or ())
        _check_labels("models", "models", self.models)
        labels = [item.label for item in self.datasets or ()]
        for number, item in enumerate(self.models):
            for label, values in (item.reported or {}).items():
                place = "models", number, "reported", label
                if label not in labels:
                    raise fault(_no_key("`reported`", label, labels), *place)
                for figure in values:
                    if figure not in self.figures:
                        what = f"`reported` of {label}"
                        raise fault(_no_key(what, figure, self.figures), *place, figure)
        return self


_OF_ARCHIVE: dict[str, Any] = {"corpus": None, "specific": EVERY_KIND}
_OF_DIALOGUE: dict[str, Any] = {"image_root": None, "skip_bad": False}
"""Keys of data sets that only the one kind of suite has, with what they are where none stands."""


def _only_archive(what: str) -> str:
    return f"{what} is of suites that ask an archive; add `asks: archive`, or take it out"


def _no_effect(key: str, *, is_archive: bool) -> str:
    if not is_archive:
        return _only_archive(f"`{key}`")
    return f"`{key}` has no effect where an archive is asked; take it out"


_NOUNS: dict[str, tuple[str, Any]] = {
    "datasets": ("a data set", SuiteDataset),
    "models": ("a model", SuiteModel),
    "settings": ("a setting", SuiteSetting),
}
"""What the entries of a list are called, and the keys that they may have."""


def _check_labels(key: str, what: str, items: Iterable[Any]) -> None:
    """No label twice; letter case does not tell two apart, since folders are named after them."""
    taken: set[str] = set()
    for number, item in enumerate(items):
        if item.label.casefold() in taken:
            message = f"two {what} have the label {item.label}; give each its own"
            raise fault(message, key, number, "label")
        taken.add(item.label.casefold())


def _no_key(what: str, key: str, known: Iterable[str]) -> str:
    return f"{what} has no key `{one_line(key)}`{nearest(key, known)}"


def _without(name: str, info: ValidationInfo) -> frozenset[str]:
    return without_effect(kind_of(name), (info.context or {}).get(_ANSWERS, AnswerConfig))


# -- faults ----------------------------------------------------------------------------------------


def check_file(document: Document, answers: type[AnswerConfig]) -> SuiteFile:
    """The parts of a suite's file.

    Args:
        document: The file.
        answers: What declares the settings that a suite may have.

    Raises:
        UsageError: where something in it is wrong.
    """
    if document.value is None:
        message = "is empty; `ffr bench show sample` prints a suite to begin with"
        raise UsageError(f"{document.where}: {message}")
    try:
        return TypeAdapter(SuiteFile).validate_python(document.value, context={_ANSWERS: answers})
    except ValidationError as error:
        # a wrong key first: it is why a right one is missing
        # a list whose entries are wrong is none that is too short
        errors = sorted(
            (one for one in error.errors() if one["type"] != "too_short" or not one["input"]),
            key=lambda details: (not _is_unknown(details), document.line(*details["loc"])),
        )
        loc = errors[0]["loc"]
        document.fail(_sentence(errors[0]), *loc, of_key=_is_unknown(errors[0]))


def _is_unknown(details: ErrorDetails) -> bool:
    return details["type"] == "unexpected_keyword_argument"


def _sentence(details: ErrorDetails) -> str:
    """What is wrong in a suite."""
    kind, loc, value = details["type"], details["loc"], details["input"]
    is_entry = len(loc) > 1 and loc[0] in _NOUNS
    whole: tuple[str, Any] = "a suite", SuiteFile
    noun, part = _NOUNS[str(loc[0])] if is_entry else whole
    key = str(next((step for step in reversed(loc) if isinstance(step, str)), ""))
    if _is_unknown(details):
        return _no_key(noun, key, part.__pydantic_fields__)
    if kind.startswith("missing"):
        return f"{noun} needs `{key}`"
    if kind.startswith(("dataclass_", "dict_", "mapping_")):
        what = noun if isinstance(loc[-1] if loc else 0, int) else f"`{key}`"
        return f"{what} is written as `key: value` lines"
    if kind == "tuple_type":
        return f"`{key}` is a list; write one `- …` for each"
    if kind == "too_short":
        return f"`{key}` is empty; name at least one"
    if kind == "too_long":
        return f"`{key}` has more than {MAX_CELLS:,} entries; split the suite"
    if isinstance(value, list | dict):
        return f"`{key}` takes one value, no list and no mapping"
    found = sentence(details, f"`{key}`", _ASKS if key == "asks" else ())
    return f"{found}; put it into quotes" if kind == "string_type" else found
