"""What the commands that ask chats share."""

from __future__ import annotations

import subprocess
import sys


def test_what_is_imported_first_is_never_looked_through_for_garbage() -> None:
    code = """
import gc
from ffr.cli.chat_options import _uncollected
with _uncollected():
    assert not gc.isenabled()
    import torch
assert gc.isenabled() and gc.get_freeze_count() > 100_000, gc.get_freeze_count()
frozen = gc.get_freeze_count()
kept = [[] for _ in range(1000)]
with _uncollected():
    pass
# a second time nothing is taken out of the collector's sight
assert gc.get_freeze_count() <= frozen and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
