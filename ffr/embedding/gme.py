"""GME models as encoders: a Qwen2-VL trained to say what texts and pictures mean (arXiv 2412.16855).

Its prompt ends with `<|endoftext|>`, whose state is the vector, and its positions count tokens one
by one, those of pictures too, where Qwen2-VL itself gives them rows and columns:

    <|im_start|>system … <|im_start|>user ▸picture▸ text <|im_end|> <|im_start|>assistant <|endoftext|>

as `gme_inference.py` of the published weights has it, none of whose code is run here. The system's
turn is that of the model's chat template, which is the one that GME gives to what is searched; a
question's own instruction is not put in its place.

Shapes: B rows of a batch, L tokens of its longest row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ffr.embedding.pooled import PooledEncoder
from ffr.errors import ModelError
from ffr.models.vlm import Vlm
from ffr.parts import Parts
from ffr.prompt import IMAGE_MARK

END = "<|endoftext|>"
"""Behind the prompt; its state is the vector."""

MAX_IMAGE_PIXELS = 1280 * 28 * 28
"""So large are pictures at most: 1,280 tokens, as GME was trained."""

_KINDS = ("qwen2_vl",)


class GmeEncoder(PooledEncoder):
    """Encodes as GME does: v = h_L / |h_L|, the final state of the token behind the prompt.

    Parts are put together without a line break behind a picture. One picture and one text, in this
    order, are the prompt that GME was trained on; others are an extension of it.

    Args:
        vlm: The model, as `ffr.models.loading.load_vlm` gives it, with pictures up to
            `MAX_IMAGE_PIXELS`.
        name: What the user called it.

    Raises:
        ModelError: where it is no Qwen2-VL, or its tokenizer has no `END`.
    """

    def __init__(self, vlm: Vlm, *, name: str) -> None:
        super().__init__(vlm, name=name)
        kind = str(vlm.base.config.model_type)
        if kind not in _KINDS:
            raise ModelError(
                f"is a {kind} model, and GME's are {', '.join(_KINDS)}; write vlm:MODEL for pooled "
                "states of others",
                name,
            )
        found = vlm.tokenizer.get_vocab().get(END)
        if found is None:
            raise ModelError(f"has no token {END}, whose state is GME's vector", name)
        self._ending = (int(found),)

    @property
    def way(self) -> str:
        return "gme"

    def _joined(self, lines: list[str], parts: Parts) -> str:
        said = ""
        for line, part in zip(lines, parts, strict=True):
            is_behind_text = said and isinstance(part, str) and not said.endswith(IMAGE_MARK)
            said += ("\n" if is_behind_text else "") + line
        return said

    def _positions(self, mask: Tensor) -> dict[str, Tensor]:
        """(3, B, L), the same in time, height and width; the padding stands behind."""
        count = torch.arange(mask.shape[1], device=mask.device)
        return {"position_ids": count.expand(3, *mask.shape)}
