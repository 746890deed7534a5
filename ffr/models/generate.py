"""Answers from a model: greedy decoding of a batch of prompts, free or within the answer grammar."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from ffr.answer import AnswerGrammar, format_answer
from ffr.dialogue import Fragment
from ffr.models.vlm import Encoded, Vlm


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
    return [_answer(vlm, row, values) for row, values in zip(written.tolist(), logprobs.tolist(), strict=True)]


def _answer(vlm: Vlm, ids: list[int], logprobs: list[float]) -> Generated:
    stops = set(vlm.stop_ids)
    end = next((number for number, item in enumerate(ids) if item in stops), len(ids))
    text: str = vlm.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Generated(text, tuple(ids[: end + 1]), tuple(logprobs[: end + 1]))


class _GrammarProcessor(LogitsProcessor):
    """Forbids every token after which no well-formed answer is left; the end of the turn comes exactly when one is complete."""

    def __init__(self, vlm: Vlm, grammars: Sequence[AnswerGrammar], prompt_length: int) -> None:
        self._pieces = _answer_pieces(vlm.tokenizer)
        self._stop = vlm.end_of_turn_id
        self._grammars = grammars
        self._prompt_length = prompt_length
        self._tokenizer = vlm.tokenizer
        self._texts = [""] * len(grammars)
        self._closed = [False] * len(grammars)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        written = input_ids.shape[1] - self._prompt_length
        allowed = torch.full_like(scores, -torch.inf)
        for row, grammar in enumerate(self._grammars):
            if written:
                piece = self._pieces.get(int(input_ids[row, -1]))
                if piece is None:
                    self._closed[row] = True
                else:
                    self._texts[row] += piece
            text = self._texts[row]
            if self._closed[row] or grammar.is_complete(text):
                allowed[row, self._stop] = scores[row, self._stop]
                continue
            ids = [item for item, piece in self._pieces.items() if grammar.allows(text + piece)]
            allowed[row, ids] = scores[row, ids]
        return allowed  # type: ignore[return-value]


_LIST_CHARACTERS = frozenset("0123456789, ")
_ANSWER_CHARACTERS = _LIST_CHARACTERS | frozenset(format_answer(Fragment()))
_PIECES: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, dict[int, str]] = weakref.WeakKeyDictionary()


def _answer_pieces(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that can stand in an answer, with their texts: parts of the markers and lists; found once a tokenizer."""
    if tokenizer not in _PIECES:
        before, between, after = (format_answer(Fragment())).split("[]")
        literals = ("", before + "[", "]" + between + "[", "]" + after, "")
        found: dict[int, str] = {}
        for item in range(len(tokenizer)):
            text = tokenizer.decode([item], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if text and _is_answer_piece(text, literals):
                found[item] = text
        _PIECES[tokenizer] = found
    return _PIECES[tokenizer]


def _is_answer_piece(text: str, literals: tuple[str, ...]) -> bool:
    """Whether a text can stand somewhere in an answer: within a literal, or list characters with literals' ends beside them."""
    if any(text in literal for literal in literals):
        return True
    if not _ANSWER_CHARACTERS.issuperset(text):
        return False
    for left, right in pairwise(literals):
        for start in range(len(text) + 1):
            if not left.endswith(text[:start]):
                continue
            for end in range(start, len(text) + 1):
                if right.startswith(text[end:]) and _LIST_CHARACTERS.issuperset(text[start:end]):
                    return True
    return False
