"""Scripts, which no package holds, as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def script(path: Path) -> Iterator[ModuleType]:
    """A script as a module; it finds its neighbours by name, as scripts of one folder do.

    What it and they put among Python's modules and paths is taken out again.
    """
    paths, kept = list(sys.path), _taken_out(path.parent)
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = paths
        _taken_out(path.parent)
        sys.modules.update(kept)


def _taken_out(folder: Path) -> dict[str, ModuleType]:
    """The modules that lie in or below a folder, which are no longer among Python's."""
    found = {
        name: module
        for name, module in sys.modules.items()
        if folder in Path(getattr(module, "__file__", None) or "").parents
    }
    for name in found:
        del sys.modules[name]
    return found
