"""What exported encoders are made of: attention, rotary positions and their common layer.

transformers' forward passes are not exported as they stand; its weights go into modules of our own,
whose graphs are exact for any sizes and fast. The Qwen towers cut their rows by the lengths of the
images, and a traced graph keeps the lengths it saw; here a graph takes one image, of any grid, so
no row needs a mask. Window attention (Qwen2.5-VL) is done on windows padded to one size, at linear
cost, in the place of one slice a window. Text encoders spend most of a mixed batch on padding; here
all but the attention runs on the real tokens alone. And of the last layer only the pooled row is
computed. ONNX Runtime's own operators are named where its fusions would not find them: attention,
which keeps no matrix of scores in memory, and rotary positions.

Shapes: B images or texts of a call, L rows each, T rows over all, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    *,
    bias: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Attention of (B, Q, D) to (B, K, D), heads side by side in D: one operator of ONNX Runtime.

    Args:
        query: (B, Q, D).
        key: (B, K, D).
        value: (B, K, D).
        num_heads: Heads in D.
        bias: Added to the scores, (B or 1, 1, Q, K).
        is_causal: A row sees itself and those before it.
    """
    if torch.onnx.is_in_onnx_export():
        attributes: dict[str, Any] = {
            "num_heads": num_heads,
            **({"unidirectional": 1} if is_causal else {}),
        }
        # the operator's fourth and fifth inputs, biases of its own and a key mask, stay empty
        inputs = (query, key, value) if bias is None else (query, key, value, None, None, bias)
        fused: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            inputs,
            attributes,
            dtype=query.dtype,
            shape=query.shape,
            version=1,
        )
        return fused
    query, key, value = (
        # (B, rows, D) → (B, heads, rows, D / heads)
        part.reshape(*part.shape[:2], num_heads, -1).transpose(1, 2)
        for part in (query, key, value)
    )
    found = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, is_causal=is_causal
    )
    # heads side by side again
    return found.transpose(1, 2).flatten(2)


