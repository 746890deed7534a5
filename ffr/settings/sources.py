"""Where the settings of a training come from (recipes, files, `key=value`), and what names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from ffr.errors import UsageError
from ffr.settings.declaration import Settings, checked, declared, words_of
from ffr.settings.stages import StageConfig
from ffr.settings.words import nearest, shown
from ffr.shipped import purposes
from ffr.text import one_line

if TYPE_CHECKING:
    from ffr.settings.yaml import Document

Config = TypeVar("Config", bound=StageConfig)


def recipes(stage: str) -> dict[str, str]:
    """The recipes that come with ffr for a stage, by name, with the first comment line of each."""
    return purposes(resources.files("ffr.shipped.recipes") / stage)


def load_config(
    kind: type[Config],
    *,
    source: str | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """Settings from a recipe or file, then options, then `key=value` texts; later ones win.

    Args:
        kind: The stage's settings.
        source: Name of a recipe, or path of a YAML file; none = what the settings are declared
            with.
        overrides: Texts `key=value` from the command line.
        settings: Values of options with names of their own; None ones are left out.

    Raises:
        UsageError: for an unknown recipe, a file that is no mapping, an unknown key (the nearest
            right one is named), a value of the wrong type or out of bounds, or a file that grants
            what only a person can grant who types the command.

    >>> from ffr.settings import SftConfig
    >>> load_config(SftConfig, overrides=["learning_rat=1"])
    Traceback (most recent call last):
        ...
    ffr.errors.UsageError: -o learning_rat=1: there is no setting learning_rat; \
did you mean learning_rate?
    """
    return load_traced_config(kind, source=source, overrides=overrides, settings=settings)[0]


def load_traced_config(
    kind: type[Config],
    *,
    source: str | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Settings as `load_config` gives them, and where each comes from.

    Args:
        kind: As there, like all others.
        source: As there.
        overrides: As there.
        settings: As there.

    Returns:
        The settings, and by name `default`, `recipe NAME`, the file's path or `command line`.

    Raises:
        UsageError: as there.

    >>> from ffr.settings import SftConfig
    >>> config, origins = load_traced_config(SftConfig, source="tiny", overrides=["seed=3"])
    >>> [(getattr(config, name), origins[name]) for name in ("seed", "batch_size", "max_tokens")]
    [(3, 'command line'), (16, 'recipe tiny'), (15536, 'default')]
    """
    typed = _typed(kind, overrides)
    options = {name: value for name, value in (settings or {}).items() if value is not None}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(declared(kind), "default")
    if source is not None:
        document = _document(kind, source)
        values = _settings_of(kind, document)
        _refuse_grants(kind, values, {**options, **typed}, document)
        origins |= dict.fromkeys(
            values, f"recipe {source}" if source in recipes(kind.stage) else source
        )
    origins |= dict.fromkeys({**options, **typed}, "command line")
    return kind(**{**values, **options, **typed}), origins


def named_model(
    kind: type[StageConfig], overrides: Iterable[str], settings: Mapping[str, Any]
) -> str:
    """The model that a command line without a recipe or file starts from.

    Args:
        kind: The stage's settings.
        overrides: As `load_config` takes them.
        settings: As `load_config` takes them.

    Raises:
        UsageError: where an override is wrong.
    """
    named = _typed(kind, overrides).get("model") or settings.get("model")
    return str(named or declared(kind)["model"].default)


def load_resumed(kind: type[Config], file: Path, overrides: Iterable[str] = ()) -> Config:
    """The settings of a run that is gone on with.

    Args:
        kind: The stage's settings.
        file: Its `config.yaml`.
        overrides: Texts `key=value` from the command line, for this call alone: settings that
            decide no result, those that name data or a model that have moved, and once more what
            lets code run.

    Raises:
        UsageError: where an override would change the result, or a grant in the file is not
            repeated by one.
    """
    config = load_config(kind, source=str(file), overrides=overrides)
    begun = _recorded_config(kind, _document(kind, str(file)))
    for name, item in declared(kind).items():
        before = getattr(begun, name)
        if item.about.is_of_a_run and getattr(config, name) != before:
            raise UsageError(
                f"--resume takes its settings from the run, where {name} is {shown(before)}; "
                f"leave -o {name} out, or start a new run"
            )
    return config


