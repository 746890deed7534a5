"""Controls: what a retriever sees is changed, to show what a figure does not owe to it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ffr.dialogue import Dialogue, Example, Image, Utterance
from ffr.errors import UsageError
from ffr.text import is_url


class WrongPictures(Sequence[Example]):
    """A control: every picture is replaced by one of another dialogue; texts and answers stay.

    What image F1 is left shows how much of it comes from where a picture stands rather than from
    what it shows. The queries of one dialogue see the same wrong pictures.

    Args:
        examples: The data set.
        seed: Seed of the choice.

    Raises:
        UsageError: where no other dialogue has pictures to lend.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int) -> None:
        self._examples = examples
        self._seed = seed
        self._pictures: dict[str, tuple[Image, ...]] = {}
        for example in examples:
            if example.dialogue.images and example.dialogue.fingerprint not in self._pictures:
                self._pictures[example.dialogue.fingerprint] = tuple(
                    dataclasses.replace(
                        image,
                        source=str(location if is_url(location) else Path(location).absolute()),
                    )
                    for image, location in zip(
                        example.dialogue.images, example.image_locations(), strict=True
                    )
                )
        self._dialogues = sorted(self._pictures)
        if len(self._dialogues) < 2:
            raise UsageError(
                "--wrong-pictures takes the pictures of other dialogues, and here only "
                f"{len(self._dialogues)} dialogue has any; choose other data"
            )

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return map(self._replace, self._examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self._replace(self._examples[index])

    def _replace(self, example: Example) -> Example:
        dialogue = example.dialogue
        if not dialogue.images:
            return example
        own = [image.content for image in self._pictures[dialogue.fingerprint]]
        draw = random.Random(f"{self._seed} {dialogue.fingerprint}")
        shown: list[Image] = []
        for image in dialogue.images:
            # a picture may be in many dialogues: draw until one comes that this dialogue does not
            # have
            for _ in range(1000):
                lent = draw.choice(self._pictures[draw.choice(self._dialogues)])
                if lent.content not in own:
                    break
            else:
                raise UsageError(
                    f"--wrong-pictures found no picture that dialogue {dialogue.id!r} does not "
                    "have; choose other data"
                )
            shown.append(dataclasses.replace(image, source=lent.source, digest=lent.digest))
        following = iter(shown)
        utterances = tuple(
            Utterance(
                line.speaker,
                tuple(part if isinstance(part, str) else next(following) for part in line.segments),
            )
            for line in dialogue.utterances
        )
        return dataclasses.replace(example, dialogue=Dialogue(dialogue.id, utterances))
