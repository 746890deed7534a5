"""The suites of `ffr bench run` that come with ffr, as YAML files beside this one."""

from __future__ import annotations

from importlib import resources


def packaged_suites() -> dict[str, str]:
    """The suites by name, with the first comment line of each.

    >>> "sample" in packaged_suites()
    True
    """
    found: dict[str, str] = {}
    for item in sorted(resources.files("ffr.suites").iterdir(), key=lambda entry: entry.name):
        if item.name.endswith(".yaml"):
            first = item.read_text(encoding="utf-8").splitlines()[0]
            found[item.name.removesuffix(".yaml")] = first.lstrip("# ").strip()
    return found


def suite_text(name: str) -> str:
    """The file of a suite."""
    return (resources.files("ffr.suites") / f"{name}.yaml").read_text(encoding="utf-8")
