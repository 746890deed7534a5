"""The door of the metrics: what stands for fragments and sizes of dialogues, read in one place.

Nothing here imports torch: tensors are known by what they can do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ffr.answer import parse_strict, read_answer
from ffr.dialogue import Fragment, whole_numbers
from ffr.text import described


class HasFragmentIds(Protocol):
    """Anything that names utterances and images by id, such as `ffr.dialogue.Fragment`."""

    @property
    def utterance_ids(self) -> Collection[int]: ...

    @property
    def image_ids(self) -> Collection[int]: ...


FragmentLike = HasFragmentIds | str | Iterable[Iterable[int]]
"""A fragment, the text of an answer, or the pair (utterance ids, image ids).

Ids are lists, tuples, sets, tensors or arrays of whole numbers; a repeat counts once."""

Fragments = Iterable[FragmentLike] | str
"""Fragments of several samples; a single text is one answer."""


def read_fragments(values: Fragments, what: str, *, is_truth: bool = False) -> list[Fragment]:
    """Fragments out of whatever stands for them.

    Args:
        values: Fragments, answer texts, or pairs of ids, one a sample.
        what: What they are, for the error: `prediction`, `target`.
        is_truth: Whether a text must keep to the answer format. A prediction is read as leniently
            as `ffr eval` reads it.

    Raises:
        ValueError: where something else is given; the sentence names the sample.

    >>> read_fragments([([0, 1], []), "<|utt_ids_start|>[2]<|utt_ids_end|>"], "prediction")
    [Fragment(utterance_ids=(0, 1), image_ids=()), Fragment(utterance_ids=(2,), image_ids=())]
    """
    if isinstance(values, str):
        values = [values]
    is_one = hasattr(values, "utterance_ids") or isinstance(values, (bytes, Mapping))
    if is_one or not isinstance(values, Iterable):
        found = described(values)
        raise ValueError(f"{what}s are {found}; write a list with one entry a sample")
    return [
        item if type(item) is Fragment else _read_fragment(item, f"{what} {number}", is_truth)
        for number, item in enumerate(values)
    ]


def _read_fragment(item: Any, where: str, is_truth: bool) -> Fragment:
    if isinstance(item, str):
        found = parse_strict(item) if is_truth else read_answer(item)
        if found is None:
            raise ValueError(f"{where}: the text {item[:80]!r} is not in the answer format")
        return found
    if hasattr(item, "utterance_ids") and hasattr(item, "image_ids"):
        utterance_ids, image_ids = item.utterance_ids, item.image_ids
    else:
        pair = _pair_of(item)
        if pair is None:
            raise ValueError(
                f"{where} is {f'{item!r}'[:80]}; write a Fragment, an answer's text, or the pair "
                "of a list of utterance ids and a list of image ids"
            )
        utterance_ids, image_ids = pair
    return Fragment(
        whole_numbers(utterance_ids, f"{where}: utterance ids"),
        whole_numbers(image_ids, f"{where}: image ids"),
    )


def _pair_of(item: Any) -> tuple[Any, Any] | None:
    """The two parts of a pair; None where it is none, such as a list of two ids."""
    if isinstance(item, (bytes, Mapping, set, frozenset)) or not hasattr(item, "__getitem__"):
        return None
    try:
        utterance_ids, image_ids = item
    except (TypeError, ValueError):
        return None
    is_list = [
        getattr(part, "ndim", 1) == 1 and isinstance(part, Iterable) and not isinstance(part, str)
        for part in (utterance_ids, image_ids)
    ]
    return (utterance_ids, image_ids) if all(is_list) else None


def read_sizes(
    num_utterances: Iterable[int] | None, num_images: Iterable[int] | None
) -> tuple[Sequence[int], Sequence[int]] | None:
    """The sizes of the dialogues; None where none are given.

    Raises:
        ValueError: where one is given without the other, or they are no counts.

    >>> read_sizes(range(3, 5), [0, 1])
    ((3, 4), (0, 1))
    """
    if num_utterances is None and num_images is None:
        return None
    if num_utterances is None or num_images is None:
        raise ValueError("num_utterances and num_images go together; give both or neither")
    return (
        whole_numbers(num_utterances, "num_utterances"),
        whole_numbers(num_images, "num_images"),
    )
