"""Pooled states of a VLM as an encoder: one prompt of texts and pictures, one vector (GME's way).

Shapes: n texts, images or fragments of a call, B rows of a batch, L tokens of its longest row, H
hidden size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from ffr.dialogue import FilePrompt
from ffr.embedding.interface import check_parts
from ffr.errors import DataError, ModelError, UsageError
from ffr.models.chat import template_of
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.parts import (
    FragmentParts,
    Parts,
    Pictures,
    Texts,
    as_fragments,
    as_pictures,
    as_texts,
)
from ffr.prompt import IMAGE_MARK
from ffr.text import counted

Pooling = Literal["last", "mean"]

BATCH_TOKENS = 8192
"""Tokens that go through the model at once, padding included; a longer prompt goes alone."""

MAX_BATCH = 32


class PooledEncoder:
    """Encodes by the final hidden states of a VLM over a prompt with nothing but the parts.

        last: v = h_L, the state where the answer would begin;  mean: v = (1/L) Σ_t h_t over all
        tokens of the prompt;  then v / |v|

    The prompt is the user's turn of its chat template. Texts stand in lines of their own, pictures
    where they stand among them (in front of all texts where the chat template puts them so). A
    vector may differ in its last bits with what else is in its batch, as matrix products do.

    Args:
        vlm: The model, as `ffr.models.loading.load_vlm` gives it.
        pooling: last or mean.
        name: What the user called it.
    """

    takes_images = True
    _ending: tuple[int, ...] = ()
    """Tokens behind the prompt."""

    def __init__(self, vlm: Vlm, *, pooling: Pooling = "last", name: str) -> None:
        if pooling not in get_args(Pooling):
            raise UsageError(
                f"pooling {pooling!r} is not known; there are {', '.join(get_args(Pooling))}"
            )
        self.name = name
        self.pooling = pooling
        self._vlm = vlm

    @property
    def way(self) -> str:
        """What tells it, on the same model, from other ways to make vectors."""
        return self.pooling

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the model's fingerprints, tokenizer, template, types, pooling and device."""
        vlm = self._vlm
        template = template_of(vlm.processor, vlm.tokenizer)
        settings = [
            vlm.fingerprint,
            vlm.tower.fingerprint,
            template,
            str(vlm.base.dtype),
            self.way,
        ]
        digest = hashlib.sha256(json.dumps([*settings, vlm.device.type], default=str).encode())
        digest.update(vlm.tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def embed_texts(self, texts: Texts) -> Tensor:
        """One vector a text, (n, H) float32 on the CPU, L2-normalised.

        Raises:
            DataError: where a text holds the mark of a picture, or is longer than the model's
                context.
            ModelError: where a vector is not finite.
        """
        return self.embed_fragments([[text] for text in as_texts(texts)])

    def embed_images(self, images: Pictures) -> Tensor:
        """One vector a picture, (n, H) float32 on the CPU, L2-normalised.

        Raises:
            DataError: where a picture cannot be opened, or makes more tokens than the model's
                context.
            ModelError: where a vector is not finite.
        """
        return self.embed_fragments([[image] for image in as_pictures(images)])

    @torch.no_grad()
    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """One vector a fragment, (n, H) float32 on the CPU, L2-normalised: all parts in one prompt.

        Raises:
            UsageError: where a fragment has no parts.
            DataError: as `embed_texts` and `embed_images`.
            ModelError: where a vector is not finite.
        """
        read = as_fragments(fragments)
        check_parts(read)
        width = int(self._vlm.base.config.get_text_config().hidden_size)
        vectors = torch.zeros((len(read), width))
        # of like length together, so that little is padded; pictures are opened when their batch
        # has its turn
        order = sorted(range(len(read)), key=lambda index: self._rough_length(read[index]))
        rows: list[Encoded] = []
        chosen: list[int] = []
        for index in order:
            row = self._encode(read[index])
            longest = max([row.num_tokens, *(item.num_tokens for item in rows)])
            if rows and (len(rows) == MAX_BATCH or longest * (len(rows) + 1) > BATCH_TOKENS):
                vectors[chosen] = self._embed(rows)
                rows, chosen = [], []
            rows.append(row)
            chosen.append(index)
        if rows:
            vectors[chosen] = self._embed(rows)
        return vectors

    @staticmethod
    def _rough_length(parts: Parts) -> tuple[int, int]:
        return sum(not isinstance(part, str) for part in parts), sum(
            len(str(part)) for part in parts
        )

    def _encode(self, parts: Parts) -> Encoded:
        lines = []
        for part in parts:
            if isinstance(part, str) and (IMAGE_MARK in part or self._vlm.image_token in part):
                raise DataError(
                    f"a text holds {IMAGE_MARK if IMAGE_MARK in part else self._vlm.image_token}, "
                    f"which stands for a picture in the prompt of {self.name}; take it out"
                )
            lines.append(
                part.encode("utf-8", "replace").decode() if isinstance(part, str) else IMAGE_MARK
            )
        images = [part for part in parts if not isinstance(part, str)]
        row = self._vlm.encode(FilePrompt(self._joined(lines, parts)), images)
        row.input_ids.extend(self._ending)
        limit = self._vlm.max_context
        if limit is not None and row.num_tokens > limit:
            raise DataError(
                f"a text or fragment makes {counted(row.num_tokens, 'token')}, more than the "
                f"{limit} of "
                f"{self.name}; "
                "cut it, or take a model with a longer context"
            )
        return row

    def _joined(self, lines: list[str], parts: Parts) -> str:
        """The user's turn: texts and marks of pictures in lines of their own."""
        return "\n".join(lines)

    def _positions(self, mask: Tensor) -> dict[str, Tensor]:
        """Positions of the tokens (B, L), where the model's own are not meant."""
        return {}

    def _embed(self, rows: list[Encoded]) -> Tensor:
        # the padding stands behind, where no token of a causal decoder sees it
        batch = self._vlm.collate(rows, padding_side="right")
        mask = batch.inputs["attention_mask"]
        inputs = {**batch.inputs, **self._positions(mask)}
        hidden = self._vlm.core(**inputs, use_cache=False).last_hidden_state.float()
        if self.pooling == "last":
            pooled = hidden[torch.arange(len(rows), device=hidden.device), mask.sum(1) - 1]
        else:
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if not bool(pooled.isfinite().all()):
            raise ModelError(
                "gives vectors that are not finite; fetch its weights again or take another "
                "--dtype",
                self.name,
            )
        return torch.nn.functional.normalize(pooled, dim=-1).cpu()
