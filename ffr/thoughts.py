"""The tags that models put around their thoughts: one list for reading, rewards and training."""

from __future__ import annotations

import re

THOUGHT_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    # channels: what is said in one of them is said to nobody, but for the last
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
)
"""What opens a thought and what closes it; the first pair is what the style `think` asks for."""

THINK_START, THINK_END = THOUGHT_TAGS[0]
ANSWER_START, ANSWER_END = "<answer>", "</answer>"


def _any_of(tags: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, dict.fromkeys(tags))))


_START = _any_of([start for start, _ in THOUGHT_TAGS])
_END = _any_of([end for _, end in THOUGHT_TAGS])
_TAG = re.compile(
    f"({'|'.join(map(re.escape, (THINK_START, THINK_END, ANSWER_START, ANSWER_END)))})"
)


def opened_thought(text: str) -> str:
    r"""The end of a text from the tag of a thought that it opens and does not close; else empty.

    Args:
        text: A prompt as a chat template has rendered it, or its end.

    >>> opened_thought("assistant\n[THINK]\n"), opened_thought("<think>\n\n</think>\n\n")
    ('[THINK]\n', '')
    """
    places = [match.start() for match in _START.finditer(text)]
    opened = text[places[-1] :] if places else ""
    return "" if _END.search(opened) else opened


def tags_of(opened: str) -> tuple[str, str]:
    """The pair of tags of a thought that was opened.

    Args:
        opened: The thought so far, from the tag that opens it, as `opened_thought` gives it.

    Raises:
        ValueError: where no such tag opens it.

    >>> tags_of("[THINK]Well")
    ('[THINK]', '[/THINK]')
    """
    for start, end in THOUGHT_TAGS:
        if opened.startswith(start):
            return start, end
    known = ", ".join(start for start, _ in THOUGHT_TAGS)
    raise ValueError(f"{opened[:40]!r} begins with no tag of a thought; there are {known}")


def closed_thought(opened: str) -> str:
    r"""What closes a thought that the prompt has opened, where a bare answer follows at once.

    Args:
        opened: As for `tags_of`.

    Raises:
        ValueError: likewise.

    >>> closed_thought("<think>\n")
    '\n</think>\n\n'
    """
    return f"\n{tags_of(opened)[1]}\n\n"


def last_said(text: str) -> str:
    """What a response says outside of its thoughts, where its answer is to be looked for.

    Tags may be missing. All before the last closing tag of a thought is thought, whether opened or
    not; so is all behind an opening one that nothing closes, but for an `<answer>` in it. Of what
    is left, the last whole `<answer>…</answer>` counts where there is one, else what follows an
    `<answer>` or goes before an `</answer>`, else all.

    Args:
        text: What a model has written.

    >>> last_said("[7]?</think> [3]"), last_said("<think>[7]"), last_said("<think>[7]<answer>[3]")
    (' [3]', '', '[3]')
    >>> last_said("[THINK][7][/THINK][3]")
    '[3]'
    """
    said = _END.sub(THINK_END, _START.sub(THINK_START, text)).rpartition(THINK_END)[2]
    before, opened, thought = said.partition(THINK_START)
    if opened:
        said = thought[thought.index(ANSWER_START) :] if ANSWER_START in thought else before
    pieces = _TAG.split(said.replace(THINK_START, ""))
    texts, tags = pieces[::2], pieces[1::2]
    for place in range(len(tags) - 1, 0, -1):
        if tags[place - 1 : place + 1] == [ANSWER_START, ANSWER_END]:
            return texts[place]
    if not tags:
        return said
    return texts[-1] if tags[-1] == ANSWER_START else texts[-2]
