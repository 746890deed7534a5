"""Any Hugging Face image-text-to-text model as ffr uses it: encoding, answer log-probabilities, saving.

Images go through the vision tower one at a time, and their features enter the language model by `mm_encoder_outputs`; features
from a cache are therefore the very bits that the tower would have given.

Shapes: B rows, L tokens of the longest row, N answer tokens over all rows, H hidden size, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ffr.answer import format_answer
from ffr.dialogue import FilePrompt, Fragment
from ffr.embedding.interface import FragmentParts, mean_of_parts
from ffr.errors import DataError, ModelError
from ffr.files import replaced_folder, write_text
from ffr.images import MAX_IMAGE_PIXELS, image_digest, open_image
from ffr.model_files import short_reason
from ffr.models.features import ImageFeatureCache, ImageFeatures
from ffr.prompt import IMAGE_MARK

SETTINGS_FILE = "ffr.json"


@dataclass(slots=True)
class EncodedImage:
    """One image of a prompt: where it is, what it is, and its processed pixels where they are still needed.

    Args:
        location: Its file.
        digest: Names its bytes and how the processor cuts it.
        inputs: What the image processor gave; None where the features are in the cache.
        is_among_several: Whether the processor cuts it as one of several (LLaVA-OneVision: no tiles).
    """

    location: str | Path
    digest: str
    inputs: dict[str, Any] | None
    is_among_several: bool = False


@dataclass(slots=True)
class Encoded:
    """A prompt, and its answer where one was given, as token ids with the image tokens in place.

    Args:
        input_ids: All ids; the answer's, with the end of its turn, are the last `num_answer_tokens`.
        num_answer_tokens: 0 where there is no answer.
        images: The images, in the order of their tokens.
    """

    input_ids: list[int]
    num_answer_tokens: int = 0
    images: list[EncodedImage] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """Rows on the model's device.

    Args:
        inputs: Keyword arguments of the model: `input_ids` and `attention_mask` (B, L), `mm_token_type_ids` and
            `image_grid_thw` where the architecture has them, `mm_encoder_outputs` where there are images.
        answer_mask: (B, L) bool, True on answer tokens and the end of the turn.
    """

    inputs: dict[str, Any]
    answer_mask: torch.Tensor


class Vlm(nn.Module):
    """A model with what turns dialogues into its input. Made by `ffr.models.loading.load_vlm`.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer.
        processor: Its processor: chat template, image processor and image tokens.
        name: What the user called it.
        max_image_pixels: Larger images are scaled down.
        prompt_settings: Template and query position that the model was trained with, from its `ffr.json`.
    """

    takes_images = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        *,
        name: str,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        prompt_settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.processor = processor
        self.name = name
        self.max_image_pixels = max_image_pixels
        self.prompt_settings: dict[str, Any] = prompt_settings or {}
        self.feature_cache: ImageFeatureCache | None = None
        self._replacements: dict[str, str] = {}
        self._digests: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()
        self._cache_key: str | None = None
        self.requires_grad_(False)
        # what the processor always asks of its image processor (SmolVLM: rows and columns of the tiles)
        self._image_options: dict[str, Any] = dict(getattr(type(processor), "images_kwargs", None) or {})
        self._image_arguments = set(inspect.signature(self.core.get_image_features).parameters)
        self._forward_arguments = set(inspect.signature(self.core.forward).parameters)
        image_processor = getattr(processor, "image_processor", None)
        self._counts_images = "batch_num_images" in (getattr(image_processor, "model_input_names", None) or ())
        self._check_tokenizer()
        self._close_turn = self._find_turn_end()
        self._keeps_image_places = self._template_keeps_image_places()

    # -- what the model is ----------------------------------------------------------------------------------------------

    @property
    def base(self) -> Any:
        """The transformers model, without the adapter's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def core(self) -> Any:
        """The part below the output embedding: gives hidden states."""
        return self.base.model

    @property
    def language_model(self) -> nn.Module:
        """The text decoder, which an adapter trains."""
        decoder: nn.Module = self.core.get_decoder()
        return decoder

    @property
    def device(self) -> torch.device:
        found: torch.device = self.base.get_input_embeddings().weight.device
        return found

    @property
    def max_context(self) -> int | None:
        """Tokens that the model has positions for."""
        text = self.base.config.get_text_config()
        limit = getattr(text, "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def image_token(self) -> str:
        return str(self.processor.image_token)

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Ids that stand for images and videos in a prompt; no answer may hold one."""
        names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
        found = (getattr(self.base.config, name, None) for name in names)
        return frozenset(int(item) for item in found if item is not None)

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        configured = self.base.generation_config.eos_token_id
        ids = {self.tokenizer.eos_token_id, self._close_turn[0]}
        ids |= set(configured) if isinstance(configured, list) else {configured}
        return sorted(item for item in ids if item is not None)

    @property
    def end_of_turn_id(self) -> int:
        """The id that follows an answer in training."""
        return self._close_turn[-1]

    @property
    def fingerprint(self) -> str:
        """Names the frozen weights: SHA-256 over every frozen parameter's name, shape and a thousand spread values."""
        digest = hashlib.sha256()
        for name, weight in self.base.named_parameters():
            if "lora_" in name or weight.requires_grad:
                continue
            flat = weight.detach().reshape(-1)
            some = flat[:: max(1, flat.numel() // 1000)].to("cpu", torch.float32)
            digest.update(f"{name.replace('.base_layer', '')} {tuple(weight.shape)}".encode())
            digest.update(some.numpy().tobytes())
        return digest.hexdigest()

    # -- text and images to ids -----------------------------------------------------------------------------------------

    def _check_tokenizer(self) -> None:
        """Refuses a tokenizer that loses text; one whose files are missing comes up empty, without a word."""
        text = format_answer(Fragment((0, 12), (3,)))
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
            raise ModelError("its tokenizer cannot write the answer format; restore its tokenizer files", self.name)

    def _find_turn_end(self) -> list[int]:
        """The ids that close the assistant's turn in this chat template, without white space after them."""
        answer = "answer-0"
        text = self._chat(
            [
                {"role": "user", "content": [{"type": "text", "text": "?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ],
            ask=False,
        )
        end = text.rpartition(answer)[2].strip() if answer in text else ""
        ids: list[int] = self.tokenizer(end, add_special_tokens=False).input_ids if end else []
        if not ids and self.tokenizer.eos_token_id is not None:
            ids = [self.tokenizer.eos_token_id]
        if not ids:
            raise ModelError("its chat template does not close a turn and its tokenizer has no end token", self.name)
        return ids[:1]

    def _template_keeps_image_places(self) -> bool:
        """Whether the chat template writes an image where it stands (LLaVA-OneVision's puts all images first)."""
        first, last = "text-0", "text-1"
        content = [{"type": "text", "text": first}, {"type": "image"}, {"type": "text", "text": last}]
        text = self._chat([{"role": "user", "content": content}], ask=True)
        if first not in text or last not in text:
            raise ModelError("its chat template leaves out what the user says; restore chat_template.jinja", self.name)
        return text.index(first) < text.find(self.image_token) < text.index(last)

    def _chat(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        try:
            # the tokenizer's rendering of the processor's template: some processors look for videos while they render
            template = getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=ask
            )
        except (ValueError, AttributeError, TypeError, TemplateError) as error:
            raise ModelError(f"its chat template cannot be used ({short_reason(error)})", self.name) from None
        return text

    def encode(
        self,
        prompt: FilePrompt,
        images: Sequence[str | Path],
        *,
        answer: str | None = None,
        where: str | None = None,
    ) -> Encoded:
        """Turns a prompt, its images and perhaps its answer into ids.

        The answer's text is tokenised by itself, so that the prompt's ids do not depend on it. An image whose features are in
        the cache is not decoded.

        Args:
            prompt: The prompt; one `<image>` for each image.
            images: Where the images lie, in order.
            answer: The answer's text; None for a prompt to be answered.
            where: The place to name in an error.

        Raises:
            DataError: where an image cannot be opened, or the marks and the images do not agree.
        """
        parts: list[dict[str, str]] = []
        if self._keeps_image_places:
            for number, text in enumerate(prompt.user.split(IMAGE_MARK)):
                if number:
                    parts.append({"type": "image"})
                if text:
                    parts.append({"type": "text", "text": text})
        else:
            parts.append({"type": "text", "text": prompt.user.replace(IMAGE_MARK, self.image_token)})
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        if prompt.system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": prompt.system}]})
        pieces = self._chat(messages, ask=True).split(self.image_token)
        if len(pieces) != len(images) + 1:
            raise DataError(
                f"the prompt has places for {len(pieces) - 1} images but the record has {len(images)}", where=where
            )
        encoded_images: list[EncodedImage] = []
        text = pieces[0]
        for location, piece in zip(images, pieces[1:], strict=True):
            image, replacement = self._encode_image(location, where, is_among_several=len(images) > 1)
            encoded_images.append(image)
            text += replacement + piece
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        answer_ids: list[int] = []
        if answer is not None:
            answer_ids = self.tokenizer(answer, add_special_tokens=False).input_ids + self._close_turn
        return Encoded(ids + answer_ids, len(answer_ids), encoded_images)

    def count_answer_tokens(self, answer: str) -> int:
        """Number of ids of an answer's text with the end of its turn."""
        ids: list[int] = self.tokenizer(answer, add_special_tokens=False).input_ids
        return len(ids) + len(self._close_turn)

    def _encode_image(
        self, location: str | Path, where: str | None, *, is_among_several: bool = False
    ) -> tuple[EncodedImage, str]:
        several = is_among_several and self._counts_images
        digest = self._digest(location, where) + "+" * several
        replacement = self._replacements.get(digest)
        if (
            replacement is not None
            and self.feature_cache is not None
            and self._feature_key(digest) in self.feature_cache
        ):
            return EncodedImage(location, digest, None, several), replacement
        inputs = self._process_image(location, where, is_among_several=several)
        replacement = self.processor.replace_image_token(inputs, 0)
        self._replacements[digest] = replacement
        return EncodedImage(location, digest, inputs, several), replacement

    def _process_image(self, location: str | Path, where: str | None, *, is_among_several: bool) -> dict[str, Any]:
        picture = open_image(location, max_image_pixels=self.max_image_pixels, where=where)
        # one of several is one of two: the processor only looks whether there is more than one
        pictures: list[Any] = [[picture, picture]] if is_among_several else [picture]
        try:
            inputs = dict(self.processor.image_processor(images=pictures, return_tensors="pt", **self._image_options))
        except ValueError as error:
            raise DataError(
                f"image {location}: the model cannot take it ({short_reason(error)})", where=where
            ) from None
        if is_among_several:
            inputs["pixel_values"], inputs["image_sizes"] = inputs["pixel_values"][:1], inputs["image_sizes"][:1]
        return inputs

    def _digest(self, location: str | Path, where: str | None) -> str:
        try:
            status = Path(location).stat()
        except OSError:
            return image_digest(location, where)  # says what is wrong
        key = (str(location), status.st_mtime_ns, status.st_size)
        if key not in self._digests:
            self._digests[key] = image_digest(location, where)
        return self._digests[key]

    # -- image features -------------------------------------------------------------------------------------------------

    def _feature_key(self, digest: str) -> str:
        if self._cache_key is None:
            with self._lock:
                if self._cache_key is None:
                    self._cache_key = self.vision_fingerprint
        return hashlib.sha256(f"{self._cache_key} {digest}".encode()).hexdigest()

    @property
    def vision_fingerprint(self) -> str:
        """Names all that decides an image's features besides its bytes: weights beside the language model, settings, type."""
        language = {id(p) for p in self.language_model.parameters()}
        digest = hashlib.sha256()
        for name, weight in self.core.named_parameters():
            if id(weight) not in language:
                digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
                digest.update(weight.detach().to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
        settings = self.processor.image_processor.to_dict()
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(f"{self.max_image_pixels} {self.device.type}".encode())
        return digest.hexdigest()

    def image_features(self, image: EncodedImage) -> ImageFeatures:
        """The features of one image, from the cache where there is one; without gradients: the tower is frozen."""
        if self.feature_cache is None:
            return self._compute_features(image)
        key = self._feature_key(image.digest)
        found = self.feature_cache.get(key, self.device)
        if found is None:
            found = self._compute_features(image)
            self.feature_cache.put(key, found)
        return found

    @torch.no_grad()
    def _compute_features(self, image: EncodedImage) -> ImageFeatures:
        inputs = image.inputs
        if inputs is None:
            inputs = self._process_image(image.location, None, is_among_several=image.is_among_several)
        arguments = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
            if name in self._image_arguments
        }
        arguments["pixel_values"] = arguments["pixel_values"].to(self.base.dtype)
        was_training = self.core.training
        self.core.eval()  # no dropout in a frozen tower
        with torch.autocast(self.device.type, enabled=False):
            output = self.core.get_image_features(**arguments, return_dict=True)
        self.core.train(was_training)
        pooled = output.pooler_output
        in_tuple = isinstance(pooled, list | tuple)
        grid = inputs.get("image_grid_thw")
        return ImageFeatures(
            pooled=torch.cat(tuple(pooled)) if in_tuple else pooled,
            deepstack=tuple(
                torch.cat(tuple(layer)) if isinstance(layer, list | tuple) else layer
                for layer in getattr(output, "deepstack_features", None) or ()
            ),
            grid=grid.to(self.device) if grid is not None else None,
            in_tuple=in_tuple,
        )

    def _encoder_outputs(self, images: list[ImageFeatures]) -> Any:
        """The features of all images of a batch, in the shape that the model's own tower gives."""
        pooled: Any = tuple(item.pooled for item in images)
        if not images[0].in_tuple:
            pooled = torch.cat(pooled)
        output = BaseModelOutputWithPooling(pooler_output=pooled)
        if images[0].deepstack:
            from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

            layers = [tuple(parts) for parts in zip(*(item.deepstack for item in images), strict=True)]
            output = BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=layers)
        return output

    # -- batches --------------------------------------------------------------------------------------------------------

    def collate(
        self, rows: Sequence[Encoded], *, padding_side: Literal["left", "right"], pad_to_multiple_of: int = 1
    ) -> Batch:
        """Pads rows to one length, on the model's device, with the features of their images.

        Args:
            rows: Encoded examples, B of them.
            padding_side: `right` for training, `left` for generation.
            pad_to_multiple_of: Of which the length is a multiple.
        """
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.stop_ids[0]
        longest = max(row.num_tokens for row in rows)
        length = longest + -longest % pad_to_multiple_of
        ids = torch.full((len(rows), length), pad, dtype=torch.long)
        attention = torch.zeros((len(rows), length), dtype=torch.long)
        answer = torch.zeros((len(rows), length), dtype=torch.bool)
        for number, row in enumerate(rows):
            start = length - row.num_tokens if padding_side == "left" else 0
            end = start + row.num_tokens
            ids[number, start:end] = torch.tensor(row.input_ids)
            attention[number, start:end] = 1
            answer[number, end - row.num_answer_tokens : end] = True
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device), "attention_mask": attention.to(self.device)}
        features = [self.image_features(image) for row in rows for image in row.images]
        if "mm_token_type_ids" in self._forward_arguments:
            image_id = self.base.config.image_token_id
            inputs["mm_token_type_ids"] = ((ids == image_id) & (attention == 1)).int().to(self.device)
        if features:
            inputs["mm_encoder_outputs"] = {"image": self._encoder_outputs(features)}
            if features[0].grid is not None:
                inputs["image_grid_thw"] = torch.cat([item.grid for item in features if item.grid is not None])
        return Batch(inputs, answer.to(self.device))

    def answer_logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of the answer tokens alone: the output embedding is applied where an answer token is predicted.

        Returns:
            logits (N, V), the answer's token ids (N,), and the row of each (N,).
        """
        hidden = self.core(**batch.inputs, use_cache=False).last_hidden_state
        predicts = batch.answer_mask[:, 1:]
        logits = self.base.get_output_embeddings()(hidden[:, :-1][predicts])
        return logits, batch.inputs["input_ids"][:, 1:][predicts], predicts.nonzero()[:, 0]

    # -- own features for coherence -------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Mean input embedding of each text, less the vocabulary's mean, L2-normalised: (number of texts, H)."""
        embeddings = self.base.get_input_embeddings()
        centre = embeddings.weight.float().mean(0)
        rows = []
        for text in texts:
            ids = self.tokenizer(text, add_special_tokens=False).input_ids or [self.stop_ids[0]]
            rows.append(embeddings(torch.tensor(ids, device=self.device)).float().mean(0) - centre)
        return nn.functional.normalize(torch.stack(rows), dim=-1) if rows else centre.new_zeros((0, len(centre)))

    @torch.no_grad()
    def embed_images(self, images: Sequence[str | Path]) -> torch.Tensor:
        """Mean projected patch of each image, in the space of `embed_texts`, L2-normalised: (number of images, H)."""
        centre = self.base.get_input_embeddings().weight.float().mean(0)
        rows = []
        for location in images:
            features = self.image_features(self._encode_image(location, None)[0])
            rows.append(features.pooled.float().flatten(0, -2).mean(0) - centre)
        return nn.functional.normalize(torch.stack(rows), dim=-1) if rows else centre.new_zeros((0, len(centre)))

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> torch.Tensor:
        """The mean of the vectors of a fragment's texts and images, normalised anew: (number of fragments, H), on the CPU.

        Raises:
            UsageError: where a fragment has no parts.
        """
        return mean_of_parts(self, fragments)

    # -- training and saving --------------------------------------------------------------------------------------------

    def train_language_model(self) -> None:
        """Makes all weights of the language model trainable, instead of an adapter."""
        self.language_model.requires_grad_(True)

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes the decoder's activations in the backward pass."""
        self.base.activation_checkpointing_enable({"use_reentrant": False})

    def save_adapter(self, folder: Path) -> None:
        """Writes the adapter as peft does."""
        with replaced_folder(folder) as scratch:
            self.model.save_pretrained(str(scratch))

    def save_merged(self, folder: Path, *, prompt_settings: dict[str, Any] | None = None) -> None:
        """Writes a plain Hugging Face folder with the adapter merged in; the model here stays as it is.

        Args:
            folder: The folder; it appears whole or not at all.
            prompt_settings: Template and query position to note in `ffr.json`; None keeps the model's own.
        """
        with replaced_folder(folder) as scratch:
            with self._merged_weights() as model:
                model.save_pretrained(str(scratch))
            self.tokenizer.save_pretrained(str(scratch))
            self.processor.image_processor.save_pretrained(str(scratch))
            settings = prompt_settings if prompt_settings is not None else self.prompt_settings
            write_text(scratch / SETTINGS_FILE, json.dumps({"prompt": settings}, indent=2) + "\n")
            scalars = {
                name: value
                for name in inspect.signature(type(self.processor).__init__).parameters
                if name not in ("self", "chat_template")
                and isinstance(value := getattr(self.processor, name, None), str | int | float | bool)
            }
            kind = type(self.processor).__name__
            write_text(
                scratch / "processor_config.json",
                json.dumps({"processor_class": kind, **scalars}, indent=2, sort_keys=True) + "\n",
            )
            template = getattr(self.processor, "chat_template", None)
            if template and not (scratch / "chat_template.jinja").exists():
                write_text(scratch / "chat_template.jinja", template)

    @contextmanager
    def _merged_weights(self) -> Iterator[Any]:
        """A plain model with the adapter's update added to the weights: a copy, so that training could go on bit for bit."""
        if not hasattr(self.model, "merge_and_unload"):
            yield self.base
            return
        import copy

        yield copy.deepcopy(self.model).merge_and_unload()
