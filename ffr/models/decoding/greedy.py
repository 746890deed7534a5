"""Greedy answers, free or within the grammar: to single prompts and to neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from ffr.answer import AnswerGrammar
from ffr.models.decoding.decoders import CopyingDecoder
from ffr.models.decoding.grammar import GrammarGuide
from ffr.models.decoding.loop import Generated, answering, decode
from ffr.models.decoding.neighbours import NeighbourDecoder
from ffr.models.decoding.tail import Tail
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


class Greedy:
    """Takes the likeliest token of each answer, among those that the grammar allows.

    Tokens that stand for images are never written, as in sampling.

    Args:
        vlm: The model.
        guide: Says what is allowed; None for free writing.
        is_normalised_last: Takes a log-probability as x − log Σ exp x, not from log_softmax: the
            same number but for its last bits, without a second table of (rows, V).
    """

    def __init__(
        self, vlm: Vlm, guide: GrammarGuide | None, *, is_normalised_last: bool = False
    ) -> None:
        self._forbidden = torch.tensor(
            sorted(vlm.placeholder_ids), dtype=torch.long, device=vlm.device
        )
        self._guide = guide
        self._is_normalised_last = is_normalised_last

    def __call__(
        self, logits: torch.Tensor, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ffr.models.decoding.loop.Choose`; `rows` must be None: all of them."""
        # the log-probability stays the model's own, whatever the guide forbids
        if self._guide is None:
            token = logits.index_fill(1, self._forbidden, -torch.inf).argmax(1)
        else:
            token = self._guide.allowed(logits).argmax(1)
            self._guide.note(token)
        if self._is_normalised_last:
            # (rows, V) → the chosen column of each row
            return token, logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
        return token, logits.log_softmax(1).gather(1, token[:, None])[:, 0]


def generate_answers(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    grammars: Sequence[AnswerGrammar] | None = None,
) -> list[Generated]:
    """Answers a batch of prompts greedily, to the last bit as transformers' `generate` does.

    Args:
        vlm: The model; in evaluation mode while it answers.
        prompts: Encoded prompts without answers, B of them.
        max_new_tokens: Longest answer, the end of the turn included.
        grammars: The grammar of each prompt's dialogue: only well-formed answers are written; None
            for free writing.

    Returns:
        B answers.

    Raises:
        ModelError: where the tokenizer cannot spell an answer of the grammar.
    """
    if not prompts:
        return []
    guide = None if grammars is None else GrammarGuide(vlm, grammars)
    with answering(vlm):
        decoder = CopyingDecoder(vlm, prompts, is_as_generate=True)
        answers = decode(vlm, decoder, Greedy(vlm, guide), max_new_tokens=max_new_tokens)
    if guide is not None:
        guide.check()
    return answers


def answer_neighbours(
    vlm: Vlm,
    parts: Sequence[Sequence[Encoded]],
    *,
    max_new_tokens: int,
    grammars: Sequence[Sequence[AnswerGrammar]] | None = None,
) -> list[list[Generated]]:
    """Answers neighbours on one dialogue greedily, as `generate_answers` would.

    The model's layers must all be of full attention, and its attention must take a mask of its own:
    `PrefixSharing.is_active` tells, and has set the attention.

    Args:
        vlm: The model; in evaluation mode while it answers.
        parts: D parts of prompts without answers, each with a `shared_beginning`.
        max_new_tokens: Longest answer, the end of the turn included.
        grammars: The grammar of each prompt; None for free writing.

    Returns:
        For each part its answers.

    Raises:
        ValueError: where an image stands behind what the prompts of a part have in common.
        ModelError: where the tokenizer cannot spell an answer of the grammar.
    """
    if not parts:
        return []
    guide = None if grammars is None else GrammarGuide(vlm, list(itertools.chain(*grammars)))
    with answering(vlm):
        decoder = NeighbourDecoder(vlm, parts, 1, Tail)
        choose = Greedy(vlm, guide, is_normalised_last=True)
        answers = iter(decode(vlm, decoder, choose, max_new_tokens=max_new_tokens))
    if guide is not None:
        guide.check()
    # the decoder has them part after part
    return [[next(answers) for _ in part] for part in parts]
