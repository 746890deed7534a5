"""What stands before lines and before queries where an encoder was trained so.

Encoders of questions and passages learn with words before either ("query: ", "passage: "), and their
vectors fit each other only with them. Texts that are compared with their like, such as those of a
fragment, have nothing before them.

Shapes: n texts, H width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ffr.embedding.interface import Encoder


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What stands before texts of either kind.

    Args:
        line: Before lines of dialogues, and whatever else is found.
        query: Before queries.

    >>> Prefixes("passage: ", "query: ").of_queries(["a taxi"])
    ['query: a taxi']
    """

    line: str = ""
    query: str = ""

    def of_lines(self, texts: Sequence[str]) -> list[str]:
        """Lines as the encoder takes them."""
        return [self.line + text for text in texts]

    def of_queries(self, texts: Sequence[str]) -> list[str]:
        """Queries as the encoder takes them."""
        return [self.query + text for text in texts]


TRAINED_WITH = {"e5": Prefixes("passage: ", "query: ")}
"""Those of encoders out of packages, whose files do not say so."""


@runtime_checkable
class PrefixedEncoder(Protocol):
    """An encoder whose files say what stands before its texts."""

    @property
    def prefixes(self) -> Prefixes: ...


def prefixes_of(encoder: Encoder) -> Prefixes:
    """What an encoder's own files say, or those of the encoder within a cache."""
    inner = getattr(encoder, "cached_encoder", encoder)
    return inner.prefixes if isinstance(inner, PrefixedEncoder) else Prefixes()


def trained_prefixes(encoder: Encoder) -> Prefixes:
    """What an encoder was trained with, as its files or `TRAINED_WITH` say."""
    return TRAINED_WITH.get(encoder.name, prefixes_of(encoder))


def embed_lines(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """(n, H) float32, L2-normalised: vectors of lines, of an encoder whose files say how."""
    return encoder.embed_texts(prefixes_of(encoder).of_lines(texts))


def embed_queries(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """(n, H) float32, L2-normalised: vectors of queries, likewise."""
    return encoder.embed_texts(prefixes_of(encoder).of_queries(texts))
