"""Rewards of sampled answers: the rules of F2RVLM.

A reward has TRL's signature, `reward(prompts, completions, **columns) -> list[float]`, and works
there unchanged. Completions are texts, or TRL's conversations `[{"role": …, "content": …}]`; each
column is a list with one entry a completion.

Shapes: N completions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ffr.answer import AnswerStyle
from ffr.dialogue import Fragment
from ffr.embedding import Encoder
from ffr.images import Location, as_location
from ffr.metrics.functional import figures_from_counts, fragment_counts, fragment_elements
from ffr.metrics.functional.coherence import SINGLE_ELEMENT_COHERENCE
from ffr.metrics.functional.figures import MCC
from ffr.parts import Picture
from ffr.rewards.reading import Completion, read_column, read_predictions, read_truths

RewardFunction = Callable[..., Sequence[float]]


def format_reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    answer_style: Sequence[AnswerStyle] | None = None,
    **columns: Any,
) -> list[float]:
    """1 where all of a completion matches the answer pattern and no list repeats an id, else 0.

    Where a prompt ends in `<think>`, or what else opens a thought (`ffr.thoughts.THOUGHT_TAGS`),
    the completion begins within that thought and must close it.

    Args:
        prompts: Looked at for a thought that they open.
        completions: N completions.
        answer_style: `bare` or `think` for each; None = all bare.
        columns: Not looked at.

    Raises:
        ValueError: where something is no completion.

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
        for found in read_predictions(prompts, completions, answer_style)
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
            ValueError: where something is no completion, or no column of one entry a completion.
        """
        predictions = read_predictions(prompts, completions, answer_style)
        truths = read_truths(solution, len(predictions))
        return [
            0.0
            if found is None
            else 0.5 * self._agreement(found.utterance_ids, truth.utterance_ids)
            + 0.5 * self._agreement(found.image_ids, truth.image_ids)
            for found, truth in zip(predictions, truths, strict=True)
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
    images: Sequence[Sequence[Picture]],
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
        ValueError: where something is no completion, or no column of one entry a completion.
    """
    predictions = read_predictions(prompts, completions, answer_style)
    num = len(predictions)
    counts = fragment_counts(
        [found or Fragment() for found in predictions],
        read_truths(solution, num),
        [*map(len, read_column(utterances, "utterances", num))],
        [*map(len, read_column(images, "images", num))],
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
        images: Sequence[Sequence[Picture]],
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
            images: Where each image of each dialogue lies, or the image itself.
            image_utterance_ids: For each image of each dialogue, the utterance it hangs on.
            answer_style: `bare` or `think` for each; None = all bare.
            columns: Not looked at.

        Raises:
            DataError: where a true answer is not in the answer format, or an image cannot be
                opened.
            ValueError: where something is no completion, or no column of one entry a completion.
        """
        rewards: list[float] = []
        # samples of one prompt are often the same answer: each fragment is worked out once
        fragments: dict[tuple[Any, ...], _Placed] = {}
        asked: list[tuple[Any, ...] | None] = []
        predictions = read_predictions(prompts, completions, answer_style)
        num = len(predictions)
        for found, truth, texts, pictures, hangs_on in zip(
            predictions,
            read_truths(solution, num),
            read_column(utterances, "utterances", num),
            read_column(images, "images", num),
            read_column(image_utterance_ids, "image_utterance_ids", num),
            strict=True,
        ):
            if found is None or found.is_empty or truth.is_empty:
                rewards.append(float(found is not None and found.is_empty and truth.is_empty))
                asked.append(None)
                continue
            dialogue = (tuple(texts), tuple(map(_place, pictures)))
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
        made = self._kept[dialogue] = (
            _unbound(self.encoder.embed_texts(texts)) if texts else (),
            _unbound(self.encoder.embed_images(images)) if images else (),
        )
        while len(self._kept) > self.max_dialogues:
            self._kept.popitem(last=False)
        return made


_Content = tuple[tuple[str, ...], tuple[str | Location, ...]]
"""Texts and image locations of a dialogue."""


def _unbound(vectors: Tensor) -> Sequence[Tensor]:
    """The rows of vectors, float32 on the CPU."""
    return vectors.detach().float().cpu().unbind()


def _place(picture: Any) -> str | Location:
    """The path of a picture as a text, or the picture itself where it is in memory."""
    return str(picture) if isinstance(picture, str | Path) else as_location(picture)


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
