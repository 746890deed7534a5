"""What an encoder offers, and a fragment's vector where it knows only texts and images.

Shapes: n texts, images or fragments of a call, H width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ffr.errors import UsageError
from ffr.images import Location
from ffr.parts import FragmentParts, Parts, Pictures, Texts, as_fragments, as_texts


class Encoder(Protocol):
    """Encodes texts, images and whole fragments into one space.

    Dual encoders, sentence encoders and pooled states of a VLM are encoders
    (`ffr.encoders.open_encoder` makes one from its name), and so is
    `ffr.embedding.policy.PolicyEncoder`, a VLM with its own features. All vectors are float32 and
    L2-normalised.
    """

    @property
    def name(self) -> str:
        """What the user called it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names all that decides its vectors; caches keep encoders apart by it."""
        ...

    @property
    def takes_images(self) -> bool:
        """False for an encoder of texts alone: asked for an image, it raises UsageError."""
        ...

    def embed_texts(self, texts: Texts) -> Tensor:
        """(n, H) float32, L2-normalised; a single `str` is one text, n = 1."""
        ...

    def embed_images(self, images: Pictures) -> Tensor:
        """(n, H) float32, L2-normalised, of these pictures, or of a single one."""
        ...

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """(n, H) float32, L2-normalised: one vector for all texts and pictures of a fragment."""
        ...


@runtime_checkable
class EachEncoder(Protocol):
    """An encoder that knows how to keep texts of a call from each other's last bits."""

    def embed_each(self, texts: Texts) -> Tensor: ...


def embed_each(encoder: Encoder, texts: Texts) -> Tensor:
    """Vectors that do not depend on what else is encoded: each is its text's alone, to the bit.

    Args:
        encoder: Where it has no quicker way (`EachEncoder`), it is asked text by text.
        texts: n texts.

    Returns:
        (n, H) float32 on the CPU, L2-normalised.
    """
    if isinstance(encoder, EachEncoder):
        return encoder.embed_each(texts).float().cpu()
    read = as_texts(texts)
    if not read:
        return encoder.embed_texts([]).float().cpu()
    return torch.cat([encoder.embed_texts([text]).float().cpu() for text in read])


@dataclass(frozen=True, slots=True, eq=False)
class TokenStates:
    """The tokens of one text, as an encoder's last layer has them.

    Args:
        ids: Of t tokens, without those that every text has.
        states: (t, H) float16 on the CPU.
    """

    ids: tuple[int, ...]
    states: Tensor


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that also gives the state of each token of a text."""

    def token_states(self, texts: Texts) -> list[TokenStates]: ...


def token_encoder_of(encoder: Encoder) -> TokenEncoder | None:
    """What gives the states of tokens: an encoder, or that within its cache; None where none does.

    States are not kept on disk: they are some hundred times as large as a text's vector.
    """
    inner = getattr(encoder, "cached_encoder", encoder)
    return inner if isinstance(inner, TokenEncoder) else None


class PartEncoder(Protocol):
    """The half of an encoder that `mean_of_parts` needs."""

    def embed_texts(self, texts: Texts) -> Tensor: ...

    def embed_images(self, images: Pictures) -> Tensor: ...


def check_parts(fragments: Sequence[Parts]) -> None:
    """Refuses a fragment of nothing, which has no vector.

    Raises:
        UsageError: with its number.
    """
    for number, parts in enumerate(fragments):
        if not parts:
            raise UsageError(
                f"fragment {number} has neither text nor picture, so it has no vector; leave it out"
            )


def mean_of_parts(encoder: PartEncoder, fragments: Sequence[FragmentParts]) -> Tensor:
    """A fragment's vector by its parts: the mean of their normalised vectors, normalised anew.

        v = m / |m|,  m = (1/k) Σ_i v_i  over the k parts; 0 where they cancel out

    A part that stands in it twice counts twice. Each different text and picture of a call is
    embedded once.

    Args:
        encoder: Embeds texts and images.
        fragments: The fragments, n of them.

    Returns:
        (n, H) float32 on the CPU.

    Raises:
        UsageError: where a fragment has no parts, or an image is asked of an encoder of texts.
    """
    read = as_fragments(fragments)
    check_parts(read)
    texts = list(dict.fromkeys(part for parts in read for part in parts if isinstance(part, str)))
    images = list(
        dict.fromkeys(part for parts in read for part in parts if not isinstance(part, str))
    )
    vectors: dict[Location, Tensor] = {}
    if texts or not images:
        rows = encoder.embed_texts(texts).float().cpu()
        vectors |= zip(texts, rows, strict=True)
    if not read:
        return rows  # of no row, but of the right width
    if images:
        vectors |= zip(images, encoder.embed_images(images).float().cpu(), strict=True)
    means = [torch.stack([vectors[part] for part in parts]).mean(0) for parts in read]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)
