"""The examples of a training as a reader takes them, and batches of them.

Shapes: B queries of a batch, N units of the longest dialogue, n of one, D width of the encoder's
vectors, F and H numbers a unit and a query (`ffr.reader.likeness`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ffr.data.dataset import ExampleDataset
from ffr.dialogue import Dialogue, Example
from ffr.embedding import Encoder
from ffr.embedding.tagger import TaggerIfInstalled
from ffr.errors import DataError
from ffr.progress import Say
from ffr.reader.likeness import Surroundings, likenesses, surroundings
from ffr.reader.model import Reader
from ffr.reader.network import NetworkInputs
from ffr.reader.units import TextEncoder, Units

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class ReaderItem:
    """A query on a dialogue with its true fragment.

    Args:
        features: (n, F) float32.
        summaries: (H,) float32.
        between: (n, n) float32.
        speakers: (n,) int64.
        labels: (n,) bool, the true units.
    """

    features: Tensor
    summaries: Tensor
    between: Tensor
    speakers: Tensor
    labels: Tensor

    @property
    def num_answer_tokens(self) -> int:
        """What it counts in a step's loss: each example as much."""
        return 1

    @property
    def num_tokens(self) -> int:
        """Its units."""
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Memory of its tensors."""
        return sum(
            value.numel() * value.element_size()
            for value in (self.features, self.summaries, self.between, self.speakers, self.labels)
        )


def item_of(
    reader: Reader,
    units: Units,
    query: Tensor,
    labels: Tensor,
    around: Surroundings | None = None,
) -> ReaderItem:
    """What a network takes of a query on a dialogue, with its truth.

    Args:
        reader: Knows what is usual between strangers.
        units: The dialogue, n units.
        query: (D,) float32.
        labels: (n,) bool.
        around: `ffr.reader.likeness.surroundings` of the dialogue; None makes them.

    Raises:
        ValueError: where widths or lengths differ.
    """
    if labels.shape != (len(units),):
        raise ValueError(f"{tuple(labels.shape)} labels beside {len(units)} units; give one each")
    seen = likenesses(units, query[None], reader.background, around)
    return ReaderItem(seen.features[0], seen.summaries[0], seen.between, units.speakers, labels)


def batch_of(items: Sequence[ReaderItem]) -> tuple[NetworkInputs, Tensor]:
    """Items as one padded batch, and its labels (B, N) bool, False on padding.

    Raises:
        ValueError: where there are none.
    """
    inputs = NetworkInputs.padded(
        [(item.features, item.summaries, item.between, item.speakers) for item in items]
    )
    labels = torch.zeros(inputs.mask.shape, dtype=torch.bool)
    for row, item in enumerate(items):
        labels[row, : len(item.labels)] = item.labels
    return inputs, labels


def num_units(dialogue: Dialogue) -> int:
    """Units of a dialogue, without its vectors.

    >>> from ffr.dialogue import Image
    >>> num_units(Dialogue.of([("a", ["a cat", Image("cat.png")]), ("b", Image("dog.png"))]))
    3
    """
    return sum(max(1, bool(line.text.strip()) + len(line.images)) for line in dialogue.utterances)


def check_lengths(data: ExampleDataset, max_units: int, indices: Iterable[int]) -> None:
    """Refuses dialogues that are longer than a training takes.

    Args:
        data: The data.
        max_units: The most units.
        indices: The examples that are looked at.

    Raises:
        DataError: with the place of the first.
    """
    for index in indices:
        found = num_units(data[index].dialogue)
        if found > max_units:
            raise DataError(
                f"its dialogue has {found} utterances and pictures, more than the {max_units} "
                "allowed; cut it, leave it out, or raise max_units",
                where=data.where(index),
            )


class UnitTable:
    """The units and query vectors of data, embedded once, in the order of the data.

    The order is fixed so that the encoder sees the same batches whenever a run goes on: their make-up
    moves the last bits of a vector.

    Args:
        reader: Says how texts are embedded.
        encoder: Makes the vectors.
        data: The examples.
        tagger: Gives their pictures words; None for none.
    """

    def __init__(
        self,
        reader: Reader,
        encoder: Encoder,
        data: ExampleDataset,
        tagger: TaggerIfInstalled | None = None,
    ) -> None:
        self.reader = reader
        self.data = data
        self._encoder = cast(TextEncoder, encoder)
        self._tagger = tagger
        self._units: dict[str, Units] = {}
        self._queries: dict[str, Tensor] = {}

    @property
    def has_picture_words(self) -> bool:
        """Whether pictures have words."""
        return self._tagger is not None and self._tagger.tagger is not None

    def fill(self, indices: Sequence[int], say: Say, what: str) -> None:
        """Embeds what some examples need; says how far it is where that takes long.

        Args:
            indices: The examples.
            say: Takes the lines.
            what: What the data is called there.
        """
        told = _by_fifths(say, what)
        for number, index in enumerate(indices, start=1):
            example = self.data[index]
            if example.dialogue.fingerprint not in self._units:
                self._units[example.dialogue.fingerprint] = self._units_of(example)
            told(number, len(indices))
        queries = list(dict.fromkeys(self.data[index].query for index in indices))
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            part = queries[start : start + _QUERIES_AT_ONCE]
            vectors = self.reader.query_vectors(part, self._encoder)
            self._queries |= zip(part, vectors, strict=True)

    def find(self, example: Example) -> tuple[Units, Tensor]:
        """The units of an example's dialogue and (D,) the vector of its query, embedded if need be."""
        units = self._units.get(example.dialogue.fingerprint)
        query = self._queries.get(example.query)
        if units is None:
            units = self._units_of(example)
        if query is None:
            query = self.reader.query_vectors([example.query], self._encoder)[0]
        return units, query

    def _units_of(self, example: Example) -> Units:
        words = (
            None if self._tagger is None else self._tagger.words(list(example.image_locations()))
        )
        return self.reader.units(example.dialogue, self._encoder, words)

    def units(self, index: int) -> Units:
        """The units of an example's dialogue, filled before."""
        return self._units[self.data[index].dialogue.fingerprint]

    def query(self, index: int) -> Tensor:
        """(D,) the vector of an example's query, filled before."""
        return self._queries[self.data[index].query]

    def labels(self, index: int) -> Tensor:
        """(n,) bool, the units of an example's true fragment.

        Raises:
            DataError: where it has none.
        """
        return labels_of(self.data[index], self.units(index), self.data.where(index))

    def item(self, index: int) -> ReaderItem:
        """The item of an example."""
        return item_of(self.reader, self.units(index), self.query(index), self.labels(index))


