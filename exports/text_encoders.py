"""Text towers of dual encoders, and sentence encoders, as exported (see `ffr.exports.layers`).

Shapes: B texts of a call, L tokens each, T real tokens over all, D width, H width of what comes
out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffr.embedding.sentence import COUNTS_POSITIONS_FROM_PADDING, Pooling
from ffr.exports.layers import Layer, attention, lowest_score, normalized


def _packing(is_real: Tensor) -> tuple[Tensor, Tensor]:
    """Which of B·L places hold real tokens, (T,), and which row stands at each place, (B, L).

    Padding repeats a row before it.
    """
    # the only open length of the graph: how many tokens are real
    places = torch.nonzero(is_real.flatten())[:, 0]
    # the running count of real tokens less one is the row of the last of them so far
    slots = (is_real.flatten().long().cumsum(0) - 1).clamp(min=0).reshape(is_real.shape)
    return places, slots


class ClipTexts(nn.Module):
    """CLIP's texts: the vector of the first end token, which sees no padding behind it.

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
        # the last layer has one query, so what was causal is now a mask of the padding
        bias = torch.where(is_real, 0.0, lowest_score(rows.dtype)).to(rows.dtype)[:, None, None]
        # of each text the row of its end token
        kept = slots.gather(1, end[:, None])[:, 0]
        rows = self.layers[-1](rows, size, slots=slots, kept=kept, bias=bias)
        return (normalized(self.projection(self.after(rows))),)


class SiglipTexts(nn.Module):
    """SigLIP's (2's) texts: the vector of the last place, of rows padded by design.

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
        # each text's last place, padding or not: so SigLIP was trained
        kept = torch.arange(size, device=input_ids.device) * length + length - 1
        return (normalized(self.head(self.after(self.layers[-1](rows, size, kept=kept)))),)


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
            nn.Sequential(
                layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense
            ),
            part.num_attention_heads,
        )

    @classmethod
    def of_mpnet(cls, layer: Any) -> _BertLayer:
        part = layer.attention.attn
        return cls(
            (part.q, part.k, part.v, part.o),
            (layer.attention.LayerNorm, layer.output.LayerNorm),
            nn.Sequential(
                layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense
            ),
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

    def forward(
        self, rows: Tensor, slots: Tensor, places: Tensor, bias: Tensor, kept: Tensor | None = None
    ) -> Tensor:
        """(T, D) → (T, D), or (B, D) with `kept`; arguments as of `Layer.forward`."""
        query = self.query(rows)[slots] if kept is None else self.query(rows[kept])[:, None]
        seen = attention(
            query, self.key(rows)[slots], self.value(rows)[slots], self.num_heads, bias=bias
        )
        seen = seen.flatten(0, 1)
        # (B·L, D) → the real rows alone, unless one row of each text was asked for
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
        self.uncounted = (
            int(embeddings.padding_idx) if kind in COUNTS_POSITIONS_FROM_PADDING else None
        )
        nearness = None
        if kind == "mpnet":
            layers = [_BertLayer.of_mpnet(layer) for layer in tower.encoder.layer]
            furthest = self.positions.num_embeddings - 1
            # every distance that can occur, so that the graph only looks up
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

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor]:
        """(B, L) ids, mask and kinds, padded on the right → (B, H), L2-normalised float32."""
        size, length = input_ids.shape
        is_real = attention_mask > 0
        places, slots = _packing(is_real)
        place = torch.arange(length, device=input_ids.device)
        if self.uncounted is None:
            at = place.expand(size, -1)
        else:
            is_counted = (input_ids != self.uncounted).long()
            # RoBERTa counts real tokens from the padding's id on
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
            # the first token alone is a query: one line of the bias
            pooled = self.layers[-1](rows, slots, places, bias[:, :, :1], slots[:, 0])
        else:
            # a mean over real tokens: the copies at padding's places count nothing
            weights = is_real[..., None].float()
            pooled = self.layers[-1](rows, slots, places, bias).float()[slots]
            pooled = (pooled * weights).sum(1) / weights.sum(1)
        return (normalized(self.projection(pooled)),)

    def _bias(self, is_real: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, heads or 1, L, L): nothing or MPNet's bias by distance, and padding is not seen."""
        seen, nearness = is_real[:, None, None], self.nearness
        if not isinstance(nearness, Tensor):
            return (
                torch.where(seen, 0.0, lowest_score(dtype))
                .to(dtype)
                .expand(-1, 1, place.shape[0], -1)
            )
        # a table's middle is distance 0
        distance = place - place[:, None] + nearness.shape[0] // 2
        return torch.where(seen, nearness[distance].permute(2, 0, 1)[None], lowest_score(dtype)).to(
            dtype
        )
