"""How many kernels a written token starts, and how often the host waits for the device: counted, not timed.

A Qwen2-VL of 28 layers (Qwen2-VL-2B's depth; narrow, which changes no count) in bfloat16 with LoRA on all linear layers of its decoder, one
prompt, eight answers. What PyTorch is asked for passes a TorchDispatchMode on a CPU; what a token costs is the difference between a
rollout of more tokens and one of fewer. Views, and tensors that are only set aside, start no kernel and are left out. The host waits
where it reads a value of the device (`.item()`, `.tolist()`, `bool(tensor)`, a copy to the host) and where a shape depends on one
(`nonzero`). Looks are told apart: which answers go on is read every few tokens, as on a GPU, from a copy that began at the look before. The peer is transformers' own `generate`, called as TRL's GRPOTrainer calls it, text alone, the prompt repeated for each answer.

    python benchmarks/rollout_ops.py      # writes benchmarks/results/rollout_ops.json
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
from sft_cpu import make_vlm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ffr.models.decoding.drafts import Drafts
from ffr.models.decoding.fixed import FixedSteps
from ffr.models.decoding.sampling import sample_answers
from ffr.models.decoding.watch import TOKENS_A_LOOK, Watch
from ffr.models.lora import add_lora
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.provenance import now, versions

LAYERS, ANSWERS, PROMPT_TOKENS, FEW_TOKENS, MORE_TOKENS = 28, 8, 40, 16, 32
SIZES = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
NEVER = [31_999]
"""The id that would end an answer; forbidden, so that all answers are equally long."""
RESULT = Path(__file__).parent / "results" / "rollout_ops.json"

Shapes = Literal["growing", "fixed", "graph"]

_NO_KERNELS = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "detach", "set_", "resize_"}  # fmt: skip
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal"}
_READING_METHODS = {"tolist", "numpy", "cpu"}


class Kernels(TorchDispatchMode):
    """Counts what starts a kernel on a device, and what has the host wait for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.in_graph = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        returns = func._schema.returns
        # what gives back its argument without writing to it is a view
        is_view = any(item.alias_info and not item.alias_info.is_write for item in returns)
        if self.in_graph:
            pass
        elif name in _READS:
            self.waits[name] += 1
        elif not is_view and name not in _NO_KERNELS:
            self.started[name] += 1
        return func(*args, **kwargs or {})


