"""Writes answers several tokens a pass: the next are guessed, and kept where they are right.

What an answer goes on with at a place follows from what stands before it alone: the likeliest
token, or the one that a random number fixed ahead draws. A guess is right exactly when it equals
that token, so the answers are those of `ffr.models.decoding.loop.decode`, whatever is guessed; only
the order of sums within a pass is another.

Shapes: R answers, `rows` of which go on, k guesses of each, w = 1 + k tokens of each in a pass, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from ffr.models.decoding.drafts import NONE, Propose
from ffr.models.decoding.loop import Generated, answer_of
from ffr.models.decoding.watch import Watch, tokens_between_looks
from ffr.models.vlm import Vlm


class DraftedDecoder(Protocol):
    """Prompts that went through the model, and the answers to them, several tokens a pass."""

    def first_logits(self) -> torch.Tensor:
        """(R, V) float32: what the prompts' last tokens predict."""
        ...

    def step_at(self, tokens: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        """(rows, w, V) float32 behind each of further tokens of each answer.

        Args:
            tokens: (rows, w).
            places: (rows, w) in their answers, from 0; all before them were read.
            num_places: Above all places.
        """
        ...

    def drop_finished(self, is_open: Sequence[bool]) -> list[int] | None:
        """As `ffr.models.decoding.loop.Decoder`."""
        ...


class ChooseAlong(Protocol):
    """Chooses the token at each place of a pass, as if all guesses before it were right."""

    def along(
        self,
        logits: torch.Tensor,
        drafts: torch.Tensor,
        count: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows, w) and their log-probabilities (rows, w).

        Args:
            logits: (rows, w, V).
            drafts: (rows, k) the guesses.
            count: (rows,) the place of each answer's first token here.
            rows: The numbers of these answers among all R; None for all.
        """
        ...

    def note(self, tokens: torch.Tensor, num_new: torch.Tensor) -> None:
        """Takes how many (rows,) of the tokens (rows, w) each answer goes on with.

        None where it has ended.
        """
        ...


@torch.no_grad()
def decode_drafted(
    vlm: Vlm,
    decoder: DraftedDecoder,
    choose: ChooseAlong,
    propose: Propose,
    *,
    max_new_tokens: int,
    num_drafts: int,
    passes_a_look: int | None = None,
) -> list[Generated]:
    """Writes answers until all have ended.

    Args:
        vlm: The model, which is `answering`.
        decoder: What has read the prompts.
        choose: What chooses the tokens.
        propose: What guesses them.
        max_new_tokens: Longest answer, the end of the turn included.
        num_drafts: Guesses of an answer in a pass, at most (k).
        passes_a_look: As `ffr.models.decoding.watch.Watch`, which may look once a pass. At 1 a pass
            is as wide as its longest guesses, else as wide as they may be.

    Returns:
        R answers.
    """
    logits = decoder.first_logits()
    written = _Written(vlm, len(logits), max_new_tokens, num_drafts)
    looks = passes_a_look or tokens_between_looks(logits.device, are_guessed=True)
    watch = Watch(logits.device, looks)
    nothing = torch.empty((len(logits), 0), dtype=torch.long, device=logits.device)
    written.take(choose, logits[:, None], nothing)
    reach = _Reach(max_new_tokens)
    # an answer that goes on gets on by a token at least
    for number in range(1, max_new_tokens):
        if watch.is_due(number):
            found = watch.seen(written.progress())
            if not any(item > 0 for item in found):
                break
            reach.know(found)
            kept = decoder.drop_finished([item > 0 for item in found])
            if kept is not None:
                written.keep(kept)
            watch.note(written.progress())
        drafts = propose(written.tokens[:, : reach.of_all], written.count, written.rows)
        if watch.is_exact:
            drafts = _without_empty_columns(drafts, written.is_open)
        tokens, places = written.next_pass(drafts, reach.of_open)
        width = 1 + drafts.shape[1]
        logits = decoder.step_at(tokens, places, reach.of_open - 1 + width)
        written.take(choose, logits, drafts)
        reach.go_on(width, is_exact=watch.is_exact)
    return written.answers()


class _Reach:
    """What the host knows of how long answers are, without asking: at most so many tokens.

    Args:
        most: Tokens of the longest answer there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_open = self._of_all = 1
        self._since_copy = self._since_look = 0

    @property
    def of_open(self) -> int:
        """Of those that go on."""
        return min(self._most, self._of_open + self._since_copy)

    @property
    def of_all(self) -> int:
        """Of those that have ended, too."""
        return min(self._most, self._of_all + self._since_copy)

    def know(self, progress: Sequence[int]) -> None:
        """Takes what was found at a look, which was so when the look before began to copy it."""
        self._of_open = max(progress)
        self._of_all = max(map(abs, progress))
        self._since_copy, self._since_look = self._since_look, 0

    def go_on(self, width: int, *, is_exact: bool) -> None:
        """Takes that a pass has been of this width; not needed where every pass is looked at."""
        if not is_exact:
            self._since_copy += width
            self._since_look += width


class _Written:
    """What answers have by now, all on the device.

    Args:
        vlm: The model.
        num_answers: R.
        most: Tokens of the longest answer.
        num_drafts: k.
    """

    def __init__(self, vlm: Vlm, num_answers: int, most: int, num_drafts: int) -> None:
        device = vlm.device
        self._vlm = vlm
        self._most = most
        self._stops = torch.tensor(vlm.stop_ids, device=device)
        self._numbers = torch.arange(1 + num_drafts, device=device)
        # behind an answer's end stand guesses that came to nothing
        size = (num_answers, most + 1 + num_drafts)
        self.tokens = torch.zeros(size, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(size, device=device)
        self.count = torch.zeros(num_answers, dtype=torch.long, device=device)
        self.is_open = torch.ones(num_answers, dtype=torch.bool, device=device)
        self.rows: torch.Tensor | None = None
        """The numbers of the answers that go on among all R; None for all."""
        self._let_go: list[tuple[torch.Tensor, ...]] = []

    def progress(self) -> torch.Tensor:
        """(rows,) tokens of each answer, negative where it has ended."""
        return self.count.where(self.is_open, -self.count)

    def next_pass(self, drafts: torch.Tensor, reach: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows, w) and their places: each answer's newest, and what is guessed behind it.

        Args:
            drafts: (rows, k).
            reach: At least the length of each answer that goes on.
        """
        newest = self.tokens.gather(1, self.count[:, None] - 1)
        # where nothing is guessed any token will do: it is kept only if it is the right one
        guesses = drafts.masked_fill(drafts == NONE, self._vlm.padding_id)
        tokens = torch.cat([newest, guesses], dim=1)
        # an answer that has ended may be longer than all that go on; what it reads matters to
        # nobody
        first = self.count.clamp(max=reach)[:, None] - 1
        return tokens, first + self._numbers[: tokens.shape[1]]

    def take(self, choose: ChooseAlong, logits: torch.Tensor, drafts: torch.Tensor) -> None:
        """Goes on with what is chosen, up to and with the first token that was not guessed."""
        chosen, logprobs = choose.along(logits, drafts, self.count, self.rows)
        number = self._numbers[: chosen.shape[1]]
        num_right = (chosen[:, :-1] == drafts).cumprod(1).sum(1)
        is_kept = number <= num_right[:, None]
        is_end = is_kept & (chosen[..., None] == self._stops).any(2)
        # up to and with the first end
        is_kept = is_kept & (is_end.cumsum(1) <= is_end)
        num_new = is_kept.sum(1) * self.is_open
        at = self.count[:, None] + number
        self.tokens.scatter_(1, at, chosen)
        self._logprobs.scatter_(1, at, logprobs)
        choose.note(chosen, num_new)
        self.count = (self.count + num_new).clamp(max=self._most)
        self.is_open = self.is_open & ~is_end.any(1) & (self.count < self._most)

    def keep(self, kept: list[int]) -> None:
        """Goes on with some rows alone."""
        # as it stands: to read it would wait for the device
        self._let_go.append(self._all())
        at = torch.tensor(kept).to(self.count.device)
        self.rows = self._all()[0][at]
        self.tokens, self._logprobs = self.tokens[at], self._logprobs[at]
        self.count, self.is_open = self.count[at], self.is_open[at]

    def answers(self) -> list[Generated]:
        """All R."""
        # what went on after others were let go stands last, and counts
        parts = [torch.cat(part) for part in zip(*self._let_go, self._all(), strict=True)]
        found: dict[int, Generated] = {}
        for number, count, ids, logprobs in zip(*(part.tolist() for part in parts), strict=True):
            found[number] = answer_of(self._vlm, ids[:count], logprobs[:count])
        return [found[number] for number in range(len(found))]

    def _all(self) -> tuple[torch.Tensor, ...]:
        """Of each row its number among all R, its length, its tokens, their log-probabilities."""
        numbers = torch.arange(len(self.count), device=self.count.device)
        at = numbers if self.rows is None else self.rows
        return at, self.count, self.tokens, self._logprobs


def _without_empty_columns(drafts: torch.Tensor, is_open: torch.Tensor) -> torch.Tensor:
    """Guesses (rows, k) up to the last that any answer that goes on has; waits for the device."""
    is_guessed = ((drafts != NONE) & is_open[:, None]).any(0)
    return drafts[:, : int(is_guessed.sum())]
