"""The suites of `ffr bench run` that come with ffr, as YAML files beside this one."""

from __future__ import annotations

from importlib import resources

from ffr.shipped import purposes


def packaged_suites() -> dict[str, str]:
    """The suites by name, with the first comment line of each.

    >>> "sample" in packaged_suites()
    True
    """
    return purposes(resources.files("ffr.suites"))


def suite_text(name: str) -> str:
    """The file of a suite."""
    return (resources.files("ffr.suites") / f"{name}.yaml").read_text(encoding="utf-8")
