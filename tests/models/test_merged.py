"""The adapter folded into a copy of the weights: the same model, and the weights themselves untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.utils._python_dispatch import TorchDispatchMode
from vlm_reference import with_lora

from ffr.dialogue import FilePrompt
from ffr.models.decoding.sampling import sample_answers
from ffr.models.loading import load_vlm
from ffr.models.lora import add_lora
from ffr.models.merged import MergedLinears, merged_bytes
from ffr.models.vlm import Vlm
from ffr.shipped.tiny import TINY_FOLDER


@pytest.fixture
def tiny() -> Vlm:
    return with_lora(TINY_FOLDER).eval()


Ask = Callable[..., tuple[FilePrompt, list[Path]]]


def bits(vlm: Vlm) -> dict[str, bytes]:
    """Every weight, frozen and trained, byte for byte under its name."""
    return {
        name: value.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, value in vlm.state_dict().items()
    }


@torch.no_grad()
def logits(vlm: Vlm, ask: Ask) -> torch.Tensor:
    prompt, images = ask(0, 2, words="a few")
    batch = vlm.collate([vlm.encode(prompt, images, answer="[1], []")], padding_side="right")
    return vlm.answer_logits(batch)[0]


def test_it_is_the_same_model_and_leaves_its_weights_alone(folder: Path, ask: Ask) -> None:
    vlm = with_lora(folder).eval()
    before, names = bits(vlm), [name for name, _ in vlm.named_modules()]
    expected = logits(vlm, ask)
    with vlm.model.disable_adapter():
        without = logits(vlm, ask)
    copy = MergedLinears(vlm)
    with copy.in_place():
        found = logits(vlm, ask)
        assert not any(isinstance(module, LoraLinear) for module in vlm.language_model.modules())
    assert float((found - expected).abs().max()) < 1e-4
    assert float((without - expected).abs().max()) > 1e-3, (
        "an adapter that does nothing shows nothing"
    )
    assert torch.equal(logits(vlm, ask), expected)
    assert bits(vlm) == before
    assert [name for name, _ in vlm.named_modules()] == names


def test_a_fault_leaves_the_model_as_it_was(tiny: Vlm, ask: Ask) -> None:
    before, expected = bits(tiny), logits(tiny, ask)
    with pytest.raises(KeyboardInterrupt), MergedLinears(tiny).in_place():
        raise KeyboardInterrupt
    assert bits(tiny) == before
    assert torch.equal(logits(tiny, ask), expected)


def test_a_fault_in_the_midst_of_its_placing_leaves_the_model_as_it_was(
    tiny: Vlm, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, copy = logits(tiny, ask), MergedLinears(tiny)
    copy._folded[3] = "no module"  # type: ignore[call-overload]
    with pytest.raises(TypeError), copy.in_place():
        raise AssertionError("the placing has failed by now")
    assert torch.equal(logits(tiny, ask), expected)


def test_a_copy_is_of_the_adapter_as_it_was(tiny: Vlm, ask: Ask) -> None:
    """It does not follow a step of training: a new one does."""
    copy = MergedLinears(tiny)
    with torch.no_grad():
        for name, weight in tiny.named_parameters():
            if "lora_B" in name:
                weight.mul_(-2)
    expected = logits(tiny, ask)
    with copy.in_place():
        assert float((logits(tiny, ask) - expected).abs().max()) > 1e-3
    with MergedLinears(tiny).in_place():
        found = logits(tiny, ask)
        assert float((found - expected).abs().max()) < 1e-4
    places = [linear.weight.data_ptr() for linear in copy._folded]
    copy.fold()
    with copy.in_place():
        assert torch.equal(logits(tiny, ask), found)
    assert [linear.weight.data_ptr() for linear in copy._folded] == places


def test_its_size_is_that_of_the_weights_it_stands_for(tiny: Vlm) -> None:
    layers = [item for item in tiny.language_model.modules() if isinstance(item, LoraLinear)]
    assert layers
    assert merged_bytes(tiny) == 4 * sum(layer.base_layer.weight.numel() for layer in layers)


def test_half_precision_is_rounded_once() -> None:
    """In bf16, beside adapters that stay in float32, the copy is the nearest to both added up."""
    vlm = load_vlm(TINY_FOLDER, dtype="bfloat16")
    add_lora(vlm, r=4, alpha=16)
    copy = MergedLinears(vlm)
    for _, _, layer in copy._places:
        torch.nn.init.normal_(layer.lora_B["default"].weight, 0, 0.05)
    for (_, _, layer), linear in zip(copy._places, MergedLinears(vlm)._folded, strict=True):
        assert layer.lora_A["default"].weight.dtype == torch.float32
        delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 4
        exact = layer.base_layer.weight.double() + delta.double()
        assert linear.weight.dtype == torch.bfloat16
        step = exact.abs() * 2.0**-8  # half of the distance of two numbers of bf16, at most
        assert bool(((linear.weight.double() - exact).abs() <= step + 1e-9).all())


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.num += 1
        return func(*args, **(kwargs or {}))


def test_a_token_takes_as_few_operations_as_without_an_adapter(tiny: Vlm, ask: Ask) -> None:
    def operations() -> int:
        prompt = tiny.encode(*ask(0, words="a few"))
        with Operations() as counted:
            sample_answers(
                tiny,
                [prompt],
                num_samples=2,
                max_new_tokens=6,
                generator=torch.Generator().manual_seed(0),
            )
        return counted.num

    with tiny.model.disable_adapter():
        without = operations()
    beside = operations()
    with MergedLinears(tiny).in_place():
        merged = operations()
    assert merged <= without < beside
