"""New long dialogues, made of fragments of several: more of what a reader must tell apart.

Each is drawn from a seed and its number alone, so that any of them can be made again.

Shapes: n units of a dialogue.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ffr.reader.units import Units
from ffr.training.common.reader_items import ReaderItem, UnitTable, item_of

_NUM_FRAGMENTS = (3, 3, 3, 4, 4, 5, 9)
"""How many fragments a dialogue is made of, drawn evenly."""
_INTERLEAVED_SHARE = 0.25
"""How often two neighbours are taken apart and put into each other."""
_NUM_PIECES = (2, 2, 3)
_OTHER_GROUP_SHARE = 0.3
"""How often a query that means nothing is of another language than the dialogue."""


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """What a picture of a fragment shows, by its words."""

    dialogue: str
    vector: Tensor
    num_chars: Tensor


@dataclass(frozen=True, slots=True)
class _Fragment:
    """A fragment of the data: an example, and which units of its dialogue."""

    index: int
    dialogue: str
    rows: tuple[int, ...]


class Rejoined:
    """Dialogues of several fragments, each with one query.

    Args:
        table: The data with its vectors; examples whose truth is empty give no fragment.
        absent_share: Share of the dialogues with a query of another one.
        seed: Of all that is drawn.
        strange_pictures: Share of the pictures that show what one of another dialogue shows, and so
            belong to no fragment: where they stand does not tell them.
    """

    def __init__(
        self, table: UnitTable, *, absent_share: float, seed: int, strange_pictures: float = 0.0
    ) -> None:
        self._table = table
        self._absent_share = absent_share
        self._strange_pictures = strange_pictures
        self._seed = seed
        self._groups: dict[int, list[_Fragment]] = {}
        self._pictures: list[_Picture] = []
        for index in range(len(table.data)):
            units = table.units(index)
            rows = tuple(table.labels(index).nonzero()[:, 0].tolist())
            if rows:
                group = table.reader.background.group_of(units.vectors)
                found = _Fragment(index, table.data[index].dialogue.fingerprint, rows)
                self._groups.setdefault(group, []).append(found)
                self._pictures += [
                    _Picture(found.dialogue, units.vectors[row], units.num_chars[row])
                    for row in rows
                    if units.is_picture[row] and units.has_words[row]
                ]
        # what has fewer dialogues than the least that are joined is left as it is
        self._groups = {
            group: found
            for group, found in self._groups.items()
            if len({item.dialogue for item in found}) > max(_NUM_FRAGMENTS)
        }

    @property
    def is_empty(self) -> bool:
        """Whether the data has too few dialogues to make any."""
        return not self._groups

    @property
    def has_pictures(self) -> bool:
        """Whether a fragment has a picture with words, which can be strange elsewhere."""
        return bool(self._pictures)

    def item(self, number: int) -> ReaderItem:
        """The dialogue of a number, with its query and truth.

        Raises:
            ValueError: where there are too few dialogues.
        """
        if self.is_empty:
            raise ValueError("the data has too few dialogues to be rejoined; leave `rejoined` out")
        draw = random.Random(f"{self._seed} rejoined {number}")
        groups = sorted(self._groups)
        weights = [len(self._groups[group]) for group in groups]
        (group,) = draw.choices(groups, weights)
        fragments = _of_different_dialogues(
            self._groups[group], draw.choice(_NUM_FRAGMENTS), draw, taken=set()
        )
        order = _order([len(item.rows) for item in fragments], draw)
        units = self._joined(fragments, order, draw)
        if draw.random() < self._absent_share:
            others = [name for name in groups if name != group]
            is_other = bool(others) and draw.random() < _OTHER_GROUP_SHARE
            pool = self._groups[draw.choice(others)] if is_other else self._groups[group]
            taken = {item.dialogue for item in fragments}
            (absent,) = _of_different_dialogues(pool, 1, draw, taken=taken)
            labels = torch.zeros(len(units), dtype=torch.bool)
            query = self._table.query(absent.index)
        else:
            meant = draw.randrange(len(fragments))
            labels = torch.tensor([place == meant for place, _ in order])
            query = self._table.query(fragments[meant].index)
        if self._strange_pictures:
            units, is_strange = self._estranged(units, {item.dialogue for item in fragments}, draw)
            labels &= ~is_strange
        return item_of(self._table.reader, units, query, labels)

    def _estranged(
        self, units: Units, dialogues: set[str], draw: random.Random
    ) -> tuple[Units, Tensor]:
        """Units of which some pictures show what one of another dialogue shows, and (n,) bool which."""
        vectors, num_chars = units.vectors.clone(), units.num_chars.clone()
        is_strange = torch.zeros(len(units), dtype=torch.bool)
        others = [picture for picture in self._pictures if picture.dialogue not in dialogues]
        for row in (units.is_picture & units.has_words).nonzero()[:, 0].tolist():
            if others and draw.random() < self._strange_pictures:
                shown = draw.choice(others)
                vectors[row], num_chars[row] = shown.vector, shown.num_chars
                is_strange[row] = True
        return replace(units, vectors=vectors, num_chars=num_chars), is_strange

    def _joined(
        self, fragments: Sequence[_Fragment], order: Sequence[tuple[int, int]], draw: random.Random
    ) -> Units:
        """The fragments' units in an order of (fragment, which of its units)."""
        parts = [self._table.units(item.index) for item in fragments]
        rows = [(place, fragments[place].rows[number]) for place, number in order]
        # who speaks first in one fragment may speak second in the next
        shifts = [draw.randrange(2) for _ in fragments]
        places = torch.arange(len(rows))
        nowhere = torch.full_like(places, -1)
        is_picture = torch.stack([parts[part].is_picture[row] for part, row in rows])
        return Units(
            torch.stack([parts[part].vectors[row] for part, row in rows]),
            is_picture,
            torch.stack([(parts[part].speakers[row] + shifts[part]) % 2 for part, row in rows]),
            torch.stack([parts[part].num_chars[row] for part, row in rows]),
            places,
            torch.where(is_picture, places, nowhere),
            parts[0].encoder,
        )


