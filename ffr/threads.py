"""Small sums on one thread: several wait for each other longer than they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch calculates on one thread, and afterwards on as many as before.

    The layers of a small network take some 20 µs each. Where another program has one of the cores,
    threads that share such a layer wait for it to be given back: the whole takes several times as
    long, and on a quiet machine it is no quicker than on one.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    # torch keeps this number for each thread of the process by itself
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
