"""The paper's order reward for a reader: its own encoder's vectors, a picture by the words of what it shows.

A sentence encoder has no vectors of pictures, and an encoder of both that comes with ffr knows drawn shapes alone. So a
picture here is its tagger's words, as for the reader itself. `-o rewards=reader_rewards:order=1` takes it;
`FFR_ORDER_FOLDER` names the folder with `vectors/` and `words.json` (path of a picture → its words).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ffr.embedding import CachedEncoder, load_encoder
from ffr.rewards import FragmentOrderReward

FOLDER = "FFR_ORDER_FOLDER"
PREFIX = "passage: "
CACHE_BYTES = 2**32


class WordsForPictures:
    """Vectors of texts, and of pictures by their words.

    Args:
        encoder: Makes the vectors of texts.
        words: Path of a picture → its words.
    """

    def __init__(self, encoder: Any, words: Mapping[str, str]) -> None:
        self.encoder = encoder
        self.words = words

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, H) float32, L2-normalised."""
        found: Tensor = self.encoder.embed_texts([PREFIX + text for text in texts])
        return found

    def embed_images(self, images: Sequence[Any]) -> Tensor:
        """(n, H) likewise, of the words of these pictures; KeyError where one has none."""
        return self.embed_texts([self.words[str(image)] for image in images])


@cache
def _reward() -> FragmentOrderReward:
    folder = Path(os.environ[FOLDER])
    encoder = CachedEncoder(load_encoder("e5"), folder / "vectors", max_bytes=CACHE_BYTES)
    words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    return FragmentOrderReward(WordsForPictures(encoder, words), max_dialogues=4096)  # type: ignore[arg-type]


def order(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """`ffr.rewards.FragmentOrderReward` over `WordsForPictures`."""
    return _reward()(prompts, completions, **columns)
