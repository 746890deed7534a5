"""The one loop that writes answers token by token; what decodes and what chooses are its parts.

Shapes: R answers, V vocabulary; `rows` are those answers that the decoder still has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from ffr.models.decoding.watch import Watch
from ffr.models.vlm import Vlm


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Args:
        text: What was written, without the end of the turn.
        token_ids: Its tokens, the end of the turn last where it was reached.
        logprobs: Log-probability of each token under the model's own distribution (before any
            constraint).
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    def is_cut_off(self, stop_ids: Collection[int]) -> bool:
        """Whether it ended at the longest length and not by a stop.

        Args:
            stop_ids: Ids that end an answer.

        >>> Generated("[3]", (7, 8, 2), (-0.1, -0.1, -0.1)).is_cut_off({2})
        False
        """
        return not self.token_ids or self.token_ids[-1] not in stop_ids


class Decoder(Protocol):
    """Prompts that went through the model, and the answers to them token by token."""

    def first_logits(self) -> torch.Tensor:
        """(R, V) float32: what the prompts' last tokens predict."""
        ...

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """(rows, V) float32 after one more token (rows,) of each answer."""
        ...

    def drop_finished(self, is_open: Sequence[bool]) -> list[int] | None:
        """Goes on without answers that have ended, where that saves enough to be worth the copy.

        Args:
            is_open: For each of the rows, whether its answer went on when the host last looked.

        Returns:
            Which of the rows are kept; None for all: what `step` gives for those that have ended
            has no meaning then.
        """
        ...


class Choose(Protocol):
    """Chooses the next token of each answer."""

    def __call__(
        self, logits: torch.Tensor, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (rows,) and their log-probabilities (rows,) from logits (rows, V).

        Called once a token.

        Args:
            logits: What the model says.
            rows: The numbers of these answers among all R; None for all.
        """
        ...


@torch.no_grad()
def decode(
    vlm: Vlm,
    decoder: Decoder,
    choose: Choose,
    *,
    max_new_tokens: int,
    tokens_a_look: int | None = None,
) -> list[Generated]:
    """Writes answers until all have ended.

    Args:
        vlm: The model, which is `answering`.
        decoder: What has read the prompts.
        choose: What chooses the tokens.
        max_new_tokens: Longest answer, the end of the turn included.
        tokens_a_look: As `ffr.models.decoding.watch.Watch`.

    Returns:
        R answers.
    """
    stops = torch.tensor(vlm.stop_ids, device=vlm.device)
    logits = decoder.first_logits()
    num_answers, device = len(logits), logits.device
    # a column a token, on the device; what an answer that was let go of has there is not read
    tokens = torch.zeros((max_new_tokens, num_answers), dtype=torch.long, device=device)
    logprobs = torch.zeros((max_new_tokens, num_answers), device=device)
    is_open = torch.ones(num_answers, dtype=torch.bool, device=device)
    rows: torch.Tensor | None = None
    watch = Watch(device, tokens_a_look)
    num_written = 0
    while True:
        token, logprob = choose(logits, rows)
        for table, column in ((tokens, token), (logprobs, logprob)):
            if rows is None:
                table[num_written].copy_(column)
            else:
                table[num_written].index_copy_(0, rows, column)
        num_written += 1
        # what has ended stays so, whatever its row still predicts
        is_open = is_open.logical_and_((token[:, None] != stops).all(1))
        if num_written == max_new_tokens:
            break
        if watch.is_due(num_written):
            flags = watch.seen(is_open)
            if not any(flags):
                break
            kept = decoder.drop_finished([bool(flag) for flag in flags])
            if kept is not None:
                places = torch.tensor(kept).to(device)
                # `rows` keeps the numbers among all R, by which the columns are filled
                rows = places if rows is None else rows[places]
                is_open, token = is_open[places], token[places]
            watch.note(is_open)
        logits = decoder.step(token)
    ids, values = tokens[:num_written].T.tolist(), logprobs[:num_written].T.tolist()
    return [answer_of(vlm, *row) for row in zip(ids, values, strict=True)]


def answer_of(vlm: Vlm, ids: list[int], logprobs: list[float]) -> Generated:
    """The answer in the tokens of a row, which may go on behind the end of the turn."""
    stops = set(vlm.stop_ids)
    end = next((number for number, item in enumerate(ids) if item in stops), len(ids))
    text: str = vlm.tokenizer.decode(
        ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    # the end of the turn is a token that was chosen, with a log-probability, and no text
    return Generated(text, tuple(ids[: end + 1]), tuple(logprobs[: end + 1]))


@contextmanager
def answering(vlm: Vlm) -> Iterator[None]:
    """The model in evaluation mode while it reads and writes, and then as it was; no gradients."""
    was_training = vlm.training
    vlm.eval()
    try:
        # a prompt that keeps what gradients would need takes many times its memory
        with torch.no_grad(), weights_cast_once(vlm.device.type):
            yield
    finally:
        vlm.train(was_training)


@contextmanager
def weights_cast_once(device_type: str) -> Iterator[None]:
    """Under autocast, keeps the weights in its type for all tokens.

    Lightning's autocast has each pass cast them anew. They are let go at the end, so that none is
    there when the weights have moved.

    Args:
        device_type: cpu, cuda.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    try:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, dtype, cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()
