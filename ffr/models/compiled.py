"""Decoder layers through PyTorch's compiler."""

from __future__ import annotations

import torch

from ffr.errors import UsageError
from ffr.models.vlm import Vlm


def compile_layers(vlm: Vlm) -> None:
    """Lets PyTorch's compiler fuse what each decoder layer computes; names and values of the weights stay as they are.

    Args:
        vlm: The model, with its adapter where it gets one. It compiles when it is first called, once for all layers and again where
            a call is of another kind (training, answering); lengths may change.

    Raises:
        UsageError: where nothing can be compiled here, for want of a compiler for instance.
    """
    try:
        torch.compile(_trial, dynamic=True)(torch.zeros(2, 3, device=vlm.device))
    except RuntimeError as error:  # what the compiler raises derives from it
        reason = str(error).splitlines()[0]
        raise UsageError(f"setting compile: nothing can be compiled here ({reason}); leave it false") from error
    for layer in vlm.language_model.layers:  # type: ignore[union-attr]
        layer.compile(dynamic=True)


def _trial(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(values) * values
