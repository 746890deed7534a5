"""A file system that fails: any call that changes it can be refused, or be the last of its process.

Calls of `ffr.files` are counted as it makes them, `write` at the level of the system, below every
buffer; of libraries those that Python's audit events tell of (open to write, mkdir, rename, …).

`at_every_call` tries all of them in one run: before a call the process forks, the fork has its call
struck, goes on to its end or dies, and what it leaves is set aside; then the folder is put back as
it was, under the very inodes that the process holds open, and the run goes on to the next call.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ffr.files import disk, replaced, scratch

COUNTED = (
    "open", "replace", "mkdir", "makedirs", "unlink", "rmdir", "fsync", "sync", "truncate", "chmod",
)  # fmt: skip
"""Calls of `os` in `ffr.files` that change a disk, or open a file to do so."""
AUDITED = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Events of libraries that change a disk, beside `open`."""

TAKES_ROOM = {"open", "write", "mkdir", "makedirs", "fsync", "sync"}
"""What a disk that is full refuses; it renames and deletes."""

Strike = Callable[[], None]
Meet = Callable[[str], Strike | None]
"""Is told the name of a call that is about to be made; what it returns is called before it."""


def refuse(number: int) -> Strike:
    """A strike that raises the error of a number, as `errno.ENOSPC`."""

    def strike() -> None:
        raise OSError(number, os.strerror(number))

    return strike


def die() -> None:
    """A strike that ends the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


STAYS_FULL = "disk full from then on"
STRIKES: dict[str, Strike] = {
    "disk full": refuse(errno.ENOSPC),
    STAYS_FULL: refuse(errno.ENOSPC),
    "disk fault": refuse(errno.EIO),
    "no right": refuse(errno.EACCES),
    "killed": die,
}


class _Counter:
    """Calls go past `meet` before they are made; calls within a call are parts of it."""

    def __init__(self, meet: Meet) -> None:
        self._meet = meet
        self.is_within = False

    def call(
        self, name: str, work: Callable[[], Any], torn: Callable[[], Any] | None = None
    ) -> Any:
        """Makes a call, or does the half of it (`torn`) and strikes."""
        if self.is_within:
            return work()
        self.is_within = True
        try:
            strike = self._meet(name)
            if strike is not None:
                if torn is not None:
                    torn()
                strike()
            return work()
        finally:
            self.is_within = False


class _System:
    """A module, some of whose functions go past a counter."""

    def __init__(
        self,
        module: Any,
        counter: _Counter,
        names: tuple[str, ...],
        torn: Callable[..., Any] | None = None,
    ) -> None:
        process = os.getpid()
        self.getpid = lambda: process  # a fork goes on as if it were the run that it was struck in
        self._module, self._counter, self._names, self._torn = module, counter, names, torn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in self._names:
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            torn = None if self._torn is None else partial(self._torn, *arguments)
            try:
                return self._counter.call(name, partial(found, *arguments, **named), torn)
            except OSError:
                if named.get("ignore_errors"):
                    return None
                raise

        return counted


class _Raw(io.FileIO):
    """A file whose writes to the system are counted.

    One that is struck writes half of its bytes and says so, as a system does; the next one fails.
    """

    counter: _Counter
    owed: OSError | None = None

    def write(self, data: Any, /) -> int | None:
        if self.owed is not None:
            error, self.owed = self.owed, None
            raise error
        view, whole = memoryview(data).cast("B"), super().write
        half = view[: len(view) // 2]
        try:
            written: int | None = self.counter.call(
                "write", lambda: whole(view), lambda: whole(half)
            )
        except OSError as error:
            if not half:
                raise
            self.owed, written = error, len(half)
        return written


def _half_removed(folder: Any, **_: Any) -> None:
    for path in sorted(found for found in Path(folder).rglob("*") if not found.is_dir())[::2]:
        path.unlink()


def _callers() -> Iterator[str]:
    """The modules that led to this call, the nearest first."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back


