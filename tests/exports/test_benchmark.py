"""The table of a benchmark, from numbers that were put there."""

from __future__ import annotations

from ffr.exports.benchmark import as_table


def test_a_row_for_each_contender_in_the_units_of_its_header() -> None:
    numbers = {
        "median_seconds": 0.0125,
        "p95_seconds": 0.02,
        "items_per_second": 640.04,
        "peak_bytes": 123_400_000,
    }
    ratios = {"speed_against_torch": 1.5, "cpu_against_torch": 0.25}
    result = {
        "results": [
            {"batch_size": 8, "contenders": {"onnx": {**numbers, **ratios}, "torch": numbers}}
        ]
    }
    head, line, *rows = as_table(result).split("\n")
    assert head == (
        "| batch | contender | median ms | p95 ms | items/s | against torch | by CPU time | peak MB |"
    )
    assert line.count("---") == head.count("|") - 1 == 8
    assert rows == [
        "| 8 | onnx | 12.5 | 20.0 | 640.0 | 1.50× | 0.25× | 123 |",
        "| 8 | torch | 12.5 | 20.0 | 640.0 |  |  | 123 |",
    ]
