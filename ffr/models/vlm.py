"""Any Hugging Face image-text-to-text model as ffr uses it: what it is, and batches of rows for it.

The features of its images enter the language model by `mm_encoder_outputs`, so that no architecture
needs a path of its own for features from a cache.

Shapes: B rows, L tokens of the longest row, N answer tokens over all rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ffr.dialogue import FilePrompt
from ffr.errors import DataError
from ffr.images import MAX_IMAGE_PIXELS, Location
from ffr.models.chat import ChatTemplate
from ffr.models.image_tower import ImageTower, image_arguments
from ffr.models.rows import Batch, Encoded, EncodedImage, padded
from ffr.text import counted

_TOKEN_TYPES = frozenset({"mm_token_type_ids", "token_type_ids"})
"""Arguments that say which tokens are an image's; the second is Gemma 3's name for it."""


class Vlm(nn.Module):
    """A model with what turns dialogues into its input. Made by `ffr.models.loading.load_vlm`.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer.
        processor: Its processor: chat template, image processor and image tokens.
        name: What the user called it.
        max_image_pixels: Larger images are scaled down.
        prompt_settings: Template and query position that the model was trained with, from its
            `ffr.json`.

    Raises:
        ModelError: where its tokenizer or chat template is of no use.
    """

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
        self.prompt_settings: dict[str, Any] = prompt_settings or {}
        self.requires_grad_(False)
        self.forward_arguments = frozenset(inspect.signature(self.core.forward).parameters)
        """Names of what the model below its output embedding takes."""
        self.tower = ImageTower(self.base, processor, max_image_pixels=max_image_pixels)
        self._chat = ChatTemplate(tokenizer, processor, name=name)

    # -- what the model is ------------------------------------------------------------------------

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
        return cast(nn.Module, self.core.get_decoder())

    @property
    def device(self) -> torch.device:
        return torch.device(self.base.get_input_embeddings().weight.device)

    @property
    def max_context(self) -> int | None:
        """Tokens that the model has positions for."""
        limit = getattr(self.base.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def image_token(self) -> str:
        """The text that stands for an image in a rendered prompt."""
        return self._chat.image_token

    @property
    def opened_thought(self) -> str:
        """What a prompt ends in where its template opens a thought, from its tag; else empty."""
        return self._chat.opened_thought

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Ids that stand for images and videos in a prompt; no answer may hold one."""
        names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
        found = (getattr(self.base.config, name, None) for name in names)
        return frozenset(int(item) for item in found if item is not None)

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        ends = self.base.generation_config.eos_token_id
        ids = {self.tokenizer.eos_token_id, self._chat.turn_end[0]}
        ids |= set(ends) if isinstance(ends, list) else {ends}
        return sorted(item for item in ids if item is not None)

    @property
    def end_of_turn_id(self) -> int:
        """The id that follows an answer in training."""
        return self._chat.turn_end[-1]

    @property
    def padding_id(self) -> int:
        """The id that fills rows up."""
        own = self.tokenizer.pad_token_id
        return self.stop_ids[0] if own is None else int(own)

    @property
    def fingerprint(self) -> str:
        """Names the frozen weights, by `weights_fingerprint`."""
        return weights_fingerprint(self.base)

    # -- prompts to rows, rows to batches ---------------------------------------------------------

    def encode(
        self,
        prompt: FilePrompt,
        images: Sequence[Location],
        *,
        answer: str | None = None,
        closes_thought: bool = False,
        where: str | None = None,
    ) -> Encoded:
        """Turns a prompt, its images and perhaps its answer into ids.

        The prompt's ids are those of the model's own processor. The answer's text is tokenised by
        itself, so that the prompt's ids do not depend on it. An image whose features are in the
        cache is not decoded.

        Args:
            prompt: The prompt; one `<image>` for each image.
            images: Where the images lie, in order.
            answer: The answer's text; None for a prompt to be answered.
            closes_thought: Whether a thought that the template opens is closed, as before a bare
                answer in training.
            where: The place to name in an error.

        Raises:
            DataError: where an image cannot be opened, or the marks and the images do not agree.
        """
        first, *others = self._chat.pieces(prompt)
        if len(others) != len(images):
            raise DataError(
                f"the prompt has places for {counted(len(others), 'image')} but the record has "
                f"{len(images)}",
                where=where,
            )
        encoded_images: list[EncodedImage] = []
        text = first
        for location, piece in zip(images, others, strict=True):
            image, tokens = self.tower.encode(location, where, is_among_several=len(images) > 1)
            encoded_images.append(image)
            text += tokens + piece
        thought_ids = self._chat.closed_thought_ids() if closes_thought else []
        ids = self._chat.prompt_ids(text) + thought_ids
        answer_ids = [] if answer is None else self._chat.answer_ids(answer)
        return Encoded(ids + answer_ids, len(answer_ids), encoded_images)

    def count_answer_tokens(self, answer: str) -> int:
        """Number of ids of an answer's text with the end of its turn."""
        return len(self._chat.answer_ids(answer))

    def collate(
        self,
        rows: Sequence[Encoded],
        *,
        padding_side: Literal["left", "right"],
        pad_to_multiple_of: int = 1,
    ) -> Batch:
        """Pads rows to one length, on the model's device, with the features of their images.

        Args:
            rows: B encoded examples.
            padding_side: `right` for training, `left` for generation.
            pad_to_multiple_of: Divides the length.
        """
        ids, attention, answer = padded(
            rows, self.padding_id, padding_side=padding_side, multiple=pad_to_multiple_of
        )
        device = self.device
        inputs = {"input_ids": ids.to(device), "attention_mask": attention.to(device)}
        features = [self.tower.features(image) for row in rows for image in row.images]
        types = token_types(self, ids, attention)
        inputs |= {name: value.to(device) for name, value in types.items()}
        return Batch({**inputs, **image_arguments(features)}, answer.to(device))

    def answer_logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of the answer tokens alone: where none is predicted, none are computed.

        Returns:
            logits (N, V), the answer's token ids (N,), and the row of each (N,).
        """
        hidden = self.core(**batch.inputs, use_cache=False).last_hidden_state
        predicts = batch.answer_mask[:, 1:]  # (B, L − 1): a token predicts the one behind it
        logits = self.base.get_output_embeddings()(hidden[:, :-1][predicts])
        return logits, batch.inputs["input_ids"][:, 1:][predicts], predicts.nonzero()[:, 0]

    # -- training ---------------------------------------------------------------------------------

    def train_language_model(self) -> None:
        """Makes all weights of the language model trainable, instead of an adapter."""
        self.language_model.requires_grad_(True)

    def enable_gradient_checkpointing(self) -> None:
        """Recomputes the decoder's activations in the backward pass."""
        self.base.activation_checkpointing_enable({"use_reentrant": False})


def token_types(vlm: Vlm, ids: torch.Tensor, attention: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which tokens stand for pictures, by the name under which the architecture takes it.

    Args:
        vlm: The model.
        ids: (B, L) token ids.
        attention: (B, L), 1 on tokens and 0 on padding.

    Returns:
        int32 of (B, L), 1 on image tokens; empty for architectures that do not ask.
    """
    names = _TOKEN_TYPES & vlm.forward_arguments
    if not names:
        return {}
    # a padding id could be the image's
    is_image = (ids == vlm.base.config.image_token_id) & (attention == 1)
    return dict.fromkeys(names, is_image.int())


def weights_fingerprint(base: nn.Module) -> str:
    """Names a model's frozen weights: SHA-256 over each one's name, shape and a thousand values.

    Args:
        base: The model; an adapter around it changes nothing.
    """
    digest = hashlib.sha256()
    for name, weight in base.named_parameters():
        if "lora_" in name or weight.requires_grad:
            continue
        flat = weight.detach().reshape(-1)
        # values spread over the whole weight: all of them would take long for a large model
        some = flat[:: max(1, flat.numel() // 1000)].to("cpu", torch.float32)
        digest.update(f"{name.replace('.base_layer', '')} {tuple(weight.shape)}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()
