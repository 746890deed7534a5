"""Answers within the answer grammar: which tokens may come next, whatever the tokenizer."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.errors import ModelError
from ffr.models.vlm import Vlm


class GrammarGuide:
    """Forbids every token after which no well-formed answer is left.

    The end of the turn comes exactly when an answer is complete.

    Args:
        vlm: The model that answers.
        grammars: The grammar of each answer.
    """

    def __init__(self, vlm: Vlm, grammars: Sequence[AnswerGrammar]) -> None:
        self._vocabulary = _answer_vocabulary(vlm.tokenizer)
        self._stop = vlm.end_of_turn_id
        self._name = vlm.name
        self._grammars = grammars
        self._texts = [""] * len(grammars)
        self._closed = [False] * len(grammars)
        self._has_begun = False

    @property
    def _pieces(self) -> dict[int, str]:
        # an answer's first token stands at the start of its text, where some tokenizers drop a
        # blank
        return self._vocabulary.later if self._has_begun else self._vocabulary.first

    def allowed(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits (rows, V), with −∞ for every token that may not come next.

        Raises:
            ModelError: where the tokenizer has no token that goes on with an answer.
        """
        pieces = self._pieces
        found = torch.full_like(logits, -torch.inf)
        for row, grammar in enumerate(self._grammars):
            text = self._texts[row]
            if self._closed[row] or grammar.is_complete(text):
                found[row, self._stop] = logits[row, self._stop]
                continue
            ids = [item for item, piece in pieces.items() if grammar.allows(text + piece)]
            if not ids:
                raise ModelError(
                    "its tokenizer has no tokens that spell the answer; decode without "
                    "--constrained",
                    self._name,
                )
            # the rest of the row stays −∞
            found[row, ids] = logits[row, ids]
        return found

    def note(self, token: torch.Tensor) -> None:
        """Takes the token (rows,) that each answer goes on with."""
        pieces = self._pieces
        # one copy from the device for all rows
        for row, item in enumerate(token.tolist()):
            if not self._closed[row]:
                piece = pieces.get(item)
                self._closed[row] = piece is None  # the end of the turn
                self._texts[row] = _short_state(self._texts[row] + (piece or ""))
        self._has_begun = True


_FINISHED_LIST = re.compile(r"\[[^\[\]]*\]")


def _short_state(text: str) -> str:
    """A shorter beginning with the same continuations: of a list only the newest two items matter.

    >>> _short_state("<|utt_ids_start|>[0, 3]<|utt_ids_end|>;<|img_ids_start|>[1, 2, 4, 1")
    '<|utt_ids_start|>[]<|utt_ids_end|>;<|img_ids_start|>[4, 1'
    """
    head, bracket, items = _FINISHED_LIST.sub("[]", text).rpartition("[")
    return head + bracket + (items if "]" in items else ", ".join(items.split(", ")[-2:]))


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
