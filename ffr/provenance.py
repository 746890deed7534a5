"""Where a result comes from.

Versions, command and time, as every run and result file states them.
"""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

PACKAGES = (
    "ffr-vlm", "torch", "lightning", "transformers", "peft", "torchmetrics", "trl",
    "onnxruntime-gpu", "onnxruntime",
    "tokenizers", "safetensors", "numpy", "pillow",
)  # fmt: skip
"""The packages whose versions can change a result."""

_GIT_SECONDS = 5


def versions() -> dict[str, str]:
    """Version of Python, of the platform, and of each package of `PACKAGES` that is installed.

    >>> "torch" in versions()
    True
    """
    return dict(_versions())


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return tuple(found.items())


def command() -> list[str]:
    """The command line of this process, its first word without the folder."""
    return [sys.argv[0].replace("\\", "/").rpartition("/")[2], *sys.argv[1:]]


@functools.cache
def git_hash() -> str | None:
    """The commit of the working folder's repository; None where there is none, or no git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            encoding="ascii",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = done.stdout.strip()
    return found if done.returncode == 0 and found.isalnum() else None


def now() -> str:
    """This moment in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
