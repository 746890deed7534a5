"""Rewards of sampled answers: the rules of F2RVLM.

A reward has TRL's signature, `reward(prompts, completions, **columns) -> list[float]`, and works
there unchanged. Completions are texts, or TRL's conversations `[{"role": …, "content": …}]`; each
column is a list with one entry a completion.

Shapes: N completions.
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ffr.answer import THINK_START, AnswerStyle, parse_strict, unwrap_answer
from ffr.dialogue import Fragment
from ffr.embedding import Encoder
from ffr.errors import DataError
from ffr.metrics.functional import figures_from_counts, fragment_counts, fragment_elements
from ffr.metrics.functional.coherence import SINGLE_ELEMENT_COHERENCE
from ffr.metrics.functional.figures import MCC

Completion = str | Sequence[Mapping[str, Any]]
RewardFunction = Callable[..., Sequence[float]]


# -- reading ---------------------------------------------------------------------------------------


def completion_text(completion: Completion) -> str:
    """The text of a completion: itself, or what the last message of a conversation says.

    >>> completion_text("[3]"), completion_text([{"role": "assistant", "content": "[3]"}])
    ('[3]', '[3]')
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return (
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    )


def _predictions(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    answer_style: Sequence[AnswerStyle] | None,
) -> list[Fragment | None]:
    """What each completion names; None where it does not match the pattern from end to end."""
    styles: Sequence[AnswerStyle] = answer_style or ["bare"] * len(completions)
    # rewards that are asked for a single completion by hand are given what they like for a prompt
    asked: Sequence[Any] = (
        prompts if len(prompts) == len(completions) else [None] * len(completions)
    )
    found: list[Fragment | None] = []
    for prompt, completion, style in zip(asked, completions, styles, strict=True):
        text = completion_text(completion)
        answer = unwrap_answer(text, style, is_thought_open=_opens_thought(prompt))
        found.append(None if answer is None else parse_strict(answer))
        if found[-1] is None and _CUT_MARKERS.search(text):
            _warn_of_cut_markers()
    return found


def _opens_thought(prompt: Any) -> Literal[True] | None:
    """True where a prompt ends in `<think>`; None where that does not show.

    A chat template may open the thought behind what a reward gets to see.
    """
    is_text = isinstance(prompt, str)
    if not is_text and not (
        isinstance(prompt, Sequence) and prompt and isinstance(prompt[-1], Mapping)
    ):
        return None
    return True if completion_text(prompt).rstrip().endswith(THINK_START) else None


_CUT_MARKERS = re.compile(r"(?:\A|[\s>])\[[0-9, ]*\];\[[0-9, ]*\](?:[\s<]|\Z)")


@functools.cache
def _warn_of_cut_markers() -> None:
    warnings.warn(
        "a completion is of the form […];[…], without the markers around its lists, so it earns "
        "nothing: TRL decodes "
        "with skip_special_tokens and cuts them where they are special tokens of the tokenizer; "
        "add them as ordinary "
        "tokens",
        stacklevel=4,
    )


def _truths(solution: Sequence[str]) -> list[Fragment]:
    """The true fragments, each once read."""
    known: dict[str, Fragment] = {}
    for text in solution:
        if text not in known:
            fragment = parse_strict(text)
            if fragment is None:
                raise DataError(
                    f"the true answer {text[:200]!r} is not in the answer format; correct "
                    "`solution`"
                )
            known[text] = fragment
    return [known[text] for text in solution]


# -- rules -----------------------------------------------------------------------------------------


def format_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    answer_style: Sequence[AnswerStyle] | None = None,
    **columns: Any,
) -> list[float]:
    """1 where all of a completion matches the answer pattern and no list repeats an id, else 0.

    Where a prompt ends in `<think>`, the completion begins within that thought and must close it.

    Args:
        prompts: Looked at for a thought that they open.
        completions: N completions.
        answer_style: `bare` or `think` for each; None = all bare.
        columns: Not looked at.

    >>> answer = "<|utt_ids_start|>[0, 3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> format_reward([], [answer, "0 and 3"])
    [1.0, 0.0]
    """
    return [
        float(
            found is not None
            and len(set(found.utterance_ids)) == len(found.utterance_ids)
            and len(set(found.image_ids)) == len(found.image_ids)
        )
        for found in _predictions(prompts, completions, answer_style)
    ]


