"""Image towers of dual encoders, as they are exported (`ffr.exports.layers` says how).

Shapes: B images of a call, L patches each, D width, H width of what comes out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffr.errors import ModelError
from ffr.exports.layers import (
    Layer,
    PatchEncoder,
    as_linear,
    attention,
    cut_patches,
    linear_of,
    lowest_score,
    normalized,
)


class ClipImages(nn.Module):
    """CLIP's and Chinese-CLIP's images: the class token's vector.

    Args:
        model: transformers' dual encoder.
    """

    output_names = ("embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.vision_model
        embeddings = tower.embeddings
        self.patch = int(embeddings.patch_size)
        self.patches = as_linear(embeddings.patch_embedding)
        positions = embeddings.position_embedding.weight.detach()
        # added up once: the class token's position never changes
        self.first = nn.Buffer((embeddings.class_embedding.detach() + positions[0])[None, None])
        self.positions = nn.Buffer(positions[1:].clone())
        self.before, self.after = tower.pre_layrnorm, tower.post_layernorm
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.projection = model.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(B, 3, side, side) → (B, H), L2-normalised float32."""
        size = pixel_values.shape[0]
        cut = cut_patches(pixel_values.to(self.first.dtype), self.patch)
        # with the class token
        length = cut.shape[1] + 1
        patches = self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = self.before(torch.cat([self.first.expand(size, -1, -1), patches], dim=1)).flatten(
            0, 1
        )
        for layer in list(self.layers)[:-1]:
            rows = layer(rows, size)
        rows = self.layers[-1](rows, size, kept=torch.arange(size, device=rows.device) * length)
        return (normalized(self.projection(self.after(rows))),)


class _PoolingHead(nn.Module):
    """SigLIP's head: one learned row that attends to all patches.

    Args:
        head: transformers' head.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        part = head.attention
        weights, biases = part.in_proj_weight.detach().chunk(3), part.in_proj_bias.detach().chunk(3)
        # the learned row is the same for every image, and so is its query
        self.query = nn.Buffer(
            (head.probe.detach()[0] @ weights[0].T + biases[0])[None]
        )  # (1, 1, D)
        self.key, self.value = linear_of(weights[1], biases[1]), linear_of(weights[2], biases[2])
        self.output, self.norm, self.perceptron = part.out_proj, head.layernorm, head.mlp
        self.num_heads = int(part.num_heads)

    def forward(self, rows: Tensor, size: int, bias: Tensor | None = None) -> Tensor:
        """(B·L, D) → (B, D)."""
        key, value = (
            self.key(rows).unflatten(0, (size, -1)),
            self.value(rows).unflatten(0, (size, -1)),
        )
        seen = attention(self.query.expand(size, -1, -1), key, value, self.num_heads, bias=bias)
        pooled = self.output(seen.flatten(0, 1))
        found: Tensor = pooled + self.perceptron(self.norm(pooled))
        return found


class SiglipImages(nn.Module):
    """SigLIP's images of one size.

    Args:
        model: transformers' dual encoder.
    """

    output_names = ("embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.vision_model
        if not tower.use_head:
            raise ModelError("its image tower has no pooling head and so gives no vectors")
        self.rows = PatchEncoder(tower)
        self.after, self.head = tower.post_layernorm, _PoolingHead(tower.head)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(B, 3, side, side) → (B, H), L2-normalised float32."""
        return (normalized(self.head(self.after(self.rows(pixel_values)), pixel_values.shape[0])),)


class Siglip2Images(nn.Module):
    """SigLIP 2's images of any aspect ratio: patches of each, padded to one number.

    Args:
        model: transformers' dual encoder.
    """

    output_names = ("embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.vision_model
        if not tower.use_head:
            raise ModelError("its image tower has no pooling head and so gives no vectors")
        self.patches = tower.embeddings.patch_embedding
        self.side = int(tower.embeddings.position_embedding_size)
        self.positions = nn.Buffer(
            tower.embeddings.position_embedding.weight.detach()[: self.side**2].clone()
        )
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.head = tower.post_layernorm, _PoolingHead(tower.head)

    def forward(
        self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor
    ) -> tuple[Tensor]:
        """Vectors of images.

        Args:
            pixel_values: (B, L, 3 · side · side).
            pixel_attention_mask: (B, L), 1 on patches that an image has.
            spatial_shapes: (B, 2) patches in height and width.

        Returns:
            (B, H), L2-normalised float32.
        """
        size, length, _ = pixel_values.shape
        dtype = self.positions.dtype
        height, width = spatial_shapes[:, :1], spatial_shapes[:, 1:]  # (B, 1)
        patch = torch.arange(length, device=pixel_values.device)[None]
        # torch's antialiased scaling gives an image one patch wide its first line's values on every
        # line (seen with 2.13)
        row = torch.where((width == 1) & (height != self.side), 0, patch // width)
        down, across = self._shares(row, height), self._shares(patch % width, width)  # (B, L, side)
        positions = (down[..., None] * across[..., None, :]).flatten(2).flatten(0, 1).to(
            dtype
        ) @ self.positions
        rows = self.patches(pixel_values.to(dtype).flatten(0, 1)) + positions
        hidden = torch.where(pixel_attention_mask.bool(), 0.0, lowest_score(dtype)).to(dtype)[
            :, None, None
        ]
        bias = hidden.expand(-1, 1, length, -1)
        for layer in self.layers:
            rows = layer(rows, size, bias=bias)
        return (normalized(self.head(self.after(rows), size, hidden)),)

    def _shares(self, index: Tensor, length: Tensor) -> Tensor:
        """How much of each line of the learned grid a line of the image takes, (B, L, side).

        Bilinear with antialiasing, as `torch.nn.functional.interpolate`; what padding takes is of
        no account.
        """
        scale = self.side / length.float()[..., None]  # (B, 1, 1)
        centre = (index.float()[..., None] + 0.5) * scale
        lines = torch.arange(self.side, device=index.device).float() + 0.5
        share = (1 - (lines - centre).abs() / scale.clamp(min=1.0)).clamp(min=0.0)
        return share / share.sum(-1, keepdim=True).clamp(min=1e-6)
