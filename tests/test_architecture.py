"""Who may import whom, what stays unimported by `--help`, and what the wheel lists."""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click
import pytest

from ffr.cli.main import ffr

REPOSITORY = Path(__file__).resolve().parent.parent

# who may import whom: the longest prefix of a module's name that stands here is its layer; a layer
# may import its own modules and what is named for it. ARCHITECTURE.md gives the reasons.
_DOORS = {
    "ffr.errors",
    "ffr.dialogue",
    "ffr.answer",
    "ffr.prompt",
    "ffr.progress",
    "ffr.text",
    "ffr.thoughts",
}
MAY_IMPORT: dict[str, set[str]] = {
    "ffr": {
        "ffr.answer",
        "ffr.chats.reading",
        "ffr.collator",
        "ffr.corpus.index",
        "ffr.data.catalog",
        "ffr.report.measured",
        "ffr.retrieval.asking",
    },
    "ffr.chats": {"ffr.dialogue", "ffr.errors", "ffr.files", "ffr.text"},
    "ffr.collator": _DOORS | {"ffr.data.exchange", "ffr.models", "ffr.runs"},
    "ffr.errors": set(),
    "ffr.dialogue": {"ffr.notebook", "ffr.text"},
    "ffr.answer": {"ffr.errors", "ffr.dialogue", "ffr.text", "ffr.thoughts", "ffr.written_ids"},
    "ffr.written_ids": set(),
    "ffr.thoughts": set(),
    "ffr.threads": set(),
    "ffr.prompt": {"ffr.errors", "ffr.dialogue", "ffr.answer", "ffr.text"},
    "ffr.files": {"ffr.errors"},
    "ffr.images": {"ffr.errors", "ffr.text"},
    "ffr.markup": {"ffr.text"},
    "ffr.progress": set(),
    "ffr.provenance": set(),
    "ffr.terminal": {"ffr.text"},
    "ffr.text": set(),
    "ffr.notebook": {"ffr.text"},
    "ffr.hub": {"ffr.errors", "ffr.text"},
    "ffr.parts": {"ffr.images", "ffr.text"},
    "ffr.model_files": {"ffr.errors", "ffr.files", "ffr.text"},
    "ffr.run_log": {"ffr.files"},
    "ffr.runs": {"ffr.errors", "ffr.files", "ffr.shipped", "ffr.text"},
    "ffr.run_summary": {"ffr.errors", "ffr.files", "ffr.run_log", "ffr.runs"},
    "ffr.settings": {"ffr.errors", "ffr.runs", "ffr.shipped", "ffr.text"},
    "ffr.shipped": set(),
    "ffr.world": set(),
    "ffr.metrics": {"ffr.answer", "ffr.dialogue", "ffr.text"},
    "ffr.data": _DOORS | {"ffr.chats", "ffr.files", "ffr.images", "ffr.notebook", "ffr.world"},
    "ffr.models": _DOORS | {"ffr.files", "ffr.images", "ffr.model_files", "ffr.shipped"},
    "ffr.embedding": _DOORS
    | {
        "ffr.data.home",
        "ffr.files",
        "ffr.images",
        "ffr.model_files",
        "ffr.models",
        "ffr.parts",
        "ffr.shipped",
        "ffr.threads",
    },
    "ffr.exports": _DOORS
    | {
        "ffr.data.home",
        "ffr.embedding",
        "ffr.files",
        "ffr.images",
        "ffr.model_files",
        "ffr.models",
        "ffr.parts",
        "ffr.provenance",
        "ffr.reader",
    },
    "ffr.encoders": {
        "ffr.embedding",
        "ffr.errors",
        "ffr.exports",
        "ffr.images",
        "ffr.models",
        "ffr.runs",
    },
    "ffr.reader": _DOORS | {"ffr.files", "ffr.model_files", "ffr.threads"},
    "ffr.rewards": _DOORS
    | {
        "ffr.embedding",
        "ffr.encoders",
        "ffr.images",
        "ffr.metrics",
        "ffr.parts",
        "ffr.settings",
    },
    "ffr.retrieval": _DOORS
    | {
        "ffr.chats",
        "ffr.data",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.files",
        "ffr.images",
        "ffr.metrics",
        "ffr.models",
        "ffr.reader",
        "ffr.runs",
        "ffr.settings",
        "ffr.written_ids",
    },
    "ffr.corpus": _DOORS
    | {
        "ffr.chats",
        "ffr.data.catalog",
        "ffr.data.dataset",
        "ffr.data.home",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.files",
        "ffr.images",
        "ffr.parts",
        "ffr.reader",
        "ffr.retrieval",
        "ffr.runs",
        "ffr.settings",
    },
    "ffr.page": _DOORS | {"ffr.chats", "ffr.corpus", "ffr.files", "ffr.images"},
    "ffr.evaluation": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.files",
        "ffr.markup",
        "ffr.metrics",
        "ffr.models",
        "ffr.provenance",
        "ffr.retrieval",
        "ffr.settings",
    },
    "ffr.training.common": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.files",
        "ffr.images",
        "ffr.markup",
        "ffr.metrics",
        "ffr.model_files",
        "ffr.models",
        "ffr.provenance",
        "ffr.reader",
        "ffr.run_log",
        "ffr.runs",
        "ffr.settings",
    },
    "ffr.training.reader": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.reader",
        "ffr.runs",
        "ffr.settings",
        "ffr.training.common",
    },
    "ffr.training.embedding": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.files",
        "ffr.markup",
        "ffr.reader.background_file",
        "ffr.run_log",
        "ffr.runs",
        "ffr.settings",
        "ffr.training.common",
    },
    "ffr.training.sft": _DOORS
    | {"ffr.data", "ffr.models", "ffr.runs", "ffr.settings", "ffr.training.common"},
    "ffr.training.grpo": _DOORS
    | {
        "ffr.data",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.files",
        "ffr.models",
        "ffr.reader",
        "ffr.retrieval",
        "ffr.rewards",
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
        "ffr.files",
        "ffr.metrics",
        "ffr.provenance",
        "ffr.retrieval",
    },
    "ffr.training.curriculum.order": {"ffr.errors", "ffr.dialogue"},
    "ffr.report": _DOORS
    | {
        "ffr.chats",
        "ffr.corpus",
        "ffr.data",
        "ffr.embedding",
        "ffr.evaluation",
        "ffr.files",
        "ffr.images",
        "ffr.markup",
        "ffr.metrics",
        "ffr.notebook",
        "ffr.provenance",
        "ffr.retrieval",
        "ffr.run_log",
        "ffr.runs",
        "ffr.settings",
        "ffr.terminal",
    },
    "ffr.suites": {
        "ffr.corpus",
        "ffr.data",
        "ffr.dialogue",
        "ffr.errors",
        "ffr.evaluation",
        "ffr.files",
        "ffr.markup",
        "ffr.provenance",
        "ffr.report",
        "ffr.retrieval",
        "ffr.settings",
        "ffr.progress",
        "ffr.shipped",
        "ffr.text",
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


@functools.cache
def _import_statements(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imports_of(path: Path, known: Iterable[str]) -> set[str]:
    """The modules of ours that a file imports anywhere in it.

    `from ffr.x import y` is ffr.x.y where that is a module.
    """
    known, names = set(known), set()
    for node in _import_statements(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & known
            # __version__ is everybody's
            if inner - known - {"ffr.__version__"}:
                names.add(str(node.module))
    return {name for name in names if name == "ffr" or name.startswith("ffr.")}


def layer_of(module: str) -> str:
    return max(
        (name for name in MAY_IMPORT if module == name or module.startswith(f"{name}.")), key=len
    )


def _covers(entry: str, name: str) -> bool:
    return name == entry or (entry != "ffr" and name.startswith(f"{entry}."))


def forbidden_imports(root: Path = REPOSITORY) -> list[str]:
    """Imports that the table does not allow."""
    found, known = [], modules(root)
    for module, path in known.items():
        layer = layer_of(module)
        for name in sorted(imports_of(path, known)):
            own = layer != "ffr" and layer_of(name) == layer
            if not own and not any(
                entry == "*" or _covers(entry, name) for entry in MAY_IMPORT[layer]
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
        used[layer] |= {
            entry for entry in MAY_IMPORT[layer] if any(_covers(entry, name) for name in names)
        }
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


# public for all their underscore
_OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def _names_of_libraries(tree: ast.AST) -> set[str]:
    """What a file calls the modules of others that it imports whole."""
    names = [
        alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    ]
    return {
        alias.asname or alias.name.partition(".")[0]
        for alias in names
        if not alias.name.startswith("ffr")
    }


def private_doors(root: Path = REPOSITORY) -> list[str]:
    """Attributes `x._name` of another package of ours; a library's own `_name` is none of ours."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in modules(root).values()}
    libraries = {path: _names_of_libraries(tree) for path, tree in trees.items()}
    own: dict[Path, set[str]] = {path.parent: set() for path in trees}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own[path.parent].add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own[path.parent].add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own[path.parent].add(node.id)
    ours = set().union(*own.values())
    return [
        f"{path.relative_to(root)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in _OF_NAMED_TUPLES
        and not (
            isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"} | libraries[path]
        )
        and node.attr in ours - own[path.parent]
    ]


def test_nobody_reads_what_is_private_to_another_package() -> None:
    assert private_doors() == []


def test_imports_keep_to_the_table() -> None:
    assert forbidden_imports() == []


def long_classes(most: int) -> list[str]:
    """Classes of more lines than may be."""
    return [
        f"{path.relative_to(REPOSITORY)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for folder in ("ffr", "cli", "metrics", "exports")
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= most
    ]


def test_no_class_outgrows_a_reader() -> None:
    assert long_classes(200) == []
    assert len(long_classes(150)) > 3


def test_every_permission_is_used() -> None:
    assert unused_permissions() == []


def test_no_circle() -> None:
    assert circles() == []


def _copy(tmp_path: Path) -> Path:
    for folder in FOLDERS.values():
        shutil.copytree(
            REPOSITORY / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__", "base"),
        )
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "from ffr import cli",
        "from ffr import training",
        "import ffr.cli.main",
        "from ffr.training import common",
    ],
)
def test_the_guard_sees_an_import_that_is_not_allowed(tmp_path: Path, line: str) -> None:
    root = _copy(tmp_path)
    with (root / "exports" / "onnx.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\ndef lazily() -> None:\n    {line}\n")
    assert [fault.split(",")[0] for fault in forbidden_imports(root)] == [
        "ffr.exports.onnx imports "
        + line.removeprefix("import ").replace("from ", "").replace(" import ", ".")
    ]


def test_the_guard_sees_a_private_door(tmp_path: Path) -> None:
    root = _copy(tmp_path)
    with (root / "exports" / "graph_file.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\ndef read(vlm: Any) -> Any:\n    return vlm._chat, vlm.core.config._attn_implementation\n"
        )
    assert [fault.rpartition(": ")[2] for fault in private_doors(root)] == ["vlm._chat"]


def test_the_guard_sees_a_circle(tmp_path: Path) -> None:
    root = _copy(tmp_path)
    with (root / "exports" / "graph_file.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef lazily() -> None:\n    from ffr.exports import runtime\n")
    (found,) = circles(root)
    assert {"ffr.exports.graph_file", "ffr.exports.runtime"} <= set(found)


def test_the_guard_sees_a_permission_that_nobody_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAY_IMPORT, "ffr.metrics", MAY_IMPORT["ffr.metrics"] | {"ffr.suites"})
    assert unused_permissions() == ["ffr.metrics may import ffr.suites, and does not"]


def test_the_wheel_lists_every_package() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["packages"]
    found = sorted(name for name, path in modules().items() if path.name == "__init__.py")
    assert sorted(listed) == found


NAMED_PATH = re.compile(
    r"`((?:\.ci|benchmarks|cli|docs|exports|ffr|metrics|scripts|tests)/[\w./-]*)`"
)


def missing_paths(text: str) -> list[str]:
    """Files and folders that a text names in backticks and that are not here; NAME and STAGE stand for any."""
    named = {path for path in NAMED_PATH.findall(text) if not re.search("NAME|STAGE", path)}
    return sorted(path for path in named if not (REPOSITORY / path).exists())


def test_every_path_that_architecture_names_is_here() -> None:
    assert missing_paths((REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")) == []


def test_the_guard_sees_a_path_that_is_not_here() -> None:
    text = "`ffr/errors.py`, `ffr/errors`, `docs/NAME.md`, `tests/`, ffr/nothing, `ffr/data/{a,b}`, `cli/no.py`"
    assert missing_paths(text) == ["cli/no.py", "ffr/errors"]


HELP_PAGES = [
    [], ["retrieve"], ["search"], ["serve"], ["index"], ["index", "add"], ["index", "merge"], ["index", "list"], ["index", "verify"], ["index", "compact"], ["index", "forget"], ["index", "people"], ["train"], ["train", "sft"], ["train", "grpo"], ["train", "reader"], ["train", "embedding"], ["curriculum"], ["curriculum", "score"],
    ["compare"], ["gate"], ["report"], ["show"], ["card"], ["push"], ["export"], ["export", "onnx"], ["export", "bench"],
    ["eval"], ["bench"], ["bench", "run"], ["bench", "list"], ["bench", "show"], ["quickstart"],
    ["doctor"], ["completion"], ["runs"], ["runs", "list"], ["runs", "show"], ["runs", "clean"], ["data"],
    *(["data", name] for name in ("check", "example", "import", "stats", "convert", "build", "sample", "download")),
]  # fmt: skip
HEAVY = ["torch", "transformers", "lightning", "peft", "numpy", "torchmetrics", "trl", "matplotlib",
         "yaml", "PIL", "rich"]  # fmt: skip


def help_pages(pages: list[list[str]], before: str = "") -> dict[str, list[object]]:
    """Of each page, asked for one after the other in one fresh interpreter: exit code, whether it is
    a help page, and what it was the first to import of the heavy packages."""
    code = f"""
import contextlib, io, json, sys
{before}
from ffr.cli.main import ffr
seen, found = set(), {{}}
for page in {pages!r}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            ffr.main([*page, "--help"], prog_name="ffr")
        except SystemExit as end:
            code = end.code
    heavy = set({HEAVY!r}) & set(sys.modules) - seen
    seen |= heavy
    usage = " ".join(["Usage: ffr", *page])
    found[" ".join(page)] = [code, said.getvalue().startswith(usage), sorted(heavy)]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


def test_help_imports_nothing_heavy() -> None:
    assert help_pages(HELP_PAGES) == {" ".join(page): [0, True, []] for page in HELP_PAGES}


def test_the_guard_sees_a_heavy_import() -> None:
    assert help_pages([["gate"], ["show"]], before="import yaml") == {
        "gate": [0, True, ["yaml"]],
        "show": [0, True, []],
    }


def _command_pages(command: click.Command, names: list[str]) -> list[list[str]]:
    inner = (
        command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
    )
    pages = [names]
    for name in inner:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        pages += _command_pages(found, [*names, name])
    return pages


def test_every_command_has_its_help_page_looked_at() -> None:
    assert sorted(HELP_PAGES) == sorted(_command_pages(ffr, []))
