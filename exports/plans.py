"""What is to be exported of a model.

The part ready to trace, the inputs to trace it with, and what to check it with.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ffr.dialogue import FilePrompt
from ffr.embedding import DualEncoder, SentenceEncoder
from ffr.embedding.prefixes import prefixes_of
from ffr.errors import DataError, ModelError
from ffr.exports.compose import Fragments
from ffr.exports.image_encoders import ClipImages, Siglip2Images, SiglipImages
from ffr.exports.parity import FRAGMENTS, TEXTS, Call, Case, draw_picture, picture_sizes
from ffr.exports.runtime import split_images
from ffr.exports.text_encoders import BertTexts, ClipTexts, SiglipTexts
from ffr.exports.vision_towers import InternVlTower, LlavaTower, QwenTower, SmolVlmTower
from ffr.files import temporary_folder
from ffr.models.vlm import Vlm

_log = logging.getLogger(__name__)

Part = Literal["vision", "text", "image", "fragment", "reader"]
PARTS: tuple[Part, ...] = get_args(Part)
QWEN_KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_MAX_BATCH = 65_536

# -- how the README of each part calls it ----------------------------------------------------------

_VISION_USAGE = """\
from pathlib import Path
from PIL import Image
from transformers import AutoImageProcessor
from ffr.exports.runtime import load_onnx

model = load_onnx(Path("{folder}"), device="cpu")
processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil")
inputs = processor(images=[Image.open("picture.jpg").convert("RGB")], return_tensors="np")
features = model.image_features(inputs)[0]["pooled"]
"""
_ENCODER_USAGE = {
    part: f"""\
from pathlib import Path
from ffr.exports.encoder import load_onnx_encoder