def rotate(rows: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Rotary positions on (n, D), heads side by side in D; `cos` and `sin` (n, half a head)."""
    if torch.onnx.is_in_onnx_export():
        start = torch.zeros(1, dtype=torch.int64, device=rows.device)
        turned: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::RotaryEmbedding",
            (rows[None], start, cos, sin),
            {"num_heads": num_heads},
            dtype=rows.dtype,
            shape=(1, *rows.shape),
            version=1,
        )
        return turned[0]
    # a head's halves are the real and the imaginary parts of what is turned
    first, second = rows.reshape(len(rows), num_heads, -1).chunk(2, dim=-1)
    # one turn for all heads
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(1)


def lowest_score(dtype: torch.dtype) -> float:
    """Makes a score's weight zero, and is finite: −∞ gives NaN where a row sees nothing."""
    return float(torch.finfo(dtype).min)


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear that is not trained, of given weights."""
    # on meta: weights that are replaced at once need no memory
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return made


def _scaled(linear: nn.Linear, factor: Tensor) -> nn.Linear:
    """The linear with each of its outputs multiplied."""
    return linear_of(
        linear.weight * factor[:, None], None if linear.bias is None else linear.bias * factor
    )


def as_linear(convolution: nn.Module) -> nn.Linear:
    """A convolution whose stride is its kernel, as a linear on patches (channel, row, column)."""
    weight: Any = convolution.weight
    bias: Any = convolution.bias
    # stride = kernel: no two patches share a pixel, so the sum over a patch is all there is
    return linear_of(weight.flatten(1), bias)


def cut_patches(pixels: Tensor, patch: int) -> Tensor:
    """(B, C, rows, columns) → (B, L, C·patch·patch), patches in reading order."""
    size, channels, height, width = pixels.shape
    grid = pixels.reshape(size, channels, height // patch, patch, width // patch, patch)
    # (B, lines, columns, C, patch, patch): a linear's weights are laid out likewise
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Layer(nn.Module):
    """A layer that normalises before attention and perceptron, as all vision transformers here do.

    Args:
        norms: Before attention, before the perceptron.
        attend: Linears for query, key, value and output.
        perceptron: What follows attention.
        num_heads: Heads in D.
        key_norms: Normalisations of queries and keys, over all heads together (InternVL's larger
            towers).
    """

    def __init__(
        self,
        norms: tuple[nn.Module, nn.Module],
        attend: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
        perceptron: nn.Module,
        num_heads: int,
        key_norms: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.query, self.key, self.value, self.output = attend
        self.perceptron = perceptron
        self.num_heads = num_heads
        self.query_norm, self.key_norm = key_norms or (nn.Identity(), nn.Identity())

    @classmethod
    def of_clip(cls, layer: Any) -> Layer:
        """Of CLIP, SigLIP (2), Chinese-CLIP's vision and SmolVLM, which name their parts alike."""
        part = layer.self_attn
        return cls(
            (layer.layer_norm1, layer.layer_norm2),
            (part.q_proj, part.k_proj, part.v_proj, part.out_proj),
            layer.mlp,
            part.num_heads,
        )

    @classmethod
    def of_internvl(cls, layer: Any) -> Layer:
        """With the factors of its residual branches multiplied into the last linear of each."""
        part = layer.attention
        perceptron = nn.Sequential(
            layer.mlp.fc1, layer.mlp.activation_fn, _scaled(layer.mlp.fc2, layer.lambda_2.detach())
        )
        output = _scaled(part.projection_layer, layer.lambda_1.detach())
        return cls(
            (layer.layernorm_before, layer.layernorm_after),
            (part.q_proj, part.k_proj, part.v_proj, output),
            perceptron,
            part.num_heads,
            (part.q_norm, part.k_norm),
        )

    @classmethod
    def of_qwen(cls, block: Any) -> Layer:
        """The joint linear of query, key and value cut in three: nothing is copied apart later."""
        joint = block.attn.qkv
        biases = (None,) * 3 if joint.bias is None else joint.bias.chunk(3)
        query, key, value = (
            linear_of(weight, bias)
            for weight, bias in zip(joint.weight.chunk(3), biases, strict=True)
        )
        return cls(
            (block.norm1, block.norm2),
            (query, key, value, block.attn.proj),
            block.mlp,
            block.attn.num_heads,
        )

    def forward(
        self,
        rows: Tensor,
        size: int,
        *,
        slots: Tensor | None = None,
        places: Tensor | None = None,
        kept: Tensor | None = None,
        bias: Tensor | None = None,
        is_causal: bool = False,
        cos: Tensor | None = None,
        sin: Tensor | None = None,
    ) -> Tensor:
        """One layer on rows one behind the other, so that every linear is one product of matrices.

        Args:
            rows: (T, D).
            size: B, where all items have the same number of rows.
            slots: (B, L) which row stands at each place of the attention; None: T = B·L, in order.
            places: (T,) where each row stands among B·L; with `slots`.
            kept: (B,) the only rows that are needed afterwards, one for each item; None for all.
            bias: Added to the scores.
            is_causal: As `attention`.
            cos: (T, half a head) of rotary positions.
            sin: Like `cos`.

        Returns:
            (T, D), or (B, D) with `kept`.
        """
        normed = self.norm1(rows)
        # only queries are spared: a kept row still sees all keys and values
        asking = normed if kept is None else normed[kept]
        query, key = self.query_norm(self.query(asking)), self.key_norm(self.key(normed))
        value = self.value(normed)
        if cos is not None and sin is not None:
            query, key = (
                rotate(query, cos, sin, self.num_heads),
                rotate(key, cos, sin, self.num_heads),
            )
        if slots is None:
            key, value = key.unflatten(0, (size, -1)), value.unflatten(0, (size, -1))
            query = query.unflatten(0, (size, -1)) if kept is None else query[:, None]
        else:
            # padding's places hold copies of real rows, which the bias hides
            key, value = key[slots], value[slots]
            query = query[slots] if kept is None else query[:, None]
        seen = attention(query, key, value, self.num_heads, bias=bias, is_causal=is_causal).flatten(
            0, 1
        )
        if kept is not None:
            rows = rows[kept]
        elif places is not None:
            # back to the real rows alone, in their order
            seen = seen[places]
        rows = rows + self.output(seen)
        found: Tensor = rows + self.perceptron(self.norm2(rows))
        return found


class PatchEncoder(nn.Module):
    """A vision transformer of SigLIP's form up to its last layer: patches with learned positions.

    Args:
        tower: transformers' tower.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.patch = int(tower.embeddings.patch_size)
        self.patches = as_linear(tower.embeddings.patch_embedding)
        self.positions = nn.Buffer(tower.embeddings.position_embedding.weight.detach())
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) → (B·L, D)."""
        size = pixels.shape[0]
        cut = cut_patches(pixels.to(self.positions.dtype), self.patch)
        rows: Tensor = (
            # all images' patches in one product; the positions are the same for each image
            self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        ).flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        return rows


def normalized(pooled: Tensor) -> Tensor:
    """(…, H) → the same, L2-normalised float32."""
    return nn.functional.normalize(pooled.float(), dim=-1)
