"""Dual encoders: a tower of texts and a tower of images with one space (the CLIP family).

Shapes: n texts, images or fragments of a call, H width of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffr.embedding.files import (
    CutNotice,
    as_text,
    check_device,
    fingerprint_of,
    load_tokenizer,
    load_weights,
)
from ffr.embedding.interface import mean_of_parts
from ffr.errors import DataError, ModelError
from ffr.images import Location, open_image
from ffr.model_files import check_model_folder, loading_explained
from ffr.parts import FragmentParts, Pictures, Texts, as_pictures, as_texts
from ffr.text import one_line

KINDS = ("clip", "siglip", "siglip2", "chinese_clip")
"""The dual encoders that are known, by transformers' name.

Fixed-resolution SigLIP 2 folders call themselves siglip.
"""

BATCH_SIZE = 32
"""Texts or images that go through an encoder at once."""

MAX_SIDE_RATIO = 100
"""Longer strips are refused: a processor that scales the short side up would make gigabytes."""


class DualEncoder:
    """A text tower and an image tower with one space. Made by `load_encoder`.

    The vector of a fragment is the mean of the normalised vectors of its texts and images,
    normalised anew.

    A vector may differ in its last bits with what else is in its batch, as matrix products do.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        name: What the user called it.
        takes_images: False where the image tower is not there (an export of the text part alone).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        *,
        name: str,
        takes_images: bool = True,
    ) -> None:
        self.name = name
        self.takes_images = takes_images
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._is_siglip = model.config.model_type.startswith("siglip")
        text = model.config.text_config
        self._vocabulary_size = int(text.vocab_size)
        self.max_text_tokens = min(
            int(text.max_position_embeddings), int(tokenizer.model_max_length)
        )
        self._cut_notice = CutNotice(self.max_text_tokens)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer, image processor, kind of model and kind of device."""
        return fingerprint_of(self.model, self.tokenizer, self.image_processor.to_dict())

    @torch.no_grad()
    def embed_texts(self, texts: Texts) -> Tensor:
        """One vector a text, (n, H) float32 on the CPU, L2-normalised.

        A text longer than the model's context is cut at its end.

        Raises:
            ModelError: where the tokenizer does not fit the model, or a vector is not finite.
        """
        texts, rows = as_texts(texts), []
        for start in range(0, len(texts), BATCH_SIZE):
            inputs = self.text_inputs(texts[start : start + BATCH_SIZE])
            rows.append(self._features(self.model.get_text_features, inputs))
        return self._joined(rows)

    def text_inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the text tower takes for these texts, as one batch on the CPU.

        Raises:
            ModelError: where the tokenizer does not fit the model.
        """
        inputs = self.tokenizer(
            [as_text(text) for text in texts],
            # SigLIP was trained on full rows of padding, without a mask
            padding="max_length" if self._is_siglip else True,
            truncation=True,
            max_length=self.max_text_tokens,
            return_tensors="pt",
        )
        self._cut_notice.look_at(inputs, self.name)
        if int(inputs["input_ids"].max()) >= self._vocabulary_size:
            raise ModelError(
                "its tokenizer has ids that the model does not know; fetch both again", self.name
            )
        return {"input_ids": inputs["input_ids"]} if self._is_siglip else dict(inputs)

    @torch.no_grad()
    def embed_images(self, images: Pictures) -> Tensor:
        """One vector an image, (n, H) float32 on the CPU, L2-normalised.

        Raises:
            DataError: where an image cannot be opened or the image processor cannot take it.
            ModelError: where a vector is not finite.
        """
        locations, rows = as_pictures(images), []
        for start in range(0, len(locations), BATCH_SIZE):
            inputs = self.image_inputs(locations[start : start + BATCH_SIZE])
            rows.append(self._features(self.model.get_image_features, inputs))
        return self._joined(rows)

    def image_inputs(self, images: Sequence[Location]) -> dict[str, Tensor]:
        """What the image tower takes for these pictures, as one batch on the CPU.

        Raises:
            DataError: where an image cannot be opened or the image processor cannot take it.
        """
        # decoded one at a time: a batch of large photographs would fill the memory
        inputs = [self._pixels(location) for location in images]
        joined = {key: torch.cat([item[key] for item in inputs]) for key in inputs[0]}
        joined["pixel_values"] = joined["pixel_values"].to(self.model.dtype)
        return joined

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """One vector a fragment, (n, H) float32 on the CPU, as `mean_of_parts` defines it.

        Raises:
            UsageError: where a fragment has no parts.
            DataError: as `embed_images`.
            ModelError: as `embed_texts`.
        """
        return mean_of_parts(self, fragments)

    def _pixels(self, location: Location) -> dict[str, Tensor]:
        picture = open_image(location, max_image_pixels=None)
        if max(picture.size) > MAX_SIDE_RATIO * min(picture.size):
            raise DataError(
                f"image {location} is a strip of {picture.width}×{picture.height} pixels, which "
                f"{self.name} cannot take; "
                f"cut it to at most {MAX_SIDE_RATIO}:1"
            )
        try:
            return dict(self.image_processor(images=[picture], return_tensors="pt"))
        except ValueError as error:
            raise DataError(
                f"image {location}: {self.name} cannot take it ({one_line(error)}); replace it"
            ) from error

    def _features(self, of: Callable[..., Any], inputs: dict[str, Tensor]) -> Tensor:
        output = of(**{name: value.to(self.device) for name, value in inputs.items()})
        pooled = output.pooler_output.float()
        if not bool(pooled.isfinite().all()):
            raise ModelError(
                "gives vectors that are not finite; fetch its weights again", self.name
            )
        return torch.nn.functional.normalize(pooled, dim=-1).cpu()

    def _joined(self, rows: list[Tensor]) -> Tensor:
        if rows:
            return torch.cat(rows)
        return torch.zeros((0, self._width))

    @cached_property
    def _width(self) -> int:
        return int(self.embed_texts([""]).shape[-1])


def load_dual_encoder(spec: str | Path, *, device: str = "cpu") -> DualEncoder:
    """Loads a CLIP, SigLIP (2) or Chinese-CLIP model, from safetensors and without code of its own.

    Tokenizer and image processor are loaded one by one and the image processor is Pillow's, so that
    vectors are the same with and without torchvision.

    Args:
        spec: A folder, or a hub id.
        device: Where the weights go.

    Raises:
        ModelError: where files are missing, damaged, of another kind, or not safetensors.
        UsageError: where the device is not here.
    """
    from transformers import AutoConfig, AutoImageProcessor

    name = str(spec)
    check_device(device)
    with loading_explained(name, kind="a text–image encoder"):
        check_model_folder(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in KINDS:
            raise ModelError(
                f"is a {config.model_type} model; name one of the kinds {', '.join(KINDS)}", name
            )
        tokenizer = load_tokenizer(name)
        image_processor = AutoImageProcessor.from_pretrained(
            name, trust_remote_code=False, backend="pil"
        )
        model = load_weights(name, device=device)
        return DualEncoder(model, tokenizer, image_processor, name=name)
