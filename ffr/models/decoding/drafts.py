"""Guesses of the next tokens, from what has been written before.

Shapes: R answers, of which `rows` go on; G answers to each prompt, S tokens of the longest answer
so far, M tokens of all that a prompt's answers are held against, k guesses of each answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ffr.answer import format_answer
from ffr.dialogue import Fragment
from ffr.models.vlm import Vlm

NONE = -1
"""Stands where there is no guess, and between texts."""

_NOTHING = -2
"""Stands where not even that is: it matches nothing."""

_LONGEST_MATCH = 4
"""How many of an answer's last tokens are looked for, at most."""


_COUNTED = (100, 20)
"""How many lines and pictures are counted up for guesses: most fragments are lines in a row."""


class Propose(Protocol):
    """Guesses what answers go on with."""

    def __call__(
        self, tokens: torch.Tensor, count: torch.Tensor, rows: torch.Tensor | None
    ) -> torch.Tensor:
        """(rows, k) tokens behind each answer's last; from some place on `NONE`.

        Args:
            tokens: (rows, S) what is written.
            count: (rows,) how many of these each answer has.
            rows: The numbers of these answers among all R; None for all.
        """
        ...


@dataclass(frozen=True, slots=True)
class Drafts:
    """How answers are guessed ahead.

    Args:
        num_tokens: Guesses of an answer in a pass, at most.
        texts: Tokens of texts for each prompt, in which guesses are looked for; the last count
            most.
    """

    num_tokens: int
    texts: Sequence[Sequence[Sequence[int]]]

    def guesses(self, num_samples: int, device: torch.device) -> MetBefore:
        """What guesses, of so many answers to each prompt."""
        return MetBefore(
            self.texts, num_samples=num_samples, num_drafts=self.num_tokens, device=device
        )


class MetBefore:
    """Guesses what stood behind an answer's last tokens where these were met before.

    They are looked for in all answers to its prompt as far as they are written, its own too, and in
    texts that are given. The longest match counts, and of several the last: texts in their order,
    then the answers in theirs.

    Args:
        texts: Tokens of any number of texts for each prompt.
        num_samples: Answers to each prompt (G), adjacent.
        num_drafts: Guesses of each answer (k).
        device: Where the answers are written.

    >>> import torch
    >>> guess = MetBefore([[[7, 8, 9, 5, 6]]], num_samples=2, num_drafts=3, device=torch.device("cpu"))
    >>> guess(torch.tensor([[8, 9, 0], [1, 2, 8]]), torch.tensor([2, 3]), None).tolist()
    [[5, 6, -1], [9, -1, -1]]
    """

    def __init__(
        self,
        texts: Sequence[Sequence[Sequence[int]]],
        *,
        num_samples: int,
        num_drafts: int,
        device: torch.device,
    ) -> None:
        self._num_samples = num_samples
        self._num_drafts = num_drafts
        # before each text stands what stands before each answer: nothing
        joined = [
            list(itertools.chain.from_iterable([NONE, *text] for text in some)) for some in texts
        ]
        longest = max(map(len, joined), default=0)
        # in front of all, room to look back from the first
        filled = [[NONE] * (_LONGEST_MATCH - 1 + longest - len(some)) + some for some in joined]
        width = _LONGEST_MATCH - 1 + longest
        self._texts = torch.tensor(filled, dtype=torch.long).view(len(texts), width).to(device)
        self._behind = torch.full((len(texts), num_drafts), NONE, device=device)
        self._numbers = torch.arange(1024, device=device)

    def __call__(
        self, tokens: torch.Tensor, count: torch.Tensor, rows: torch.Tensor | None
    ) -> torch.Tensor:
        """As `Propose`; all G answers to a prompt are there, or none."""
        size = self._num_samples
        texts = self._texts if rows is None else self._texts[rows[::size] // size]
        is_not_there = self._first(tokens.shape[1]) >= count[:, None]
        # (rows, 1 + S) with nothing in front
        written = torch.nn.functional.pad(
            tokens.masked_fill(is_not_there, NONE), (1, 0), value=NONE
        )
        # (prompts, M) all that may be met, and behind it room for guesses that are none
        known = torch.cat([texts, written.view(len(texts), -1), self._behind[: len(texts)]], dim=1)
        num_known = known.shape[1] - _LONGEST_MATCH + 1 - self._num_drafts
        # (rows, longest) an answer's last tokens, the newest first, and what stands before them
        back = count[:, None] - self._first(_LONGEST_MATCH)
        last = written.gather(1, back.clamp(min=0)).masked_fill(back < 0, _NOTHING)
        last = last.view(len(texts), size, 1, _LONGEST_MATCH)
        # (prompts, 1, M, longest) what ends at each place, likewise
        ends = known[:, : num_known + _LONGEST_MATCH - 1].unfold(1, _LONGEST_MATCH, 1).flip(2)
        # what nothing stands behind tells nothing: an answer's own end, for one
        goes_on = known[:, None, _LONGEST_MATCH : _LONGEST_MATCH + num_known] != NONE
        length = (ends[:, None] == last).cumprod(3, dtype=torch.int8).sum(3) * goes_on
        # (prompts, G, 1) of the longest the last
        best = (length * num_known + self._first(num_known)).argmax(2, keepdim=True)
        behind = best + (self._first(self._num_drafts) + _LONGEST_MATCH)
        guesses = known[:, None].expand(-1, size, -1).gather(2, behind)
        # a text's end ends its guesses
        is_none = (guesses == NONE).logical_or_(length.gather(2, best) == 0)
        return guesses.masked_fill(is_none.cumsum(2) > 0, NONE).view(len(tokens), -1)

    def _first(self, number: int) -> torch.Tensor:
        """(number,) 0, 1, 2 and so on, made once."""
        if number > len(self._numbers):
            self._numbers = torch.arange(2 * number, device=self._numbers.device)
        return self._numbers[:number]


def forms_of_answers(vlm: Vlm) -> list[list[int]]:
    """Tokens of answers that show the form of one, and how ids follow each other.

    Args:
        vlm: The model.
    """
    counted = Fragment(tuple(range(_COUNTED[0])), tuple(range(_COUNTED[1])))
    return [
        list(vlm.tokenizer(format_answer(fragment), add_special_tokens=False).input_ids)
        for fragment in (counted, Fragment(), Fragment((0,), (0,)))
    ]
