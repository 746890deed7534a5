"""A decoder of neighbours on one dialogue, whose common beginning goes through the model once.

A row of the cache is [prefix | rest of prompt 1 | … | rest of prompt Q | step 1 of all | step 2 of
all | …]; a mask lets each answer see the prefix, the rest of its own prompt and what it has
written, and positions start anew behind the prefix for each. It is exact.

Shapes: D parts (of one dialogue each), P tokens of the longest prefix, N tokens of the longest
packed rests, Q queries of the part that has most, G answers to each query, rows = all answers,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ffr.models.decoding.reading import Reader, own_tokens
from ffr.models.packing import PackedRows, shared_beginning
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


class NeighbourDecoder:
    """Parts of prompts that went through the model once, and the answers token by token.

    A part of one prompt passes in two pieces, all but its last token and that token, which moves
    the last bits; prompts without neighbours go to the decoders of single prompts.

    Args:
        vlm: The model; in evaluation mode.
        parts: D parts of prompts without answers, each with a `shared_beginning`.
        num_samples: Answers to each prompt (G). A row is one answer: those to one prompt adjacent,
            prompt after prompt.

    Raises:
        ValueError: where an image stands behind what the prompts of a part have in common.
    """

    def __init__(self, vlm: Vlm, parts: Sequence[Sequence[Encoded]], num_samples: int = 1) -> None:
        device = vlm.device
        prefixes, rests = _cut(parts, vlm.placeholder_ids)
        num_parts, num_queries = len(parts), max(map(len, parts))
        self._size = num_queries * num_samples  # answers of a row of the cache
        # where each answer stands in (D, Q·G): a part with fewer queries leaves its end unused
        sizes = [num_samples * len(part) for part in parts]
        part_of = [number for number, size in enumerate(sizes) for _ in range(size)]
        place_of = [place for size in sizes for place in range(size)]
        self._parts = torch.tensor(part_of, device=device)
        self._places = torch.tensor(place_of, device=device)
        self._alive = torch.arange(num_parts, device=device)  # which part each row of the cache is
        self._num_steps = 0

        self._reader = Reader(vlm, prefixes, padding_side="right")
        prefix_mask, following = self._reader.mask.bool(), self._reader.following  # (D, P), (D,)
        packed = PackedRows.of(rests, filling_id=vlm.stop_ids[0], device=device)
        positions = following[:, None] + packed.place  # anew behind the prefix for each rest
        hidden = self._reader.read(packed.ids, positions, packed.mask(prefix_mask))
        # each rest's last token predicts its answers' first; 0 where a part has no such query
        last = torch.zeros((num_parts, num_queries), dtype=torch.long)
        for row, (starts, part) in enumerate(zip(packed.starts, rests, strict=True)):
            for number, (start, rest) in enumerate(zip(starts, part, strict=True)):
                last[row, number] = start + len(rest) - 1
        last = last.to(device)
        at = self._alive[:, None]
        # (D, Q, V), and then once for each answer
        logits = self._reader.logits(hidden[at, last])
        self._first = logits.repeat_interleave(num_samples, dim=1)
        # what a written token sees besides what its own answer has written: (D, Q·G, P + N)
        numbers = torch.arange(num_queries, device=device)
        its_rest = packed.owner[:, None, :] == numbers[None, :, None]
        of_prefix = prefix_mask[:, None, :].expand(-1, num_queries, -1)
        seen = torch.cat([of_prefix, its_rest], dim=2)
        self._mask = seen.repeat_interleave(num_samples, dim=1)
        ends = following[:, None] + packed.place[at, last] + 1
        self._position = ends.repeat_interleave(num_samples, dim=1)  # (D, Q·G)

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict; asked for once."""
        logits, self._first = self._first[self._parts, self._places], torch.empty(0)
        return logits

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """(rows, V) float32 after one more token (rows,) of each answer.

        What it gives for parts that were dropped has no meaning.
        """
        num_rows, size = len(self._alive), self._size
        together = token.new_zeros((int(self._parts.max()) + 1, size))
        together[self._parts, self._places] = token
        self._num_steps += 1
        own = own_tokens(size, self._num_steps, token.device).expand(num_rows, -1, -1)
        mask = torch.cat([self._mask, own], dim=2)[:, None]
        positions = self._position + self._num_steps - 1
        hidden = self._reader.read(together[self._alive], positions, mask)
        # back from rows of the cache to answers; those of dropped parts read some row or other
        row_of = torch.zeros(len(together), dtype=torch.long, device=token.device)
        row_of[self._alive] = torch.arange(num_rows, device=token.device)
        return self._reader.logits(hidden[row_of[self._parts], self._places])

    def drop_finished(self, is_open: torch.Tensor) -> torch.Tensor | None:
        """As `ffr.models.decoding.loop.Decoder`: parts go when all their answers have ended.

        Returns:
            None: all rows stay, so that none has to be numbered anew.
        """
        num_parts = int(self._parts.max()) + 1
        open_parts = torch.zeros(num_parts, dtype=torch.bool, device=is_open.device)
        open_parts[self._parts[is_open]] = True
        kept = open_parts[self._alive].nonzero()[:, 0]
        if 4 * len(kept) > 3 * len(self._alive):
            return None
        self._reader.cache.batch_select_indices(kept)
        self._alive, self._mask = self._alive[kept], self._mask[kept]
        self._position = self._position[kept]
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
