"""The answer grammar as a table: from a state and a kind of token to the next state.

Two beginnings of answers are one state where the same texts can follow. Of a list that is being
written only the smallest id matters that the last item can still become, so a dialogue of n lines
has about 5·n states.

Shapes: S states, A letters of answers, K kinds of tokens.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffr.answer import IMG_IDS_START, AnswerGrammar, format_answer
from ffr.dialogue import Fragment

FORBIDDEN = -1
"""Stands where a token may not come next."""

_LETTERS = sorted(set("0123456789, ") | set(format_answer(Fragment())))
_FINISHED_LIST = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True, slots=True)
class GrammarTable:
    """What may follow, for the answers on one dialogue.

    Args:
        next_state: (S, K) int32: the state after a token of a kind; `FORBIDDEN` where none of that
            kind may come. State 0 is that of an empty answer. The end of the turn is the kind 0.
        stuck: The state of an answer that no token could go on with: it has been ended.
    """

    next_state: NDArray[np.int32]
    stuck: int


@functools.lru_cache(maxsize=16)
def grammar_table(
    num_utterances: int, num_images: int, kinds: tuple[tuple[str, str], ...]
) -> GrammarTable:
    """The table of the answers on a dialogue of this size.

    Args:
        num_utterances: Number of utterances of the dialogue.
        num_images: Number of images of the dialogue.
        kinds: Of each kind of token but the end of the turn, its text at the start of an answer and
            its text later; empty where it cannot stand there.

    >>> kinds = (("<|utt_ids_start|>[", ""), ("", "]<|utt_ids_end|>;<|img_ids_start|>["),
    ...          ("", "]<|img_ids_end|>"), ("", "0"))
    >>> table = grammar_table(1, 0, kinds)
    >>> state = int(table.next_state[0, 1])
    >>> (table.next_state[state] != FORBIDDEN).tolist()      # the list ends, or has its one id
    [False, False, True, False, True]
    """
    letters, complete = _letter_table(num_utterances, num_images)
    num_texts = len(letters)
    done, stuck = num_texts, num_texts + 1
    found = np.full((num_texts + 2, 1 + len(kinds)), FORBIDDEN, dtype=np.int32)
    found[0, 1:] = _walked(letters, [first for first, _ in kinds])[0]
    found[1:num_texts, 1:] = _walked(letters, [later for _, later in kinds])[1:]
    found[[complete, done], 0] = done
    # where no token goes on the answer ends, and is known by its state
    found[stuck, 0] = stuck
    found[(found == FORBIDDEN).all(1), 0] = stuck
    return GrammarTable(found, stuck)


def _walked(letters: NDArray[np.int32], texts: Sequence[str]) -> NDArray[np.int32]:
    """(states, texts): the state behind each text from each state; `FORBIDDEN` for empty texts."""
    number = {letter: place for place, letter in enumerate(_LETTERS)}
    # one row more for what is forbidden, from where nothing leads away
    steps = np.vstack([letters, np.full(len(_LETTERS), FORBIDDEN, dtype=np.int32)])
    found = np.full((len(letters), len(texts)), FORBIDDEN, dtype=np.int32)
    for column, text in enumerate(texts):
        if text:
            states = steps[:-1, number[text[0]]]
            for letter in text[1:]:
                states = steps[states, number[letter]]
            found[:, column] = states
    return found


@functools.lru_cache(maxsize=16)
def _letter_table(num_utterances: int, num_images: int) -> tuple[NDArray[np.int32], int]:
    """(S, A) the state after each letter, and the state of a whole answer."""
    grammar = AnswerGrammar(num_utterances, num_images)
    texts = [""]
    numbers = {"": 0}
    rows: list[list[int]] = []
    for text in texts:  # grows as it goes
        row = []
        for letter in _LETTERS:
            if not grammar.allows(text + letter):
                row.append(FORBIDDEN)
                continue
            state = state_of(text + letter, num_utterances, num_images)
            if state not in numbers:
                numbers[state] = len(texts)
                texts.append(state)
            row.append(numbers[state])
        rows.append(row)
    complete = next(number for text, number in numbers.items() if grammar.is_complete(text))
    return np.array(rows, dtype=np.int32), complete


def state_of(text: str, num_utterances: int, num_images: int) -> str:
    """The beginning of an answer that stands for all with the same continuations.

    Args:
        text: A beginning that the grammar allows.
        num_utterances: Number of utterances of the dialogue.
        num_images: Number of images of the dialogue.

    >>> state_of("<|utt_ids_start|>[0, 3, 1", 200, 0)      # 10 to 19 and 100 to 199 can follow
    '<|utt_ids_start|>[9, 1'
    >>> state_of("<|utt_ids_start|>[0, 3]<|utt_ids_end|>;<|img_ids_start|>[0, 2,", 9, 9)
    '<|utt_ids_start|>[]<|utt_ids_end|>;<|img_ids_start|>[2,'
    """
    head, bracket, items = _FINISHED_LIST.sub("[]", text).rpartition("[")
    if not bracket or "]" in items:
        return head + bracket + items
    *before, last = items.split(", ")
    if not last:
        return head + bracket + ", ".join([*before[-1:], last])
    if last.endswith(","):
        return head + bracket + last
    limit = num_images if IMG_IDS_START in head else num_utterances
    smallest = _smallest(last, int(before[-1]) + 1 if before else 0, limit)
    return head + bracket + (f"{smallest - 1}, {last}" if smallest else last)


def _smallest(digits: str, least: int, limit: int) -> int:
    """The smallest id from `least` to below `limit` that begins with these digits."""
    low = high = int(digits)
    while low < limit:
        if max(low, least) <= min(high, limit - 1):
            return max(low, least)
        low, high = low * 10, high * 10 + 9
    raise ValueError(f"no id from {least} to below {limit} begins with {digits}")
