"""Encodes the packs of queries that SFT packs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ffr.data.dataset import ExampleDataset
from ffr.models.packing import PackedQueries, pack, separate
from ffr.models.prompts import PromptBuilder
from ffr.progress import Say


class QueryPacker:
    """Encodes the packs of a training; safe to call from several threads.

    Args:
        builder: Encodes one example.
        data: The examples.
        packs: Indices of the examples of each pack.
        is_shared: False leaves each example its own prompt, for a model that cannot share them.
        say: Told once where the pictures of a pack are not in what its queries share, so that
            nothing is.
    """

    def __init__(
        self,
        builder: PromptBuilder,
        data: ExampleDataset,
        packs: Sequence[Sequence[int]],
        *,
        is_shared: bool,
        say: Say,
    ) -> None:
        self._builder = builder
        self._data = data
        self._packs = packs
        self._is_shared = is_shared
        self._say = say
        self._has_said = False
        self._lock = threading.Lock()

    def __call__(self, number: int) -> PackedQueries:
        """The pack of a number.

        Raises:
            DataError: for an example that cannot be encoded.
        """
        indices = self._packs[number]
        rows = [
            self._builder(self._data[index], with_answer=True, where=self._data.where(index))
            for index in indices
        ]
        if not self._is_shared:
            return separate(rows)
        packed = pack(rows, self._builder.vlm.placeholder_ids)
        if len(packed.prompts) > 1:
            self._say_once(
                f"{self._data.where(indices[0])}: its pictures do not all stand before its "
                "queries, so the queries of such "
                "dialogues are trained one by one"
            )
        return packed

    def count_answer_tokens(self, number: int) -> int:
        """Answer tokens of a pack, without reading its pictures."""
        return sum(
            self._builder.count_answer_tokens(self._data[index]) for index in self._packs[number]
        )

    def _say_once(self, line: str) -> None:
        with self._lock:
            is_first, self._has_said = not self._has_said, True
        if is_first:
            self._say(line)
