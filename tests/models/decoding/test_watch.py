"""A look shows what was copied at the look before; on a CPU, unless asked otherwise, what is."""

from __future__ import annotations

import torch

from ffr.models.decoding.watch import Watch


def test_every_token_is_seen_at_once_on_a_cpu() -> None:
    watch = Watch(torch.device("cpu"))
    is_open = torch.tensor([True, True])
    assert watch.is_exact
    assert watch.is_due(1)
    assert watch.seen(is_open) == [True, True]
    watch.note(is_open)
    is_open[0] = False
    assert watch.is_due(2)
    assert watch.seen(is_open) == [False, True]


def test_a_look_is_at_the_copy_of_the_look_before() -> None:
    watch = Watch(torch.device("cpu"), 4)
    is_open = torch.tensor([True, True, True])
    seen = []
    for number in range(1, 17):
        if number in (4, 9):
            is_open[(4, 9).index(number)] = False
        if watch.is_due(number):
            seen.append((number, watch.seen(is_open)))
            watch.note(is_open)
    assert seen == [
        (4, [True, True, True]),
        (8, [False, True, True]),
        (12, [False, True, True]),
        (16, [False, False, True]),
    ]
