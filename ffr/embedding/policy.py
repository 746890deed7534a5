"""A vision-language model's own features as an encoder, for coherence and the order reward.

Shapes: n texts, images or fragments of a call, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ffr.embedding.interface import mean_of_parts
from ffr.models.vlm import Vlm
from ffr.parts import FragmentParts, Pictures, Texts, as_pictures, as_texts


class PolicyEncoder:
    """The model that is trained or measured, by what its decoder is given of texts and images.

        text: v = m / |m|,  m = (1/L) Σ_t e_t − c;  image: likewise with its P projected patches for
        e

    Here e are input embeddings and c is their mean over the vocabulary.

    Args:
        vlm: The model; its embeddings are read anew at each call, since they may be trained.
    """

    takes_images = True

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm

    @property
    def name(self) -> str:
        return self._vlm.name

    @property
    def fingerprint(self) -> str:
        """The model's, of its frozen weights."""
        return self._vlm.fingerprint

    @torch.no_grad()
    def embed_texts(self, texts: Texts) -> Tensor:
        """Mean input embedding of each text, less the vocabulary's mean, L2-normalised: (n, H)."""
        vlm = self._vlm
        embeddings = vlm.base.get_input_embeddings()
        centre = self._centre()
        rows = []
        for text in as_texts(texts):
            # an empty text has a vector too
            ids = vlm.tokenizer(text, add_special_tokens=False).input_ids or [vlm.stop_ids[0]]
            tokens = embeddings(torch.tensor(ids, device=vlm.device)).float()
            rows.append(tokens.mean(0) - centre)
        return _normalised(rows, centre)

    @torch.no_grad()
    def embed_images(self, images: Pictures) -> Tensor:
        """Mean projected patch of each image, in the space of texts, L2-normalised: (n, H).

        Raises:
            DataError: where an image cannot be opened, or the model cannot take it.
        """
        centre = self._centre()
        rows = []
        for location in as_pictures(images):
            features = self._vlm.tower.features(self._vlm.tower.encode(location)[0])
            rows.append(features.pooled.float().flatten(0, -2).mean(0) - centre)
        return _normalised(rows, centre)

    def embed_fragments(self, fragments: Sequence[FragmentParts]) -> Tensor:
        """The mean of the vectors of a fragment's parts, normalised anew: (n, H), on the CPU.

        Raises:
            UsageError: where a fragment has no parts.
            DataError: as `embed_images`.
        """
        return mean_of_parts(self, fragments)

    def _centre(self) -> Tensor:
        weight: Tensor = self._vlm.base.get_input_embeddings().weight
        return weight.float().mean(0)


def _normalised(rows: list[Tensor], centre: Tensor) -> Tensor:
    """The rows with the length 1; of no rows a tensor of the right width."""
    if not rows:
        return centre.new_zeros((0, len(centre)))
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)
