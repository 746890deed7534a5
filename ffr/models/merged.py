"""The adapter folded into a copy of the linear weights, which stands in their place while answers are written.

A linear layer with LoRA computes `W x + s B (A x)`, six operations and more where a token of few rows
needs one: writing answers is bound by how many operations are started. The copy holds `W + s B A`,
rounded once. The model's own weights are only read: the layers with their adapters are taken out of
their places and put back, so that nothing has to be undone by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from ffr.models.vlm import Vlm


class MergedLinears:
    """A copy of all linear layers that carry an adapter, folded when it is made.

    It is folded or made anew whenever the adapter has moved; its memory is free once nothing holds
    it.

    Args:
        vlm: The model with its adapter, as `ffr.models.lora.add_lora` puts it on.

    Raises:
        RuntimeError: where the memory does not suffice, as torch says it.
    """

    def __init__(self, vlm: Vlm) -> None:
        self._places = _places(vlm)
        self._folded = [_folded(layer) for _, _, layer in self._places]

    def fold(self) -> None:
        """Follows the adapter, in the memory that is there: what was recorded of it goes on."""
        for (_, _, layer), linear in zip(self._places, self._folded, strict=True):
            linear.weight.copy_(_sum_of(layer))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the copy in the place of its adapted layers, and then as it was."""
        try:
            for (parent, name, _), linear in zip(self._places, self._folded, strict=True):
                setattr(parent, name, linear)
            yield
        finally:
            for parent, name, layer in self._places:
                setattr(parent, name, layer)


def merged_bytes(vlm: Vlm) -> int:
    """Bytes that `MergedLinears` of a model takes: as much as the weights that it is a copy of."""
    return sum(
        layer.get_base_layer().weight.numel() * layer.get_base_layer().weight.element_size()
        for _, _, layer in _places(vlm)
    )


def free_bytes(device: torch.device) -> int:
    """Bytes that are free where a model lies: on a GPU with what torch keeps of it for later.

    >>> free_bytes(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    import psutil

    return int(psutil.virtual_memory().available)


def _places(vlm: Vlm) -> list[tuple[nn.Module, str, LoraLinear]]:
    """Of each adapted layer the module that holds it, and its name there."""
    return [
        (parent, name, layer)
        for parent in vlm.language_model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, LoraLinear)
    ]


@torch.no_grad()
def _sum_of(layer: LoraLinear) -> torch.Tensor:
    """Weight and adapter added up, in float32."""
    weight: torch.Tensor = layer.get_base_layer().weight.detach().float()
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter).float()
    return weight


def _folded(layer: LoraLinear) -> nn.Linear:
    base = layer.get_base_layer()
    linear = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    linear.weight = nn.Parameter(_sum_of(layer).to(base.weight.dtype), requires_grad=False)
    linear.bias = base.bias
    return linear.train(layer.training)
