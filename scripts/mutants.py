"""Do the tests notice faults? One at a time goes into a copy of the code, then its tests run.

    python scripts/mutants.py reach --out REACH
    python scripts/mutants.py run --reach REACH --out benchmarks/results/mutants.json

The faults stand in mutants.yaml. `reach` runs the plain tests once and notes which test runs which
line; `run` needs that file, made from the same code, and can be taken up: what its result has as
killed is not judged again. A test that fails without the fault as well has noticed nothing.
Existing tools make thousands of faults by rule, many of which change nothing; these 60 are chosen
by hand, so that each survivor is a hole.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from coverage import CoverageData

FAULTS = Path(__file__).with_name("mutants.yaml")
PACKAGES = {"ffr": "ffr", "cli": "ffr/cli", "metrics": "ffr/metrics", "exports": "ffr/exports"}
LARGE_LIBRARIES = ("torch", "transformers", "lightning", "peft", "torchmetrics", "PIL.Image")
"""Loaded once, before the tests of each fault are run in a fork; none of them imports ffr."""
TEST_SECONDS = 180
"""A test that takes longer than this has noticed the fault, if it does not without it."""
RUN_SECONDS = 3000
"""Time limit of all tests of one fault; what takes longer is not judged."""

# runs the tests whose ids or files stand in selected.txt, in that order, or all; those that fail
# are written into failed.txt
SELECTION = f"""
import faulthandler, os
from pathlib import Path

HERE = Path(os.environ["FFR_MUTANT_FOLDER"])

def pytest_collection_modifyitems(config, items):
    if not (HERE / "selected.txt").exists():
        return
    lines = (HERE / "selected.txt").read_text(encoding="utf-8").splitlines()
    order = {{line: number for number, line in enumerate(lines)}}
    files = {{line for line in lines if "::" not in line}}
    chosen = [
        item for item in items if item.nodeid in order or item.nodeid.partition("::")[0] in files
    ]
    items[:] = sorted(chosen, key=lambda item: order.get(item.nodeid, -1))

def pytest_runtest_logstart(nodeid, location):
    (HERE / "current.txt").write_text(nodeid, encoding="utf-8")
    if (HERE / "selected.txt").exists():
        faulthandler.dump_traceback_later({TEST_SECONDS}, exit=True)

def note_failure(report):
    if report.failed:
        with open(HERE / "failed.txt", "a", encoding="utf-8") as file:
            file.write(report.nodeid + "\\n")

pytest_runtest_logreport = pytest_collectreport = note_failure

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
    """Where a fault goes: a file under the root, the words' offset, the statement's lines."""

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


def tests_of(
    root: Path, reach: CoverageData, failed: set[str], place: Place
) -> tuple[int, list[list[str]]]:
    """How many tests run the statement, and what is run, stage by stage.

    The mirroring file first, whole, so that a test that is new to it needs no new reach; then, of
    its folder and of all others, those that reach the fault.
    """
    found = {
        context.rpartition("|")[0]
        for path in reach.measured_files()
        if Path(path).as_posix().endswith(f"/{place.path.as_posix()}")
        for line, contexts in reach.contexts_by_lineno(path).items()
        if line in place.lines
        for context in contexts
        if "|" in context
    } - failed
    folder = f"tests/{place.path.parent.as_posix().removeprefix('ffr/')}/"
    file = f"{folder}test_{place.path.stem}.py"
    stages = [[file] if (root / file).exists() else []]
    others = {name for name in found if not name.startswith(f"{file}::")}
    for beginning in (folder, ""):
        stages.append(sorted(name for name in others if name.startswith(beginning)))
        others.difference_update(stages[-1])
    return len(found), stages


def copy_of(root: Path, folder: Path) -> dict[str, str]:
    """Copies the tracked files, and gives the environment in which the copy is imported."""
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
        # or the copy's own folder would come first, without the other packages
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FFR_MUTANT_FOLDER": str(folder),
    }


