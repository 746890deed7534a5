"""Do the tests notice faults? Puts one at a time into a copy of the code and runs the tests that reach it.

    python scripts/mutants.py reach --out REACH
    python scripts/mutants.py run --reach REACH --out benchmarks/results/mutants.json

The faults stand in mutants.yaml. `reach` runs the plain tests once and notes which test runs which line;
`run` needs that file, made from the same code, and can be taken up: what its result has as killed is not
judged again. A test that fails without the fault as well has noticed nothing. Existing tools make thousands
of faults by rule, many of which change nothing; these 60 are chosen by hand, so that each survivor is a hole.
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
TEST_SECONDS = 180
"""A test that takes longer than this has noticed the fault, if it does not without it."""
RUN_SECONDS = 3000
"""Time limit of all tests of one fault; what takes longer is not judged."""

# runs the tests whose ids stand in selected.txt, in that order, and writes the one that failed into noticed.txt
SELECTION = f"""
import faulthandler, os
from pathlib import Path

HERE = Path(os.environ["FFR_MUTANT_FOLDER"])

def pytest_collection_modifyitems(config, items):
    lines = (HERE / "selected.txt").read_text(encoding="utf-8").splitlines()
    order = {{line: number for number, line in enumerate(lines)}}
    items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

def pytest_runtest_logstart(nodeid, location):
    (HERE / "current.txt").write_text(nodeid, encoding="utf-8")
    faulthandler.dump_traceback_later({TEST_SECONDS}, exit=True)

def pytest_runtest_logreport(report):
    if report.failed:
        (HERE / "noticed.txt").write_text(report.nodeid, encoding="utf-8")

def pytest_collectreport(report):
    if report.failed:
        (HERE / "noticed.txt").write_text(report.nodeid, encoding="utf-8")

def pytest_sessionfinish(session, exitstatus):
    faulthandler.cancel_dump_traceback_later()
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
    """What the tests said of a fault: killed, survived, reached by no test, not judged in time."""

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


def tests_of(reach: CoverageData, place: Place) -> tuple[list[str], list[str]]:
    """Ids of the tests that run the statement: those of the mirroring folder, and the others."""
    found = {
        context.rpartition("|")[0]
        for path in reach.measured_files()
        if Path(path).as_posix().endswith(f"/{place.path.as_posix()}")
        for line, contexts in reach.contexts_by_lineno(path).items()
        if line in place.lines
        for context in contexts
        if "|" in context
    }
    folder = f"tests/{place.path.parent.as_posix().removeprefix('ffr/')}/"
    file = f"{folder}test_{place.path.stem}.py::"
    near = sorted(
        (name for name in found if name.startswith(folder)),
        key=lambda name: (not name.startswith(file), name),
    )
    return near, sorted(found.difference(near))


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
        "FFR_MUTANT_FOLDER": str(folder),
    }


def noticing_test(folder: Path, environment: dict[str, str], tests: list[str]) -> str | None:
    """Runs tests in a copy until one fails, and names it; None where all pass.

    Raises:
        subprocess.TimeoutExpired: where they take longer than `RUN_SECONDS`.
    """
    for name in ("noticed.txt", "current.txt"):
        (folder / name).unlink(missing_ok=True)
    (folder / "selected.txt").write_text("".join(f"{name}\n" for name in tests), encoding="utf-8")
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "mutants_selection"]
    command += ["-p", "no:cacheprovider", "-m", "", f"--basetemp={folder / 'tmp'}", *files]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        return None
    # a test beyond its time ends the process, before it could be noted as failed
    for name in ("noticed.txt", "current.txt"):
        if (folder / name).exists():
            return (folder / name).read_text(encoding="utf-8")
    raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def judge(root: Path, fault: Fault, place: Place, stages: tuple[list[str], list[str]]) -> Verdict:
    """Runs the tests that reach a fault, in two stages, in a copy that has it."""
    num_tests = sum(map(len, stages))
    begun, noticed_by = time.monotonic(), ""
    verdict = "survived" if num_tests else "reached by no test"
    with tempfile.TemporaryDirectory(prefix="ffr-mutant-") as scratch:
        folder = Path(scratch)
        environment = copy_of(root, folder)
        text = (folder / place.path).read_text(encoding="utf-8")
        changed = text[: place.offset] + fault.new + text[place.offset + len(fault.old) :]
        try:
            for tests in stages:
                while tests and verdict == "survived":
                    (folder / place.path).write_text(changed, encoding="utf-8")
                    noticed = noticing_test(folder, environment, tests)
                    if noticed is None:
                        break
                    its_own = [name for name in tests if f"{name}::".startswith(f"{noticed}::")]
                    (folder / place.path).write_text(text, encoding="utf-8")
                    if noticing_test(folder, environment, its_own) is None:
                        verdict, noticed_by = "killed", noticed
                    else:
                        print(f"fails without a fault: {noticed}", flush=True)
                        tests = [name for name in tests if name not in its_own]
        except subprocess.TimeoutExpired:
            verdict = "not judged in time"
    seconds = round(time.monotonic() - begun, 1)
    return Verdict(
        fault.area, fault.function, place.path.as_posix(), fault.old, fault.new, verdict, num_tests, seconds, noticed_by
    )  # fmt: skip


