"""Encoders of texts, images and fragments into one space, with a cache of vectors on disk."""

from ffr.embedding.cache import CachedEncoder
from ffr.embedding.dual import KINDS, DualEncoder, load_dual_encoder
from ffr.embedding.interface import Encoder, mean_of_parts
from ffr.embedding.loading import SHIPPED, load_encoder
from ffr.embedding.sentence import SENTENCE_KINDS, SentenceEncoder, load_sentence_encoder
from ffr.parts import FragmentParts, Pictures, Texts

__all__ = [
    "KINDS",
    "SENTENCE_KINDS",
    "SHIPPED",
    "CachedEncoder",
    "DualEncoder",
    "Encoder",
    "FragmentParts",
    "Pictures",
    "SentenceEncoder",
    "Texts",
    "load_dual_encoder",
    "load_encoder",
    "load_sentence_encoder",
    "mean_of_parts",
]
