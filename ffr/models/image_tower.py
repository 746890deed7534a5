"""The image side of a model: from a picture's file to the features that its language model reads.

Images go through the vision tower one at a time, so that a feature from a cache is the very bits
that the tower would have given.

Shapes: H hidden size of the language model.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffr.errors import DataError
from ffr.images import LoadedPicture, Location, image_digest, open_image, scaled_size
from ffr.models.features import ImageFeatureCache, ImageFeatures, arithmetic
from ffr.models.rows import EncodedImage
from ffr.text import one_line


class ImageTower:
    """A model's image processor and frozen vision tower, with the features it gave kept by content.

    Args:
        base: The transformers model, without an adapter's wrapper.
        processor: Its processor: image processor and image tokens.
        max_image_pixels: Larger images are scaled down.
    """

    def __init__(self, base: Any, processor: Any, *, max_image_pixels: int) -> None:
        self._base = base
        self._processor = processor
        self.max_image_pixels = max_image_pixels
        self.cache: ImageFeatureCache | None = None
        """Where features are kept; None computes them anew each time."""
        # what the processor always asks of its image processor (SmolVLM: rows, columns of tiles)
        options = getattr(type(processor), "images_kwargs", None)
        self._options: dict[str, Any] = dict(options or {})
        self._arguments = set(inspect.signature(base.model.get_image_features).parameters)
        image_processor = getattr(processor, "image_processor", None)
        input_names = getattr(image_processor, "model_input_names", None) or ()
        self._counts_images = "batch_num_images" in input_names
        self._num_tokens: dict[
            tuple[tuple[int, int], bool], int
        ] = {}  # by size, and whether among several
        self._texts: dict[str, str] = {}  # what stands for an image in a prompt, by its digest
        self._digests: dict[tuple[str, int, int], str] = {}
        self._fingerprint: str | None = None
        self._lock = threading.Lock()

    @property
    def _device(self) -> torch.device:
        found: torch.device = self._base.get_input_embeddings().weight.device
        return found

    # -- a picture as the model's input -----------------------------------------------------------

    def encode(
        self, location: Location, where: str | None = None, *, is_among_several: bool = False
    ) -> tuple[EncodedImage, str]:
        """An image, and the text of image tokens that stands for it; not decoded where it is known.

        Args:
            location: Its file, or the picture in memory.
            where: The place to name in an error.
            is_among_several: Whether its prompt has further images.

        Raises:
            DataError: where it cannot be opened, or the model cannot take it.
        """
        several = is_among_several and self._counts_images
        # an image is cut otherwise among several, so its features are others
        digest = self._digest(location, where) + "+" * several
        text = self._texts.get(digest)
        if text is not None and self.cache is not None and self.key(digest) in self.cache:
            return EncodedImage(location, digest, None, several), text
        inputs = self._process(location, where, is_among_several=several)
        text = str(self._processor.replace_image_token(inputs, 0))
        self._texts[digest] = text
        return EncodedImage(location, digest, inputs, several), text

    def _process(
        self, location: Location, where: str | None, *, is_among_several: bool
    ) -> dict[str, Any]:
        picture = open_image(location, max_image_pixels=self.max_image_pixels, where=where)
        try:
            return self._inputs(picture, is_among_several=is_among_several)
        except ValueError as error:
            reason = one_line(error)
            raise DataError(
                f"image {location}: the model cannot take it ({reason})", where=where
            ) from None

    def refusal(self, width: int, height: int) -> str:
        """Why the image processor cannot take a picture of this size; empty where it can."""
        try:
            self.num_tokens(width, height)
        except ValueError as error:
            return one_line(error)
        return ""

    def num_tokens(self, width: int, height: int, *, is_among_several: bool = False) -> int:
        """Image tokens that a picture of this size takes in a prompt.

        Raises:
            ValueError: where the image processor cannot take it.
        """
        several = is_among_several and self._counts_images
        size = scaled_size(width, height, self.max_image_pixels)
        if (size, several) not in self._num_tokens:
            inputs = self._inputs(PIL.Image.new("RGB", size), is_among_several=several)
            text = str(self._processor.replace_image_token(inputs, 0))
            ids = self._processor.tokenizer(text, add_special_tokens=False).input_ids
            self._num_tokens[size, several] = len(ids)
        return self._num_tokens[size, several]

    def _inputs(self, picture: PIL.Image.Image, *, is_among_several: bool) -> dict[str, Any]:
        # one of several is one of two: the processor only looks whether there is more than one
        pictures: list[Any] = [[picture, picture]] if is_among_several else [picture]
        inputs = dict(
            self._processor.image_processor(images=pictures, return_tensors="pt", **self._options)
        )
        if is_among_several:
            for name in ("pixel_values", "image_sizes"):
                inputs[name] = inputs[name][:1]
        return inputs

    def _digest(self, location: Location, where: str | None) -> str:
        if isinstance(location, LoadedPicture):
            return location.digest
        try:
            status = Path(location).stat()
        except OSError:
            return image_digest(location, where)  # says what is wrong
        # a file that was written over is another picture
        key = (str(location), status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            self._digests[key] = image_digest(location, where)
        return self._digests[key]

    # -- features ---------------------------------------------------------------------------------

    def key(self, digest: str) -> str:
        """The name of an image's features in the cache, from its digest."""
        if self._fingerprint is None:
            # encoding threads come here together, and it reads every weight
            with self._lock:
                if self._fingerprint is None:
                    self._fingerprint = self.fingerprint
        content = f"{self._fingerprint} {arithmetic(self._device)} {digest}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Names all that decides an image's features besides its bytes.

        These are the weights beside the language model, the settings, the type and the device.
        """
        core = self._base.model
        language = {id(weight) for weight in core.get_decoder().parameters()}
        digest = hashlib.sha256()
        for name, weight in core.named_parameters():
            if id(weight) not in language:
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
                raw = weight.detach().to("cpu").contiguous().view(torch.uint8)
                digest.update(raw.numpy().tobytes())
        settings = self._processor.image_processor.to_dict()
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(f"{self.max_image_pixels} {self._device.type}".encode())
        return digest.hexdigest()

    def features(self, image: EncodedImage) -> ImageFeatures:
        """The features of one image, from the cache where there is one; without gradients."""
        if self.cache is None:
            return self._compute(image)
        key = self.key(image.digest)
        found = self.cache.get(key, self._device)
        if found is None:
            found = self._compute(image)
            self.cache.put(key, found)
        return found

    @torch.no_grad()
    def _compute(self, image: EncodedImage) -> ImageFeatures:
        core, device = self._base.model, self._device
        inputs = image.inputs
        if inputs is None:  # it was in the cache when it was encoded, and has been put out since
            inputs = self._process(image.location, None, is_among_several=image.is_among_several)
        arguments = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
            if name in self._arguments
        }
        arguments["pixel_values"] = arguments["pixel_values"].to(self._base.dtype)
        was_training = core.training
        core.eval()  # no dropout in a frozen tower
        # autocast would make features depend on whether a training or an evaluation asked first
        with torch.autocast(device.type, enabled=False):
            output = core.get_image_features(**arguments, return_dict=True)
        core.train(was_training)
        pooled = output.pooler_output
        in_tuple = isinstance(pooled, list | tuple)
        grid = inputs.get("image_grid_thw")
        return ImageFeatures(
            pooled=torch.cat(tuple(pooled)) if in_tuple else pooled,
            deepstack=tuple(
                torch.cat(tuple(layer)) if isinstance(layer, list | tuple) else layer
                for layer in getattr(output, "deepstack_features", None) or ()
            ),
            grid=grid.to(device) if grid is not None else None,
            in_tuple=in_tuple,
        )


def image_arguments(images: Sequence[ImageFeatures]) -> dict[str, Any]:
    """What a model is called with for the images of a batch: features, and grids where it has any.

    Args:
        images: Their features, in the order of their tokens.
    """
    if not images:
        return {}
    grids = [image.grid for image in images if image.grid is not None]
    grid = {"image_grid_thw": torch.cat(grids)} if grids else {}
    return {"mm_encoder_outputs": {"image": _tower_outputs(images)}, **grid}


def _tower_outputs(images: Sequence[ImageFeatures]) -> Any:
    """The features of images in the shape that the model's own tower gives them."""
    pooled: Any = tuple(item.pooled for item in images)
    if not images[0].in_tuple:
        pooled = torch.cat(pooled)
    if not images[0].deepstack:
        return BaseModelOutputWithPooling(pooler_output=pooled)
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    # layer by layer, of each the images one after another
    layers = [tuple(parts) for parts in zip(*(item.deepstack for item in images), strict=True)]
    return BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=layers)