encoder = load_onnx_encoder(Path("{{folder}}"), device="cpu")
vectors = encoder.{call}
"""
    for part, call in {
        "text": 'embed_texts(["a cat on a mat"])',
        "image": 'embed_images(["picture.jpg"])',
        "fragment": 'embed_fragments([["a cat on a mat", Path("picture.jpg")]])',
    }.items()
}


@dataclass(slots=True)
class Plan:
    """What is to be exported.

    Args:
        part: vision, text, image, fragment or reader.
        kind: The model's architecture, by transformers' name.
        name: What the user called the model.
        fingerprint: Names its weights.
        module: The part, ready to trace.
        example: Inputs to trace it with.
        open_axes: For each input its open axes, with the name of each.
        cases: What to check it with, computed when asked for.
        settings: What else the part needs at run time.
        save_preprocessing: Writes the model's preprocessing into a folder.
        usage: Lines of Python for the README.
        towers: For a fragment, the plans whose graphs are put together in the place of tracing the
            module.
        whole_weights: What the names of weights hold that int8 multiplies in float32.
    """

    part: Part
    kind: str
    name: str
    fingerprint: str
    module: nn.Module
    example: dict[str, Tensor]
    open_axes: dict[str, dict[int, Any]]
    cases: Callable[[], Iterator[Case]]
    save_preprocessing: Callable[[Path], None]
    usage: str
    settings: dict[str, Any] = field(default_factory=dict)
    towers: tuple[Plan, ...] = ()
    whole_weights: tuple[str, ...] = ()


# -- vision towers ---------------------------------------------------------------------------------


def plan_vision(vlm: Vlm) -> Plan:
    """The vision tower of a model with its projector.

    Raises:
        ModelError: where its architecture is not one of those that are exported.
    """
    core, kind = vlm.core, str(vlm.base.config.model_type)
    settings: dict[str, Any] = {}
    batch = torch.export.Dim("tiles", min=1, max=_MAX_BATCH)
    if kind in QWEN_KINDS:
        module: nn.Module = QwenTower(core.visual)
        merged = int(core.visual.spatial_merge_size) ** 2
        open_axes: dict[str, dict[int, Any]] = {
            # patches come in blocks that are merged, so their number is a multiple
            "pixel_values": {0: merged * torch.export.Dim("merged_patches", min=1, max=1 << 20)},
            "image_grid_thw": {},
        }
    elif kind == "internvl":
        module, open_axes = InternVlTower(core), {"pixel_values": {0: batch}}
    elif kind == "smolvlm":
        module, open_axes = SmolVlmTower(core), {"pixel_values": {1: batch}}
    elif kind == "llava_onevision":
        module = LlavaTower(core)
        features = torch.export.Dim("features", min=1, max=1 << 20)
        open_axes = {"pixel_values": {1: batch}, "taps": {0: features}, "shares": {0: features}}
        vision = core.config.vision_config
        settings = {
            "pinpoints": [list(size) for size in core.config.image_grid_pinpoints],
            "tile_pixels": int(vision.image_size),
            "side": int(vision.image_size // vision.patch_size),
            "max_tiles": int(str(core.config.vision_aspect_ratio).removeprefix("anyres_max_")),
        }
    else:
        known = ", ".join((*QWEN_KINDS, "internvl", "smolvlm", "llava_onevision"))
        raise ModelError(
            f"is a {kind} model, whose vision tower is not exported; those of {known} are", vlm.name
        )

    def calls_of(paths: Sequence[Path]) -> list[Call]:
        found = []
        for path in paths:
            image = vlm.encode(FilePrompt("<image>"), [path]).images[0]
            assert image.inputs is not None
            # what the language model is given is what the graph must give
            features = vlm.tower.features(image)
            layers = {
                f"deepstack.{number}": layer for number, layer in enumerate(features.deepstack)
            }
            expected = {"pooled": features.pooled, **layers}
            # one picture makes one call
            (inputs,) = split_images(kind, image.inputs, settings)
            found.append(
                Call(
                    inputs, {name: value.float().cpu().numpy() for name, value in expected.items()}
                )
            )
        return found

    with temporary_folder() as folder:
        # more than one tile, and a grid that is not square
        example = calls_of([draw_picture(folder / "example.png", 230, 90, seed=1)])[0].inputs
    processor = vlm.processor.image_processor
    return Plan(
        part="vision",
        kind=kind,
        name=vlm.name,
        fingerprint=vlm.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes=open_axes,
        cases=lambda: _picture_cases(calls_of, vlm.tower.max_image_pixels),
        settings={**settings, "max_image_pixels": vlm.tower.max_image_pixels},
        save_preprocessing=lambda folder: processor.save_pretrained(str(folder)),
        usage=_VISION_USAGE,
    )


def _picture_cases(
    calls_of: Callable[[Sequence[Path]], list[Call]], max_pixels: int
) -> Iterator[Case]:
    with temporary_folder() as folder:
        for number, (name, sizes) in enumerate(picture_sizes(max_pixels)):
            paths = [
                draw_picture(folder / f"{number}-{index}.png", *size, seed=100 * number + index)
                for index, size in enumerate(sizes)
            ]
            yield Case(name, _accepted(calls_of, paths, name))


def _accepted(
    calls_of: Callable[[Sequence[Path]], list[Call]], paths: Sequence[Path], name: str
) -> list[Call]:
    """The calls of pictures, without those that the model's own image processor refuses.

    These are counted in the log.
    """
    try:
        return calls_of(paths)
    except DataError:
        found = []
        for path in paths:
            try:
                found += calls_of([path])
            except DataError as error:
                _log.warning(
                    "parity: a picture of %s is left out, since the model cannot take it: %s",
                    name,
                    error,
                )
        return found


# -- encoders --------------------------------------------------------------------------------------


_ENCODER_MODULES: dict[str, dict[str, Callable[[Any], nn.Module]]] = {
    "text": {
        "clip": ClipTexts,
        "siglip": SiglipTexts,
        "siglip2": SiglipTexts,
        "chinese_clip": lambda model: BertTexts(model.text_model, "cls", model.text_projection),
    },
    "image": {
        "clip": ClipImages,
        "siglip": SiglipImages,
        "siglip2": Siglip2Images,
        "chinese_clip": ClipImages,
    },
}


def plan_encoder(encoder: DualEncoder, part: Literal["text", "image"]) -> Plan:
    """The text or the image tower of a dual encoder with its projection.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    model = encoder.model
    kind = str(model.config.model_type)
    module = _ENCODER_MODULES[part][kind](model)
    saved = (model.config, encoder.tokenizer, encoder.image_processor)
    settings = {"pooling": "the model's own", "normalized": True}
    if part == "text":
        settings |= _text_settings(encoder)
        # SigLIP's texts all have one length
        length = (
            None
            if kind.startswith("siglip")
            else int(model.config.text_config.max_position_embeddings)
        )
        return _plan_texts(encoder, module, max_length=length, settings=settings, saved=saved)

    def calls_of(paths: Sequence[Path]) -> list[Call]:
        vectors = encoder.embed_images(paths)
        return [Call(_taken(module, encoder.image_inputs(paths)), {"embeddings": vectors.numpy()})]

    with temporary_folder() as folder:
        example = calls_of([draw_picture(folder / f"{n}.png", 90, 60, seed=n) for n in range(2)])[
            0
        ].inputs
    batch = torch.export.Dim("images", min=1, max=_MAX_BATCH)
    return Plan(
        part="image",
        kind=kind,
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes={name: {0: batch} for name in example},
        cases=lambda: _picture_cases(calls_of, 512 * 512),
        settings=settings,
        save_preprocessing=_saves(saved),
        usage=_ENCODER_USAGE["image"],
    )


def _text_settings(encoder: DualEncoder | SentenceEncoder) -> dict[str, Any]:
    """How texts become ids, for those who do it without ffr."""
    return {
        "max_text_tokens": encoder.max_text_tokens,
        "is_lowered": isinstance(encoder, SentenceEncoder) and encoder.is_lowered,
        "line_prefix": prefixes_of(encoder).line,
        "query_prefix": prefixes_of(encoder).query,
        "pad_id": encoder.tokenizer.pad_token_id,
        "pad_token": encoder.tokenizer.pad_token,
        # SigLIP was trained on full rows of padding
        "pads_to_longest": str(encoder.model.config.model_type).startswith("siglip"),
    }


