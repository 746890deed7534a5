"""Answers from a model: greedy decoding of a batch of prompts, free or within the answer grammar."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.errors import ModelError
from ffr.models.decoding.cache import RoomyCache
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Args:
        text: What was written, without the end of the turn.
        token_ids: Its tokens, the end of the turn last where it was reached.
        logprobs: Log-probability of each token under the model's own distribution (before any constraint).
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@torch.no_grad()
def generate_answers(
    vlm: Vlm,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    grammars: Sequence[AnswerGrammar] | None = None,
) -> list[Generated]:
    """Answers a batch of prompts greedily.

    Args:
        vlm: The model; in evaluation mode while it answers.
        prompts: Encoded prompts without answers, B of them.
        max_new_tokens: Longest answer, the end of the turn included.
        grammars: The grammar of each prompt's dialogue: only well-formed answers are written; None for free writing.

    Returns:
        B answers.
    """
    if not prompts:
        return []
    was_training = vlm.training
    vlm.eval()
    batch = vlm.collate(prompts, padding_side="left")
    processors = LogitsProcessorList()
    if grammars is not None:
        processors.append(_GrammarProcessor(vlm, grammars, batch.inputs["input_ids"].shape[1]))
    output = vlm.base.generate(
        **batch.inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        logits_processor=processors,
        eos_token_id=vlm.stop_ids,
        pad_token_id=vlm.tokenizer.pad_token_id if vlm.tokenizer.pad_token_id is not None else vlm.stop_ids[0],
        return_dict_in_generate=True,
        output_logits=True,
        past_key_values=RoomyCache(vlm.base.config.get_text_config()),
        use_cache=True,
    )
    vlm.train(was_training)
    written = output.sequences[:, batch.inputs["input_ids"].shape[1] :]
    logprobs = torch.stack(
        [
            step.float().log_softmax(-1).gather(1, written[:, number, None])[:, 0]
            for number, step in enumerate(output.logits)
        ],
        dim=1,
    )
    return [answer_of(vlm, row, values) for row, values in zip(written.tolist(), logprobs.tolist(), strict=True)]


def answer_of(vlm: Vlm, ids: list[int], logprobs: list[float]) -> Generated:
    """The answer in the tokens of a row, which may go on behind the end of the turn."""
    stops = set(vlm.stop_ids)
    end = next((number for number, item in enumerate(ids) if item in stops), len(ids))
    return Generated(_text_of(vlm.tokenizer, ids[:end]), tuple(ids[: end + 1]), tuple(logprobs[: end + 1]))


class _GrammarProcessor(LogitsProcessor):  # type: ignore[misc]
    """Forbids every token after which no well-formed answer is left; the end of the turn comes exactly when one is complete."""

    def __init__(self, vlm: Vlm, grammars: Sequence[AnswerGrammar], prompt_length: int) -> None:
        self._vocabulary = _answer_vocabulary(vlm.tokenizer)
        self._stop = vlm.end_of_turn_id
        self._name = vlm.name
        self._grammars = grammars
        self._prompt_length = prompt_length
        self._texts = [""] * len(grammars)
        self._closed = [False] * len(grammars)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        written = input_ids.shape[1] - self._prompt_length
        # the first token of an answer stands at the start of its text, where some tokenizers drop a blank
        before = self._vocabulary.first if written == 1 else self._vocabulary.later
        pieces = self._vocabulary.later if written else self._vocabulary.first
        allowed = torch.full_like(scores, -torch.inf)
        for row, grammar in enumerate(self._grammars):
            if written and not self._closed[row]:
                piece = before.get(int(input_ids[row, -1]))
                self._closed[row] = piece is None
                self._texts[row] = _short_state(self._texts[row] + (piece or ""))
            text = self._texts[row]
            if self._closed[row] or grammar.is_complete(text):
                allowed[row, self._stop] = scores[row, self._stop]
                continue
            ids = [item for item, piece in pieces.items() if grammar.allows(text + piece)]
            if not ids:
                raise ModelError(
                    "its tokenizer has no tokens that spell the answer; decode without --constrained", self._name
                )
            allowed[row, ids] = scores[row, ids]
        return allowed  # type: ignore[return-value]


_FINISHED_LIST = re.compile(r"\[[^\[\]]*\]")


def _short_state(text: str) -> str:
    """A shorter beginning of an answer with the same continuations: of a list only the newest two items matter.

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
_VOCABULARIES: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, _AnswerVocabulary] = weakref.WeakKeyDictionary()


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
            place for place in places if character in _LIST_CHARACTERS and _ANSWER_SHAPE[place : place + 1] == [_LIST]
        }
        places = stays | {place + 1 for place in places if _ANSWER_SHAPE[place : place + 1] == [character]}
    return bool(places)
