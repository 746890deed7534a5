"""The README of an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ffr.exports.plain import limits_of
from ffr.exports.plans import Plan
from ffr.exports.reference import REFERENCE_FILE
from ffr.exports.runtime import INFO_FILE

PROCESSORS = {
    "fp32": "right on every processor; the last bits follow the order in which it sums",
    "fp16": "right on every processor; the last bits follow the order in which it sums",
    "int8": "right on every processor, with VNNI and without: weights keep to 7 bits (-64 to 64), "
    "so that no sum of two products "
    "passes the 16 bits that processors without VNNI make it in",
}
"""Where the numbers of each type are right."""


_CALLS = {
    "text": 'embed(texts=["a cat on a mat"])',
    "image": 'embed(images=["picture.jpg"])',
    "fragment": 'embed_fragments([["a cat on a mat", Path("picture.jpg")]])',
}


def readme_of(plan: Plan, content: dict[str, Any], folder: Path, plain: str | None) -> str:
    """The text, in Markdown.

    Args:
        plan: What was exported.
        content: Of `export.json`.
        folder: The export, whole but for this.
        plain: Python that runs it without ffr, as `usage_without_ffr` gives it.
    """
    rows = "\n".join(
        f"| {item['name']} | {item['num_calls']} | {item['max_difference']:.1e} | "
        f"{item['min_cosine']:.6f} |"
        for item in content["parity"]
    )
    inputs = "\n".join(
        f"- `{name}` {entry['dtype']} ({', '.join(str(length) for length in entry['shape'])})"
        for name, entry in content["inputs"].items()
    )
    a_call = {
        "vision": "A call takes one image.",
        "fragment": "A call takes the texts and images of one fragment; one kind may have no rows.",
        "reader": "A call takes the vectors of a dialogue and of any number of queries on it.",
    }.get(plan.part, "A call takes any number of items.")
    without_ffr = (
        "Its inputs are vectors of the encoder that it names, whose text part is an export of its own."
        if plan.part == "reader"
        else "Without ffr its inputs are made by the model's own preparation in transformers, whose "
        "files "
        "lie here."
        if plain is None
        else f"""Without ffr it needs `onnxruntime`, `numpy`, and `tokenizers` for texts, `pillow` for pictures:

```python
{plain}```"""
    )
    usage = plan.usage.format(folder=".")
    if plain is not None and (call := _CALLS.get(plan.part)):
        # ffr itself, without torch and transformers
        usage = f"""\
from pathlib import Path
import ffr.exports

vectors = ffr.exports.load(".").{call}  # a numpy array, one row each
"""
    limits = "".join(
        f"| {name} | {text} |\n"
        for name, text in limits_of(plan.part, folder, content["settings"]).items()
    )
    return f"""# {plan.part} part of {_shown(plan.name)} as ONNX

{plan.kind}, {content["dtype"]}, opset {content["opset"]}, written by `ffr export onnx`. {a_call}
It needs ONNX Runtime: attention and rotary positions are operators of its own.

Inputs:
{inputs}

Outputs: {", ".join(f"`{name}`" for name in content["outputs"])}, float32.

```python
{usage}```

{without_ffr}

| what it takes | |
|---|---|
{limits}
Against torch, on inputs that it was not traced with ({", ".join(content["providers_tried"])}; allowed: difference
{content["tolerance"]["max_difference"]}, cosine {content["tolerance"]["min_cosine"]}):

| input | calls | largest difference / largest value | smallest cosine |
|---|---|---|---|
{rows}

Processors: {content["processors"]}. On a processor where it is opened for the first time, ffr runs the call in `{REFERENCE_FILE}` and
refuses the export where its outputs are not those that lie there (allowed: difference {content["reference"]["max_difference"]:.2g}, cosine
{content["reference"]["min_cosine"]:.5f}).

{"" if plan.part == "reader" else "Measure its speed with `ffr export bench` on this folder. "}Versions and checksums stand in `{INFO_FILE}`.
"""


def _shown(name: str) -> str:
    """A model's name without its place on this machine."""
    path = Path(name)
    if not path.is_dir():
        return name
    # the folder in a run, or in a model that comes with ffr
    return path.parent.name if path.name in ("merged", "base") else path.name
