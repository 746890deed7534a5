"""Fragment order coherence and query–fragment similarity, from vectors made elsewhere.

Shapes: U predicted utterances, I predicted images, H the width of the joint text–image encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

SINGLE_ELEMENT_COHERENCE = 0.5


def fragment_elements(
    utterance_ids: Sequence[int],
    utterance_embeddings: Tensor,
    image_utterance_ids: Sequence[int],
    image_embeddings: Tensor,
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
        ValueError: where ids and rows differ in number, or an utterance id repeats.
    """
    if len(utterance_ids) != len(utterance_embeddings) or len(image_utterance_ids) != len(
        image_embeddings
    ):
        raise ValueError(
            f"{len(utterance_ids)} utterances with {len(utterance_embeddings)} vectors and "
            f"{len(image_utterance_ids)} "
            f"images with {len(image_embeddings)} vectors: each needs one"
        )
    if len(set(utterance_ids)) != len(utterance_ids):
        raise ValueError("an utterance id repeats; name each once")
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
    utterance_ids: Sequence[int],
    utterance_embeddings: Tensor,
    image_utterance_ids: Sequence[int],
    image_embeddings: Tensor,
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
        ValueError: where ids and rows differ in number, or an utterance id repeats.

    >>> words = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> pictures = torch.tensor([[0.0, 1.0]])
    >>> fragment_order_coherence([3, 7], words, [3], pictures, is_target_empty=False)
    tensor(0.4000)
    """
    elements = fragment_elements(
        utterance_ids, utterance_embeddings, image_utterance_ids, image_embeddings
    )
    if is_target_empty or not len(elements):
        return elements.new_tensor(float(is_target_empty and not len(elements)))
    if len(elements) == 1:
        return elements.new_tensor(SINGLE_ELEMENT_COHERENCE)
    return cosine_similarity(elements[:-1], elements[1:], dim=-1).mean()


def query_fragment_similarity(
    query_embedding: Tensor, elements: Tensor, *, is_target_empty: bool
) -> Tensor:
    """Mean cosine of the query with each element of a predicted fragment; empty as for coherence.

    Args:
        query_embedding: (H,).
        elements: (E, H), as `fragment_elements` gives them.
        is_target_empty: Whether the true fragment has neither utterances nor images.

    >>> query_fragment_similarity(torch.tensor([1.0, 0.0]), torch.eye(2), is_target_empty=False)
    tensor(0.5000)
    """
    if is_target_empty or not len(elements):
        return elements.new_tensor(float(is_target_empty and not len(elements)))
    return cosine_similarity(query_embedding.unsqueeze(0), elements, dim=-1).mean()
