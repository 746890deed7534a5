"""Decoder layers through PyTorch's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ffr.errors import UsageError
from ffr.models.vlm import Vlm
from ffr.text import one_line


def compile_layers(vlm: Vlm) -> None:
    """Lets PyTorch's compiler fuse what each decoder layer computes.

    Names and values of the weights stay as they are.

    Passes with a cache of keys and values, those that write answers, stay plain: the compiler would
    make code of its own for every layer's place in the cache, and stop compiling at its limit.

    Args:
        vlm: The model, with its adapter where it gets one. It compiles when it is first called,
            once for all layers and again where a call is of another kind (with or without
            gradients, with or without a mask); lengths may change.

    Raises:
        UsageError: where nothing can be compiled here, for want of a compiler for instance.
    """
    check_compiler(vlm.device, "compile")
    for layer in vlm.language_model.layers:  # type: ignore[union-attr]
        layer.forward = _compiled_without_cache(layer.forward)


def check_compiler(device: torch.device, setting: str) -> None:
    """Compiles something small.

    Args:
        device: What is compiled for.
        setting: The setting that asks for it, which the error names.

    Raises:
        UsageError: where nothing can be compiled here, for want of a compiler for instance.
    """
    try:
        torch.compile(_trial, dynamic=True)(torch.zeros(2, 3, device=device))
    except RuntimeError as error:  # what the compiler raises derives from it
        reason = one_line(error)
        raise UsageError(
            f"setting {setting}: nothing can be compiled here ({reason}); leave it false"
        ) from error


def _compiled_without_cache(plain: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(plain, dynamic=True)

    def forward(*arguments: Any, past_key_values: Any = None, **named: Any) -> Any:
        if past_key_values is not None:
            return plain(*arguments, past_key_values=past_key_values, **named)
        return compiled(*arguments, **named)

    return forward


def _trial(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(values) * values
