"""A written token starts as few kernels as was counted, and a new cast or a new wait of the host shows here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from script_modules import script

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with script(BENCHMARKS / "rollout_ops.py") as module:
        yield module


def test_what_is_counted(bench: ModuleType) -> None:
    """Kernels but no views; each way of reading a value of the device once."""
    values = torch.arange(6.0)
    with bench.Reads() as reads, bench.Kernels() as kernels:
        twice = (values.view(2, 3).t() * 2).to(torch.bfloat16)  # a view of a view: two kernels
        assert twice.tolist()[2] == [4, 10]
        assert bool(twice.any())
        assert twice.cpu().numel() + len(twice.nonzero()) == 11
    assert kernels.started == {"mul": 1, "_to_copy": 1, "any": 1}
    assert kernels.waits + reads.waits == {"tolist": 1, "_local_scalar_dense": 1, "cpu": 1, "nonzero": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("adapters", "limit"),
    [(torch.float32, 83.3), (torch.bfloat16, 69.3), (None, 41.3)],
    ids=["float32", "bfloat16", "merged"],
)
def test_a_token_costs_no_more_than_was_counted(
    bench: ModuleType, adapters: torch.dtype | None, limit: float
) -> None:
    two, one = (bench.ours(bench.make_policy(layers, adapters)) for layers in (2, 1))
    a_layer = two.num_kernels - one.num_kernels
    assert 30 < a_layer <= limit
    beside = two.num_kernels - 2 * a_layer
    assert beside <= 39
    assert two.waits == {}  # a look every eight tokens, at what was copied eight tokens before
    assert two.looks == 1 / 8
    if adapters is None:
        assert 28 * a_layer + beside <= 1200  # as deep as Qwen2-VL-2B


def test_the_default_nucleus_does_not_have_the_host_look(bench: ModuleType) -> None:
    whole, nucleus = (bench.ours(bench.make_policy(1, None), top_p=top_p) for top_p in (1.0, 0.85))
    assert nucleus.waits == {}
    assert nucleus.num_kernels - whole.num_kernels <= 6


def test_a_pass_of_guesses_starts_little_more(bench: ModuleType) -> None:
    """Nine tokens of each answer: two writes a layer for one, and beside the layers the guesses and what of them is right."""
    two, one = (bench.ours(bench.make_policy(layers, None), guesses=8) for layers in (2, 1))
    a_layer = two.num_kernels - one.num_kernels
    assert a_layer <= 42.1
    assert two.num_kernels - 2 * a_layer <= 108
    assert two.waits == {}


def test_what_is_left_beside_a_graph_of_guesses(bench: ModuleType) -> None:
    one, three = (
        bench.ours(bench.make_policy(layers, None), shapes="graph", guesses=8) for layers in (1, 3)
    )
    assert one.kernels == three.kernels
    assert one.kernels["graph"] == 1
    assert one.num_kernels <= 92
    assert one.waits == {}


def test_what_is_left_beside_a_graph(bench: ModuleType) -> None:
    """However deep the model."""
    one, three = (bench.ours(bench.make_policy(layers, None), shapes="graph") for layers in (1, 3))
    assert one.kernels == three.kernels
    assert one.kernels["graph"] == 1
    assert one.num_kernels <= 20
    assert one.waits == {}
