"""How a setting is declared, once: type, default, bounds, words, and what it is for.

`setting(...)` stands behind a field of a `Settings` class. From it follow YAML files, `-o`,
`--list-settings`, the options of commands, suites, and what means nothing for which model.
Settings are pydantic's dataclasses: checked whenever one is made, by `dataclasses.replace` too.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticKnownError

from ffr.errors import UsageError
from ffr.settings.words import nearest, sentence
from ffr.text import one_line

_ABOUT = "about"
_PARTIAL = "partial"
_NONE_WORDS = ("none", "null", "")

CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)
"""What all settings classes share: no unknown names, no number that is not finite, and checks that
are built when they are first needed, which a help page never does."""


@plain_dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a declaration says beside type, default and words.

    Args:
        low: The least value.
        high: The largest value.
        above: What the value must be more than.
        unit: What the number counts or the text names, as help pages show it: `SECONDS`, `DIR`.
        unset: What holds where a setting that may be none is none.
        of: The kinds of models that have the setting; empty = it is of none in particular.
        needs: Another setting, without which this one means nothing.
        unless: Another setting, beside which this one means nothing.
        of_data: Whether it may change from one data set to the next on the model that is loaded.
        decides_result: Whether another value can give another result; if not, it is no part of
            what a run is.
        by_content: Whether it names data or a model, which a run knows by their fingerprints: they
            may have moved since, so the name is no part of what a run is.
        typed_only: Whether it lets code run, so that only who types the command can set it.
        flag: Its option on the command line; none = made of its name.
        alone: What its option means without a value; none = it needs one.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    unit: str | None = None
    unset: str | None = None
    of: frozenset[str] = frozenset()
    needs: str | None = None
    unless: str | None = None
    of_data: bool = False
    decides_result: bool = True
    by_content: bool = False
    typed_only: bool = False
    flag: str | None = None
    alone: str | None = None

    @property
    def is_of_a_run(self) -> bool:
        """Whether it is a part of what a run is."""
        return self.decides_result and not self.by_content


def setting(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    of: str | Collection[str] = (),
    **more: Any,
) -> Any:
    """Declares a setting: its default, one line that says what it is, and what `About` lists."""
    kinds = frozenset({of} if isinstance(of, str) else of)
    about = About(low=low, high=high, above=above, of=kinds, **more)
    # the one place of a field that pydantic leaves to its users
    extra: Any = {_ABOUT: about}
    return Field(default, ge=low, le=high, gt=above, description=text, json_schema_extra=extra)


@plain_dataclass(frozen=True, slots=True)
class Declared:
    """A setting as it was declared.

    Args:
        name: Its name.
        type: `bool`, `int`, `float`, `str`, `Path`.
        is_optional: Whether it may be none.
        choices: All that it may be, where it is one of few.
        default: Its default.
        text: What it is.
        about: The rest.
    """

    name: str
    type: type[Any]
    is_optional: bool
    choices: tuple[str, ...]
    default: Any
    text: str
    about: About


_known: dict[type[Any], Mapping[str, Declared]] = {}


def declared(kind: type[Settings]) -> Mapping[str, Declared]:
    """The settings of a class by their names, those of its bases first."""
    if kind not in _known:
        _known[kind] = types.MappingProxyType(_declared(kind))
    return _known[kind]


def _declared(kind: type[Settings]) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    for name, info in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
        hint = info.annotation
        union = get_origin(hint) in (Union, types.UnionType)
        options = [
            item for item in (get_args(hint) if union else (hint,)) if item is not type(None)
        ]
        choices = get_args(options[0]) if get_origin(options[0]) is Literal else ()
        found[name] = Declared(
            name,
            str if choices else options[0],
            union and type(None) in get_args(hint),
            choices,
            info.default,
            info.description or "",
            info.json_schema_extra[_ABOUT],
        )
    return found


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Settings:
    """Base of all settings.

    Raises:
        UsageError: on making one, for an unknown name, a value of the wrong type or out of its
            bounds, or values that do not go together.
    """

    @classmethod
    def called(cls, name: str) -> str:
        """What sentences call a setting."""
        return f"setting {name}"

    def check(self) -> None:
        """Rules between settings.

        Raises:
            UsageError: where one is broken.
        """
        for name, item in declared(type(self)).items():
            needed = item.about.needs
            if needed is None or getattr(self, name) == item.default:
                continue
            # a needed 0.0 is there
            if getattr(self, needed) is None or getattr(self, needed) is False:
                raise UsageError(
                    f"{self.called(name)} has no meaning without {self.called(needed)}; give both"
                )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """What pydantic would not read as we do: `none`, `1e3` as a whole number, true as 1."""
        item = declared(cls)[str(info.field_name)]
        if isinstance(value, bool) and item.type in (int, float):
            raise PydanticKnownError("int_type" if item.type is int else "float_type")
        if not isinstance(value, str):
            return value
        if item.is_optional and value.strip().lower() in _NONE_WORDS:
            return None
        if item.type is int:
            try:
                number = float(value)
            except ValueError:
                return value
            # digits alone are left to pydantic: a float would round long ones
            if "e" in value.lower() and number.is_integer():
                return int(number)
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(
        cls, data: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo
    ) -> Any:
        if info.context and _PARTIAL in info.context:
            return handler(data)
        try:
            made = handler(data)
        except ValidationError as error:
            raise UsageError(words_of(cls, error.errors()[0])) from None
        made.check()
        return made


Kind = TypeVar("Kind", bound=Settings)


def words_of(kind: type[Settings], details: ErrorDetails) -> str:
    """The sentence about the first fault that pydantic found in settings."""
    name = str(details["loc"][0]) if details["loc"] else ""
    known = declared(kind)
    if name not in known:
        return f"there is no setting {one_line(name)}{nearest(name, known)}"
    return sentence(details, kind.called(name), known[name].choices)


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def checked(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Some settings of a class, each as its type and within its bounds; rules between them wait.

    Raises:
        ValidationError: pydantic's, which knows the names of what is wrong; see `words_of`.

    >>> from ffr.settings import AnswerConfig
    >>> checked(AnswerConfig, {"window": "100", "overlap": 200})
    {'window': 100, 'overlap': 200}
    """
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    made = _adapters[kind].validate_python(dict(values), context={_PARTIAL: True})
    return {name: getattr(made, name) for name in values}


def describe(kind: type[Settings]) -> list[tuple[str, str, str]]:
    """(name, default, text) of each setting, for `--list-settings`."""
    return [(item.name, str(item.default), _text(item)) for item in declared(kind).values()]


def _text(item: Declared) -> str:
    return item.text if item.about.unset is None else f"{item.text}; none = {item.about.unset}"
