"""The folder that ffr keeps data in."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """Folder of the named sets: the environment variable FFR_DATA_HOME, or ~/.cache/ffr/data."""
    setting = os.environ.get("FFR_DATA_HOME", "")
    return Path(setting) if setting else Path.home() / ".cache" / "ffr" / "data"