def _of_different_dialogues(
    pool: Sequence[_Fragment], num: int, draw: random.Random, *, taken: set[str]
) -> list[_Fragment]:
    """So many fragments, no two of one dialogue, and none of those that are taken.

    There are dialogues enough: the pool has more than are ever taken together.
    """
    found: list[_Fragment] = []
    taken = set(taken)
    while len(found) < num:
        item = draw.choice(pool)
        if item.dialogue not in taken:
            taken.add(item.dialogue)
            found.append(item)
    return found


def _order(lengths: Sequence[int], draw: random.Random) -> list[tuple[int, int]]:
    """Fragments one after another, some neighbours cut into pieces that take turns.

    Args:
        lengths: Units of each fragment.
        draw: Draws which.

    Returns:
        (fragment, which of its units), each once; a fragment's units keep their order.
    """
    rows = [[(place, number) for number in range(length)] for place, length in enumerate(lengths)]
    order: list[tuple[int, int]] = []
    place = 0
    while place < len(rows):
        if place + 1 < len(rows) and draw.random() < _INTERLEAVED_SHARE:
            num_pieces = draw.choice(_NUM_PIECES)
            first, second = (_pieces(rows[item], num_pieces) for item in (place, place + 1))
            for pair in zip(first, second, strict=True):
                order += [*pair[0], *pair[1]]
            place += 2
        else:
            order += rows[place]
            place += 1
    return order


def _pieces(rows: Sequence[tuple[int, int]], num: int) -> list[Sequence[tuple[int, int]]]:
    return [rows[len(rows) * part // num : len(rows) * (part + 1) // num] for part in range(num)]
