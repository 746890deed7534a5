"""A reader that is asked: its small networks over an encoder's vectors, on a CPU.

Shapes: Q queries on one dialogue, N units of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ffr.answer import format_answer
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.embedding import Encoder
from ffr.embedding.tagger import TaggerIfInstalled
from ffr.errors import ModelError
from ffr.prompt import prompt_of
from ffr.reader.model import Reader, ReaderPrediction
from ffr.reader.units import TextEncoder, Units
from ffr.retrieval.interface import Answer

ENTROPY = "decision_entropy"
"""In `Answer.extra`: the mean entropy of the decisions that the answer was made of, in nats."""

_MAX_QUERIES = 64
_KEPT_DIALOGUES = 256


def decision_entropy(probabilities: Tensor) -> float:
    """The mean entropy of yes-or-no decisions, in nats.

        H = −(1/n) Σ_i (p_i ln p_i + (1 − p_i) ln (1 − p_i))

    Args:
        probabilities: (n,) of yes.

    Returns:
        From 0 (all sure) to ln 2 (all open); 0 of none.

    Raises:
        ValueError: where they are no row of probabilities.

    >>> round(decision_entropy(torch.tensor([0.5, 1.0])), 4)  # ln 2 / 2
    0.3466
    """
    if probabilities.ndim != 1 or not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} lie outside 0 to 1; give "
            "(decisions,) from 0 to 1"
        )
    if not len(probabilities):
        return 0.0
    rows = probabilities.double()
    return float((torch.special.entr(rows) + torch.special.entr(1 - rows)).mean())


class ReaderRetriever:
    """Answers with a reader, in the task's own format.

    An answer's score is the reader's calibrated one (`ReaderPrediction.score`). The entropy of its
    decisions, the one that there is anything at all and those of all units, stands under
    `decision_entropy`.

    Args:
        reader: The reader.
        encoder: Makes the vectors: the one that the reader was trained with.
        name: What tables call it.
        tagger: Gives pictures words; None leaves them without, so that they are found by where
            they stand, as with a reader that never learned with words.

    Raises:
        ModelError: where it is another encoder.
    """

    def __init__(
        self,
        reader: Reader,
        encoder: Encoder,
        *,
        name: str,
        tagger: TaggerIfInstalled | None = None,
    ) -> None:
        if not hasattr(encoder, "weights_digest"):
            raise ModelError(
                "has no weights that a reader could know it by; name the encoder that the reader "
                f"was trained with, {reader.settings.encoder_name}",
                encoder.name,
            )
        self.reader = reader
        self.encoder = encoder
        self._texts = cast(TextEncoder, encoder)
        # refuses another encoder before the first question
        reader.query_vectors([], self._texts)
        self._name = name
        self._tagger = tagger if reader.settings.has_picture_words else None
        self._kept: OrderedDict[tuple[str, ...], Units] = OrderedDict()

    @property
    def name(self) -> str:
        return self._name

    @property
    def takes_images(self) -> bool:
        """Whether it looks at pictures."""
        return self._tagger is not None and self._tagger.tagger is not None

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "reader",
            "name": self._name,
            "fingerprint": self.reader.fingerprint,
            "encoder": self.reader.settings.encoder_name,
            "encoder_weights": self.reader.settings.encoder,
            "encoder_fingerprint": self.encoder.fingerprint,
            "takes_images": self.takes_images,
            "tagger": self._tagger.digest if self._tagger is not None else None,
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        of_dialogue: dict[tuple[str, ...], list[int]] = {}
        for index, example in enumerate(examples):
            of_dialogue.setdefault(_key(example), []).append(index)
        return [
            indices[start : start + _MAX_QUERIES]
            for indices in of_dialogue.values()
            for start in range(0, len(indices), _MAX_QUERIES)
        ]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        found: dict[int, ReaderPrediction] = {}
        for indices in self.plan(examples):
            units = self._units(examples[indices[0]])
            queries = [examples[index].query for index in indices]
            vectors = self.reader.query_vectors(queries, self._texts)
            found |= zip(indices, self.reader.predict(units, vectors), strict=True)
        return [_answer(found[index]) for index in range(len(examples))]

    def _units(self, example: Example) -> Units:
        """The units of an example's dialogue, kept for its next query."""
        key = _key(example)
        if key not in self._kept:
            words = None
            if self._tagger is not None:
                words = self._tagger.words(list(example.image_locations()))
            self._kept[key] = self.reader.units(example.dialogue, self._texts, words)
            if len(self._kept) > _KEPT_DIALOGUES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _key(example: Example) -> tuple[str, ...]:
    """Names a dialogue with its pictures, of which those of another one may be shown."""
    return (example.dialogue.fingerprint, *map(str, example.image_locations()))


def _answer(found: ReaderPrediction) -> Answer:
    decisions = torch.cat([torch.tensor([1 - found.nothing]), found.probabilities])
    return Answer(
        format_answer(Fragment(found.utterance_ids, found.image_ids)),
        score=found.score,
        extra={ENTROPY: decision_entropy(decisions.clamp(0, 1))},
    )