def plan_sentence_encoder(encoder: SentenceEncoder) -> Plan:
    """A sentence encoder with its pooling.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    model = encoder.model
    return _plan_texts(
        encoder,
        BertTexts(model, encoder.pooling),
        max_length=int(model.config.max_position_embeddings),
        settings={
            "pooling": encoder.pooling,
            "normalized": True,
            **_text_settings(encoder),
        },
        saved=(model.config, encoder.tokenizer),
        # a few activations of these are so large that one scale for all loses the others: MiniLM's
        # cosine falls to 0.974
        whole_weights=(".perceptron.",),
    )


def _plan_texts(
    encoder: DualEncoder | SentenceEncoder,
    module: nn.Module,
    *,
    max_length: int | None,
    settings: dict[str, Any],
    saved: Sequence[Any],
    whole_weights: tuple[str, ...] = (),
) -> Plan:
    """A part that takes texts.

    Args:
        encoder: What it must equal.
        module: The part.
        max_length: Positions of the longest text; None where all have one length.
        settings: What else it needs at run time.
        saved: What lies beside it: configuration, tokenizer, image processor.
        whole_weights: As `Plan` has it.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    if encoder.tokenizer.padding_side != "right":
        raise ModelError(
            "its tokenizer pads on the left; texts of an exported part are padded on the right",
            encoder.name,
        )

    def call_of(texts: Sequence[str]) -> Call:
        vectors = encoder.embed_texts(texts)
        return Call(_taken(module, encoder.text_inputs(texts)), {"embeddings": vectors.numpy()})

    example = call_of(["a cat on a mat", "a long text about the sea", "x"]).inputs
    open_axes: dict[int, Any] = {0: torch.export.Dim("texts", min=1, max=_MAX_BATCH)}
    if max_length is not None:
        open_axes[1] = torch.export.Dim("length", min=1, max=max_length)
    return Plan(
        part="text",
        kind=str(encoder.model.config.model_type),
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=module,
        example={name: torch.from_numpy(np.array(value)) for name, value in example.items()},
        open_axes={name: dict(open_axes) for name in example},
        cases=lambda: (Case(name, [call_of(texts)]) for name, texts in TEXTS.items()),
        settings=settings,
        save_preprocessing=_saves(saved),
        usage=_ENCODER_USAGE["text"],
        whole_weights=whole_weights,
    )


def _taken(module: nn.Module, given: dict[str, Tensor]) -> dict[str, Any]:
    """What the part takes of an encoder's inputs."""
    return {
        name: given[name].cpu().numpy()
        for name in inspect.signature(module.forward).parameters
        if name in given
    }


def _saves(parts: Sequence[Any]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        for part in parts:
            part.save_pretrained(str(folder))

    return save


def plan_fragment(encoder: DualEncoder) -> Plan:
    """Both towers of a dual encoder in one graph that gives the vector of a whole fragment.

    Raises:
        ModelError: where its tokenizer pads on the left.
    """
    texts, images = towers = plan_encoder(encoder, "text"), plan_encoder(encoder, "image")

    def call_of(lines: Sequence[str], paths: Sequence[Path]) -> Call:
        given = {
            **(encoder.text_inputs(lines) if lines else {}),
            **(encoder.image_inputs(paths) if paths else {}),
        }
        inputs = {
            name: (given[name] if name in given else rows[:0]).cpu().numpy()
            for tower in towers
            for name, rows in tower.example.items()
        }
        return Call(inputs, {"embeddings": encoder.embed_fragments([[*lines, *paths]]).numpy()})

    return Plan(
        part="fragment",
        kind=texts.kind,
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        module=Fragments(texts.module, images.module, encoder.embed_texts([""]).shape[-1]),
        example={**texts.example, **images.example},
        open_axes={**texts.open_axes, **images.open_axes},
        cases=lambda: _fragment_cases(call_of),
        settings={
            "pooling": "mean of the normalised vectors of texts and images, normalised anew",
            "normalized": True,
            **_text_settings(encoder),
        },
        save_preprocessing=texts.save_preprocessing,
        usage=_ENCODER_USAGE["fragment"],
        towers=towers,
    )


def _fragment_cases(call_of: Callable[[Sequence[str], Sequence[Path]], Call]) -> Iterator[Case]:
    with temporary_folder() as folder:
        for number, (name, fragments) in enumerate(FRAGMENTS.items()):
            calls = []
            for index, (texts, sizes) in enumerate(fragments):
                paths = [
                    draw_picture(
                        folder / f"{number}-{index}-{place}.png", *size, seed=1000 * number + place
                    )
                    for place, size in enumerate(sizes)
                ]
                calls.append(call_of(texts, paths))
            yield Case(name, calls)