def as_graphs(steps: FixedSteps, kernels: Kernels) -> None:
    """Has each step count as one start, as the graph that a GPU replays is; what is beside it counts as it is."""

    def counted(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def hidden(*given: Any, **inputs: Any) -> torch.Tensor:
            kernels.started["graph"] += 1
            kernels.in_graph = True
            try:
                return plain(*given, **inputs)
            finally:
                kernels.in_graph = False

        return hidden

    steps.hidden = counted(steps.hidden)  # type: ignore[method-assign]
    steps.hidden_at = counted(steps.hidden_at)  # type: ignore[method-assign]


class Reads(TorchFunctionMode):
    """Counts what copies a tensor to the host without an operation of its own where it lies there already."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _READING_METHODS:
            self.waits[name] += 1
        return func(*args, **kwargs or {})


@dataclass(frozen=True)
class Cost:
    """What one more token costs: kernels started and waits of the host, by name, and looks at what was copied before."""

    kernels: dict[str, float]
    waits: dict[str, float]
    looks: float

    @property
    def num_kernels(self) -> float:
        return sum(self.kernels.values())

    @property
    def num_waits(self) -> float:
        return sum(self.waits.values())


def cost_of_a_token(write: Callable[[int, Kernels], object]) -> Cost:
    """What each token costs beyond the first few.

    Args:
        write: Writes answers of so many tokens, before a counter's eyes.
    """
    counts: list[tuple[Counter[str], Counter[str], int]] = []
    for length in (FEW_TOKENS, MORE_TOKENS):
        looks = mock.Mock(side_effect=Watch.read)
        with mock.patch.object(Watch, "read", looks), Reads() as reads, Kernels() as kernels:
            write(length, kernels)
        waits = kernels.waits + reads.waits - Counter(tolist=looks.call_count)
        counts.append((kernels.started, waits, looks.call_count))
    (few, few_waits, few_looks), (more, more_waits, more_looks) = counts
    number = MORE_TOKENS - FEW_TOKENS

    def a_token(before: Counter[str], after: Counter[str]) -> dict[str, float]:
        return {name: (after[name] - before[name]) / number for name in after if after[name] != before[name]}  # fmt: skip

    return Cost(a_token(few, more), a_token(few_waits, more_waits), (more_looks - few_looks) / number)  # fmt: skip


def make_policy(layers: int, adapters: torch.dtype | None) -> Vlm:
    """The model; `adapters` is their type, None merges them into the weights they stand beside."""
    vlm = make_vlm(num_hidden_layers=layers, **SIZES)
    vlm.requires_grad_(False)
    vlm.to(torch.bfloat16)
    add_lora(vlm)  # in float32 beside bfloat16 weights, as peft makes them
    if adapters is None:
        vlm.model = vlm.model.merge_and_unload()
    else:
        for weight in vlm.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(adapters)
    return vlm.eval()


def ours(vlm: Vlm, *, top_p: float = 1.0, shapes: Shapes = "growing", guesses: int = 0) -> Cost:
    """A rollout of GRPO: one prompt, whose keys all answers read.

    Args:
        vlm: The policy.
        top_p: As `sample_answers`.
        shapes: Of a step: growing, fixed, or fixed and replayed as one graph.
        guesses: Tokens guessed ahead; from nothing that was met, so that a pass writes one token all the same.
    """
    assert PrefixSharing(vlm).is_active
    vlm.base.generation_config.eos_token_id = NEVER
    prompt = Encoded([10 + number % 500 for number in range(PROMPT_TOKENS)])

    def write(length: int, kernels: Kernels) -> None:
        steps = None if shapes == "growing" else FixedSteps(vlm, is_compiled=False)
        if shapes == "graph":
            assert steps is not None
            as_graphs(steps, kernels)
        answers = sample_answers(
            vlm, [prompt], num_samples=ANSWERS, max_new_tokens=length, generator=torch.Generator().manual_seed(0),
            tokens_a_look=TOKENS_A_LOOK, top_p=top_p, fixed=steps, drafts=Drafts(guesses, [[]]) if guesses else None,
        )[0]  # fmt: skip
        if any(len(answer.token_ids) < length for answer in answers):
            raise SystemExit("an answer ended early, so nothing is counted; take another seed")

    return cost_of_a_token(write)


def theirs(vlm: Vlm) -> Cost:
    """The `generate` of transformers, as TRL calls it."""
    from transformers import GenerationConfig

    ids = torch.tensor([[10 + number % 500 for number in range(PROMPT_TOKENS)]] * ANSWERS)

    @torch.no_grad()
    def write(length: int, kernels: Kernels) -> None:
        config = GenerationConfig(
            max_new_tokens=length, min_new_tokens=length, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
            pad_token_id=0, eos_token_id=NEVER, disable_compile=True,
        )  # fmt: skip
        vlm.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )

    return cost_of_a_token(write)


FORMS: dict[str, Callable[[int], Cost]] = {
    "adapters in float32": lambda layers: ours(make_policy(layers, torch.float32)),
    "adapters in bfloat16": lambda layers: ours(make_policy(layers, torch.bfloat16)),
    "merged weights": lambda layers: ours(make_policy(layers, None)),
    "merged weights, top_p 0.85": lambda layers: ours(make_policy(layers, None), top_p=0.85),
    "merged weights, fixed shapes": lambda layers: ours(make_policy(layers, None), shapes="fixed"),
    "merged weights, a pass of 8 guesses": lambda layers: ours(make_policy(layers, None), guesses=8),
    "merged weights, a step as one graph": lambda layers: ours(make_policy(layers, None), shapes="graph"),
    "merged weights, a pass of 8 guesses as one graph": lambda layers: ours(
        make_policy(layers, None), shapes="graph", guesses=8
    ),
    "generate, adapters in float32": lambda layers: theirs(make_policy(layers, torch.float32)),
    "generate, adapters in bfloat16 (TRL)": lambda layers: theirs(make_policy(layers, torch.bfloat16)),
    "generate, merged weights": lambda layers: theirs(make_policy(layers, None)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    forms = {}
    for name, count in FORMS.items():
        # two layers fewer, which tells a layer's part from what is done once a token
        cost, smaller = count(options.layers), count(options.layers - 2)
        a_layer = (cost.num_kernels - smaller.num_kernels) / 2
        forms[name] = {
            "kernels_a_token": cost.num_kernels,
            "kernels_a_layer": a_layer,
            "kernels_beside_the_layers": cost.num_kernels - options.layers * a_layer,
            "waits_a_token": cost.num_waits,
            "waits": cost.waits,
            "looks_a_token": cost.looks,
            "kernels": dict(sorted(cost.kernels.items(), key=lambda item: -item[1])),
        }
        print(name, {key: forms[name][key] for key in ("kernels_a_token", "kernels_a_layer", "waits_a_token", "looks_a_token")}, flush=True)  # fmt: skip
    report = {
        "what": "kernels started and waits of the host a written token, counted on a CPU; LoRA on all linear layers of the decoder",
        "settings": {
            "layers": options.layers, "answers": ANSWERS, "prompt_tokens": PROMPT_TOKENS, "tokens": [FEW_TOKENS, MORE_TOKENS],
            "tokens_a_look": TOKENS_A_LOOK, **SIZES,
        },
        "forms": forms,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
