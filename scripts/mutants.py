"""Do the tests notice faults? Puts one fault at a time into a copy of the code and runs the tests that reach it.

    python scripts/mutants.py reach --out REACH
    python scripts/mutants.py run --reach REACH --out benchmarks/results/mutants.json

The faults stand in mutants.yaml. `reach` runs the plain tests once and notes which test runs which line;
`run` needs that file, made from the same code. Existing tools make thousands of faults by rule, many of
which change nothing; these 60 are chosen by hand, so that each survivor is a hole.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from coverage import CoverageData

FAULTS = Path(__file__).with_name("mutants.yaml")
PACKAGES = {"ffr": "ffr", "cli": "ffr/cli", "metrics": "ffr/metrics", "exports": "ffr/exports"}
SECONDS = 400
"""Time limit of one fault's tests; a test that hangs has noticed."""

# keeps the tests whose ids stand in the file that FFR_MUTANT_TESTS names
SELECTION = """
import os

def pytest_collection_modifyitems(config, items):
    with open(os.environ["FFR_MUTANT_TESTS"], encoding="utf-8") as file:
        order = {line.rstrip("\\n"): number for number, line in enumerate(file)}
    items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
"""


@dataclass(frozen=True)
class Fault:
    """One change.

    Args:
        area: Part of the package it stands for in the table.
        function: Name of the function that is changed, with its class or without.
        old: Words that stand in it once.
        new: Words that replace them.
    """

    area: str
    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Place:
    """Where a fault goes: a file under the root, the offset of the words in it, and the lines of the statement."""

    path: Path
    offset: int
    lines: range


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a fault: killed, survived, or that none reaches it."""

    area: str
    function: str
    file: str
    old: str
    new: str
    verdict: str
    num_tests: int
    seconds: float
    noticed_by: str


def read_faults() -> list[Fault]:
    """The faults of mutants.yaml."""
    areas = yaml.safe_load(FAULTS.read_text(encoding="utf-8"))
    return [Fault(area, *map(str, fault)) for area, faults in areas.items() for fault in faults]


def functions_of(
    tree: ast.AST, names: tuple[str, ...] = ()
) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of a module with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if isinstance(node, ast.FunctionDef):
                yield ".".join((*names, node.name)), node
            yield from functions_of(node, (*names, node.name))


def find(root: Path, fault: Fault) -> Place:
    """Where a fault goes.

    Raises:
        LookupError: where its function with its words stands nowhere, or more than once.
    """
    found: list[Place] = []
    for folder in PACKAGES:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if fault.old not in text:
                continue
            starts = [0]
            for line in text.splitlines(keepends=True):
                starts.append(starts[-1] + len(line))
            for name, node in functions_of(ast.parse(text)):
                if name != fault.function and name.rpartition(".")[2] != fault.function:
                    continue
                begin, end = starts[node.body[0].lineno - 1], starts[node.end_lineno or 0]
                if text.count(fault.old, begin, end) != 1:
                    continue
                offset = text.index(fault.old, begin)
                line = sum(start <= offset for start in starts)
                statements = [
                    item
                    for item in ast.walk(node)
                    if isinstance(item, ast.stmt) and item.lineno <= line <= (item.end_lineno or 0)
                ]
                inner = max(statements, key=lambda item: item.lineno)
                found.append(
                    Place(
                        path.relative_to(root),
                        offset,
                        range(inner.lineno, (inner.end_lineno or 0) + 1),
                    )
                )
    if len(found) != 1:
        raise LookupError(
            f"{fault.function}: {fault.old!r} stands in {len(found)} places; correct {FAULTS.name}"
        )
    return found[0]


def tests_of(reach: CoverageData, root: Path, place: Place) -> list[str]:
    """Ids of the tests that run the statement, those of the mirroring folder first."""
    (path,) = [
        name
        for name in reach.measured_files()
        if Path(name).as_posix().endswith(f"/{place.path.as_posix()}")
    ]
    by_line = reach.contexts_by_lineno(path)
    found = {
        context.rpartition("|")[0]
        for line in place.lines
        for context in by_line.get(line, ())
        if "|" in context
    }
    near = f"tests/{place.path.parent.as_posix().removeprefix('ffr/')}/"
    return sorted(found, key=lambda name: (not name.startswith(near), name))


def copy_of(root: Path, folder: Path) -> dict[str, str]:
    """A copy of the tracked files of the checkout, and the environment in which it is what gets imported."""
    tracked = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True
    ).stdout
    for name in tracked.decode().split("\0"):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    package = folder / "package"
    (package / "ffr").mkdir(parents=True)
    for path in (folder / "ffr").iterdir():
        (package / "ffr" / path.name).symlink_to(path)
    for source, target in PACKAGES.items():
        if source != "ffr":
            (package / target).symlink_to(folder / source)
    (package / "mutants_selection.py").write_text(SELECTION, encoding="utf-8")
    return {
        **os.environ,
        "PYTHONPATH": str(package),
        "PYTHONSAFEPATH": "1",  # or the copy's own folder would come first, without the other packages
        "PYTHONDONTWRITEBYTECODE": "1",
        "FFR_MUTANT_TESTS": str(folder / "selected.txt"),
    }


def judge(root: Path, reach: CoverageData, fault: Fault) -> Verdict:
    """Runs the tests that reach a fault in a copy that has it."""
    place = find(root, fault)
    tests = tests_of(reach, root, place)
    begun, noticed_by, verdict = time.monotonic(), "", "survived"
    with tempfile.TemporaryDirectory(prefix="ffr-mutant-") as scratch:
        folder = Path(scratch)
        environment = copy_of(root, folder)
        text = (folder / place.path).read_text(encoding="utf-8")
        changed = text[: place.offset] + fault.new + text[place.offset + len(fault.old) :]
        (folder / place.path).write_text(changed, encoding="utf-8")
        (folder / "selected.txt").write_text(
            "".join(f"{name}\n" for name in tests), encoding="utf-8"
        )
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "mutants_selection"]
        command += ["-p", "no:cacheprovider", "-m", "", f"--basetemp={folder / 'tmp'}", *files]
        if tests:
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                    check=False,
                )
                if done.returncode in (1, 2):
                    verdict = "killed"
                    lines = [
                        line
                        for line in done.stdout.splitlines()
                        if line.startswith(("FAILED", "ERROR"))
                    ]
                    noticed_by = lines[0].split(" - ")[0] if lines else "collection"
                elif done.returncode:
                    raise RuntimeError(
                        f"{fault.function}: pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}"
                    )
            except subprocess.TimeoutExpired:
                verdict, noticed_by = "killed", "time limit"
        else:
            verdict = "reached by no test"
    seconds = round(time.monotonic() - begun, 1)
    return Verdict(
        fault.area, fault.function, place.path.as_posix(), fault.old, fault.new, verdict, len(tests), seconds, noticed_by
    )  # fmt: skip


def record_reach(root: Path, out: Path) -> None:
    """Runs the plain tests and notes which test runs which line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow",
        "-n",
        "auto",
        "--dist",
        "worksteal",
    ]
    command += ["-p", "no:cacheprovider", "--cov=ffr", "--cov-context=test", "--cov-report="]
    # a test that fails has reached its lines all the same
    subprocess.run(
        command, cwd=root, env={**os.environ, "COVERAGE_FILE": str(out.absolute())}, check=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("reach", "run"))
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout"
    )
    parser.add_argument("--reach", type=Path, help="what `reach` wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time")
    parser.add_argument(
        "--skip-missing", action="store_true", help="pass over faults whose words do not stand here"
    )
    arguments = parser.parse_args()
    root: Path = arguments.root.resolve()
    if arguments.action == "reach":
        record_reach(root, arguments.out)
        return
    reach = CoverageData(str(arguments.reach.absolute()))
    reach.read()
    faults = []
    for fault in read_faults():
        try:
            find(root, fault)
        except LookupError as error:
            if not arguments.skip_missing:
                raise SystemExit(str(error)) from error
            print(f"not here: {error}", flush=True)
            continue
        faults.append(fault)
    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for verdict in pool.map(lambda fault: judge(root, reach, fault), faults):
            verdicts.append(verdict)
            print(f"{verdict.verdict:9} {verdict.seconds:6} s {verdict.file} {verdict.function}: "
                  f"{verdict.old!r} → {verdict.new!r}", flush=True)  # fmt: skip
    counts = Counter((verdict.area, verdict.verdict == "killed") for verdict in verdicts)
    print("\n| part | killed | of |\n|---|---:|---:|")
    for area in dict.fromkeys(verdict.area for verdict in verdicts):
        print(f"| {area} | {counts[area, True]} | {counts[area, True] + counts[area, False]} |")
    num_killed = sum(verdict.verdict == "killed" for verdict in verdicts)
    print(f"| all | {num_killed} | {len(verdicts)} |")
    result = {
        "num_killed": num_killed,
        "num_faults": len(verdicts),
        "faults": [asdict(item) for item in verdicts],
    }
    arguments.out.write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