@contextmanager
def counting(meet: Meet, folder: Path) -> Iterator[None]:
    """Has `meet` told of every call of `ffr.files`, and of those of libraries within a folder.

    The listener to libraries cannot be taken away again: it hears until the process ends.
    """
    counter = _Counter(meet)
    root, is_on = Path(folder).absolute(), [True]

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if not is_on[0] or counter.is_within or not (event == "open" or event in AUDITED):
            return
        if any(name.startswith("filelock") for name in _callers()):
            return  # a lock that is being taken cannot be handed to a fork
        path = arguments[0]
        if isinstance(path, int) or path is None:
            return
        if event == "open":
            mode, flags = arguments[1], arguments[2] or 0
            writes = set(mode) & set("wax+") if isinstance(mode, str) else None
            if not (writes or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        if Path(os.fsdecode(path)).absolute().is_relative_to(root):
            counter.call(f"{event} of a library", lambda: None)

    def opened(path: Any, mode: str) -> Any:
        raw = counter.call("open", lambda: _Raw(path, mode.replace("b", "")))
        raw.counter = counter
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    sys.addaudithook(hear)
    hands: tuple[Any, ...] = (disk, scratch, replaced)
    for hand in hands:
        hand.os = _System(os, counter, COUNTED)
        hand.open = opened
    for hand in hands[:2]:
        hand.shutil = _System(shutil, counter, ("rmtree",), _half_removed)
    swap = replaced._swap_names
    replaced._swap_names = lambda *names: counter.call("swap", partial(swap, *names))
    try:
        yield
    finally:
        is_on[0] = False
        for hand in hands:
            hand.os = os
            del hand.open
        for hand in hands[:2]:
            hand.shutil = shutil
        replaced._swap_names = swap


# -- all calls in one run --------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a run ended whose call of a number was struck, and what it left.

    Args:
        number: Which call, from 1.
        call: Its name.
        strike: The name of what struck.
        status: Exit status; that of a process killed by signal n is -n.
        said: What it printed.
        state: Names what it left; a folder of this name under `states` holds it.
    """

    number: int
    call: str
    strike: str
    status: int
    said: str
    state: str


SCRATCH = re.compile(r"\.ffr-[0-9a-f]{6}-[0-9]+-[0-9]+\.part")
"""The part of a scratch file's name that differs from process to process."""


def at_every_call(
    run: Callable[[], tuple[int, str]],
    work: Path,
    states: Path,
    content: Callable[[Path], Mapping[str, Any]],
    strikes: Mapping[str, int],
) -> tuple[int, list[Outcome]]:
    """Runs a command in a child, each of whose calls is struck in a child of its own.

    Args:
        run: Runs the command; gives its exit status and what it said.
        work: The folder that it works in, which is the current one.
        states: An empty folder, which takes what is left: one state of each kind.
        content: What a folder holds, by its paths, without what differs from run to run.
        strikes: Names of `STRIKES`, and which calls each meets: every n-th.

    Returns:
        How many calls a run makes, and what was tried.
    """
    report = states / "report.json"
    child = os.fork()
    if not child:
        code = 99
        try:
            code = _Trial(work, states, content, strikes).all(run, report)
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the run between the strikes ended with {status}"
    found = json.loads(report.read_text())
    return found["calls"], [Outcome(**fields) for fields in found["outcomes"]]


class _Trial:
    def __init__(
        self,
        work: Path,
        states: Path,
        content: Callable[[Path], Mapping[str, Any]],
        strikes: Mapping[str, int],
    ) -> None:
        self._work, self._states, self._content, self._strikes = work, states, content, strikes
        self._outcomes: list[Outcome] = []
        self._calls = 0
        self._is_full = False
        self._said: Path | None = None  # where a struck child says how it ended

    def all(self, run: Callable[[], tuple[int, str]], report: Path) -> int:
        with counting(self._meet, self._work):
            status, said = run()
        if self._said is not None:
            self._said.write_text(said)
            return status
        content = {"calls": self._calls, "outcomes": [asdict(one) for one in self._outcomes]}
        report.write_text(json.dumps(content))
        print(said, flush=True)  # what pytest shows where it went wrong
        return status

    def _meet(self, name: str) -> Strike | None:
        try:
            return self._met(name)
        except BaseException:
            # what goes wrong here is no fault of the disk, for which the command would take it
            os.write(2, traceback.format_exc().encode())
            os._exit(98)

    def _met(self, name: str) -> Strike | None:
        if self._said is not None:
            is_refused = self._is_full and name.partition(" ")[0].removeprefix("os.") in TAKES_ROOM
            return refuse(errno.ENOSPC) if is_refused else None
        self._calls += 1
        for strike, every in self._strikes.items():
            if self._calls % every:
                continue
            said = self._states / f"{self._calls}-{strike}.txt"
            kept = _Kept(self._work, self._states / "kept")
            child = os.fork()
            if not child:
                self._said, self._is_full = said, strike == STAYS_FULL
                signal.alarm(120)
                return STRIKES[strike]
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            words = said.read_text() if said.exists() else ""
            outcome = Outcome(self._calls, name, strike, status, words, self._state())
            self._outcomes.append(outcome)
            kept.put_back()
        return None

    def _state(self) -> str:
        """Sets aside what a child left, where nothing like it has been."""
        numbers = itertools.count()
        digest = hashlib.sha256()
        for path, found in self._content(self._work).items():
            if scratch := SCRATCH.search(path):
                # whatever is in it is of no use to anyone, but for its lock and an older folder
                inner = path[scratch.end() :]
                if inner not in ("", "/.lock") and not inner.endswith(".old"):
                    continue
                path, found = f"{path[: scratch.start()]}-{next(numbers)}{inner}", found is None
            digest.update(f"{path}\0{found!r}\0".encode())
        name = digest.hexdigest()[:16]
        if not (self._states / name).exists():
            shutil.copytree(self._work, self._states / name, symlinks=True)
        return name


class _Kept:
    """A folder as it is, with the files that this process holds open and its places in them."""

    def __init__(self, work: Path, store: Path) -> None:
        self._work, self._store = work, store
        store.mkdir()
        self._folders = [path for path in sorted(work.rglob("*")) if path.is_dir()]
        self._files: list[tuple[Path, Path, bytes]] = []
        for number, path in enumerate(path for path in work.rglob("*") if path.is_file()):
            link = store / str(number)
            os.link(path, link)
            self._files.append((path, link, path.read_bytes()))
        # by their inodes: a file that was put back is deleted for /proc
        inodes = {link.stat().st_ino for _, link, _ in self._files}
        self._offsets = {}
        for handle in range(3, 1024):
            with suppress(OSError):
                if os.fstat(handle).st_ino in inodes:
                    self._offsets[handle] = os.lseek(handle, 0, os.SEEK_CUR)

    def put_back(self) -> None:
        """Undoes whatever a child did."""
        empty(self._work)
        for folder in self._folders:
            folder.mkdir()
        for path, link, data in self._files:
            if link.read_bytes() != data:
                with builtins.open(link, "r+b") as file:  # noqa: PTH123 - the inode stays
                    file.write(data)
                    file.truncate()
            os.link(link, path)
        shutil.rmtree(self._store)
        for handle, offset in self._offsets.items():
            os.lseek(handle, offset, os.SEEK_SET)


def empty(folder: Path) -> None:
    """Deletes all in a folder, which may be the current one."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
