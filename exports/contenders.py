"""What `ffr export bench` runs in its processes: the graph, eager torch and torch.compile.

Inputs are made once, by a process of their own: what the model's preprocessing gives for drawn
pictures, or for texts of mixed lengths.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ffr.embedding import SentenceEncoder, load_encoder
from ffr.exports.encoder import OnnxTowers, load_dual
from ffr.exports.parity import draw_picture
from ffr.exports.runtime import load_onnx, read_info
from ffr.files import temporary_folder

if TYPE_CHECKING:
    from ffr.exports.benchmark import Load

Calls = list[dict[str, torch.Tensor]]
"""What a call works through: one item for encoders, one an image for towers, one a fragment."""

WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "old",
    "small",
    "dog",
    "cat",
    "car",
    "sea",
    "station",
    "rain",
    "house",
    "tree",
    "market",
    "window",
    "river",
    "bridge",
]
"""What the benchmark's texts are made of."""

TEXTS_PER_FRAGMENT = 4
"""Beside one picture."""

IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender, loaded.

    Args:
        run: The timed call.
        about: What it is.
    """

    run: Callable[[Calls], Any]
    about: dict[str, Any]


def texts(number: int) -> list[str]:
    """Texts of 3 to 39 words, as messages are."""
    rng = np.random.default_rng(number)
    return [" ".join(rng.choice(WORDS, size=int(rng.integers(3, 40)))) for _ in range(number)]


def write_inputs(load: Load, place: Path) -> None:
    """Writes the inputs of every batch size as `SIZE.pt`."""
    part = read_info(Path(load.folder)).part
    with temporary_folder() as scratch:
        side = load.image_side
        paths = [
            draw_picture(scratch / f"{number}.png", side, side, seed=number)
            for number in range(max(load.batch_sizes) if part != "text" else 0)
        ]
        if part == "vision":
            from ffr.dialogue import FilePrompt
            from ffr.models.loading import load_vlm

            vlm = load_vlm(load.model)
            images = [
                vlm.encode(FilePrompt("<image>"), [path]).images[0].inputs or {} for path in paths
            ]
            calls = [
                {name: item[name] for name in item if isinstance(item[name], torch.Tensor)}
                for item in images
            ]
            for size in load.batch_sizes:
                torch.save(calls[:size], place / f"{size}.pt")
            return
        if part == "text":
            text_encoder = load_encoder(load.model)
            for size in load.batch_sizes:
                torch.save([text_encoder.text_inputs(texts(size))], place / f"{size}.pt")
            return
        encoder = load_dual(load.model, part=part)
        for size in load.batch_sizes:
            if part == "image":
                calls = [encoder.image_inputs(paths[:size])]
            else:
                lines = texts(TEXTS_PER_FRAGMENT * size)
                calls = [
                    {
                        **encoder.text_inputs(
                            lines[TEXTS_PER_FRAGMENT * number :][:TEXTS_PER_FRAGMENT]
                        ),
                        **encoder.image_inputs([path]),
                    }
                    for number, path in enumerate(paths[:size])
                ]
            torch.save(calls, place / f"{size}.pt")


def prepare(name: str, load: Load) -> Contender:
    """Loads a contender."""
    folder = Path(load.folder)
    info = read_info(folder)
    if name == "onnx":
        model = load_onnx(folder, device=load.device, num_threads=load.num_threads)
        about = {"provider": model.provider}
        if info.part == "vision":
            return Contender(lambda calls: [model.image_features(call) for call in calls], about)
        if info.part == "fragment":
            return Contender(
                lambda calls: [
                    model.run({name: value.numpy() for name, value in call.items()})
                    for call in calls
                ],
                about,
            )
        towers = OnnxTowers({info.part: model}, None)
        of = towers.get_text_features if info.part == "text" else towers.get_image_features
        return Contender(lambda calls: [of(**call).pooler_output for call in calls], about)
    core, run = _torch_call(info.part, load)
    if info.dtype == "fp16":
        # bytes have no counterpart in eager torch; an int8 export stands beside float32
        core.half()
    if name == "compile":
        run = torch.compile(run, dynamic=True)

    @torch.inference_mode()
    def run_all(calls: Calls) -> list[Any]:
        found = []
        for call in calls:
            given = {
                key: value.to(load.device, core.dtype if value.is_floating_point() else value.dtype)
                for key, value in call.items()
            }
            found.append([value.float().cpu() for value in run(given)])
        return found

    return Contender(
        run_all, {"torch": torch.__version__, "attention": core.config._attn_implementation}
    )


def _torch_call(
    part: str, load: Load
) -> tuple[Any, Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, ...]]]:
    """The model as transformers has it, and what it does with one call's inputs."""
    if part == "vision":
        import inspect

        from ffr.models.loading import load_vlm

        vlm = load_vlm(load.model, device=load.device)
        names = set(inspect.signature(vlm.core.get_image_features).parameters)

        def look(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            known = {name: value for name, value in given.items() if name in names}
            pooled = vlm.core.get_image_features(**known, return_dict=True).pooler_output
            return tuple(pooled)

        return vlm.base, look
    encoder = load_encoder(load.model, device=load.device)
    if isinstance(encoder, SentenceEncoder):
        pooled = encoder.vectors
        return encoder.model, lambda given: (pooled(given),)
    model = encoder.model

    def vectors(of: Callable[..., Any], given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.normalize(of(**given).pooler_output.float(), dim=-1)

    def embed(given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if part == "text":
            return (vectors(model.get_text_features, given),)
        if part == "image":
            return (vectors(model.get_image_features, given),)
        of_image = {name: given[name] for name in given if name in IMAGE_INPUTS}
        of_text = {name: given[name] for name in given if name not in IMAGE_INPUTS}
        rows = torch.cat(
            [vectors(model.get_text_features, of_text), vectors(model.get_image_features, of_image)]
        )
        return (torch.nn.functional.normalize(rows.mean(0, keepdim=True), dim=-1),)

    return model, embed


def serve(name: str, load_content: str, place: str) -> None:
    """A contender's process: answers batch sizes on stdin with the seconds that a call took."""
    from ffr.exports.benchmark import Load, serve_calls

    content = json.loads(load_content)
    load = Load(**{**content, "batch_sizes": tuple(content["batch_sizes"])})
    if name == "inputs":
        serve_calls(lambda: write_inputs(load, Path(place)), None)
        return
    torch.set_num_threads(load.num_threads)
    kept: dict[int, Calls] = {}

    def inputs(size: int) -> Calls:
        if size not in kept:
            kept[size] = torch.load(Path(place) / f"{size}.pt", weights_only=True)
        return kept[size]

    serve_calls(lambda: prepare(name, load), inputs)
