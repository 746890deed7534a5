"""`ffr export`: towers and encoders as ONNX, checked against torch, and their speed beside it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any, cast

import click

from ffr.cli.output import say


@click.group()
def export() -> None:
    """Write the vision tower or an encoder as ONNX, and measure it."""


@export.command()
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    help="A run, a folder, a hub id, or `tiny`; for encoders also `tiny-clip`; for --part reader "
    "`reader` or a reader's run.",
)
@click.option(
    "--part",
    type=click.Choice(["vision", "text", "image", "fragment", "reader", "all"]),
    required=True,
    help="vision: the tower of an image-text model; text, image: those of an encoder (text alone "
    "for sentence encoders); fragment: both in one graph; reader: a reader's networks, from its "
    "encoder's vectors on; all: what the model has, each in a "
    "folder "
    "of its name.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to write, whole or not at all.",
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="peft adapter to merge in first.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Type of numbers.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the graph is checked.",
)
@click.option(
    "--opset",
    type=int,
    metavar="N",
    help="Version of the standard operators, 18 to 23. [default: 20]",
)
@click.option("--replace", is_flag=True, help="Write over an export that is there.")
def onnx(
    model: str,
    part: str,
    out: Path,
    adapter: Path | None,
    dtype: str,
    device: str,
    opset: int | None,
    replace: bool,
) -> None:
    """Write a part of a model as an ONNX graph that equals it, or nothing."""
    from ffr.embedding import SHIPPED
    from ffr.embedding.packaged import PACKAGED
    from ffr.encoders import ONNX_PREFIX, VLM_PREFIXES
    from ffr.errors import UsageError
    from ffr.exports.onnx import DEFAULT_OPSET, DType, export_all, export_onnx
    from ffr.exports.plans import Part
    from ffr.runs import is_reader, resolve_model

    if model.startswith(tuple(VLM_PREFIXES)):
        raise UsageError(
            f"{model}: pooled states of a vision-language model are not exported; use it as it is, "
            f"or export its vision tower with --model {model.partition(':')[2]} --part vision"
        )
    if part != "all" and (model, part == "vision") in (("tiny", False), ("tiny-clip", True)):
        raise UsageError(
            f"{model} has no part {part}: tiny, a vision-language model, has vision; tiny-clip, an "
            "encoder, has text, "
            "image and fragment"
        )
    if model.startswith(ONNX_PREFIX):
        raise UsageError(f"{model} is an export already; name the model that it came from")
    settings: dict[str, Any] = {
        "dtype": cast("DType", dtype),
        "device": device,
        "opset": DEFAULT_OPSET if opset is None else opset,
        "replace": replace,
    }
    if part == "reader" or is_reader(model):
        if part != "reader" or not is_reader(model):
            raise UsageError(
                f"{model} has no part {part}: a reader has the part reader, and no other model has"
            )
        _tell(
            out,
            export_onnx(resolve_model(model).location, "reader", out, adapter=adapter, **settings),
        )
        return
    if part == "all":
        if adapter is not None:
            raise UsageError("--adapter goes with --part vision")
        # encoders that come with ffr have names of their own
        is_named = model in {**SHIPPED, **PACKAGED}
        found = export_all(model if is_named else resolve_model(model).location, out, **settings)
        for each, content in found.items():
            _tell(out / each, content)
        say(
            f"{out}: {', '.join(found)}  ·  next: ffr export bench "
            f"{quote(str(out / next(iter(found))))}"
        )
        return
    location = resolve_model(model).location if part == "vision" else model
    _tell(out, export_onnx(location, cast("Part", part), out, adapter=adapter, **settings))
    say(f"next: ffr export bench {quote(str(out))}")


def _tell(folder: Path, content: dict[str, Any]) -> None:
    """What was written, and how it compared."""
    worst = max(item["max_difference"] for item in content["parity"])
    least = min(item["min_cosine"] for item in content["parity"])
    num_calls = sum(item["num_calls"] for item in content["parity"])
    say(
        f"{folder}: {content['kind']} {content['part']}, {content['dtype']}, opset "
        f"{content['opset']}; equals torch on {num_calls} calls of {len(content['parity'])} kinds "
        f"(difference at most {worst:.1e}, cosine at least {least:.6f}, "
        f"{content['providers_tried'][0]})"
    )
    if content["dtype"] == "int8":
        say(content["processors"])


@export.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--model", metavar="MODEL", help="The model it came from. [default: as the export says]"
)
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 8),
    show_default=True,
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of each contender.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=10, show_default=True, help="Calls that count."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--image-side",
    type=click.IntRange(1),
    default=224,
    show_default=True,
    help="Pixels of a picture's side.",
)
@click.option(
    "--compile",
    "with_compile",
    is_flag=True,
    help="Beside torch.compile too, which takes minutes to start.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures as JSON."
)
def bench(
    folder: Path,
    model: str | None,
    batch_sizes: tuple[int, ...],
    threads: int,
    rounds: int,
    device: str,
    image_side: int,
    with_compile: bool,
    out: Path | None,
) -> None:
    """Measure an export beside the model it came from, in turns."""
    from ffr.errors import UsageError
    from ffr.exports.benchmark import Load, as_table, run_bench
    from ffr.exports.runtime import check_folder
    from ffr.runs import resolve_model

    info = check_folder(folder)
    if info.part == "reader":
        raise UsageError(
            f"{folder} is the head of a reader, whose time is its encoder's; measure the export of "
            "that (--part text)"
        )
    source = model or str(info.content["source"]["model"])
    if info.part == "vision":
        source = resolve_model(source).location
    load = Load(str(folder), source, batch_sizes, threads, rounds, device, image_side)
    result = run_bench(load, ("onnx", "torch", *(("compile",) if with_compile else ())))
    say(as_table(result))
    if out is not None:
        from ffr.files import replace_json

        replace_json(out, result)