def resumed_fingerprint(config: StageConfig, file: Path, recorded: str) -> str:
    """What names the settings of a run that is gone on with: what its record and checkpoints say.

    Args:
        config: The settings it goes on with.
        file: The run's `config.yaml`.
        recorded: What the run's record says.

    Raises:
        UsageError: where the record names other settings.
    """
    if recorded == config_fingerprint(config):
        return recorded
    kind = type(config)
    document = _document(kind, str(file))
    begun = _recorded_config(kind, document)
    # runs were named by all settings at first, those that decide nothing too
    former = _digest({name: getattr(begun, name) for name in document.value or {}})
    if recorded == former and config_fingerprint(begun) == config_fingerprint(config):
        return recorded
    raise UsageError(
        f"{file}: not the settings that the run began with; restore the file, or start a new run"
    )


def _recorded_config(kind: type[Config], document: Document) -> Config:
    """What a file says, its grants too: to compare with, not to train by."""
    return kind(**_settings_of(kind, document))


def _typed(kind: type[Settings], overrides: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        where = f"-o {one_line(override)}"
        if not equals:
            raise UsageError(f"{where}: write key=value")
        try:
            found |= checked(kind, {name.strip(): value.strip()})
        except ValidationError as error:
            raise UsageError(f"{where}: {words_of(kind, error.errors()[0])}") from None
    return found


def _document(kind: type[StageConfig], source: str) -> Document:
    from ffr.settings.yaml import read_yaml, read_yaml_file

    known = recipes(kind.stage)
    if source in known:
        file = resources.files("ffr.shipped.recipes") / kind.stage / f"{source}.yaml"
        return read_yaml(file.read_text(encoding="utf-8"), source)
    if not Path(source).is_file():
        names = ", ".join(known)
        raise UsageError(f"{source}: neither a recipe ({names}) nor a file{nearest(source, known)}")
    return read_yaml_file(source)


def _settings_of(kind: type[Settings], document: Document) -> dict[str, Any]:
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        document.fail("holds no settings; write `key: value` lines")
    try:
        return checked(kind, document.value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda details: document.line(*details["loc"]))
        is_unknown = first["loc"][0] not in declared(kind)
        document.fail(words_of(kind, first), *first["loc"], of_key=is_unknown)


def _refuse_grants(
    kind: type[Settings],
    values: Mapping[str, Any],
    typed: Mapping[str, Any],
    document: Document,
) -> None:
    """A file may come from someone else, so none lets code run that nobody here named."""
    for name, value in values.items():
        item = declared(kind)[name]
        if item.about.typed_only and value != item.default and name not in typed:
            text = "true" if value is True else shown(value)
            why = f"{name} lets code run, which no file decides on"
            document.fail(f"{why}; if you trust it, say so with -o {name}={text}", name)


def to_yaml(config: StageConfig) -> str:
    """The resolved settings as a file that `--config` reads back."""
    from ffr.settings.yaml import write_yaml

    return write_yaml(asdict(config))


def config_fingerprint(config: StageConfig) -> str:
    """SHA-256 over the settings that decide a result: what a run with it was asked for.

    Data and model are named by fingerprints of their own, wherever they lie.

    >>> from ffr.settings import SftConfig
    >>> here, there = SftConfig(), SftConfig(feature_cache_dir="elsewhere")
    >>> config_fingerprint(here) == config_fingerprint(there)
    True
    """
    known = declared(type(config))
    return _digest(
        {name: value for name, value in asdict(config).items() if known[name].about.is_of_a_run}
    )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()
