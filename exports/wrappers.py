"""The encoders as they are exported: transformers' weights in modules of our own, whose graphs are exact for any sizes and fast.

transformers' forward passes are not exported as they stand, for four reasons. The Qwen towers cut their rows by the lengths of the
images, and a traced graph keeps the lengths it saw; here a graph takes one image, of any grid, so no row needs a mask. Window
attention (Qwen2.5-VL) is done on windows padded to one size, at linear cost, in the place of one slice a window. Text encoders
spend most of a mixed batch on padding; here all but the attention runs on the real tokens alone. And of the last layer only the pooled
row is computed. ONNX Runtime's own operators are named where its fusions would not find them: attention, which keeps no matrix of
scores in memory, and rotary positions.

Shapes: B images or texts of a call, L rows each, T rows over all, D width, H width of what comes out, n patches of one image, m patches of
a side that are merged into one, K windows of an image, S patches of a full window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffr.embedding.sentence import COUNTS_POSITIONS_FROM_PADDING, Pooling
from ffr.errors import ModelError

# -- operators --------------------------------------------------------------------------------------------------------------


def attention(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, *, bias: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Attention of (B, Q, D) to (B, K, D), heads side by side in D: one operator of ONNX Runtime in an exported graph.

    Args:
        query: (B, Q, D).
        key: (B, K, D).
        value: (B, K, D).
        num_heads: Heads in D.
        bias: Added to the scores, (B or 1, 1, Q, K).
        is_causal: A row sees itself and those before it.
    """
    if torch.onnx.is_in_onnx_export():
        attributes: dict[str, Any] = {"num_heads": num_heads, **({"unidirectional": 1} if is_causal else {})}
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
    query, key, value = (part.reshape(*part.shape[:2], num_heads, -1).transpose(1, 2) for part in (query, key, value))
    found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=is_causal)
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
    first, second = rows.reshape(len(rows), num_heads, -1).chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(1)


def _lowest(dtype: torch.dtype) -> float:
    """What makes a score's weight zero, and is finite: an infinite one gives NaN where a row sees nothing."""
    return float(torch.finfo(dtype).min)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return made


def _scaled(linear: nn.Linear, factor: Tensor) -> nn.Linear:
    """The linear with each of its outputs multiplied."""
    return _linear(linear.weight * factor[:, None], None if linear.bias is None else linear.bias * factor)


def _as_linear(convolution: nn.Module) -> nn.Linear:
    """A convolution whose stride is its kernel, as a linear on whole patches (channel, …, row, column)."""
    weight: Any = convolution.weight
    bias: Any = convolution.bias
    return _linear(weight.flatten(1), bias)


