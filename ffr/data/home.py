"""The folder that ffr keeps data in."""

from __future__ import annotations

import os
from pathlib import Path

from ffr.errors import UsageError


def data_home() -> Path:
    """Folder of the named sets: the environment variable FFR_DATA_HOME, or ~/.cache/ffr/data.

    Raises:
        UsageError: where neither is known.
    """
    setting = os.environ.get("FFR_DATA_HOME", "")
    if setting:
        return Path(setting)
    try:
        return Path.home() / ".cache" / "ffr" / "data"
    except RuntimeError:
        raise UsageError(
            "no home folder is known here, so set FFR_DATA_HOME to a folder for the named sets"
        ) from None
