"""Answers within the answer grammar: which tokens may come next, whatever the tokenizer."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.errors import ModelError
from ffr.models.decoding.drafts import NONE
from ffr.models.decoding.grammar_table import FORBIDDEN, grammar_table
from ffr.models.vlm import Vlm


class GrammarGuide:
    """Forbids every token after which no well-formed answer is left.

    The end of the turn comes exactly when an answer is complete. All is looked up in a table on the
    device of the answers: the host waits for nothing.

    Args:
        vlm: The model that answers.
        grammars: The grammar of each answer.
    """

    def __init__(self, vlm: Vlm, grammars: Sequence[AnswerGrammar]) -> None:
        self._name = vlm.name
        self._kinds, kind_of = kinds_of(vlm.tokenizer, vlm.end_of_turn_id)
        self._kind_of = torch.tensor(kind_of, dtype=torch.int32)
        sizes = [(item.num_utterances, item.num_images) for item in grammars]
        starts: dict[tuple[int, int], int] = {}
        tables: list[torch.Tensor] = []
        stuck: list[int] = []
        num_states = 0
        for size in dict.fromkeys(sizes):
            table = grammar_table(*size, self._kinds)
            # one table below the other, so that a state's number is its row
            moved = np.where(
                table.next_state == FORBIDDEN, FORBIDDEN, table.next_state + num_states
            )
            tables.append(torch.from_numpy(moved.astype(np.int32)))
            stuck.append(num_states + table.stuck)
            starts[size] = num_states
            num_states += len(moved)
        self._table = torch.cat(tables)  # (states of all, kinds)
        self._stuck = torch.tensor(stuck, dtype=torch.int32)
        self._state = torch.tensor([starts[size] for size in sizes], dtype=torch.int32)  # (rows,)
        self._following = torch.empty(0)
        self._runs = torch.empty((0, 0))

    def allowed(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits (rows, V), with −∞ for every token that may not come next."""
        if self._kind_of.device != logits.device or len(self._kind_of) != logits.shape[1]:
            self._move(logits)
        self._following = self._table.index_select(0, self._state)  # (rows, kinds)
        may_come = (self._following != FORBIDDEN).index_select(1, self._kind_of)
        return logits.masked_fill(~may_come, -torch.inf)

    def note(self, token: torch.Tensor) -> None:
        """Takes the token (rows,) that each answer goes on with, of those that were allowed."""
        kind = self._kind_of.index_select(0, token).long()
        self._state = self._following.gather(1, kind[:, None])[:, 0]

    def allowed_along(self, logits: torch.Tensor, guesses: torch.Tensor) -> torch.Tensor:
        """As `allowed`, at each place of a pass, as if all guesses before it were right.

        Args:
            logits: (rows, w, V).
            guesses: (rows, w − 1) tokens; `ffr.models.decoding.drafts.NONE` where there is none.
        """
        if self._kind_of.device != logits.device or len(self._kind_of) != logits.shape[2]:
            self._move(logits[:, 0])
        following = [self._table.index_select(0, self._state)]
        # what stands for no guess is nobody's token
        for token in guesses.clamp(min=0).unbind(1):
            kind = self._kind_of.index_select(0, token).long()
            state = following[-1].gather(1, kind[:, None])[:, 0]
            # behind a guess that is not allowed nothing is kept, and any state will do
            following.append(self._table.index_select(0, state.clamp(min=0)))
        self._following = torch.stack(following, dim=1)  # (rows, w, kinds)
        may_come = (self._following != FORBIDDEN).index_select(2, self._kind_of)
        return logits.masked_fill(~may_come, -torch.inf)

    def note_along(self, tokens: torch.Tensor, num_new: torch.Tensor) -> None:
        """Takes the tokens that each answer goes on with, of those that were allowed.

        Args:
            tokens: (rows, w).
            num_new: (rows,) how many of these; 0 where an answer has ended.
        """
        last = (num_new - 1).clamp(min=0)[:, None]
        kind = self._kind_of[tokens.gather(1, last)].long()
        at = last[..., None].expand(-1, -1, self._following.shape[2])
        state = self._following.gather(1, at)[:, 0].gather(1, kind)[:, 0]
        self._state = state.where(num_new > 0, self._state)

    def forced(self, num_tokens: int) -> torch.Tensor:
        """(rows, tokens) what must come next, while one token alone may; then `drafts.NONE`.

        Args:
            num_tokens: At most.
        """
        if self._runs.shape[1] != num_tokens or self._runs.device != self._state.device:
            self._runs = self._runs_of(num_tokens)
        return self._runs.index_select(0, self._state)

    def _runs_of(self, num_tokens: int) -> torch.Tensor:
        """(states, tokens) of which `forced` gives some."""
        num_kinds = self._table.shape[1]
        may_come = self._table != FORBIDDEN
        # of each kind how many tokens there are, and one of them
        sizes = torch.bincount(self._kind_of, minlength=num_kinds)
        ids = torch.arange(len(self._kind_of), device=self._kind_of.device)
        token_of = ids.new_zeros(num_kinds).scatter_(0, self._kind_of.long(), ids)
        kind = may_come.long().argmax(1)
        # the end of the turn, kind 0, is nothing that an answer goes on with
        is_forced = (may_come.sum(1) == 1) & (sizes[kind] == 1) & (kind != 0)
        token = token_of[kind].where(is_forced, NONE)
        after = self._table.gather(1, kind[:, None])[:, 0].long().where(is_forced, 0)
        runs, state = [token], after
        for _ in range(num_tokens - 1):
            runs.append(token[state].where(runs[-1] != NONE, NONE))
            state = after[state]
        return torch.stack(runs, dim=1)

    def check(self) -> None:
        """To be called when all is written; waits for the device.

        Raises:
            ModelError: where the tokenizer had no token that goes on with an answer.
        """
        if bool(torch.isin(self._state, self._stuck.to(self._state.device)).any()):
            raise ModelError(
                "its tokenizer has no tokens that spell the answer; decode without --constrained",
                self._name,
            )

    def _move(self, logits: torch.Tensor) -> None:
        """To where the answers are written; ids beyond the tokenizer's are of the last kind."""
        missing = logits.shape[1] - len(self._kind_of)
        no_kind = self._table.shape[1] - 1
        kinds = torch.nn.functional.pad(self._kind_of, (0, max(0, missing)), value=no_kind)
        self._kind_of = kinds[: logits.shape[1]].to(logits.device)
        self._table, self._state = self._table.to(logits.device), self._state.to(logits.device)