@dataclass(frozen=True)
class FragmentF1Reward:
    """How well the ids agree, with a discount on lists of the wrong length.

    Σ over m in {utterances, images} of 0.5 · F_β(pred_m, true_m) · d^abs(len(pred_m) -
    len(true_m)), F_β = 1 where both lists are empty; 0 for a completion that does not match the
    answer pattern. An id counts once as right, while FP and the discount take the predicted list's
    length as written, as released. Since the discount alone would still have a list that is far too
    short gain by repeats, one with repeats earns the least of what it would with any number of
    them up to its own: repeating an id never pays. An id that the dialogue does not have is a false
    positive.

    Args:
        beta: Weight of recall against precision in F_β = (1+β²)·TP / ((1+β²)·TP + β²·FN + FP).
        length_discount: d.

    Raises:
        ValueError: where beta is not over 0, or the discount not in (0, 1].

    >>> answer = "<|utt_ids_start|>[1, 2, 3]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> truth = "<|utt_ids_start|>[1, 2]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> round(FragmentF1Reward()([], [answer], solution=[truth])[0], 6)   # 0.5 · 0.8 · 0.95 + 0.5
    0.88
    """

    beta: float = 1.0
    length_discount: float = 0.95
    __name__ = "fragment_f1_reward"

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}; it must be over 0")
        if not 0 < self.length_discount <= 1:
            raise ValueError(
                f"length_discount is {self.length_discount}; it must be over 0 and at most 1"
            )

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        *,
        solution: Sequence[str],
        answer_style: Sequence[AnswerStyle] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One number from 0 to 1 a completion; `solution` holds the true answers' texts.

        Raises:
            DataError: where a true answer is not in the answer format.
        """
        return [
            0.0
            if found is None
            else 0.5 * self._agreement(found.utterance_ids, truth.utterance_ids)
            + 0.5 * self._agreement(found.image_ids, truth.image_ids)
            for found, truth in zip(
                _predictions(prompts, completions, answer_style), _truths(solution), strict=True
            )
        ]

    def _agreement(self, predicted: Sequence[int], true: Sequence[int]) -> float:
        pred_set, true_set = set(predicted), set(true)
        if not pred_set and not true_set:
            return 1.0
        num_right = len(pred_set & true_set)
        weighted = (1 + self.beta**2) * num_right

        def earned(num_written: int) -> float:
            misses = self.beta**2 * len(true_set - pred_set) + (num_written - num_right)
            discount: float = self.length_discount ** abs(num_written - len(true_set))
            return weighted / (weighted + misses) * discount

        return min(map(earned, range(len(pred_set), len(predicted) + 1)))


fragment_f1_reward = FragmentF1Reward()
"""F1 with the paper's discount of 0.95."""


def fragment_mcc_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    solution: Sequence[str],
    utterances: Sequence[Sequence[str]],
    images: Sequence[Sequence[str | Path]],
    answer_style: Sequence[AnswerStyle] | None = None,
    **columns: Any,
) -> list[float]:
    """Σ over m in {utterances, images} of 0.5 · MCC(pred_m, true_m); from -1 to 1.

    MCC is taken over the ids 0 … n-1 of the dialogue. 1 where a modality's two lists name the same
    ids, also where MCC itself is 0/0 (both empty, or both the whole dialogue); any other 0/0 is 0.
    Lists count as sets and there is no discount, since every id too many takes a true negative
    away. 0 for a completion that does not match the answer pattern.

    Args:
        prompts: Looked at for a thought that they open.
        completions: N completions.
        solution: The true answers' texts.
        utterances: Each dialogue's utterances; only their number counts.
        images: Each dialogue's images; likewise.
        answer_style: `bare` or `think` for each; None = all bare.
        columns: Not looked at.

    Raises:
        DataError: where a true answer is not in the answer format.
    """
    predictions, truths = _predictions(prompts, completions, answer_style), _truths(solution)
    counts = fragment_counts(
        [found or Fragment() for found in predictions],
        truths,
        [*map(len, utterances)],
        [*map(len, images)],
    )
    is_same = (counts[..., 1] + counts[..., 2]) == 0
    agreement = torch.where(is_same, 1.0, figures_from_counts(counts)[..., MCC]).mean(-1).tolist()
    return [
        0.0 if found is None else value for found, value in zip(predictions, agreement, strict=True)
    ]


