"""Files that come with ffr: models, encoders, recipes; data only, imports nothing."""

from __future__ import annotations

from importlib.resources.abc import Traversable


def purposes(folder: Traversable) -> dict[str, str]:
    """The YAML files of a folder by name, with the comment of its first line: what it is for."""
    found: dict[str, str] = {}
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if item.name.endswith(".yaml"):
            first = item.read_text(encoding="utf-8").splitlines()[0]
            found[item.name.removesuffix(".yaml")] = first.lstrip("# ").strip()
    return found