def record_reach(root: Path, out: Path, tests: list[str], jobs: int) -> None:
    """Runs the plain tests in a copy and notes which test runs which line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += ["--cov=ffr", "--cov-context=test", "--cov-report=", *tests]
    if jobs > 1:
        command += ["-n", str(jobs), "--dist", "worksteal"]
    with tempfile.TemporaryDirectory(prefix="ffr-reach-") as scratch:
        environment = copy_of(root, Path(scratch))
        environment["COVERAGE_FILE"] = str(out.absolute())
        # a test that fails has reached its lines all the same
        subprocess.run(
            [*command, f"--basetemp={scratch}/tmp"], cwd=scratch, env=environment, check=False
        )


def read_killed(out: Path) -> dict[Fault, Verdict]:
    """What an earlier run has found killed; other faults are judged again, as tests may be new."""
    if not out.exists():
        return {}
    known = set(read_faults())
    verdicts = [Verdict(**item) for item in json.loads(out.read_text(encoding="utf-8"))["faults"]]
    found = {Fault(item.area, item.function, item.old, item.new): item for item in verdicts}
    return {
        fault: item for fault, item in found.items() if item.verdict == "killed" and fault in known
    }


def write(out: Path, verdicts: dict[Fault, Verdict]) -> None:
    """Writes the verdicts in the order of the list."""
    items = [verdicts[fault] for fault in read_faults() if fault in verdicts]
    result = {
        "num_killed": sum(item.verdict == "killed" for item in items),
        "num_faults": len(items),
        "faults": [asdict(item) for item in items],
    }
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("reach", "run"))
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout"
    )
    parser.add_argument("--reach", type=Path, nargs="+", help="what `reach` wrote")
    parser.add_argument(
        "--tests", nargs="+", default=["tests"], help="files or folders whose reach is recorded"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="faults, or tests, at a time")
    parser.add_argument("--area", help="only the faults of this part of the list")
    parser.add_argument(
        "--skip-missing", action="store_true", help="pass over faults whose words do not stand here"
    )
    arguments = parser.parse_args()
    root: Path = arguments.root.resolve()
    if arguments.action == "reach":
        record_reach(root, arguments.out, arguments.tests, arguments.jobs)
        return
    if not arguments.reach:
        parser.error("run needs --reach")
    reach = CoverageData(no_disk=True)
    for path in arguments.reach:
        if not path.is_file():
            raise SystemExit(f"{path} is not there; make it with `reach`")
        part = CoverageData(str(path.absolute()))
        part.read()
        reach.update(part)
    verdicts = read_killed(arguments.out)
    work: list[tuple[Fault, Place, tuple[list[str], list[str]]]] = []
    for fault in read_faults():
        if fault in verdicts or arguments.area not in (None, fault.area):
            continue
        try:
            place = find(root, fault)
        except LookupError as error:
            if not arguments.skip_missing:
                raise SystemExit(str(error)) from error
            print(f"not here: {error}", flush=True)
            continue
        # here, since what was read of the reach is of this thread
        work.append((fault, place, tests_of(reach, place)))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        judged = pool.map(lambda item: judge(root, *item), work)
        for (fault, _, _), verdict in zip(work, judged, strict=True):
            verdicts[fault] = verdict
            write(arguments.out, verdicts)
            print(f"{verdict.verdict:9} {verdict.seconds:6} s {verdict.file} {verdict.function}: "
                  f"{verdict.old!r} → {verdict.new!r} {verdict.noticed_by}", flush=True)  # fmt: skip
    counts = Counter((item.area, item.verdict == "killed") for item in verdicts.values())
    print("\n| part | killed | of |\n|---|---:|---:|")
    for area in dict.fromkeys(verdict.area for verdict in verdicts.values()):
        print(f"| {area} | {counts[area, True]} | {counts[area, True] + counts[area, False]} |")


if __name__ == "__main__":
    main()
