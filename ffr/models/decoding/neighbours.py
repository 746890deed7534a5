"""A decoder of neighbours on one dialogue, whose common beginning goes through the model once.

A row of the cache is [prefix | rest of prompt 1 | … | rest of prompt Q | step 1 of all | step 2 of
all | …]; a mask lets each answer see the prefix, the rest of its own prompt and what it has
written, and positions start anew behind the prefix for each. It is exact.

Shapes: D parts (of one dialogue each), P tokens of the longest prefix, N tokens of the longest
packed rests, Q queries of the part that has most, G answers to each query, rows = all answers,
V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Generic

import torch

from ffr.models.decoding.reading import Reader
from ffr.models.decoding.tail import AnyTail, MakeTail, Placing, Writing
from ffr.models.packing import PackedRows, shared_beginning
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


class NeighbourDecoder(Generic[AnyTail]):
    """Parts of prompts that went through the model once, and the answers token by token.

    A part of one prompt passes in two pieces, all but its last token and that token, which moves
    the last bits; prompts without neighbours go to the decoders of single prompts.

    Args:
        vlm: The model; in evaluation mode.
        parts: D parts of prompts without answers, each with a `shared_beginning`.
        num_samples: Answers to each prompt (G). A row is one answer: those to one prompt adjacent,
            prompt after prompt.
        make_tail: Makes what writes.

    Raises:
        ValueError: where an image stands behind what the prompts of a part have in common.
    """

    def __init__(
        self,
        vlm: Vlm,
        parts: Sequence[Sequence[Encoded]],
        num_samples: int,
        make_tail: MakeTail[AnyTail],
    ) -> None:
        device = vlm.device
        prefixes, rests = _cut(parts, vlm.placeholder_ids)
        num_parts, num_queries = len(parts), max(map(len, parts))
        self._size = num_queries * num_samples  # answers of a row of the cache
        # how many answers each part has: one with fewer queries leaves the end of its row unused
        self._sizes = [num_samples * len(part) for part in parts]
        self._alive = list(range(num_parts))  # which part each row of the cache is

        self._reader = Reader(vlm, prefixes, padding_side="right")
        prefix_mask, following = self._reader.mask.bool(), self._reader.following  # (D, P), (D,)
        packed = PackedRows.of(rests, filling_id=vlm.padding_id, device=device)
        positions = following[:, None] + packed.place  # anew behind the prefix for each rest
        hidden = self._reader.read(packed.ids, positions, packed.mask(prefix_mask))
        # each rest's last token predicts its answers' first; 0 where a part has no such query
        last = torch.zeros((num_parts, num_queries), dtype=torch.long)
        for row, (starts, part) in enumerate(zip(packed.starts, rests, strict=True)):
            for number, (start, rest) in enumerate(zip(starts, part, strict=True)):
                last[row, number] = start + len(rest) - 1
        last = last.to(device)
        at = torch.arange(num_parts, device=device)[:, None]
        # (D, Q, V), and then once for each answer
        logits = self._reader.logits(hidden[at, last])
        self._first = logits.repeat_interleave(num_samples, dim=1)
        # what a written token sees besides what its own answer has written: (D, Q·G, P + N)
        numbers = torch.arange(num_queries, device=device)
        its_rest = packed.owner[:, None, :] == numbers[None, :, None]
        of_prefix = prefix_mask[:, None, :].expand(-1, num_queries, -1)
        seen = torch.cat([of_prefix, its_rest], dim=2)
        ends = following[:, None] + packed.place[at, last] + 1
        self._tail = make_tail(
            self._reader,
            seen.repeat_interleave(num_samples, dim=1),
            ends.repeat_interleave(num_samples, dim=1),
        )
        self._find_places()

    def _find_places(self) -> None:
        """Which answer each place of the cache's rows is, and the place of each answer."""
        starts = [0, *itertools.accumulate(self._sizes)]
        answers: list[int] = []
        places = [0] * starts[-1]  # answers of dropped parts read some place or other
        for row, part in enumerate(self._alive):
            for number in range(self._sizes[part]):
                places[starts[part] + number] = row * self._size + number
            # unused places write some answer's token, which nobody sees
            unused = self._size - self._sizes[part]
            answers += [*range(starts[part], starts[part + 1]), *[starts[part]] * unused]
        device = self._reader.mask.device
        self._answers = torch.tensor(answers).to(device).view(-1, self._size)  # (alive, Q·G)
        self._places = torch.tensor(places).to(device)  # (rows,)

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict; asked for once."""
        logits, self._first = self._first.flatten(0, 1)[self._places], torch.empty(0)
        return logits

    def step(self: NeighbourDecoder[Writing], token: torch.Tensor) -> torch.Tensor:
        """(rows, V) float32 after one more token (rows,) of each answer.

        What it gives for parts that were dropped has no meaning.
        """
        hidden = self._tail.read(token[self._answers])
        return self._reader.logits(hidden.flatten(0, 1)[self._places])

    def step_at(
        self: NeighbourDecoder[Placing], tokens: torch.Tensor, places: torch.Tensor, num_places: int
    ) -> torch.Tensor:
        """As `ffr.models.decoding.drafted.DraftedDecoder`."""
        at = self._answers
        hidden = self._tail.read_at(tokens[at], places[at], num_places)
        return self._reader.logits(hidden.flatten(0, 1)[self._places])

    def drop_finished(self, is_open: Sequence[bool]) -> list[int] | None:
        """As `ffr.models.decoding.loop.Decoder`: parts go when all their answers have ended.

        Returns:
            None: all rows stay, so that none has to be numbered anew.
        """
        starts = [0, *itertools.accumulate(self._sizes)]
        kept = [
            row
            for row, part in enumerate(self._alive)
            if any(is_open[starts[part] : starts[part + 1]])
        ]
        if self._tail.select(kept):
            self._alive = [self._alive[row] for row in kept]
            self._find_places()
        return None


def _cut(
    parts: Sequence[Sequence[Encoded]], placeholder_ids: frozenset[int]
) -> tuple[list[Encoded], list[list[list[int]]]]:
    """What the prompts of each part have in common, and of each prompt the rest."""
    prefixes: list[Encoded] = []
    rests: list[list[list[int]]] = []
    for part in parts:
        length = shared_beginning(part, placeholder_ids)
        if length is None:
            raise ValueError("an image stands behind what the prompts of a part have in common")
        prefixes.append(Encoded(part[0].input_ids[:length], images=part[0].images))
        rests.append([prompt.input_ids[length:] for prompt in part])
    return prefixes, rests
