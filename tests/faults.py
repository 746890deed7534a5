"""A file system that fails: the N-th call of `ffr.files` does not do its work, or is the last of its process.

`ffr.files` is the one hand that writes, through `os`, `shutil` and `open` as they stand in it; here they are put behind a counter.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ffr import files

COUNTED = ("open", "replace", "mkdir", "makedirs", "unlink", "rmdir", "fsync", "truncate", "chmod")
"""Calls of `os` that change a disk, or open a file to do so."""


class _System:
    """`os`, whose calls of `COUNTED` go past `pass_by` first."""

    def __init__(self, pass_by: Callable[[], None]) -> None:
        self._pass_by = pass_by

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if name not in COUNTED:
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            self._pass_by()
            return found(*arguments, **named)

        return counted


@contextmanager
def counting(at: int | None, strike: Callable[[], None]) -> Iterator[list[int]]:
    """Counts the calls; before the one of number `at`, from 1, `strike` is called.

    Yields:
        The number of calls so far, in a list of one.
    """
    number = [0]

    def pass_by() -> None:
        number[0] += 1
        if number[0] == at:
            strike()

    def opened(*arguments: Any, **named: Any) -> Any:
        pass_by()
        return builtins.open(*arguments, **named)  # noqa: PTH123 - the very function that is stood in for

    files.os, files.open = _System(pass_by), opened  # type: ignore[attr-defined, assignment]
    try:
        yield number
    finally:
        files.os = os  # type: ignore[attr-defined]
        del files.open  # type: ignore[attr-defined]