_KINDS: weakref.WeakKeyDictionary[
    PreTrainedTokenizerBase, dict[int, tuple[tuple[tuple[str, str], ...], list[int]]]
] = weakref.WeakKeyDictionary()


def kinds_of(
    tokenizer: PreTrainedTokenizerBase, stop: int
) -> tuple[tuple[tuple[str, str], ...], list[int]]:
    """What tells the tokens that may stand in answers apart, as `grammar_table` takes it.

    Args:
        tokenizer: The tokenizer.
        stop: The id of the end of the turn.

    Returns:
        The kinds, the last of which can stand nowhere, and the number of each token's, in which 0
        is that of the end of the turn.
    """
    found = _KINDS.setdefault(tokenizer, {})
    if stop not in found:
        vocabulary = _answer_vocabulary(tokenizer)
        texts = {
            item: (vocabulary.first.get(item, ""), vocabulary.later.get(item, ""))
            for item in {*vocabulary.first, *vocabulary.later}
        }
        kinds = (*sorted(set(texts.values())), ("", ""))
        numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
        kind_of = [numbers[texts.get(item, ("", ""))] for item in range(len(tokenizer))]
        kind_of[stop] = 0
        found[stop] = kinds, kind_of
    return found[stop]


@dataclass(frozen=True, slots=True)
class _AnswerVocabulary:
    """The tokens that can stand in an answer, with their texts: at its start, and later."""

    first: dict[int, str]
    later: dict[int, str]


_LIST_CHARACTERS = frozenset("0123456789, ")
_ANSWER_CHARACTERS = _LIST_CHARACTERS | frozenset(format_answer(Fragment()))
_LIST = ""
_ANSWER_SHAPE = [
    element
    for character in format_answer(Fragment())
    for element in ((character, _LIST) if character == "[" else character)
]
"""The characters of an answer in order; `_LIST` stands for any number of list characters."""
_VOCABULARIES: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, _AnswerVocabulary] = (
    weakref.WeakKeyDictionary()
)


def _answer_vocabulary(tokenizer: PreTrainedTokenizerBase) -> _AnswerVocabulary:
    """The tokens that are parts of the answer's markers and lists; found once a tokenizer."""
    if tokenizer not in _VOCABULARIES:
        anchor: list[int] = tokenizer(";", add_special_tokens=False).input_ids
        start = len(_text_of(tokenizer, anchor))
        first: dict[int, str] = {}
        later: dict[int, str] = {}
        for item in range(len(tokenizer)):
            text = _text_of(tokenizer, [item])
            if not _ANSWER_CHARACTERS.issuperset(text):
                continue  # nearly all tokens; what follows takes time
            if text and _is_answer_piece(text, at_start=True):
                first[item] = text
            text = _text_of(tokenizer, [*anchor, item])[start:]
            if text and _is_answer_piece(text, at_start=False):
                later[item] = text
        _VOCABULARIES[tokenizer] = _AnswerVocabulary(first, later)
    return _VOCABULARIES[tokenizer]


def _text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _is_answer_piece(text: str, *, at_start: bool) -> bool:
    """Whether a text can stand in some answer, at its start or anywhere.

    >>> _is_answer_piece("|>[1, ", at_start=False), _is_answer_piece("|>[1, ", at_start=True)
    (True, False)
    """
    places = {0} if at_start else set(range(len(_ANSWER_SHAPE)))
    for character in text:
        places |= {place + 1 for place in places if _ANSWER_SHAPE[place : place + 1] == [_LIST]}
        stays = {
            place
            for place in places
            if character in _LIST_CHARACTERS and _ANSWER_SHAPE[place : place + 1] == [_LIST]
        }
        places = stays | {
            place + 1 for place in places if _ANSWER_SHAPE[place : place + 1] == [character]
        }
    return bool(places)
