"""What all modules share: which weights decay, and what a checkpoint holds and refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ffr.errors import ModelError
from ffr.settings import SftConfig
from ffr.training.common.module import StageModule


class Module(StageModule[SftConfig]):
    columns = ()

    def take_step_figures(self, batch: Any) -> dict[str, float]:
        return {}


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.ones(2, 2))
        self.vector = torch.nn.Parameter(torch.ones(2))
        self.frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)


def make(fingerprints: dict[str, str] | None = None, **settings: Any) -> Module:
    return Module(Model(), SftConfig(**settings), num_steps=4, fingerprints=fingerprints or {})


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_matrices_decay_and_vectors_do_not(decay: float) -> None:
    module = make(weight_decay=decay, learning_rate=0.5, warmup_share=0)
    optimizer = module.configure_optimizers()["optimizer"]
    for weight in module.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    optimizer.step()
    # a step without a gradient: decay alone, which AdamW takes from the weight itself
    assert module.model.matrix.tolist() == [[1 - 0.5 * decay] * 2] * 2
    assert module.model.vector.tolist() == [1.0, 1.0]
    assert module.model.frozen.tolist() == [[1.0, 1.0]] * 2


def checkpoint_of(module: Module) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_a_checkpoint_holds_what_is_trained_and_refuses_what_is_not_its_own() -> None:
    names = {"configuration": "a", "data": "b"}
    checkpoint = checkpoint_of(make(names))
    assert set(checkpoint["state_dict"]) == {"model.matrix", "model.vector"}
    make(names).on_load_checkpoint(checkpoint)
    for name in names:
        with pytest.raises(ModelError, match=f"belongs to another {name}; start a new run"):
            make({**names, name: "c"}).on_load_checkpoint(checkpoint)
    with pytest.raises(ModelError, match="belongs to another data; start a new run"):
        make({"configuration": "a"}).on_load_checkpoint(checkpoint)
    other = make(names)
    other.model.vector.requires_grad_(False)
    with pytest.raises(ModelError, match="holds other weights than this run trains"):
        other.on_load_checkpoint(checkpoint)
