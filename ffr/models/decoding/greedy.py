"""Greedy answers, free or within the grammar: to single prompts and to neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from ffr.answer import AnswerGrammar
from ffr.models.decoding.decoders import CopyingDecoder
from ffr.models.decoding.drafted import decode_drafted
from ffr.models.decoding.drafts import NONE, Drafts, Propose, forms_of_answers
from ffr.models.decoding.grammar import GrammarGuide
from ffr.models.decoding.loop import Generated, answering, decode
from ffr.models.decoding.neighbours import NeighbourDecoder
from ffr.models.decoding.placed import PlacedTail
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm

_NUM_GUESSES = 8
"""Of an answer in a pass, at most, where answers need not be to the last bit as transformers'."""


class Greedy:
    """Takes the likeliest token of each answer, among those that the grammar allows.

    Tokens that stand for images are never written, as in sampling.

    Args:
        vlm: The model.
        guide: Says what is allowed; None for free writing.
    """

    def __init__(self, vlm: Vlm, guide: GrammarGuide | None) -> None:
        self._forbidden = torch.tensor(
            sorted(vlm.placeholder_ids), dtype=torch.long, device=vlm.device
        )
        self._guide = guide

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
        return token, logits.log_softmax(1).gather(1, token[:, None])[:, 0]

    def along(
        self,
        logits: torch.Tensor,
        drafts: torch.Tensor,
        count: torch.Tensor,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ffr.models.decoding.drafted.ChooseAlong`; `rows` must be None: all of them."""
        if self._guide is None:
            token = logits.index_fill(2, self._forbidden, -torch.inf).argmax(2)
        else:
            token = self._guide.allowed_along(logits, drafts).argmax(2)
        return token, logits.gather(2, token[..., None])[..., 0] - logits.logsumexp(2)

    def note(self, tokens: torch.Tensor, num_new: torch.Tensor) -> None:
        """As `ffr.models.decoding.drafted.ChooseAlong`."""
        if self._guide is not None:
            self._guide.note_along(tokens, num_new)


class Guesses:
    """What the grammar forces, and what it leaves open as it was met before.

    Args:
        guide: Says what is forced; None for free writing.
        met: Guesses the rest.
    """

    def __init__(self, guide: GrammarGuide | None, met: Propose) -> None:
        self._guide = guide
        self._met = met

    def __call__(
        self, tokens: torch.Tensor, count: torch.Tensor, rows: torch.Tensor | None
    ) -> torch.Tensor:
        """As `ffr.models.decoding.drafts.Propose`."""
        guesses = self._met(tokens, count, rows)
        if self._guide is None:
            return guesses
        forced = self._guide.forced(guesses.shape[1])
        # a guess that begins as is forced may go on where nothing is
        is_alike = ((guesses == forced) | (forced == NONE)).all(1, keepdim=True)
        return guesses.where(is_alike, forced)


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
        forms = forms_of_answers(vlm)
        drafts = Drafts(_NUM_GUESSES, [forms for part in parts for _ in part])
        written = decode_drafted(
            vlm,
            NeighbourDecoder(vlm, parts, 1, PlacedTail),
            Greedy(vlm, guide),
            Guesses(guide, drafts.guesses(1, vlm.device)),
            max_new_tokens=max_new_tokens,
            num_drafts=_NUM_GUESSES,
        )
        answers = iter(written)
    if guide is not None:
        guide.check()
    # the decoder has them part after part
    return [[next(answers) for _ in part] for part in parts]
