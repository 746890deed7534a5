"""Fragment order coherence and query–fragment similarity, from vectors made elsewhere.

Shapes: U predicted utterances, I predicted images, H the width of the joint text–image encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ffr.dialogue import whole_numbers
from ffr.text import counted, described

SINGLE_ELEMENT_COHERENCE = 0.5


Vectors = Tensor | npt.NDArray[Any] | Sequence[Sequence[float]]
"""A tensor, an array or lists of numbers, one row a vector."""


def _rows(values: Vectors | Sequence[float], what: str, *, ndim: int = 2) -> Tensor:
    """Vectors as a tensor of shape (n, H); one vector as (H,) where `ndim` is 1.

    Raises:
        ValueError: where they are no rows of numbers.
    """
    wanted = "one row of numbers each, (n, H)" if ndim == 2 else "one row of numbers, (H,)"
    try:
        rows = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what}: {f'{values!r}'[:80]}; give {wanted}") from None
    if ndim == 2 and rows.ndim == 1 and not len(rows):
        rows = rows.reshape(0, 0)
    if rows.ndim != ndim or rows.dtype == torch.bool or rows.is_complex():
        found = f"{rows.dtype} of shape {tuple(rows.shape)}"
        raise ValueError(f"{what}: {found}; give {wanted}")
    return rows if rows.is_floating_point() else rows.float()


def _check_truth(is_target_empty: bool) -> None:
    if not isinstance(is_target_empty, bool):
        found = described(is_target_empty)
        raise ValueError(f"is_target_empty is {found}; say True or False, as `Fragment.is_empty`")


def fragment_elements(
    utterance_ids: Iterable[int],
    utterance_embeddings: Vectors,
    image_utterance_ids: Iterable[int],
    image_embeddings: Vectors,
) -> Tensor:
    """Puts a fragment's vectors in dialogue order: each utterance, then its images' mean.

    Args:
        utterance_ids: Ids of the U predicted utterances, in any order, without repeats.
        utterance_embeddings: (U, H), row i belongs to `utterance_ids[i]`.
        image_utterance_ids: For each of the I predicted images, the id of the utterance it hangs on
            (predicted or not).
        image_embeddings: (I, H).

    Returns:
        (E, H); E = U + the number of utterances that predicted images hang on.

    Raises:
        ValueError: where ids and rows differ in number, an utterance id repeats, the two kinds of
            vectors differ in width, or something is no id or no vector.
    """
    utterance_ids = whole_numbers(utterance_ids, "utterance ids")
    image_utterance_ids = whole_numbers(image_utterance_ids, "the images' utterance ids")
    utterance_embeddings = _rows(utterance_embeddings, "utterance embeddings")
    image_embeddings = _rows(image_embeddings, "image embeddings")
    if len(utterance_ids) != len(utterance_embeddings) or len(image_utterance_ids) != len(
        image_embeddings
    ):
        raise ValueError(
            f"{counted(len(utterance_ids), 'utterance')} with "
            f"{counted(len(utterance_embeddings), 'vector')} and "
            f"{counted(len(image_utterance_ids), 'image')} with "
            f"{counted(len(image_embeddings), 'vector')}: each needs one"
        )
    if len(set(utterance_ids)) != len(utterance_ids):
        raise ValueError("an utterance id repeats; name each once")
    widths = {rows.shape[1] for rows in (utterance_embeddings, image_embeddings) if len(rows)}
    if len(widths) > 1:
        raise ValueError(f"the vectors have widths {sorted(widths)}; take those of one encoder")
    row_of = {utterance_id: row for row, utterance_id in enumerate(utterance_ids)}
    images_of: dict[int, list[int]] = {}
    for row, utterance_id in enumerate(image_utterance_ids):
        images_of.setdefault(utterance_id, []).append(row)
    elements: list[Tensor] = []
    for utterance_id in sorted(row_of.keys() | images_of.keys()):
        if utterance_id in row_of:
            elements.append(utterance_embeddings[row_of[utterance_id]])
        if utterance_id in images_of:
            elements.append(image_embeddings[images_of[utterance_id]].mean(0))
    return (
        torch.stack(elements)
        if elements
        else utterance_embeddings.new_zeros((0, utterance_embeddings.shape[-1]))
    )


def fragment_order_coherence(
    utterance_ids: Iterable[int],
    utterance_embeddings: Vectors,
    image_utterance_ids: Iterable[int],
    image_embeddings: Vectors,
    *,
    is_target_empty: bool,
) -> Tensor:
    """Mean cosine similarity of neighbours in a predicted fragment laid out in dialogue order.

    Source: the fragment order reward of F2RVLM (arXiv 2508.17714). Prediction and truth both empty:
    1; exactly one of them empty: 0; a single element: 0.5. Unlike the released code, which gives
    every fragment without an image 0, a fragment of text alone counts as the definition says.

    Args:
        utterance_ids: Ids of the U predicted utterances, in any order, without repeats.
        utterance_embeddings: (U, H), row i belongs to `utterance_ids[i]`.
        image_utterance_ids: For each of the I predicted images, the id of the utterance it hangs
            on.
        image_embeddings: (I, H).
        is_target_empty: Whether the true fragment has neither utterances nor images.

    Returns:
        A scalar from -1 to 1.

    Raises:
        ValueError: as `fragment_elements`.

    >>> words = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> pictures = torch.tensor([[0.0, 1.0]])
    >>> fragment_order_coherence([3, 7], words, [3], pictures, is_target_empty=False)
    tensor(0.4000)
    """
    _check_truth(is_target_empty)
    elements = fragment_elements(
        utterance_ids, utterance_embeddings, image_utterance_ids, image_embeddings
    )
    if is_target_empty or not len(elements):
        return elements.new_tensor(float(is_target_empty and not len(elements)))
    if len(elements) == 1:
        return elements.new_tensor(SINGLE_ELEMENT_COHERENCE)
    return cosine_similarity(elements[:-1], elements[1:], dim=-1).mean()


def query_fragment_similarity(
    query_embedding: Tensor | npt.NDArray[Any] | Sequence[float],
    elements: Vectors,
    *,
    is_target_empty: bool,
) -> Tensor:
    """Mean cosine of the query with each element of a predicted fragment; empty as for coherence.

    Args:
        query_embedding: (H,).
        elements: (E, H), as `fragment_elements` gives them.
        is_target_empty: Whether the true fragment has neither utterances nor images.

    Returns:
        A scalar from -1 to 1.

    Raises:
        ValueError: where something is no vector, or they differ in width.

    >>> query_fragment_similarity(torch.tensor([1.0, 0.0]), torch.eye(2), is_target_empty=False)
    tensor(0.5000)
    """
    _check_truth(is_target_empty)
    rows = _rows(elements, "elements")
    if is_target_empty or not len(rows):
        return rows.new_tensor(float(is_target_empty and not len(rows)))
    query = _rows(query_embedding, "the query's embedding", ndim=1)[None]
    if query.shape[1] != rows.shape[1]:
        raise ValueError(
            f"the query's vector has width {query.shape[1]}, the elements' {rows.shape[1]}; take "
            "those of one encoder"
        )
    return cosine_similarity(query, rows, dim=-1).mean()
