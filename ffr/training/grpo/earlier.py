"""Which answers the prompts got last, from which the next ones are guessed ahead (`draft_tokens`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

TOKENS_KEPT = 1024
"""Of a prompt's answers, at most: a checkpoint keeps them for every prompt that was met."""


class EarlierAnswers:
    """The unlike answers that each prompt got when it was answered last.

    Guesses change no answer, but the last bits of sums, and so a checkpoint keeps them.

    Args:
        is_wanted: False keeps nothing.
        outlast_steps: Whether a prompt may be met again at a later step. Of several processes each
            knows its own prompts alone, and a checkpoint the first one's: there a step's attempts
            are all that is kept.

    >>> earlier = EarlierAnswers(is_wanted=True)
    >>> earlier.note(5, [(1, 2), (3, 4), (3, 4)])
    >>> earlier.of(5), earlier.of(6)
    ([(1, 2), (3, 4)], [])
    """

    def __init__(self, *, is_wanted: bool, outlast_steps: bool = True) -> None:
        self._is_wanted = is_wanted
        self._outlast_steps = outlast_steps
        self._found: dict[int, list[tuple[int, ...]]] = {}

    def of(self, index: int) -> list[tuple[int, ...]]:
        """Tokens of a prompt's last answers, the most frequent last.

        Args:
            index: Of the prompt in the data.
        """
        return self._found.get(index, [])

    def note(self, index: int, answers: Sequence[tuple[int, ...]]) -> None:
        """Takes the answers that a prompt has got, in the place of those it got before."""
        if not self._is_wanted:
            return
        room = TOKENS_KEPT
        kept = []
        for answer, _ in Counter(answers).most_common():
            if not room:
                break
            kept.append(answer[:room])
            room -= len(kept[-1])
        self._found[index] = kept[::-1]

    def begin_step(self) -> None:
        """Forgets what is not to outlast a step."""
        if not self._outlast_steps:
            self._found.clear()

    def state(self) -> dict[str, torch.Tensor] | None:
        """As a checkpoint keeps it; None where it keeps nothing."""
        if not (self._is_wanted and self._outlast_steps):
            return None
        rows = [(index, answer) for index, some in self._found.items() for answer in some]
        return {
            "prompts": torch.tensor([index for index, _ in rows], dtype=torch.int64),
            "lengths": torch.tensor([len(answer) for _, answer in rows], dtype=torch.int64),
            "tokens": torch.tensor([item for _, row in rows for item in row], dtype=torch.int32),
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Goes on as `state` says."""
        self._found = {}
        answers = torch.split(state["tokens"], state["lengths"].tolist())
        for index, answer in zip(state["prompts"].tolist(), answers, strict=True):
            self._found.setdefault(index, []).append(tuple(answer.tolist()))
