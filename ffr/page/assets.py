"""What comes with the page as files: its templates, its style and its scripts."""

from __future__ import annotations

from importlib import resources

import jinja2


def asset(name: str) -> str:
    """A text that comes with the page."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def template(name: str) -> jinja2.Template:
    """A template of the page; every value that goes into it is escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return environment.from_string(asset(name))