def run_tests(folder: Path, environment: dict[str, str], arguments: list[str]) -> int:
    """Runs pytest in a copy as a fork of this process, which has the large libraries loaded.

    Returns:
        Its exit code; its output stands in output.txt.

    Raises:
        TimeoutError: where it takes longer than `RUN_SECONDS`.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            sys.path.insert(0, environment["PYTHONPATH"])
            with Path("output.txt").open("wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            import pytest

            code = int(pytest.main(arguments))
            sys.stdout.flush()
        finally:
            os._exit(code)
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError


def noticing_test(folder: Path, environment: dict[str, str], tests: list[str]) -> str | None:
    """Runs tests in a copy until one fails, and names it; None where all pass.

    Raises:
        TimeoutError: where they take longer than `RUN_SECONDS`.
    """
    for name in ("failed.txt", "current.txt"):
        (folder / name).unlink(missing_ok=True)
    (folder / "selected.txt").write_text("".join(f"{name}\n" for name in tests), encoding="utf-8")
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    options = ["-x", "-q", "--tb=no", "-p", "mutants_selection", "-p", "no:cacheprovider"]
    code = run_tests(
        folder, environment, [*options, "-m", "not slow", f"--basetemp={folder / 'tmp'}", *files]
    )
    if code in (0, 5):  # 5: all that is there is slow
        return None
    # a test beyond its time ends the process, before it could be noted as failed
    for name in ("failed.txt", "current.txt"):
        if (folder / name).exists():
            return (folder / name).read_text(encoding="utf-8").splitlines()[0]
    output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"pytest ended with {code}:\n{output}")


def judge(
    root: Path, fault: Fault, place: Place, num_tests: int, stages: list[list[str]]
) -> Verdict:
    """Runs the tests that reach a fault, stage by stage, in a copy that has it."""
    begun, noticed_by = time.monotonic(), ""
    verdict = "survived" if any(stages) else "reached by no test"
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
                    (folder / place.path).write_text(text, encoding="utf-8")
                    if noticing_test(folder, environment, [noticed]) is None:
                        verdict, noticed_by = "killed", noticed
                    else:
                        print(f"fails without a fault: {noticed}", flush=True)
                        tests = [name for name in tests if name != noticed]
                        if noticed.partition("::")[0] in tests:
                            raise RuntimeError(f"{noticed} fails without a fault; mend it first")
        except TimeoutError:
            verdict = "not judged in time"
    seconds = round(time.monotonic() - begun, 1)
    return Verdict(
        fault.area, fault.function, place.path.as_posix(), fault.old, fault.new, verdict,
        num_tests, seconds, noticed_by,
    )  # fmt: skip


def judge_item(item: tuple[Path, Fault, Place, int, list[list[str]]]) -> Verdict:
    """`judge` with one argument."""
    return judge(*item)


def record_reach(root: Path, out: Path, tests: list[str], jobs: int) -> None:
    """Runs the plain tests in a copy and notes which test runs which line."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += ["--cov=ffr", "--cov-context=test", "--cov-report=", *tests]
    if jobs > 1:
        command += ["-n", str(jobs), "--dist", "worksteal"]
    failed = Path(f"{out}.failed")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="ffr-reach-") as scratch:
        environment = copy_of(root, Path(scratch))
        environment["COVERAGE_FILE"] = str(out.absolute())
        environment["PYTEST_PLUGINS"] = "mutants_selection"
        subprocess.run(
            [*command, f"--basetemp={scratch}/tmp"], cwd=scratch, env=environment, check=False
        )
        if (found := Path(scratch) / "failed.txt").exists():
            shutil.copy2(found, failed)
            print(f"tests that fail here are left out of the judgement; they stand in {failed}")


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
    reach, failed = CoverageData(no_disk=True), set[str]()
    for path in arguments.reach:
        if not path.is_file():
            raise SystemExit(f"{path} is not there; make it with `reach`")
        part = CoverageData(str(path.absolute()))
        part.read()
        reach.update(part)
        if (beside := Path(f"{path}.failed")).exists():
            failed.update(beside.read_text(encoding="utf-8").splitlines())
    verdicts = read_killed(arguments.out)
    work: list[tuple[Fault, Place, int, list[list[str]]]] = []
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
        work.append((fault, place, *tests_of(root, reach, failed, place)))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in LARGE_LIBRARIES:
        importlib.import_module(name)
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        judged = pool.imap(judge_item, [(root, *item) for item in work])
        for (fault, *_), verdict in zip(work, judged, strict=True):
            verdicts[fault] = verdict
            write(arguments.out, verdicts)
            print(f"{verdict.verdict:9} {verdict.seconds:6} s {verdict.file} {verdict.function}: "
                  f"{verdict.old!r} → {verdict.new!r} "
                  f"{verdict.noticed_by}", flush=True)  # fmt: skip
    counts = Counter((item.area, item.verdict == "killed") for item in verdicts.values())
    print("\n| part | killed | of |\n|---|---:|---:|")
    for area in dict.fromkeys(verdict.area for verdict in verdicts.values()):
        print(f"| {area} | {counts[area, True]} | {counts[area, True] + counts[area, False]} |")


if __name__ == "__main__":
    main()
