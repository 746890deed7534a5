"""The `ffr` command as the benchmarks that train run it: in a process of its own, on one thread, its output in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def ffr(*words: str, log: Path) -> None:
    """Runs the command; its output is added to a file.

    Raises:
        SystemExit: where it fails; what was finished before is not lost.
    """
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "ffr.cli.main", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(
            f"ffr {' '.join(words)} ended with {done.returncode}; see {log}; the same command goes on"
        )
