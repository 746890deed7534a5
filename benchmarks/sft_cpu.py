"""SFT on a CPU: float32, bfloat16, and bfloat16 with compiled layers, on the same packed queries.

A Qwen2-VL with random weights of the size of SmolLM2-135M's decoder, all of its weights trained; a dialogue of 1,000 tokens with eight
queries and answers of 50 behind it. Forward and backward pass of one group, the optimizer left out. The forms take turns in one
process, round after round, so that a load on the machine meets all alike; medians over the rounds, compiling left out and told apart.

    python benchmarks/sft_cpu.py      # writes benchmarks/results/sft_cpu.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from sft import make_model

from ffr.models.compiled import compile_layers
from ffr.models.loading import load_vlm
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.provenance import now, versions
from ffr.shipped.tiny import TINY_FOLDER

DIALOGUE_TOKENS, QUERIES, QUERY_TOKENS, ANSWER_TOKENS, VOCAB = 1_000, 8, 20, 30, 32_000
SIZES = {
    "hidden_size": 576, "intermediate_size": 1_536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
}  # fmt: skip
FORMS = {"fp32": (False, False), "bf16": (True, False), "bf16_compiled": (True, True)}
"""Whether autocast is on, and whether layers are compiled."""
RESULT = Path(__file__).parent / "results" / "sft_cpu.json"


def make_vlm(**changes: int) -> Vlm:
    """The model, all weights of its decoder trained; `changes` of `SIZES`."""
    tiny = load_vlm(
        TINY_FOLDER
    )  # for its tokenizer and processor only; its ids lie within the vocabulary
    vlm = Vlm(
        make_model(VOCAB, **{**SIZES, **changes}), tiny.tokenizer, tiny.processor, name="benchmark"
    )
    vlm.train_language_model()
    return vlm


class Form:
    """One way to compute, with a model of its own."""

    def __init__(self, name: str) -> None:
        is_half, is_compiled = FORMS[name]
        self.is_half = is_half
        self.vlm = make_vlm()
        self.sharing = PrefixSharing(self.vlm)
        if is_compiled:
            compile_layers(self.vlm)
        self.vlm.train()

    def step(self, dialogue: Encoded, branches: list[list[int]]) -> tuple[float, float]:
        """Seconds and loss of one forward and backward pass."""
        self.vlm.zero_grad(set_to_none=True)
        context: AbstractContextManager[Any] = (
            torch.autocast("cpu", torch.bfloat16) if self.is_half else nullcontext()
        )
        start = time.perf_counter()
        with context:
            scores = self.sharing.score(
                [dialogue], [branches], num_scored=[[ANSWER_TOKENS] * QUERIES]
            )
            loss = -scores.logprobs.sum() / (QUERIES * ANSWER_TOKENS)
        loss.backward()
        return time.perf_counter() - start, float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chance = random.Random(0)

    def draw(number: int) -> list[int]:
        return [chance.randrange(10, VOCAB) for _ in range(number)]

    dialogue = Encoded(draw(DIALOGUE_TOKENS))
    branches = [draw(QUERY_TOKENS + ANSWER_TOKENS) for _ in range(QUERIES)]
    forms = {name: Form(name) for name in FORMS}
    first = {name: form.step(dialogue, branches) for name, form in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(options.rounds):
        for name, form in forms.items():
            seconds[name].append(form.step(dialogue, branches)[0])
        print({name: round(values[-1], 2) for name, values in seconds.items()}, flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = DIALOGUE_TOKENS + QUERIES * (QUERY_TOKENS + ANSWER_TOKENS)
    report = {
        "what": "forward and backward pass of SFT on a CPU, all weights of a decoder of SmolLM2-135M's size, queries packed",
        "settings": {
            "dialogue_tokens": DIALOGUE_TOKENS, "queries": QUERIES, "query_tokens": QUERY_TOKENS, "answer_tokens": ANSWER_TOKENS,
            "vocab": VOCAB, **SIZES, "threads": options.threads, "rounds": options.rounds,
            "amx_bf16": "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        },
        "tokens_per_second": {name: tokens / value for name, value in medians.items()},
        "times_float32": {name: medians["fp32"] / value for name, value in medians.items()},
        "first_step_seconds": {name: value for name, (value, _) in first.items()},
        "first_step_loss": {name: loss for name, (_, loss) in first.items()},
        "seconds_of_each_step": seconds,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = ("tokens_per_second", "times_float32", "first_step_seconds", "first_step_loss")
    print(json.dumps({key: report[key] for key in shown}, indent=2))


if __name__ == "__main__":
    main()