class FragmentOrderReward:
    """Coherence of the predicted fragment: mean cosine similarity of neighbours in dialogue order.

    The same figure as `ffr.metrics.functional.fragment_order_coherence`; ids outside the dialogue
    are left out. Prediction and truth both empty: 1. Exactly one of them empty, as written or after
    leaving ids out: 0. One element: 0.5. A completion that does not match the answer pattern: 0.
    Fragments without an image count like any other.

    All vectors of a dialogue are made at its first completion and kept, so that its other
    completions cost no encoding.

    Args:
        encoder: Makes the vectors; wrapped in `ffr.embedding.CachedEncoder` it keeps them between
            runs.
        max_dialogues: Dialogues whose vectors are kept in memory; the least recently used go first.
    """

    def __init__(self, encoder: Encoder, *, max_dialogues: int = 1024) -> None:
        self.__name__ = "fragment_order_reward"
        self.encoder = encoder
        self.max_dialogues = max_dialogues
        self._kept: OrderedDict[_Content, tuple[Sequence[Tensor], Sequence[Tensor]]] = OrderedDict()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        *,
        solution: Sequence[str],
        utterances: Sequence[Sequence[str]],
        images: Sequence[Sequence[str | Path]],
        image_utterance_ids: Sequence[Sequence[int]],
        answer_style: Sequence[AnswerStyle] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One number from -1 to 1 a completion.

        Args:
            prompts: Looked at for a thought that they open.
            completions: N completions.
            solution: The true answers' texts.
            utterances: The text of each utterance of each dialogue.
            images: Where each image of each dialogue lies.
            image_utterance_ids: For each image of each dialogue, the utterance it hangs on.
            answer_style: `bare` or `think` for each; None = all bare.
            columns: Not looked at.

        Raises:
            DataError: where a true answer is not in the answer format, or an image cannot be
                opened.
        """
        rewards: list[float] = []
        # samples of one prompt are often the same answer: each fragment is worked out once
        fragments: dict[tuple[Any, ...], _Placed] = {}
        asked: list[tuple[Any, ...] | None] = []
        for found, truth, texts, pictures, hangs_on in zip(
            _predictions(prompts, completions, answer_style),
            _truths(solution),
            utterances,
            images,
            image_utterance_ids,
            strict=True,
        ):
            if found is None or found.is_empty or truth.is_empty:
                rewards.append(float(found is not None and found.is_empty and truth.is_empty))
                asked.append(None)
                continue
            dialogue = (tuple(texts), tuple(map(str, pictures)))
            utterance_ids = [item for item in {*found.utterance_ids} if item < len(texts)]
            image_ids = [item for item in {*found.image_ids} if item < len(pictures)]
            fragment = (dialogue, tuple(hangs_on), *sorted(utterance_ids), None, *sorted(image_ids))
            if fragment not in fragments:
                text_vectors, image_vectors = self._vectors(dialogue)
                fragments[fragment] = _Placed(
                    utterance_ids,
                    [text_vectors[item] for item in utterance_ids],
                    [hangs_on[item] for item in image_ids],
                    [image_vectors[item] for item in image_ids],
                )
            rewards.append(0.0)
            asked.append(fragment)
        known = dict(zip(fragments, _coherences(list(fragments.values())), strict=True))
        return [
            reward if fragment is None else known[fragment]
            for reward, fragment in zip(rewards, asked, strict=True)
        ]

    def _vectors(self, dialogue: _Content) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The vector of each utterance and of each image, (H,) float32 on the CPU."""
        if dialogue in self._kept:
            self._kept.move_to_end(dialogue)
            return self._kept[dialogue]
        texts, images = dialogue
        vectors = tuple(
            embed(items).detach().float().cpu().unbind() if items else ()
            for embed, items in (
                (self.encoder.embed_texts, texts),
                (self.encoder.embed_images, images),
            )
        )
        made = self._kept[dialogue] = (vectors[0], vectors[1])
        while len(self._kept) > self.max_dialogues:
            self._kept.popitem(last=False)
        return made


_Content = tuple[tuple[str, ...], tuple[str, ...]]
"""Texts and image locations of a dialogue."""


class _Placed(NamedTuple):
    """A fragment's parts in any order, with vectors; images with the utterance they hang on."""

    utterance_ids: list[int]
    utterance_vectors: list[Tensor]
    image_utterance_ids: list[int]
    image_vectors: list[Tensor]


def _coherences(fragments: Sequence[_Placed]) -> list[float]:
    """Coherence of each fragment: `fragment_order_coherence` for many at the price of one.

    0 for a fragment without parts.

    The fragments are laid out as if they were pieces of one long dialogue, and similarities across
    their borders left out.
    """
    offset = 1 + max(
        (max((*item.utterance_ids, *item.image_utterance_ids), default=0) for item in fragments),
        default=0,
    )
    utterance_ids: list[int] = []
    image_utterance_ids: list[int] = []
    sizes: list[int] = []
    for number, item in enumerate(fragments):
        utterance_ids += [number * offset + place for place in item.utterance_ids]
        image_utterance_ids += [number * offset + place for place in item.image_utterance_ids]
        sizes.append(len(item.utterance_ids) + len({*item.image_utterance_ids}))
    if not any(sizes):
        return [0.0] * len(sizes)
    utterance_vectors = [vector for item in fragments for vector in item.utterance_vectors]
    image_vectors = [vector for item in fragments for vector in item.image_vectors]
    width = len((utterance_vectors or image_vectors)[0])
    elements = fragment_elements(
        utterance_ids,
        torch.stack(utterance_vectors) if utterance_vectors else torch.zeros((0, width)),
        image_utterance_ids,
        torch.stack(image_vectors) if image_vectors else torch.zeros((0, width)),
    )
    similarities = cosine_similarity(elements[:-1], elements[1:], dim=-1).tolist()
    found: list[float] = []
    start = 0
    for size in sizes:
        if size > 1:
            found.append(sum(similarities[start : start + size - 1]) / (size - 1))
        else:
            found.append(SINGLE_ELEMENT_COHERENCE if size else 0.0)
        start += size
    return found
