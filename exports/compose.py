"""The graph of whole fragments, put together from those of the text and the image tower.

    texts ─► if there are any: text tower, sum over rows; else 0 ─┐
                                                                  ├─► + ─► normalise ─► (1, H)
    images ─► if there are any: image tower, sum; else 0 ─────────┘

It is not traced as a whole, since what torch traces inside a condition may name no operator of ONNX
Runtime's own, and the quantizer does not look there. The mean of all vectors and their sum have one
direction, so the sum does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OUTPUT = "embeddings"


class Fragments(nn.Module):
    """One fragment's vector: the mean of the vectors of its texts and images, normalised anew.

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
        """Texts and images of a fragment, one kind perhaps without rows → (1, H), normalised."""
        texts = self._sum(self.texts, input_ids, attention_mask, token_type_ids)
        images = self._sum(self.images, pixel_values, pixel_attention_mask, spatial_shapes)
        # the mean's length is lost again, so the sum does
        return (nn.functional.normalize(texts + images, dim=-1),)

    def _sum(self, tower: nn.Module, first: Tensor, *others: Tensor | None) -> Tensor:
        """Sum of a tower's vectors over its rows, (1, H)."""
        # a fragment may have no text, or no image
        if not len(first):
            return torch.zeros(1, self.width, device=first.device)
        # (rows, H) → (1, H)
        found: Tensor = tower(first, *(item for item in others if item is not None))[0].sum(
            0, keepdim=True
        )
        return found


def write_fragment_graph(
    texts: Path, images: Path, path: Path, width: int, *, external_data: bool
) -> None:
    """Writes one graph in place of two.

    Args:
        texts: The text tower's graph; it has one output, (B, H) L2-normalised float32.
        images: The image tower's.
        path: The file to write.
        width: H.
        external_data: Whether the weights go into a file beside it.
    """
    import onnx
    from onnx import TensorProto, helper

    models = {"texts": onnx.load(str(texts)), "images": onnx.load(str(images))}
    nodes: list[Any] = []
    inputs: list[Any] = []
    opsets: dict[str, int] = {}
    for name, model in models.items():
        # the two graphs name their values alike
        model = onnx.compose.add_prefix(model, f"{name}/", rename_inputs=False)
        nodes += _summed_if_any(model.graph, name, width)
        inputs += model.graph.input
        opsets |= {item.domain: item.version for item in model.opset_import}
    nodes += [
        helper.make_node("Add", ["texts/sum", "images/sum"], ["sum"]),
        helper.make_node("ReduceL2", ["sum"], ["length"], keepdims=1),
        helper.make_node("Constant", [], ["shortest"], value_float=1e-12),
        helper.make_node("Max", ["length", "shortest"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], [OUTPUT]),
    ]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, width])
    whole = helper.make_model(
        helper.make_graph(nodes, "fragment", inputs, [output]),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(model.ir_version for model in models.values()),
    )
    onnx.save(whole, str(path), save_as_external_data=external_data, location=f"{path.name}.data")


def _summed_if_any(graph: Any, name: str, width: int) -> list[Any]:
    """The tower's vectors summed, (1, H) under `NAME/sum`.

    The tower is run where its first input has rows.
    """
    from onnx import TensorProto, helper

    (output,) = (item.name for item in graph.output)
    total, zero = f"{name}/total", f"{name}/zero"
    shape = [1, width]
    axis = helper.make_tensor(f"{name}/axis", TensorProto.INT64, [1], [0])
    zeros = helper.make_tensor(zero, TensorProto.FLOAT, shape, [0.0] * width)
    some = helper.make_graph(
        [*graph.node, helper.make_node("ReduceSum", [output, axis.name], [total], keepdims=1)],
        f"{name}/some",
        [],
        [helper.make_tensor_value_info(total, TensorProto.FLOAT, shape)],
        [*graph.initializer, axis],
    )
    none = helper.make_graph(
        [helper.make_node("Constant", [], [zero], value=zeros)],
        f"{name}/none",
        [],
        [helper.make_tensor_value_info(zero, TensorProto.FLOAT, shape)],
    )
    rows, nothing, is_any = f"{name}/rows", f"{name}/nothing", f"{name}/is_any"
    return [
        # the first axis alone: the number of rows
        helper.make_node("Shape", [graph.input[0].name], [rows], start=0, end=1),
        helper.make_node("Constant", [], [nothing], value_ints=[0]),
        helper.make_node("Greater", [rows, nothing], [is_any]),
        helper.make_node("If", [is_any], [f"{name}/sum"], then_branch=some, else_branch=none),
    ]
