"""What stands beside an export: its inputs, its figures, and a call that runs as it is printed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ffr.exports.readme import PROCESSORS, readme_of


def content(**more: Any) -> dict[str, Any]:
    return {
        "dtype": "fp32",
        "opset": 21,
        "inputs": {
            "pixels": {"dtype": "float32", "shape": ["patches", 588]},
            "grid": {"dtype": "int64", "shape": [3]},
        },
        "outputs": {"features": {}, "sizes": {}},
        "providers_tried": ["CPUExecutionProvider", "CUDAExecutionProvider"],
        "tolerance": {"max_difference": 0.001, "min_cosine": 0.9999},
        "parity": [
            {"name": "one image", "num_calls": 3, "max_difference": 2.5e-7, "min_cosine": 1.0},
            {"name": "a strip", "num_calls": 1, "max_difference": 0.00012, "min_cosine": 0.9999994},
        ],
        "processors": PROCESSORS["fp32"],
        "reference": {"max_difference": 0.000123, "min_cosine": 0.99999},
        **more,
    }


def readme(part: str = "vision") -> str:
    plan: Any = SimpleNamespace(
        part=part, name="tiny", kind="A vision tower", usage='load("{folder}")\n'
    )
    return readme_of(plan, content())


def test_figures_and_inputs_are_those_of_the_export() -> None:
    lines = readme().splitlines()
    assert lines[0] == "# vision part of tiny as ONNX"
    assert "- `pixels` float32 (patches, 588)" in lines
    assert "- `grid` int64 (3)" in lines
    assert "Outputs: `features`, `sizes`, float32." in lines
    assert "| one image | 3 | 2.5e-07 | 1.000000 |" in lines
    assert "| a strip | 1 | 1.2e-04 | 0.999999 |" in lines
    text = " ".join(lines)
    assert (
        "(CPUExecutionProvider, CUDAExecutionProvider; allowed: difference 0.001, cosine 0.9999)"
        in text
    )
    assert "(allowed: difference 0.00012, cosine 0.99999)" in text
    assert "A vision tower, fp32, opset 21" in text
    assert "Processors: right on every processor; the last bits follow the order" in text


def test_the_call_is_fenced_and_names_the_folder() -> None:
    text = readme()
    assert text.count("```") == 2
    assert text.split("```")[1] == 'python\nload(".")\n'


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("vision", "A call takes one image."),
        (
            "fragment",
            "A call takes the texts and images of one fragment; one kind may have no rows.",
        ),
        ("text", "A call takes any number of items."),
    ],
)
def test_what_a_call_takes(part: str, sentence: str) -> None:
    assert f"`ffr export onnx`. {sentence}\n" in readme(part)
