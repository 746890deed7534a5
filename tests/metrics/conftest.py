"""Makes the slow references importable, also in processes that the tests spawn."""

from __future__ import annotations
