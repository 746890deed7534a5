"""The layers of a small BERT in ONNX Runtime: a few tokens take about half the time that torch needs.

One text has some ten tokens, so that each layer is a handful of products of a few rows with a matrix.
ONNX Runtime lays these matrices out anew when it opens the graph, and then reads them in one go; it
keeps to the thread that asks, so that another program on the other cores does not hold it up.

Shapes: n tokens of one text, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from ffr.errors import ModelError
from ffr.text import one_line

WIDTH = 384
NUM_HEADS = 12
EPSILON = 1e-12

_INNER = 1536
SHAPES: dict[str, tuple[int, ...]] = {
    "parts.weight": (3 * WIDTH, WIDTH),
    "parts.bias": (3 * WIDTH,),
    "attended.weight": (WIDTH, WIDTH),
    "attended.bias": (WIDTH,),
    "attended norm.weight": (WIDTH,),
    "attended norm.bias": (WIDTH,),
    "inner.weight": (_INNER, WIDTH),
    "inner.bias": (_INNER,),
    "outer.weight": (WIDTH, _INNER),
    "outer.bias": (WIDTH,),
    "outer norm.weight": (WIDTH,),
    "outer norm.bias": (WIDTH,),
}
"""The weights of a layer by their names in the graph; a linear layer's are (out, in), as torch's."""

_NAMES = {
    "attended": "attention.output.dense",
    "attended norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "outer norm": "output.LayerNorm",
}
_PARTS = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_GRAPH = "bert_layer.onnx"


def has_these_layers(config: dict[str, Any]) -> bool:
    """Whether a model's layers are those of the graph that comes with ffr.

    Args:
        config: As its `config.json`.

    >>> has_these_layers({"model_type": "bert", "hidden_size": 768})
    False
    """
    wanted = {
        "model_type": "bert",
        "hidden_size": WIDTH,
        "num_attention_heads": NUM_HEADS,
        "intermediate_size": _INNER,
        "hidden_act": "gelu",
    }
    epsilon = config.get("layer_norm_eps", EPSILON)
    return (
        all(config.get(name) == value for name, value in wanted.items())
        # some files have it as the nearest float32
        and isinstance(epsilon, float)
        and math.isclose(epsilon, EPSILON, rel_tol=1e-6)
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
        and not config.get("add_cross_attention", False)
    )


class BertLayers:
    """The layers of a BERT whose configuration `has_these_layers`.

    Args:
        weight: Gives each weight by its name in the model.
        num_layers: How many there are.

    Raises:
        ModelError: where ONNX Runtime does not take them.
    """

    def __init__(self, weight: Callable[[str], Tensor], num_layers: int) -> None:
        import onnxruntime as ort

        graph = resources.files(__package__).joinpath(_GRAPH).read_bytes()
        # a session reads what it is given where it lies
        self._given = [_weights_of(weight, f"encoder.layer.{at}") for at in range(num_layers)]
        self._sessions = []
        for given in self._given:
            options = ort.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            values = [ort.OrtValue.ortvalue_from_numpy(item.numpy()) for item in given.values()]
            try:
                options.add_external_initializers(list(given), values)
                session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                # ONNX Runtime's exceptions have no common base below Exception
                raise ModelError(
                    f"ONNX Runtime does not take a layer of an encoder ({one_line(error, 300)}); "
                    "see `ffr doctor`"
                ) from error
            self._sessions.append(session)

    def __call__(self, hidden: Tensor) -> Tensor:
        """(n, H) float32 behind the last layer, of (n, H) float32 before the first, on the CPU."""
        states = hidden.detach().numpy()
        for session in self._sessions:
            [states] = session.run(None, {"hidden": states})
        return torch.from_numpy(states)


def layers_of(model: Any) -> BertLayers | None:
    """The layers of a loaded model for a few tokens; None where it has others, or is not on a CPU.

    Args:
        model: transformers' own.
    """
    if (
        model.device.type != "cpu"
        or model.dtype != torch.float32
        or not has_these_layers(model.config.to_dict())
    ):
        return None
    return BertLayers(model.state_dict().__getitem__, model.config.num_hidden_layers)


def _weights_of(weight: Callable[[str], Tensor], layer: str) -> dict[str, Tensor]:
    found = {
        f"parts.{kind}": torch.cat([weight(f"{layer}.{part}.{kind}") for part in _PARTS])
        for kind in ("weight", "bias")
    }
    for name, place in _NAMES.items():
        for kind in ("weight", "bias"):
            found[f"{name}.{kind}"] = weight(f"{layer}.{place}.{kind}").contiguous()
    for name, shape in SHAPES.items():
        if tuple(found[name].shape) != shape:
            raise ModelError(
                f"its {name} in {layer} has shape {tuple(found[name].shape)}, not {shape} as its "
                "configuration says; fetch its files again"
            )
    return {name: found[name] for name in SHAPES}
