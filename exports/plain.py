"""An export without ffr, torch and transformers: what its README shows, and what it takes.

`open_tokenizer`, `texts_as_ids`, `pictures_as_pixels` and `picture_as_patches` stand in the README as they stand here, so
they import nothing of ours. The README shows only what was found equal to the model's own preparation.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ffr.exports.parity import FRAGMENTS, TEXTS, Case, draw_picture
from ffr.exports.runtime import INFO_FILE
from ffr.files import temporary_folder

PREPARATION_FILE = "preprocessor_config.json"
_PICTURE_SIZES = ((90, 60), (61, 123), (40, 40))
_QWEN_KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_FILTERS = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}


def open_tokenizer(folder: str) -> Any:
    """What cuts texts into ids, and pads them on the right."""
    from tokenizers import Tokenizer

    settings = json.loads(Path(folder, "export.json").read_text(encoding="utf-8"))["settings"]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(settings["max_text_tokens"])
    tokenizer.enable_padding(
        pad_id=settings["pad_id"],
        pad_token=settings["pad_token"],
        length=settings["max_text_tokens"] if settings["pads_to_longest"] else None,
    )
    return tokenizer


def texts_as_ids(folder: str, texts: list[str], tokenizer: Any = None) -> dict[str, Any]:
    """The inputs that a text part takes: one row a text."""
    settings = json.loads(Path(folder, "export.json").read_text(encoding="utf-8"))["settings"]
    lowered = [text.lower() if settings["is_lowered"] else text for text in texts]
    rows = (tokenizer or open_tokenizer(folder)).encode_batch(lowered)
    return {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
        "token_type_ids": np.array([row.type_ids for row in rows]),
    }


def pictures_as_pixels(folder: str, pictures: list[PIL.Image.Image]) -> dict[str, Any]:
    """The inputs that an image part takes: one row a picture."""
    how = json.loads(Path(folder, "preprocessor_config.json").read_text(encoding="utf-8"))
    rows = []
    for picture in pictures:
        width, height = picture.size
        short = how["size"].get("shortest_edge")
        if how["do_resize"] and short is not None:
            long = int(short * max(picture.size) / min(picture.size))
            width, height = (short, long) if width <= height else (long, short)
        elif how["do_resize"]:
            width, height = how["size"]["width"], how["size"]["height"]
        picture = picture.convert("RGB").resize((width, height), how["resample"])
        if how.get("do_center_crop"):
            wide, high = how["crop_size"]["width"], how["crop_size"]["height"]
            left, top = (width - wide) // 2, (height - high) // 2
            picture = picture.crop((left, top, left + wide, top + high))
        values = np.asarray(picture, np.float32) * how["rescale_factor"]
        values = (values - how["image_mean"]) / how["image_std"]
        rows.append(values.transpose(2, 0, 1))
    return {"pixel_values": np.stack(rows)}


def picture_as_patches(folder: str, picture: PIL.Image.Image) -> dict[str, Any]:
    """The inputs that a vision tower of Qwen's takes, for one picture."""
    how = json.loads(Path(folder, "preprocessor_config.json").read_text(encoding="utf-8"))
    patch, merge, times = how["patch_size"], how["merge_size"], how["temporal_patch_size"]
    least, most = how["size"]["shortest_edge"], how["size"]["longest_edge"]
    side, (width, height) = patch * merge, picture.size
    wide, high = (round(length / side) * side for length in picture.size)
    if wide * high > most:
        scale = (width * height / most) ** 0.5
        wide, high = (max(side, int(n / scale / side) * side) for n in picture.size)
    elif wide * high < least:
        scale = (least / (width * height)) ** 0.5
        wide, high = (-int(-n * scale // side) * side for n in picture.size)
    picture = picture.convert("RGB").resize((wide, high), how["resample"])
    values = np.asarray(picture, np.float32) * how["rescale_factor"]
    values = ((values - how["image_mean"]) / how["image_std"]).transpose(2, 0, 1)
    rows, columns = high // patch, wide // patch
    shape = (1, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    cut = np.repeat(values.reshape(shape), times, axis=0)
    patches = cut.transpose(2, 5, 3, 6, 1, 0, 4, 7).reshape(rows * columns, -1)
    return {"pixel_values": patches, "image_grid_thw": np.array([[1, rows, columns]])}


def usage_without_ffr(part: str, kind: str, folder: Path, cases: Iterable[Case]) -> str | None:
    """Python for an export that needs ONNX Runtime and small packages only; None where it needs more.

    Args:
        part: vision, text, image or fragment.
        kind: The model's architecture.
        folder: The export, whole but for its README.
        cases: What it was checked with; their texts are prepared once more and compared.
    """
    takes_texts, takes_pictures = part in ("text", "fragment"), part in ("image", "fragment")
    is_patched = part == "vision" and kind in _QWEN_KINDS
    functions: list[Callable[..., Any]] = []
    given = []
    if takes_texts:
        if not _prepares_texts(folder, cases):
            return None
        functions += [open_tokenizer, texts_as_ids]
        given.append('**texts_as_ids(folder, ["a cat on a mat"])')
    if takes_pictures:
        if not _prepares_pictures(folder, lambda at, picture: pictures_as_pixels(at, [picture])):
            return None
        functions.append(pictures_as_pixels)
        given.append("**pictures_as_pixels(folder, [picture])")
    if is_patched:
        if not _prepares_pictures(folder, picture_as_patches):
            return None
        functions.append(picture_as_patches)
        given.append("**picture_as_patches(folder, picture)")
    if not functions:
        return None
    opening = (
        'picture = ImageOps.exif_transpose(PIL.Image.open("picture.jpg"))\n'
        if takes_pictures or is_patched
        else ""
    )
    sources = "\n\n".join(inspect.getsource(function) for function in functions)
    images = "import PIL.Image\nfrom PIL import ImageOps\n" if takes_pictures or is_patched else ""
    return f"""\
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
{images}

{sources}

folder = "."
{opening}given = {{{", ".join(given)}}}
inputs = json.loads(Path(folder, "{INFO_FILE}").read_text(encoding="utf-8"))["inputs"]
session = onnxruntime.InferenceSession(
    f"{{folder}}/model.onnx", providers=["CPUExecutionProvider"]
)
outputs = session.run(
    None, {{name: given[name].astype(entry["dtype"]) for name, entry in inputs.items()}}
)
print(outputs[0].shape)
"""


def limits_of(part: str, folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """What an export takes and how it is prepared, by name, for people.

    Args:
        part: vision, text, image or fragment.
        folder: The export.
        settings: Those of `export.json`.
    """
    rows: dict[str, str] = {}
    if "max_text_tokens" in settings:
        rows["longest text"] = (
            f"{settings['max_text_tokens']} tokens, the special ones among them; longer texts are "
            "cut at their end"
        )
        rows["padding"] = f"on the right with id {settings['pad_id']}, " + (
            "always to the longest text" if settings["pads_to_longest"] else "as far as you like"
        )
        for what in ("line", "query"):
            if settings.get(f"{what}_prefix"):
                rows[f"before a {what}"] = f"`{settings[f'{what}_prefix']}`"
        rows["letters"] = "put into lower case first" if settings["is_lowered"] else "as they are"
    path = folder / PREPARATION_FILE
    if part == "text" or not path.is_file():
        return rows
    how = json.loads(path.read_text(encoding="utf-8"))
    rows["pictures"] = "upright by their EXIF data, RGB; ffr puts see-through parts on white"
    if isinstance(size := how.get("size"), dict):
        rows["size"] = ", ".join(f"{name} {value}" for name, value in size.items() if value)
        rows["size"] += f"; {_FILTERS.get(how.get('resample'), 'bicubic')} resampling"
    if how.get("do_center_crop"):
        rows["crop"] = "the middle {width} × {height}".format(**how["crop_size"])
    if "patch_size" in how:
        rows["patches"] = f"{how['patch_size']} pixels a side" + (
            f", {how['merge_size']} × {how['merge_size']} of them make one output row"
            if "merge_size" in how
            else ""
        )
    if "max_image_pixels" in settings:
        rows["largest picture"] = (
            f"{settings['max_image_pixels']:,} pixels; ffr scales larger ones down (Lanczos) before "
            "all else"
        )
    if "image_mean" in how:
        rows["values"] = (
            f"0 to 255 times {how.get('rescale_factor', 1 / 255):.6g}, less {how['image_mean']}, "
            f"divided by {how['image_std']}"
        )
    return rows


def _prepares_texts(folder: Path, cases: Iterable[Case]) -> bool:
    """Whether texts get the very ids that the model's own tokenizer gave them."""
    if not (folder / "tokenizer.json").is_file():
        return False
    for case in cases:
        if case.name in TEXTS:
            pairs = [(list(TEXTS[case.name]), case.calls[0])]
        else:
            lines = [list(texts) for texts, _ in FRAGMENTS[case.name]]
            pairs = [pair for pair in zip(lines, case.calls, strict=True) if pair[0]]
        for texts, call in pairs:
            found = texts_as_ids(str(folder), texts)
            if any(
                not np.array_equal(found[name], value)
                for name, value in call.inputs.items()
                if name in found
            ):
                return False
    return True


def _prepares_pictures(
    folder: Path, prepare: Callable[[str, PIL.Image.Image], dict[str, Any]]
) -> bool:
    """Whether pictures get the values that the model's own image processor gives them."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(
        str(folder), trust_remote_code=False, backend="pil"
    )
    with temporary_folder() as drawn:
        for number, size in enumerate(_PICTURE_SIZES):
            with PIL.Image.open(draw_picture(drawn / f"{number}.png", *size, seed=number)) as file:
                picture = file.convert("RGB")
            try:
                found = prepare(str(folder), picture)
            except (KeyError, TypeError, ValueError):
                return False  # prepared by other rules than those that are known here
            expected = processor(images=[picture], return_tensors="np")
            if any(
                name not in found
                or found[name].shape != expected[name].shape
                or not np.allclose(found[name], expected[name], atol=1e-4)
                for name in expected
            ):
                return False
    return True
