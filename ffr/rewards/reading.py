"""What rewards are given: completions, true answers and columns, read and checked in one place."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ffr.answer import AnswerStyle, parse_strict, unwrap_answer
from ffr.dialogue import Fragment
from ffr.errors import DataError
from ffr.metrics.functional.inputs import read_fragments
from ffr.text import counted, described
from ffr.thoughts import THOUGHT_TAGS

Completion = str | Sequence[Mapping[str, Any]]


def completion_text(completion: Completion) -> str:
    """The text of a completion: itself, or what the last message of a conversation says.

    Raises:
        ValueError: where it is neither.

    >>> completion_text("[3]"), completion_text([{"role": "assistant", "content": "[3]"}])
    ('[3]', '[3]')
    """
    if isinstance(completion, str):
        return completion
    try:
        content = completion[-1]["content"]
        return (
            content
            if isinstance(content, str)
            else "".join(part.get("text", "") for part in content)
        )
    except (TypeError, KeyError, IndexError, AttributeError):
        found = described(completion)
        raise ValueError(
            f"{found} is no completion; give a text, or a conversation "
            '[{"role": "assistant", "content": "…"}]'
        ) from None


def read_predictions(
    prompts: Sequence[Any],
    completions: Sequence[Completion] | str,
    answer_style: Sequence[AnswerStyle] | None,
) -> list[Fragment | None]:
    """What each completion names; None where it does not match the pattern from end to end.

    Args:
        prompts: Looked at for a thought that they open.
        completions: N completions; a single text or conversation is one.
        answer_style: `bare` or `think` for each, or one for all; None = all bare.

    Raises:
        ValueError: where something is no completion or no style.
    """
    is_one = isinstance(completions, str) or (
        isinstance(completions, Sequence) and isinstance((*completions, None)[0], Mapping)
    )
    listed = [completions] if is_one else read_column(completions, "completions", None)
    given: Any = "bare" if answer_style is None else answer_style
    one_for_all = [given] * len(listed) if isinstance(given, str) else given
    styles = read_column(one_for_all, "answer_style", len(listed))
    if unknown := set(styles) - set(get_args(AnswerStyle)):
        known = ", ".join(get_args(AnswerStyle))
        raise ValueError(
            f"answer_style {min(map(repr, unknown))} is unknown; choose one of {known}"
        )
    # rewards that are asked for a single completion by hand are given what they like for a prompt
    is_each = isinstance(prompts, Sequence) and len(prompts) == len(listed)
    asked: Sequence[Any] = prompts if is_each else [None] * len(listed)
    found: list[Fragment | None] = []
    for prompt, completion, style in zip(asked, listed, styles, strict=True):
        text = completion_text(completion)
        answer = unwrap_answer(text, style, opened=_opened_by(prompt))
        found.append(None if answer is None else parse_strict(answer))
        if found[-1] is None and _CUT_MARKERS.search(text):
            warn_of_cut_markers()
    return found


def _opened_by(prompt: Any) -> str | None:
    """The tag of a thought that a prompt ends in; None where that does not show.

    A chat template may open the thought behind what a reward gets to see.
    """
    is_text = isinstance(prompt, str)
    if not is_text and not (
        isinstance(prompt, Sequence) and prompt and isinstance(prompt[-1], Mapping)
    ):
        return None
    text = completion_text(prompt).rstrip()
    return next((start for start, _ in THOUGHT_TAGS if text.endswith(start)), None)


_CUT_MARKERS = re.compile(r"(?:\A|[\s>])\[[0-9, ]*\];\[[0-9, ]*\](?:[\s<]|\Z)")


@functools.cache
def warn_of_cut_markers() -> None:
    """Says once in a process why answers without markers earn nothing."""
    warnings.warn(
        "a completion is of the form […];[…], without the markers around its lists, so it earns "
        "nothing: TRL decodes "
        "with skip_special_tokens and cuts them where they are special tokens of the tokenizer; "
        "add them as ordinary "
        "tokens",
        stacklevel=4,
    )


def read_truths(solution: Any, num_completions: int) -> list[Fragment]:
    """The true fragments: answer texts, each read once, or what else stands for a fragment.

    Raises:
        DataError: where a text is not in the answer format.
        ValueError: where something is no fragment, or there is not one for each completion.
    """
    if isinstance(solution, str):
        solution = [solution]
    known: dict[str, Fragment] = {}
    found: list[Fragment] = []
    for item in read_column(solution, "solution", num_completions):
        if not isinstance(item, str):
            found += read_fragments([item], "solution", is_truth=True)
            continue
        if item not in known:
            fragment = parse_strict(item)
            if fragment is None:
                raise DataError(
                    f"the true answer {item[:200]!r} is not in the answer format; correct "
                    "`solution`"
                )
            known[item] = fragment
        found.append(known[item])
    return found


_OF_LISTS = ("utterances", "images", "image_utterance_ids")
"""Columns whose entries are lists themselves."""


def read_column(values: Any, name: str, num_completions: int | None) -> Sequence[Any]:
    """A column of the data, one entry a completion.

    Raises:
        ValueError: where it is no list, of another length, or holds a text where a list is meant.
    """
    is_list = hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)
    if not is_list or not hasattr(values, "__getitem__"):
        found = described(values)
        raise ValueError(f"{name}: {found}; give a list with one entry a completion")
    if num_completions is not None and len(values) != num_completions:
        raise ValueError(
            f"{name} has {counted(len(values), 'entry')} for {num_completions} completions; give "
            "one each"
        )
    if name in _OF_LISTS:
        for number, entry in enumerate(values):
            if isinstance(entry, str | bytes | Mapping) or not hasattr(entry, "__len__"):
                found = described(entry)
                raise ValueError(
                    f"{name}: entry {number} is {found}; give the list of a whole dialogue each"
                )
    found_column: Sequence[Any] = values
    return found_column
