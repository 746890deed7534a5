"""Who may import whom, which modules stay unimported by `--help`, and that the wheel lists every package."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# a module may import from its own layer's list and from those named for it; the longest matching prefix decides
MAY_IMPORT = {
    "ffr": set(),
    "ffr.errors": set(),
    "ffr.provenance": set(),
    "ffr.run_log": {"ffr.errors"},
    "ffr.dialogue": {"ffr.errors"},
    "ffr.answer": {"ffr.errors", "ffr.dialogue"},
    "ffr.prompt": {"ffr.errors", "ffr.dialogue", "ffr.answer"},
    "ffr.images": {"ffr.errors"},
    "ffr.config": {"ffr.errors"},
    "ffr.model_files": {"ffr.errors"},
    "ffr.runs": {"ffr.errors", "ffr.shipped.tiny"},
    "ffr.shipped.recipes": set(),
    "ffr.suites": set(),
    "ffr.metrics": {"ffr.errors"},
    "ffr.data": {"ffr.errors", "ffr.config", "ffr.dialogue", "ffr.answer", "ffr.prompt", "ffr.images"},
    "ffr.models": {
        "ffr.errors",
        "ffr.model_files",
        "ffr.config",
        "ffr.dialogue",
        "ffr.answer",
        "ffr.prompt",
        "ffr.images",
        "ffr.embedding.interface",
    },
}
_BASE = MAY_IMPORT["ffr.data"] | {"ffr.provenance", "ffr.runs", "ffr.run_log"}
MAY_IMPORT |= {
    "ffr.embedding": {"ffr.errors", "ffr.images", "ffr.model_files", "ffr.shipped.tiny_clip"},
    "ffr.encoders": {"ffr.errors", "ffr.embedding", "ffr.exports", "ffr.models", "ffr.runs"},
    "ffr.training.common": _BASE | {"ffr.data", "ffr.models", "ffr.metrics"},
    "ffr.training.sft": _BASE | {"ffr.data", "ffr.models", "ffr.training.common"},
    "ffr.training.grpo": _BASE
    | {
        "ffr.data",
        "ffr.models",
        "ffr.metrics",
        "ffr.training.common",
        "ffr.training.curriculum.order",
        "ffr.embedding",
    },
    "ffr.evaluation": _BASE
    | {"ffr.data", "ffr.models", "ffr.metrics", "ffr.embedding", "ffr.encoders", "ffr.suites", "ffr"},
    "ffr.training.curriculum": _BASE | {"ffr.data", "ffr.models", "ffr.metrics", "ffr.evaluation"},
    "ffr.training.curriculum.order": {"ffr.errors", "ffr.dialogue"},
    "ffr.exports": _BASE | {"ffr.models", "ffr.embedding", "ffr.model_files", "ffr"},
    "ffr.training": _BASE
    | {
        "ffr.data",
        "ffr.models",
        "ffr.metrics",
        "ffr.training.common",
        "ffr.training.sft",
        "ffr.training.grpo",
        "ffr.training.curriculum",
        "ffr.embedding",
        "ffr.encoders",
        "ffr.evaluation",
    },
    "ffr.cli": {"*"},
}
FOLDERS = {"ffr": "ffr", "ffr.cli": "cli", "ffr.metrics": "metrics", "ffr.exports": "exports"}


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names.add(node.module)
    return {name for name in names if name == "ffr" or name.startswith("ffr.")}


def layer_of(module: str) -> str:
    return max((name for name in MAY_IMPORT if module == name or module.startswith(f"{name}.")), key=len)


@pytest.mark.parametrize("module", modules())
def test_imports_keep_to_the_table(module: str) -> None:
    layer = layer_of(module)
    allowed = MAY_IMPORT[layer]
    for name in imports_of(modules()[module]):
        inside = layer != "ffr" and (name == layer or name.startswith(f"{layer}."))
        assert (
            "*" in allowed
            or inside
            or any(name == entry or (entry != "ffr" and name.startswith(f"{entry}.")) for entry in allowed)
        ), f"{module} imports {name}, which {layer} may not"


def test_nobody_imports_the_command_line() -> None:
    for module, path in modules().items():
        if not module.startswith("ffr.cli"):
            assert not any(name.startswith("ffr.cli") for name in imports_of(path)), module


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
