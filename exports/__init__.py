"""Encoders and vision towers as ONNX, and at work: `ffr.exports.load(folder).embed(texts=…)`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffr.exports.embedding import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("ffr.exports.embedding").load
