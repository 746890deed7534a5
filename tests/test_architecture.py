"""Who may import whom, which modules stay unimported by `--help`, and that the wheel lists every package."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# who may import whom: the longest prefix of a module's name that stands here is its layer; a layer may import its own
# modules and what is named for it. ARCHITECTURE.md gives the reasons.
_DOORS = {"ffr.errors", "ffr.dialogue", "ffr.answer", "ffr.prompt"}
MAY_IMPORT: dict[str, set[str]] = {
    "ffr": set(),
    "ffr.errors": set(),
    "ffr.dialogue": {"ffr.errors"},
    "ffr.answer": {"ffr.errors", "ffr.dialogue"},
    "ffr.prompt": {"ffr.errors", "ffr.dialogue", "ffr.answer"},
    "ffr.files": {"ffr.errors"},
    "ffr.images": {"ffr.errors"},
    "ffr.markup": set(),
    "ffr.progress": set(),
    "ffr.provenance": set(),
    "ffr.model_files": {"ffr.errors"},
    "ffr.run_log": {"ffr.errors"},
    "ffr.runs": {"ffr.errors", "ffr.shipped"},
    "ffr.settings": {"ffr.errors"},
    "ffr.shipped": set(),
    "ffr.metrics": {"ffr.errors"},
    "ffr.data": _DOORS | {"ffr.files", "ffr.images"},
    "ffr.models": _DOORS | {"ffr.images", "ffr.model_files", "ffr.embedding.interface", "ffr.shipped"},
    "ffr.embedding": _DOORS | {"ffr.images", "ffr.model_files", "ffr.models", "ffr.shipped"},
    "ffr.exports": _DOORS
    | {"ffr.data.catalog", "ffr.embedding", "ffr.files", "ffr.model_files", "ffr.models", "ffr.provenance"},
    "ffr.encoders": {"ffr.embedding", "ffr.errors", "ffr.exports", "ffr.models", "ffr.runs"},
    "ffr.retrieval": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.files",
        "ffr.images",
        "ffr.metrics",
        "ffr.models",
        "ffr.progress",
        "ffr.runs",
        "ffr.settings",
    },
    "ffr.evaluation": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.files",
        "ffr.markup",
        "ffr.metrics",
        "ffr.progress",
        "ffr.provenance",
        "ffr.retrieval",
    },
    "ffr.training.common": _DOORS
    | {
        "ffr.data",
        "ffr.metrics",
        "ffr.models",
        "ffr.provenance",
        "ffr.run_log",
        "ffr.runs",
        "ffr.settings",
    },
    "ffr.training.sft": _DOORS | {"ffr.data", "ffr.models", "ffr.runs", "ffr.settings", "ffr.training.common"},
    "ffr.training.grpo": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.metrics",
        "ffr.models",
        "ffr.retrieval",
        "ffr.run_log",
        "ffr.runs",
        "ffr.settings",
        "ffr.training.common",
        "ffr.training.curriculum",
    },
    "ffr.training.curriculum": _DOORS
    | {
        "ffr.run_log",
        "ffr.training.curriculum.order",
        "ffr.data",
        "ffr.evaluation",
        "ffr.files",
        "ffr.metrics",
        "ffr.progress",
        "ffr.provenance",
        "ffr.retrieval",
    },
    "ffr.training.curriculum.order": {"ffr.errors", "ffr.dialogue"},
    "ffr.report": _DOORS
    | {
        "ffr.data",
        "ffr.evaluation",
        "ffr.files",
        "ffr.images",
        "ffr.metrics",
        "ffr.provenance",
        "ffr.retrieval",
        "ffr.run_log",
        "ffr.runs",
    },
    "ffr.suites": {
        "ffr.data",
        "ffr.errors",
        "ffr.evaluation",
        "ffr.files",
        "ffr.markup",
        "ffr.provenance",
        "ffr.report",
        "ffr.retrieval",
        "ffr.settings",
    },
    "ffr.cli": {"*"},
}
FOLDERS = {"ffr": "ffr", "ffr.cli": "cli", "ffr.metrics": "metrics", "ffr.exports": "exports"}


def modules(root: Path = REPOSITORY) -> dict[str, Path]:
    """Every module by its name, with its file."""
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports_of(path: Path, known: Iterable[str]) -> set[str]:
    """The modules of ours that a file imports anywhere in it; `from ffr.x import y` is ffr.x.y where that is a module."""
    known, names = set(known), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & known
            if inner - known:
                names.add(str(node.module))
    return {name for name in names if name == "ffr" or name.startswith("ffr.")}


def layer_of(module: str) -> str:
    return max((name for name in MAY_IMPORT if module == name or module.startswith(f"{name}.")), key=len)


def _covers(entry: str, name: str) -> bool:
    return name == entry or (entry != "ffr" and name.startswith(f"{entry}."))


def forbidden_imports(root: Path = REPOSITORY) -> list[str]:
    """Imports that the table does not allow."""
    found, known = [], modules(root)
    for module, path in known.items():
        layer = layer_of(module)
        for name in sorted(imports_of(path, known)):
            own = layer != "ffr" and layer_of(name) == layer
            # __version__ is everybody's
            if (
                not own
                and name != "ffr"
                and not any(entry == "*" or _covers(entry, name) for entry in MAY_IMPORT[layer])
            ):
                found.append(f"{module} imports {name}, which {layer} may not")
    return found


def unused_permissions(root: Path = REPOSITORY) -> list[str]:
    """Entries of the table that nobody uses."""
    used: dict[str, set[str]] = {layer: set() for layer in MAY_IMPORT}
    known = modules(root)
    for module, path in known.items():
        layer = layer_of(module)
        names = imports_of(path, known)
        used[layer] |= {entry for entry in MAY_IMPORT[layer] if any(_covers(entry, name) for name in names)}
    shared = set(_DOORS)  # handed out as one
    return [
        f"{layer} may import {entry}, and does not"
        for layer, entries in MAY_IMPORT.items()
        for entry in sorted(entries - used[layer] - shared - {"*"})
    ]


def circles(root: Path = REPOSITORY) -> list[list[str]]:
    """Groups of modules that import each other in a circle, lazy imports counted."""
    known = modules(root)
    graph = {module: imports_of(path, known) & set(known) for module, path in known.items()}
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        return [list(error.args[1])]
    return []


def test_imports_keep_to_the_table() -> None:
    assert forbidden_imports() == []


def test_every_permission_is_used() -> None:
    assert unused_permissions() == []


def test_no_circle() -> None:
    assert circles() == []


def _copy(tmp_path: Path) -> Path:
    for folder in FOLDERS.values():
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "base"))
    return tmp_path


@pytest.mark.parametrize(
    "line",
    ["from ffr import cli", "from ffr import training", "import ffr.cli.main", "from ffr.training import common"],
)
def test_the_guard_sees_an_import_that_is_not_allowed(tmp_path: Path, line: str) -> None:
    root = _copy(tmp_path)
    with (root / "exports" / "onnx.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef lazily() -> None:\n    {line}\n")
    assert [fault.split(",")[0] for fault in forbidden_imports(root)] == [
        "ffr.exports.onnx imports " + line.removeprefix("import ").replace("from ", "").replace(" import ", ".")
    ]


def test_the_guard_sees_a_circle(tmp_path: Path) -> None:
    root = _copy(tmp_path)
    with (root / "exports" / "graph_file.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef lazily() -> None:\n    from ffr.exports import runtime\n")
    (found,) = circles(root)
    assert {"ffr.exports.graph_file", "ffr.exports.runtime"} <= set(found)


def test_the_guard_sees_a_permission_that_nobody_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MAY_IMPORT, "ffr.metrics", MAY_IMPORT["ffr.metrics"] | {"ffr.suites"})
    assert unused_permissions() == ["ffr.metrics may import ffr.suites, and does not"]


def test_the_wheel_lists_every_package() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    found = sorted(name for name, path in modules().items() if path.name == "__init__.py")
    assert sorted(listed) == found


HELP_PAGES = [
    [], ["train"], ["train", "sft"], ["train", "grpo"], ["curriculum"], ["curriculum", "score"], ["compare"], ["gate"], ["report"], ["show"], ["export"], ["export", "onnx"], ["export", "bench"], ["eval"], ["bench"], ["bench", "run"], ["bench", "list"], ["bench", "show"], ["quickstart"], ["doctor"], ["completion"], ["data"],
    *(["data", name] for name in ("check", "stats", "convert", "build", "sample", "download")),
]  # fmt: skip


@pytest.mark.parametrize("page", HELP_PAGES, ids=lambda page: " ".join(page) or "ffr")
def test_help_imports_nothing_heavy(page: list[str]) -> None:
    code = (
        "import sys\n"
        "from ffr.cli.main import ffr\n"
        f"sys.argv = ['ffr', *{page!r}, '--help']\n"
        "try:\n    ffr.main(prog_name='ffr')\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'lightning', 'peft', 'numpy', 'torchmetrics', 'trl', 'matplotlib', 'yaml'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: ffr" in done.stdout