def stranger_items(
    table: UnitTable, indices: Sequence[int], *, each: int, seed: int
) -> list[ReaderItem]:
    """Queries of other dialogues put to the dialogues of some examples, where they mean nothing.

    Drawn among the examples whose truth is not empty, of the dialogue's language and from another
    dialogue; none that is asked of the dialogue itself. Now and then one does mean something there,
    which nothing tells.

    Args:
        table: The data with its vectors.
        indices: The examples, filled before.
        each: How many for each of them, at most.
        seed: Of all that is drawn.

    Returns:
        Items without a true unit, in the order drawn.
    """
    asked: dict[str, set[str]] = {}
    groups: dict[int, list[int]] = {}
    group_of: dict[int, int] = {}
    for index in indices:
        example = table.data[index]
        asked.setdefault(example.dialogue.fingerprint, set()).add(example.query)
        group_of[index] = table.reader.background.group_of(table.units(index).vectors)
        if bool(table.labels(index).any()):
            groups.setdefault(group_of[index], []).append(index)
    draw = random.Random(f"{seed} strangers")
    around: dict[str, Surroundings] = {}
    items = []
    for _ in range(each):
        for index in indices:
            units, dialogue = table.units(index), table.data[index].dialogue.fingerprint
            pool = [
                other
                for other in groups.get(group_of[index], ())
                if table.data[other].dialogue.fingerprint != dialogue
                and table.data[other].query not in asked[dialogue]
            ]
            if pool:
                if dialogue not in around:
                    around[dialogue] = surroundings(units, table.reader.background)
                query = table.query(draw.choice(pool))
                nowhere = torch.zeros(len(units), dtype=torch.bool)
                items.append(item_of(table.reader, units, query, nowhere, around[dialogue]))
    return items


def labels_of(example: Example, units: Units, where: str) -> Tensor:
    """(n,) bool: the units of an example's true fragment.

    Raises:
        DataError: where it has none.
    """
    if example.fragment is None:
        raise DataError("has no true answer; leave it out or add `solution`", where=where)
    return units.labels(example.fragment.utterance_ids, example.fragment.image_ids)


def _by_fifths(say: Say, what: str) -> Callable[[int, int], None]:
    told = [0]

    def progress(num_done: int, num_all: int) -> None:
        fifth = 5 * num_done // max(1, num_all)
        if fifth > told[0] and num_all >= 5:
            told[0] = fifth
            say(f"  {what}: {num_done} of {num_all} examples have their vectors")

    return progress
