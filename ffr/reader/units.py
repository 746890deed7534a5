"""A dialogue as the reader takes it: its units in order, each with a vector.

Shapes: N units of a dialogue, D width of the encoder's vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from ffr.dialogue import Dialogue


class TextEncoder(Protocol):
    """What makes vectors of words: a sentence encoder, with or without a cache."""

    @property
    def name(self) -> str: ...

    @property
    def weights_digest(self) -> str:
        """Names the weights: vectors of two encoders are never compared."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, D) float32, L2-normalised."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What a dialogue consists of, in order: utterances, and pictures that stand beside words.

    An utterance that has words is a unit, and each of its pictures is one of its own behind it. An
    utterance of pictures alone is one unit with its first picture, so that both are found or
    neither. What has no words (a picture that nobody described, an empty line) has a row of zeros.

    Args:
        vectors: (N, D) float32, L2-normalised; zeros where there are no words.
        is_picture: (N,) bool.
        speakers: (N,) int64, numbered from 0 in order of appearance.
        num_chars: (N,) int64, length of what the vector was made of; 0 without words.
        utterance_ids: (N,) int64; -1 where the unit is a picture beside others.
        image_ids: (N,) int64; -1 where the unit is no picture.
        encoder: What the vectors were made by (`TextEncoder.weights_digest`).

    Raises:
        ValueError: where shapes differ or vectors are not finite.
    """

    vectors: Tensor
    is_picture: Tensor
    speakers: Tensor
    num_chars: Tensor
    utterance_ids: Tensor
    image_ids: Tensor
    encoder: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not self.vectors.is_floating_point():
            raise ValueError(
                f"vectors of shape {tuple(self.vectors.shape)} and {self.vectors.dtype} are no "
                "rows; give (units, width) of floats"
            )
        if not bool(self.vectors.isfinite().all()):
            raise ValueError("vectors hold NaN or infinite numbers; embed the dialogue again")
        for field in fields(self)[1:-1]:
            value = getattr(self, field.name)
            if value.shape != self.vectors.shape[:1]:
                raise ValueError(
                    f"{field.name} has shape {tuple(value.shape)} beside {len(self.vectors)} "
                    "vectors; give one value a unit"
                )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def has_words(self) -> Tensor:
        """(N,) bool."""
        return self.num_chars > 0

    def part(self, start: int, stop: int) -> Units:
        """The units from `start` up to, without, `stop`."""
        rows = {field.name: getattr(self, field.name)[start:stop] for field in fields(self)[:-1]}
        return Units(**rows, encoder=self.encoder)

    def labels(self, utterance_ids: Sequence[int], image_ids: Sequence[int]) -> Tensor:
        """(N,) bool: which units a fragment names.

        A unit that is both utterance and picture counts where either is named.
        """
        utterances = torch.tensor([*utterance_ids], dtype=torch.long)
        images = torch.tensor([*image_ids], dtype=torch.long)
        return torch.isin(self.utterance_ids, utterances) | torch.isin(self.image_ids, images)


def units_of(
    dialogue: Dialogue,
    encoder: TextEncoder,
    *,
    picture_words: Sequence[str] | None = None,
    prefix: str = "",
) -> Units:
    """The units of a dialogue, each text embedded once.

    Args:
        dialogue: The dialogue.
        encoder: Makes the vectors.
        picture_words: For each image id, words for what the picture shows; "" where none are known.
            None: of no picture.
        prefix: Stands before every text, as the encoder was trained.

    Raises:
        ValueError: where `picture_words` are not as many as the pictures.

    >>> from ffr.dialogue import Image, Utterance
    >>> class Letters:
    ...     name = weights_digest = "letters"
    ...     def embed_texts(self, texts):
    ...         return torch.tensor([[float("a" in text), float("b" in text)] for text in texts])
    >>> chat = Dialogue.of([("Ann", "a"), ("Bob", ["b", Image("x.png")]), ("Bob", Image("y.png"))])
    >>> units = units_of(chat, Letters(), picture_words=["", "a photo"])
    >>> units.vectors.tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    >>> units.utterance_ids.tolist(), units.image_ids.tolist()
    ([0, 1, -1, 2], [-1, -1, 0, 1])
    """
    num_images = len(dialogue.images)
    shown = [""] * num_images if picture_words is None else list(picture_words)
    if len(shown) != num_images:
        raise ValueError(
            f"there are words for {len(shown)} pictures and the dialogue has {num_images}; give "
            'one text a picture, "" where none is known'
        )
    texts: list[str] = []
    rows: list[tuple[bool, int, int, int]] = []
    speakers: dict[str, int] = {}
    image_id = 0
    for utterance_id, utterance in enumerate(dialogue.utterances):
        # prompts lower speakers' names too, so that `User` and `user` are one
        speaker = speakers.setdefault(utterance.speaker.lower(), len(speakers))
        words = utterance.text.strip()
        if words or not utterance.images:
            texts.append(words)
            rows.append((False, speaker, utterance_id, -1))
        for number in range(len(utterance.images)):
            texts.append(shown[image_id].strip())
            is_host = number == 0 and not words
            rows.append((True, speaker, utterance_id if is_host else -1, image_id))
            image_id += 1
    different = list(dict.fromkeys(text for text in texts if text))
    # an encoder that is asked for nothing still tells its width
    found = encoder.embed_texts([prefix + text for text in different]).float().cpu()
    places = {text: number for number, text in enumerate(different)}
    vectors = torch.zeros(len(texts), found.shape[-1])
    for row, text in enumerate(texts):
        if text:
            vectors[row] = found[places[text]]
    is_picture, numbers, utterance_ids, image_ids = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    )
    return Units(
        vectors,
        torch.tensor(is_picture, dtype=torch.bool),
        torch.tensor(numbers, dtype=torch.long),
        torch.tensor([len(text) for text in texts], dtype=torch.long),
        torch.tensor(utterance_ids, dtype=torch.long),
        torch.tensor(image_ids, dtype=torch.long),
        encoder.weights_digest,
    )
