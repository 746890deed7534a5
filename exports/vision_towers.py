"""Vision towers of VLMs with their projectors, as exported (see `ffr.exports.layers`).

Shapes: T rows over all, D width, H width of what comes out, n patches of one image, m patches of a
side that are merged into one, K windows of an image, S patches of a full window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffr.errors import ModelError
from ffr.exports.layers import Layer, PatchEncoder, as_linear, cut_patches, lowest_score


class QwenTower(nn.Module):
    """The vision tower with merger of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, for one image of any grid.

    Args:
        tower: transformers' tower.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.patches = as_linear(tower.patch_embed.proj)
        self.layers = nn.ModuleList(Layer.of_qwen(block) for block in tower.blocks)
        self.merger = tower.merger
        self.merge = int(tower.spatial_merge_size)
        self.inv_freq = nn.Buffer(tower.rotary_pos_emb.inv_freq.detach().float())
        # Qwen2.5-VL: windows, counted in merged patches
        whole = getattr(tower, "fullatt_block_indexes", None)
        self.full_layers = range(len(self.layers)) if whole is None else tuple(whole)
        self.window = (
            0 if whole is None else int(tower.window_size // self.merge // tower.patch_size)
        )
        # Qwen3-VL: learned positions, and features for deeper layers
        self.positions: nn.Embedding | None = getattr(tower, "pos_embed", None)
        self.positions_side = int(getattr(tower, "num_grid_per_side", 0))
        if self.positions is not None and (
            tower.interpolation_mode,
            tower.interpolation_align_corners,
        ) != (
            "bilinear",
            True,
        ):
            raise ModelError(
                f"resamples its positions by {tower.interpolation_mode}, which is not exported"
            )
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
        # half of a head turns by the line, half by the column
        turns = torch.cat([row[:, None] * self.inv_freq, column[:, None] * self.inv_freq], dim=-1)
        cos, sin = turns.cos().to(rows.dtype), turns.sin().to(rows.dtype)
        windows: dict[str, Tensor] = {}
        if len(self.full_layers) < len(self.layers):
            windows = self._windows(cell, inner, height // self.merge, cells_across, rows.dtype)
        deep = []
        for number, layer in enumerate(self.layers):
            rows = layer(
                rows, 1, cos=cos, sin=sin, **({} if number in self.full_layers else windows)
            )
            if number in self.deep_layers:
                # these features enter the language model's first layers, beside the last ones
                deep.append(self.deep_mergers[self.deep_layers.index(number)](rows).float())
        return (self.merger(rows).float(), *deep)

    def _windows(
        self,
        cell: Tensor,
        inner: Tensor,
        cells_down: Tensor,
        cells_across: Tensor,
        dtype: torch.dtype,
    ) -> dict[str, Tensor]:
        """Which patch stands where in which full-size window; a bias hides what lies outside."""
        side, unit = self.window, self.merge * self.merge
        # rounded up: the windows at the lower and the right edge are not full
        windows_down = (cells_down + side - 1) // side
        windows_across = (cells_across + side - 1) // side
        count = (windows_down * windows_across).item()
        # the exporter must know that there is a window, or it guards against none
        torch._check(count >= 1)  # type: ignore[no-untyped-call]
        window = torch.arange(count, device=cell.device)[:, None]  # (K, 1)
        slot = torch.arange(side * side * unit, device=cell.device)[None]  # (1, S)
        row = window // windows_across * side + slot // unit // side
        column = window % windows_across * side + slot // unit % side
        inside = (row < cells_down) & (column < cells_across)
        # row 0 stands in for what lies outside the image; the bias hides it
        slots = torch.where(inside, (row * cells_across + column) * unit + slot % unit, 0)
        row, column = cell // cells_across, cell % cells_across
        # the other way about: in which window a patch is, and where in it
        of_patch = row // side * windows_across + column // side
        places = (
            of_patch * (side * side * unit) + (row % side * side + column % side) * unit + inner
        )
        hidden = torch.where(inside, 0.0, lowest_score(dtype)).to(dtype)
        # no row of a window sees what is outside; the same for each query
        bias = hidden[:, None, None].expand(-1, 1, side * side * unit, -1)  # (K, 1, S, S)
        return {"slots": slots, "places": places, "bias": bias}

    def _learned(self, row: Tensor, column: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Learned positions (n, D) of a square grid, resampled to the image's (bilinear)."""
        assert self.positions is not None
        side = self.positions_side
        taps = []
        for index, length in ((row, height), (column, width)):
            # corners fall on corners; a single line stands at the first
            at = index.float() * (side - 1) / (length - 1).clamp(min=1)
            low = at.floor()
            below, above = low.long(), (low.long() + 1).clamp(max=side - 1)
            # each neighbour's share is its nearness
            taps.append(((below, 1 - (at - low)), (above, at - low)))
        total: Tensor | None = None
        for line, line_share in taps[0]:
            for place, place_share in taps[1]:
                part = self.positions(line * side + place) * (line_share * place_share)[:, None]
                total = part if total is None else total + part
        assert total is not None
        return total


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
            raise ModelError(
                "reads another layer of its vision tower than the last, which is not exported"
            )
        embeddings = tower.embeddings
        height, width = embeddings.patch_size
        if height != width:
            raise ModelError(
                f"has patches of {height}×{width} pixels, which are not exported; only square ones "
                "are"
            )
        self.patch = int(height)
        self.patches = as_linear(embeddings.patch_embeddings.projection)
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
        cut = cut_patches(pixel_values.to(self.first.dtype), self.patch)
        patches = self.patches(cut.flatten(0, 1)).unflatten(0, (size, -1)) + self.positions
        rows = torch.cat([self.first.expand(size, -1, -1), patches], dim=1).flatten(0, 1)
        for layer in self.layers:
            rows = layer(rows, size)
        # the class token is left out
        rows = self.after(rows).unflatten(0, (size, -1))[:, 1:]
        return (self.projector(_merged(rows, self.side, self.step)).float(),)


def _merged(rows: Tensor, side: int, step: int) -> Tensor:
    """(B, side², D) → (B, (side / step)², step²·D): squares of patches in reading order."""
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
        self.tiles = PatchEncoder(tower)
        self.after, self.projection = tower.post_layernorm, core.connector.modality_projection
        self.side, self.step = (
            int(tower.embeddings.num_patches_per_side),
            int(core.connector.scale_factor),
        )

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """(1, tiles, 3, side, side) → (tiles · patches / step², H) float32."""
        rows = self.after(self.tiles(pixel_values[0])).unflatten(0, (pixel_values.shape[1], -1))
        return (self.projection(_merged(rows, self.side, self.step)).flatten(0, 1).float(),)


class LlavaTower(nn.Module):
    """LLaVA-OneVision's vision tower with its projector: tiles joined as `ffr.exports.tiles` says.

    Args:
        core: transformers' model below the output embedding.
    """

    output_names = ("pooled",)

    def __init__(self, core: Any) -> None:
        super().__init__()
        tower, config = core.vision_tower, core.config
        if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "full":
            raise ModelError(
                "reads another layer of its vision tower than the last, which is not exported"
            )
        self.tiles = PatchEncoder(tower)
        self.projector = core.multi_modal_projector
        self.newline = nn.Buffer(core.image_newline.detach()[None])

    def forward(self, pixel_values: Tensor, taps: Tensor, shares: Tensor) -> tuple[Tensor]:
        """Features of one image.

        Args:
            pixel_values: (1, tiles, 3, side, side).
            taps: (P, 4) which of all tiles' features make up each feature that comes out; the
                number of features is the newline.
            shares: (P, 4) float32, how much of each.

        Returns:
            (P, H) float32.
        """
        # the newline is one more feature, so that a tap can name it like any other
        found = torch.cat([self.projector(self.tiles(pixel_values[0])), self.newline]).float()
        return ((found[taps] * shares[..., None]).sum(1),)