def _cut(pixels: Tensor, patch: int) -> Tensor:
    """(B, C, rows, columns) → (B, L, C·patch·patch), patches in reading order."""
    size, channels, height, width = pixels.shape
    grid = pixels.reshape(size, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Layer(nn.Module):
    """A layer that normalises before attention and before its perceptron, as in all vision transformers here.

    Args:
        norms: Before attention, before the perceptron.
        attend: Linears for query, key, value and output.
        perceptron: What follows attention.
        num_heads: Heads in D.
        key_norms: Normalisations of queries and keys, over all heads together (InternVL's larger towers).
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
        """Of CLIP, SigLIP, SigLIP 2, Chinese-CLIP's vision and SmolVLM, which name their parts alike."""
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
        """With the joint linear of query, key and value cut in three, so that nothing is copied apart later."""
        joint = block.attn.qkv
        biases = (None,) * 3 if joint.bias is None else joint.bias.chunk(3)
        query, key, value = (_linear(weight, bias) for weight, bias in zip(joint.weight.chunk(3), biases, strict=True))
        return cls((block.norm1, block.norm2), (query, key, value, block.attn.proj), block.mlp, block.attn.num_heads)

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
        """One layer on rows that lie one behind the other, so that every linear is one plain product of matrices.

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
        asking = normed if kept is None else normed[kept]
        query, key = self.query_norm(self.query(asking)), self.key_norm(self.key(normed))
        value = self.value(normed)
        if cos is not None and sin is not None:
            query, key = rotate(query, cos, sin, self.num_heads), rotate(key, cos, sin, self.num_heads)
        if slots is None:
            key, value = key.unflatten(0, (size, -1)), value.unflatten(0, (size, -1))
            query = query.unflatten(0, (size, -1)) if kept is None else query[:, None]
        else:
            key, value = key[slots], value[slots]
            query = query[slots] if kept is None else query[:, None]
        seen = attention(query, key, value, self.num_heads, bias=bias, is_causal=is_causal).flatten(0, 1)
        if kept is not None:
            rows = rows[kept]
        elif places is not None:
            seen = seen[places]
        rows = rows + self.output(seen)
        found: Tensor = rows + self.perceptron(self.norm2(rows))
        return found


def _normalized(pooled: Tensor) -> Tensor:
    return nn.functional.normalize(pooled.float(), dim=-1)


# -- towers of Qwen -----------------------------------------------------------------------------------------------------------


class QwenTower(nn.Module):
    """The vision tower with its merger of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, for one image of any grid.

    Args:
        tower: transformers' tower.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.patches = _as_linear(tower.patch_embed.proj)
        self.layers = nn.ModuleList(Layer.of_qwen(block) for block in tower.blocks)
        self.merger = tower.merger
        self.merge = int(tower.spatial_merge_size)
        self.inv_freq = nn.Buffer(tower.rotary_pos_emb.inv_freq.detach().float())
        # Qwen2.5-VL: windows, counted in merged patches
        whole = getattr(tower, "fullatt_block_indexes", None)
        self.full_layers = range(len(self.layers)) if whole is None else tuple(whole)
        self.window = 0 if whole is None else int(tower.window_size // self.merge // tower.patch_size)
        # Qwen3-VL: learned positions, and features for deeper layers
        self.positions: nn.Embedding | None = getattr(tower, "pos_embed", None)
        self.positions_side = int(getattr(tower, "num_grid_per_side", 0))
        if self.positions is not None and (tower.interpolation_mode, tower.interpolation_align_corners) != (
            "bilinear",
            True,
        ):
            raise ModelError(f"resamples its positions by {tower.interpolation_mode}, which is not exported")
        self.deep_layers = tuple(getattr(tower, "deepstack_visual_indexes", ()))
        self.deep_mergers = getattr(tower, "deepstack_merger_list", nn.ModuleList())

    @property
    def output_names(self) -> list[str]:
        return ["pooled", *(f"deepstack.{number}" for number in range(len(self.deep_layers)))]

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> tuple[Tensor, ...]:
        """Features of one image.

        Args:
            pixel_values: (n, channels · frames · side · side), as the image processor gives them.
            image_grid_thw: (1, 3) patches in time, which is 1, height and width.

        Returns:
            (n / m², H) float32, and as many again for each of Qwen3-VL's deeper layers.
        """
        height, width = image_grid_thw[0, 1], image_grid_thw[0, 2]
        rows = self.patches(pixel_values.to(self.patches.weight.dtype))
        patch = torch.arange(rows.shape[0], device=rows.device)
        unit = self.merge * self.merge
        cells_across = width // self.merge
        # patches come merged group by merged group, each in reading order
        cell, inner = patch // unit, patch % unit
        row = cell // cells_across * self.merge + inner // self.merge
        column = cell % cells_across * self.merge + inner % self.merge
        if self.positions is not None:
            rows = rows + self._learned(row, column, height, width).to(rows.dtype)
        turns = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=-1)
        cos, sin = turns.cos().to(rows.dtype), turns.sin().to(rows.dtype)
        windows: dict[str, Tensor] = {}
        if len(self.full_layers) < len(self.layers):
            windows = self._windows(cell, inner, height // self.merge, cells_across, rows.dtype)
        deep = []
        for number, layer in enumerate(self.layers):
            rows = layer(rows, 1, cos=cos, sin=sin, **({} if number in self.full_layers else windows))
            if number in self.deep_layers:
                deep.append(self.deep_mergers[self.deep_layers.index(number)](rows).float())
        return (self.merger(rows).float(), *deep)

    def _windows(
        self, cell: Tensor, inner: Tensor, cells_down: Tensor, cells_across: Tensor, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Which patch stands where in which window, every window of its full size, with a bias that hides what lies outside."""
        side, unit = self.window, self.merge * self.merge
        windows_down = (cells_down + side - 1) // side
        windows_across = (cells_across + side - 1) // side
        count = (windows_down * windows_across).item()
        torch._check(count >= 1)  # type: ignore[no-untyped-call]
        window = torch.arange(count, device=cell.device)[:, None]  # (K, 1)
        slot = torch.arange(side * side * unit, device=cell.device)[None]  # (1, S)
        row = window // windows_across * side + slot // unit // side
        column = window % windows_across * side + slot // unit % side
        inside = (row < cells_down) & (column < cells_across)
        slots = torch.where(inside, (row * cells_across + column) * unit + slot % unit, 0)
        row, column = cell // cells_across, cell % cells_across
        of_patch = row // side * windows_across + column // side
        places = of_patch * (side * side * unit) + (row % side * side + column % side) * unit + inner
        hidden = torch.where(inside, 0.0, _lowest(dtype)).to(dtype)
        bias = hidden[:, None, None].expand(-1, 1, side * side * unit, -1)  # (K, 1, S, S)
        return {"slots": slots, "places": places, "bias": bias}

    def _learned(self, row: Tensor, column: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Learned positions of a square grid, resampled to the image's: bilinear, corners on corners, (n, D)."""
        assert self.positions is not None
        side = self.positions_side
        taps = []
        for index, length in ((row, height), (column, width)):
            at = index.float() * (side - 1) / (length - 1).clamp(min=1)
            low = at.floor()
            below, above = low.long(), (low.long() + 1).clamp(max=side - 1)
            taps.append(((below, 1 - (at - low)), (above, at - low)))
        total: Tensor | None = None
        for line, line_share in taps[0]:
            for place, place_share in taps[1]:
                part = self.positions(line * side + place) * (line_share * place_share)[:, None]
                total = part if total is None else total + part
        assert total is not None
        return total


# -- image encoders -----------------------------------------------------------------------------------------------------------


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
        self.patches = _as_linear(embeddings.patch_embedding)
        positions = embeddings.position_embedding.weight.detach()
        self.first = nn.Buffer((embeddings.class_embedding.detach() + positions[0])[None, None])
        self.positions = nn.Buffer(positions[1:].clone())
        self.before, self.after = tower.pre_layrnorm, tower.post_layernorm
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.projection = model.visual_projection

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(B, 3, side, side) → (B, H), L2-normalised float32."""
        size = pixel_values.shape[0]
        cut = _cut(pixel_values.to(self.first.dtype), self.patch)
        length = cut.shape[1] + 1
        patches = self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = self.before(torch.cat([self.first.expand(size, -1, -1), patches], dim=1)).flatten(0, 1)
        for layer in list(self.layers)[:-1]:
            rows = layer(rows, size)
        rows = self.layers[-1](rows, size, kept=torch.arange(size, device=rows.device) * length)
        return (_normalized(self.projection(self.after(rows))),)


class _PoolingHead(nn.Module):
    """SigLIP's head: one learned row that attends to all patches.

    Args:
        head: transformers' head.
    """

    def __init__(self, head: Any) -> None:
        super().__init__()
        part = head.attention
        weights, biases = part.in_proj_weight.detach().chunk(3), part.in_proj_bias.detach().chunk(3)
        self.query = nn.Buffer((head.probe.detach()[0] @ weights[0].T + biases[0])[None])  # (1, 1, D)
        self.key, self.value = _linear(weights[1], biases[1]), _linear(weights[2], biases[2])
        self.output, self.norm, self.perceptron = part.out_proj, head.layernorm, head.mlp
        self.num_heads = int(part.num_heads)

    def forward(self, rows: Tensor, size: int, bias: Tensor | None = None) -> Tensor:
        """(B·L, D) → (B, D)."""
        key, value = self.key(rows).unflatten(0, (size, -1)), self.value(rows).unflatten(0, (size, -1))
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
        self.patch = int(tower.embeddings.patch_size)
        self.patches = _as_linear(tower.embeddings.patch_embedding)
        self.positions = nn.Buffer(tower.embeddings.position_embedding.weight.detach())
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.head = tower.post_layernorm, _PoolingHead(tower.head)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(B, 3, side, side) → (B, H), L2-normalised float32."""
        size = pixel_values.shape[0]
        cut = _cut(pixel_values.to(self.positions.dtype), self.patch)
        rows = (self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions).flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        return (_normalized(self.head(self.after(rows), size)),)


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
        self.positions = nn.Buffer(tower.embeddings.position_embedding.weight.detach()[: self.side**2].clone())
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.head = tower.post_layernorm, _PoolingHead(tower.head)

    def forward(self, pixel_values: Tensor, pixel_attention_mask: Tensor, spatial_shapes: Tensor) -> tuple[Tensor]:
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
        # torch's antialiased scaling gives an image one patch wide its first line's values on every line (seen with 2.13)
        row = torch.where((width == 1) & (height != self.side), 0, patch // width)
        down, across = self._shares(row, height), self._shares(patch % width, width)  # (B, L, side)
        positions = (down[..., None] * across[..., None, :]).flatten(2).flatten(0, 1).to(dtype) @ self.positions
        rows = self.patches(pixel_values.to(dtype).flatten(0, 1)) + positions
        hidden = torch.where(pixel_attention_mask.bool(), 0.0, _lowest(dtype)).to(dtype)[:, None, None]
        bias = hidden.expand(-1, 1, length, -1)
        for layer in self.layers:
            rows = layer(rows, size, bias=bias)
        return (_normalized(self.head(self.after(rows), size, hidden)),)

    def _shares(self, index: Tensor, length: Tensor) -> Tensor:
        """How much of each line of the learned grid a line of the image takes, (B, L, side).

        Bilinear with antialiasing, as `torch.nn.functional.interpolate`; what padding takes is of no account.
        """
        scale = self.side / length.float()[..., None]  # (B, 1, 1)
        centre = (index.float()[..., None] + 0.5) * scale
        lines = torch.arange(self.side, device=index.device).float() + 0.5
        share = (1 - (lines - centre).abs() / scale.clamp(min=1.0)).clamp(min=0.0)
        return share / share.sum(-1, keepdim=True).clamp(min=1e-6)


# -- text encoders ------------------------------------------------------------------------------------------------------------


def _packing(is_real: Tensor) -> tuple[Tensor, Tensor]:
    """Which of B·L places hold real tokens, (T,), and which row stands at each place, (B, L); padding repeats a row before it."""
    places = torch.nonzero(is_real.flatten())[:, 0]
    slots = (is_real.flatten().long().cumsum(0) - 1).clamp(min=0).reshape(is_real.shape)
    return places, slots


class ClipTexts(nn.Module):
    """CLIP's texts: the vector of the first end token, which sees what lies before it and no padding.

    Args:
        model: transformers' dual encoder.
    """

    output_names = ("embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.text_model
        self.tokens = tower.embeddings.token_embedding
        self.positions = tower.embeddings.position_embedding
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.projection = tower.final_layer_norm, model.text_projection
        self.end_id = int(tower.eos_token_id)

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """(B, L) ids, padded on the right → (B, H), L2-normalised float32."""
        size, length = input_ids.shape
        # configurations that say 2 are of CLIP's first release, whose end token is its largest id
        marks = input_ids if self.end_id == 2 else (input_ids == self.end_id).int()
        end = marks.argmax(dim=-1)  # (B,)
        place = torch.arange(length, device=input_ids.device)[None]
        is_real = place <= end[:, None]
        places, slots = _packing(is_real)
        # looked up: the exporter cannot take the rest of a division by a length that is open
        at = place.expand(size, -1).flatten()[places]
        rows = self.tokens(input_ids.flatten()[places]) + self.positions(at)
        for layer in list(self.layers)[:-1]:
            rows = layer(rows, size, slots=slots, places=places, is_causal=True)
        bias = torch.where(is_real, 0.0, _lowest(rows.dtype)).to(rows.dtype)[:, None, None]
        kept = slots.gather(1, end[:, None])[:, 0]
        rows = self.layers[-1](rows, size, slots=slots, kept=kept, bias=bias)
        return (_normalized(self.projection(self.after(rows))),)


class SiglipTexts(nn.Module):
    """SigLIP's and SigLIP 2's texts: the vector of the last place, of rows that are full of padding by design.

    Args:
        model: transformers' dual encoder.
    """

    output_names = ("embeddings",)

    def __init__(self, model: Any) -> None:
        super().__init__()
        tower = model.text_model
        self.tokens = tower.embeddings.token_embedding
        self.positions = tower.embeddings.position_embedding
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.head = tower.final_layer_norm, tower.head

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """(B, L) ids → (B, H), L2-normalised float32."""
        size, length = input_ids.shape
        place = torch.arange(length, device=input_ids.device)
        rows = (self.tokens(input_ids) + self.positions(place)).flatten(0, 1)
        for layer in list(self.layers)[:-1]:
            rows = layer(rows, size)
        kept = torch.arange(size, device=input_ids.device) * length + length - 1
        return (_normalized(self.head(self.after(self.layers[-1](rows, size, kept=kept)))),)


class _BertLayer(nn.Module):
    """A layer that normalises after attention and after its perceptron.

    Args:
        attend: Linears for query, key, value and output.
        norms: After attention, after the perceptron.
        perceptron: What follows attention.
        num_heads: Heads in D.
    """

    def __init__(
        self,
        attend: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
        norms: tuple[nn.Module, nn.Module],
        perceptron: nn.Module,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = attend
        self.norm1, self.norm2 = norms
        self.perceptron = perceptron
        self.num_heads = int(num_heads)

    @classmethod
    def of_bert(cls, layer: Any) -> _BertLayer:
        """Of BERT, RoBERTa, XLM-RoBERTa and Chinese-CLIP's texts."""
        part, after = layer.attention.self, layer.attention.output
        return cls(
            (part.query, part.key, part.value, after.dense),
            (after.LayerNorm, layer.output.LayerNorm),
            nn.Sequential(layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense),
            part.num_attention_heads,
        )

    @classmethod
    def of_mpnet(cls, layer: Any) -> _BertLayer:
        part = layer.attention.attn
        return cls(
            (part.q, part.k, part.v, part.o),
            (layer.attention.LayerNorm, layer.output.LayerNorm),
            nn.Sequential(layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense),
            part.num_attention_heads,
        )

    @classmethod
    def of_distilbert(cls, layer: Any) -> _BertLayer:
        part = layer.attention
        return cls(
            (part.q_lin, part.k_lin, part.v_lin, part.out_lin),
            (layer.sa_layer_norm, layer.output_layer_norm),
            nn.Sequential(layer.ffn.lin1, layer.ffn.activation, layer.ffn.lin2),
            part.n_heads,
        )

    def forward(self, rows: Tensor, slots: Tensor, places: Tensor, bias: Tensor, kept: Tensor | None = None) -> Tensor:
        """(T, D) → (T, D), or (B, D) with `kept`; arguments as of `Layer.forward`."""
        query = self.query(rows)[slots] if kept is None else self.query(rows[kept])[:, None]
        seen = attention(query, self.key(rows)[slots], self.value(rows)[slots], self.num_heads, bias=bias)
        seen = seen.flatten(0, 1)
        seen, rows = (seen[places], rows) if kept is None else (seen, rows[kept])
        rows = self.norm1(rows + self.output(seen))
        found: Tensor = self.norm2(rows + self.perceptron(rows))
        return found


class BertTexts(nn.Module):
    """Texts through a BERT or one of its kin: Chinese-CLIP's text tower and the sentence encoders.

    Args:
        tower: transformers' text model.
        pooling: cls: the vector of the first token stands for all; mean: of all tokens.
        projection: What follows pooling; None for nothing.
    """

    output_names = ("embeddings",)

    def __init__(self, tower: Any, pooling: Pooling, projection: nn.Module | None = None) -> None:
        super().__init__()
        kind, embeddings = tower.config.model_type, tower.embeddings
        self.tokens, self.before = embeddings.word_embeddings, embeddings.LayerNorm
        self.positions = embeddings.position_embeddings
        self.kinds = None if kind in ("mpnet", "distilbert") else embeddings.token_type_embeddings
        # the id that these do not count, and whose place has the position of its own number
        self.uncounted = int(embeddings.padding_idx) if kind in COUNTS_POSITIONS_FROM_PADDING else None
        nearness = None
        if kind == "mpnet":
            layers = [_BertLayer.of_mpnet(layer) for layer in tower.encoder.layer]
            furthest = self.positions.num_embeddings - 1
            buckets = tower.encoder.relative_position_bucket(torch.arange(-furthest, furthest + 1))
            nearness = tower.encoder.relative_attention_bias.weight.detach()[buckets]
        elif kind == "distilbert":
            layers = [_BertLayer.of_distilbert(layer) for layer in tower.transformer.layer]
        else:
            layers = [_BertLayer.of_bert(layer) for layer in tower.encoder.layer]
        self.layers = nn.ModuleList(layers)
        self.register_buffer("nearness", nearness)
        self.pooling = pooling
        self.projection = nn.Identity() if projection is None else projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        """(B, L) ids, mask and kinds, padded on the right → (B, H), L2-normalised float32."""
        size, length = input_ids.shape
        is_real = attention_mask > 0
        places, slots = _packing(is_real)
        place = torch.arange(length, device=input_ids.device)
        if self.uncounted is None:
            at = place.expand(size, -1)
        else:
            is_counted = (input_ids != self.uncounted).long()
            at = is_counted.cumsum(1) * is_counted + self.uncounted
        rows = self.tokens(input_ids.flatten()[places]) + self.positions(at.flatten()[places])
        if self.kinds is not None:
            kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            rows = rows + self.kinds(kinds.flatten()[places])
        rows = self.before(rows)
        bias = self._bias(is_real, place, rows.dtype)
        for layer in list(self.layers)[:-1]:
            rows = layer(rows, slots, places, bias)
        if self.pooling == "cls":
            pooled = self.layers[-1](rows, slots, places, bias[:, :, :1], slots[:, 0])
        else:
            weights = is_real[..., None].float()
            pooled = self.layers[-1](rows, slots, places, bias).float()[slots]
            pooled = (pooled * weights).sum(1) / weights.sum(1)
        return (_normalized(self.projection(pooled)),)

    def _bias(self, is_real: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, heads or 1, L, L): nothing or MPNet's bias by distance, and padding is not seen."""
        seen, nearness = is_real[:, None, None], self.nearness
        if not isinstance(nearness, Tensor):
            return torch.where(seen, 0.0, _lowest(dtype)).to(dtype).expand(-1, 1, place.shape[0], -1)
        distance = place - place[:, None] + nearness.shape[0] // 2
        return torch.where(seen, nearness[distance].permute(2, 0, 1)[None], _lowest(dtype)).to(dtype)


# -- towers that take tiles ---------------------------------------------------------------------------------------------------


class InternVlTower(nn.Module):
    """InternVL's vision tower with its projector: the tiles of one image.

    Args:
        core: transformers' model below the output embedding.
    """

    output_names = ("pooled",)

    def __init__(self, core: Any) -> None:
        super().__init__()
        tower, config = core.vision_tower, core.config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
            raise ModelError("reads another layer of its vision tower than the last, which is not exported")
        embeddings = tower.embeddings
        height, width = embeddings.patch_size
        if height != width:
            raise ModelError(f"has patches of {height}×{width} pixels, which are not exported; only square ones are")
        self.patch = int(height)
        self.patches = _as_linear(embeddings.patch_embeddings.projection)
        first, size = embeddings.cls_token.detach(), embeddings.patch_embeddings.num_patches
        positions = first.new_zeros(1, size + 1, first.shape[-1])
        if embeddings.position_embeddings is not None:
            positions = embeddings.position_embeddings.detach()
        self.first = nn.Buffer(first + positions[:, :1])
        self.positions = nn.Buffer(positions[:, 1:].clone())
        self.layers = nn.ModuleList(Layer.of_internvl(layer) for layer in tower.encoder.layer)
        self.after, self.projector = tower.layernorm, core.multi_modal_projector
        self.side = int(embeddings.patch_embeddings.patch_shape[0])
        self.step = round(1 / config.downsample_ratio)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(tiles, 3, side, side) → (tiles, patches / step², H) float32."""
        size = pixel_values.shape[0]
        cut = _cut(pixel_values.to(self.first.dtype), self.patch)
        patches = self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = torch.cat([self.first.expand(size, -1, -1), patches], dim=1).flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        rows = self.after(rows).unflatten(0, (size, -1))[:, 1:]
        return (self.projector(_merged(rows, self.side, self.step)).float(),)


def _merged(rows: Tensor, side: int, step: int) -> Tensor:
    """(B, side², D) → (B, (side / step)², step²·D): squares of patches one behind the other, in reading order within and without."""
    cells = side // step
    # not len(rows): that would fix the number of tiles in an exported graph
    grid = rows.reshape(rows.shape[0], cells, step, cells, step, -1).transpose(2, 3)
    return grid.flatten(3).flatten(1, 2)


class SmolVlmTower(nn.Module):
    """SmolVLM's vision tower with its connector: the tiles of one image, each filled to its edges.

    Args:
        core: transformers' model below the output embedding.
    """

    output_names = ("pooled",)

    def __init__(self, core: Any) -> None:
        super().__init__()
        tower = core.vision_model
        self.patch = int(tower.embeddings.patch_size)
        self.patches = _as_linear(tower.embeddings.patch_embedding)
        self.positions = nn.Buffer(tower.embeddings.position_embedding.weight.detach())
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.after, self.projection = tower.post_layernorm, core.connector.modality_projection
        self.side, self.step = int(tower.embeddings.num_patches_per_side), int(core.connector.scale_factor)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(1, tiles, 3, side, side) → (tiles · patches / step², H) float32."""
        tiles = pixel_values[0].to(self.positions.dtype)
        size = tiles.shape[0]
        rows = self.patches(_cut(tiles, self.patch).flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = rows.flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        rows = self.after(rows).unflatten(0, (size, -1))
        return (self.projection(_merged(rows, self.side, self.step)).flatten(0, 1).float(),)


class LlavaTower(nn.Module):
    """LLaVA-OneVision's vision tower with its projector: the tiles of one image, put together as `ffr.exports.packing` says.

    Args:
        core: transformers' model below the output embedding.
    """

    output_names = ("pooled",)

    def __init__(self, core: Any) -> None:
        super().__init__()
        tower, config = core.vision_tower, core.config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "full":
            raise ModelError("reads another layer of its vision tower than the last, which is not exported")
        self.patch = int(tower.embeddings.patch_size)
        self.patches = _as_linear(tower.embeddings.patch_embedding)
        self.positions = nn.Buffer(tower.embeddings.position_embedding.weight.detach())
        self.layers = nn.ModuleList(Layer.of_clip(layer) for layer in tower.encoder.layers)
        self.projector = core.multi_modal_projector
        self.newline = nn.Buffer(core.image_newline.detach()[None])

    def forward(self, pixel_values: Tensor, taps: Tensor, shares: Tensor) -> tuple[Tensor]:
        """Features of one image.

        Args:
            pixel_values: (1, tiles, 3, side, side).
            taps: (P, 4) which of all tiles' features make up each feature that comes out; the number of features is the newline.
            shares: (P, 4) float32, how much of each.

        Returns:
            (P, H) float32.
        """
        tiles = pixel_values[0].to(self.positions.dtype)
        size = tiles.shape[0]
        rows = self.patches(_cut(tiles, self.patch).flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = rows.flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        found = torch.cat([self.projector(rows), self.newline]).float()
        return ((found[taps] * shares[..., None]).sum(1),)


# -- fragments ----------------------------------------------------------------------------------------------------------------


class Fragments(nn.Module):
    """One fragment's vector: the mean of the vectors of its texts and images, normalised anew. `ffr.exports.compose` makes its graph.

    Args:
        texts: The text part.
        images: The image part.
        width: H.
    """

    output_names = ("embeddings",)

    def __init__(self, texts: nn.Module, images: nn.Module, width: int) -> None:
        super().__init__()
        self.texts, self.images = texts, images
        self.width = width

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
    ) -> tuple[Tensor]:
        """Texts and images of one fragment, of which one kind may have no rows, as the parts take them → (1, H), L2-normalised float32."""
        texts = self._sum(self.texts, input_ids, attention_mask, token_type_ids)
        images = self._sum(self.images, pixel_values, pixel_attention_mask, spatial_shapes)
        # the mean's length is lost again, so the sum does
        return (nn.functional.normalize(texts + images, dim=-1),)

    def _sum(self, tower: nn.Module, first: Tensor, *others: Tensor | None) -> Tensor:
        """Sum of a tower's vectors over its rows, (1, H)."""
        if not len(first):
            return torch.zeros(1, self.width, device=first.device)
        found: Tensor = tower(first, *(item for item in others if item is not None))[0].sum(0, keepdim=True)
        return found
