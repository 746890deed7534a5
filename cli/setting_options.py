"""Click options made of declared settings: flag, type, bounds, default and help, all said once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ffr.cli.model_options import Option
from ffr.settings import Declared, Settings, declared

_BEFORE_HELP = {
    frozenset({"api"}): "For api: ",
    frozenset({"embedding"}): "For embedding: ",
    frozenset({"embedding", "lines", "encoded-lines"}): "For embedding: and lines: ",
}


def setting_options(
    kind: type[Settings], names: Iterable[str] | None = None, *, of_recipe: bool = False
) -> tuple[Option, ...]:
    """The options of settings.

    Args:
        kind: The class that declares them.
        names: Which of them, in the order of the help page; None = all.
        of_recipe: Whether a recipe gives what is not given: the options then have no defaults.
    """
    known = declared(kind)
    chosen = known if names is None else names
    return tuple(_option(kind, known[name], of_recipe) for name in chosen)


def further_options(kind: type[Settings], named: Iterable[str]) -> tuple[Option, ...]:
    """Options of all settings but those named, which help pages leave out: `--NAME VALUE`.

    Their values are texts, read as those of `-o` are. `--NAME` alone means true.

    Args:
        kind: The class that declares them.
        named: Settings that have options of their own.
    """
    left_out = set(named)
    alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"}
    return tuple(
        click.option(flag_of(item), item.name, hidden=True, **(alone if item.type is bool else {}))
        for item in declared(kind).values()
        if item.name not in left_out
    )


def flag_of(item: Declared) -> str:
    """The option of a setting: `--max-new-tokens` of `max_new_tokens`."""
    return item.about.flag or "--" + item.name.replace("_", "-")


def _option(kind: type[Settings], item: Declared, of_recipe: bool) -> Option:
    flag = flag_of(item)
    default = None if of_recipe else item.default
    more: dict[str, Any] = {}
    if item.type is bool:
        both = item.is_optional or item.default is True
        flag = f"{flag}/--no-{flag.removeprefix('--')}" if both else flag
        more["is_flag"] = True
    else:
        more |= {"type": _click_type(item), "metavar": item.about.unit}
        more["show_default"] = default is not None
    if item.about.alone is not None:
        more |= {"is_flag": False, "flag_value": item.about.alone}
    return click.option(flag, item.name, default=default, help=_help(item, of_recipe), **more)


def _click_type(item: Declared) -> Any:
    about = item.about
    if item.choices:
        return click.Choice(item.choices)
    if item.type is Path or about.unit == "DIR":
        is_folder = about.unit == "DIR"
        return click.Path(file_okay=not is_folder, path_type=Path if item.type is Path else None)
    low = about.low if about.above is None else about.above
    if low is None and about.high is None:
        return item.type
    is_open = about.above is not None
    if item.type is int:
        high = None if about.high is None else int(about.high)
        return click.IntRange(None if low is None else int(low), high, min_open=is_open)
    return click.FloatRange(low, about.high, min_open=is_open)


def _help(item: Declared, of_recipe: bool) -> str:
    text = _BEFORE_HELP.get(item.about.of, "") + item.text
    text = text[0].upper() + text[1:] if text[0].isascii() else text
    if item.about.alone is not None:
        text += f"; alone it means {item.about.alone}"
    text = f"{text}." if not text.endswith(".") else text
    return (
        text if of_recipe or item.about.unset is None else f"{text} [default: {item.about.unset}]"
    )
