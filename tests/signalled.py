"""Processes of ffr that get a signal at an event: at the N-th call of a function, whatever time that takes on a machine.

    run_signalled(["train", "sft"], behind("ffr.run_log:MetricsFile.append", 3), signal.SIGKILL)

The process sends the signal to itself, so that nothing lies between event and signal; one that ends before the event fails the test.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

NO_EVENT = 97
"""Exit status of a process that came to its end before the event."""


@dataclass(frozen=True, slots=True)
class Event:
    """A call of a function.

    Args:
        function: `module:name`, the name with its class.
        number: Which call, from 1.
        when: Whether the signal comes before the call or behind it.
    """

    function: str
    number: int
    when: Literal["before", "behind"]


def before(function: str, number: int) -> Event:
    return Event(function, number, "before")


def behind(function: str, number: int) -> Event:
    return Event(function, number, "behind")


def run_signalled(words: Sequence[str], event: Event, number: signal.Signals) -> int:
    """Runs `ffr WORDS` in a process that gets a signal at an event.

    Returns:
        Its exit status; that of a process killed by signal n is -n.
    """
    place = [
        sys.executable,
        __file__,
        event.function,
        str(event.number),
        event.when,
        str(int(number)),
    ]
    done = subprocess.run([*place, *words], capture_output=True, text=True, check=False)
    assert done.returncode != NO_EVENT, (
        f"it ended before {event}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    )
    assert done.returncode in (-number, 128 + number, 130), (
        f"{done.returncode} at {event}: {done.stderr[-2000:]}"
    )
    return done.returncode


def _main(function: str, number: str, when: str, signal_number: str, *words: str) -> None:
    # the script's folder is no place to import from: the tests' modules are not the program's
    del sys.path[0]
    module, _, name = function.partition(":")
    owner: Any = import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    count = 0

    @functools.wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if when == "before" and count == int(number):
            os.kill(os.getpid(), int(signal_number))
        found = original(*arguments, **options)
        if when == "behind" and count == int(number):
            os.kill(os.getpid(), int(signal_number))
        return found

    setattr(owner, last, call)
    sys.argv = ["ffr", *words]
    try:
        runpy.run_module("ffr.cli.main", run_name="__main__")
    finally:
        if count < int(number):
            os._exit(NO_EVENT)


if __name__ == "__main__":
    _main(*sys.argv[1:])
