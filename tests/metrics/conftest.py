"""Makes the slow references importable, also in processes that the tests spawn."""

from __future__ import annotations

import sys
from pathlib import Path

REFERENCES = str(Path(__file__).resolve().parent.parent / "references")
if REFERENCES not in sys.path:
    sys.path.insert(0, REFERENCES)
