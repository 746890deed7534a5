"""What stands beside an export: its inputs, its figures, and a call that runs as it is printed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ffr.exports import readme as readme_module
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
        "settings": {"side": 14},
        "reference": {"max_difference": 0.000123, "min_cosine": 0.99999},
        **more,
    }


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is asked about the use without ffr and about limits; `plain` is the answer."""
    found: dict[str, Any] = {}

    def limits(part: str, folder: Path, settings: dict[str, Any]) -> dict[str, str]:
        found["limits"] = (part, folder, settings)
        return {"longest text": "77 tokens", "pictures": "any size"}

    monkeypatch.setattr(readme_module, "limits_of", limits)
    return found


FOLDER = Path("/export")


def readme(
    part: str = "vision", name: str = "tiny", plain: str | None = "import onnxruntime\n"
) -> str:
    plan: Any = SimpleNamespace(
        part=part, name=name, kind="A vision tower", usage='load("{folder}")\n'
    )
    return readme_of(plan, content(), FOLDER, plain)


@pytest.mark.usefixtures("given")
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


@pytest.mark.usefixtures("given")
def test_the_calls_are_fenced_with_ffr_and_without() -> None:
    fenced = readme().split("```")
    assert len(fenced) == 5
    assert fenced[1] == 'python\nload(".")\n'
    assert fenced[3] == "python\nimport onnxruntime\n"
    found = readme(plain=None)
    assert len(found.split("```")) == 3
    assert "made by the model's own preparation in transformers, whose files lie here." in found
    for part, call in (("text", 'embed(texts=["a cat'), ("image", 'embed(images=["picture.jpg"])')):
        assert f'ffr.exports.load(".").{call}' in readme(part).split("```")[1]
        assert readme(part, plain=None).split("```")[1] == 'python\nload(".")\n'


def test_what_it_takes_is_a_table(given: dict[str, Any]) -> None:
    assert "| longest text | 77 tokens |\n| pictures | any size |\n" in readme()
    assert given["limits"] == ("vision", FOLDER, {"side": 14})


def test_a_models_folder_is_named_without_its_place(given: dict[str, Any], tmp_path: Path) -> None:
    for folder, name in (
        (tmp_path / "mine", "mine"),
        (tmp_path / "sft-tiny-001" / "merged", "sft-tiny-001"),
        (tmp_path / "tiny" / "base", "tiny"),
    ):
        folder.mkdir(parents=True)
        assert readme(name=str(folder)).startswith(f"# vision part of {name} as ONNX\n")
    assert readme(name="org/base").startswith("# vision part of org/base as ONNX\n")


@pytest.mark.usefixtures("given")
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
