"""Rollouts of GRPO on a CPU: what room for keys and values and shared dialogues are worth.

A Qwen2-VL with random weights of the size of SmolLM2-135M's decoder, all of them trained, under Lightning's bfloat16 autocast: a dialogue of 800 tokens
with four queries of 25 and eight answers of 40 tokens to each. The forms take turns in one process, round after round, so that a load on
the machine meets all alike; medians over the rounds. `plain` is the peer: transformers' DynamicCache, which copies all keys and values at every
token, with weights cast at every pass; its prompts pass through the model once for all their answers too.

    python benchmarks/rollout.py      # writes benchmarks/results/rollout.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from sft_cpu import SIZES, VOCAB, make_vlm
from transformers import DynamicCache

from ffr.models.decoding import loop, reading, sampling
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.provenance import now, versions

DIALOGUE_TOKENS, QUERIES, QUERY_TOKENS, ANSWERS, ANSWER_TOKENS = 800, 4, 25, 8, 40
RESULT = Path(__file__).parent / "results" / "rollout.json"
FORMS = ("plain", "cast_once", "cast_once_roomy", "packed")


def roll_out(form: str, vlm: Vlm, prompts: list[Encoded]) -> float:
    """Seconds of a rollout in one form."""
    plain_cache = mock.patch.object(
        reading, "RoomyCache", lambda config: DynamicCache(config=config)
    )
    cast_always = mock.patch.object(loop, "weights_cast_once", return_value=nullcontext())
    with (
        plain_cache if form in ("plain", "cast_once") else nullcontext(),
        cast_always if form == "plain" else nullcontext(),
        torch.autocast("cpu", torch.bfloat16, cache_enabled=False),
    ):
        start = time.perf_counter()
        sampling.sample_answers(
            vlm, prompts, num_samples=ANSWERS, max_new_tokens=ANSWER_TOKENS,
            generator=torch.Generator().manual_seed(0), dialogue_numbers=[0] * QUERIES if form == "packed" else None,
        )  # fmt: skip
        return time.perf_counter() - start


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

    vlm = make_vlm()
    assert PrefixSharing(vlm).is_active
    dialogue = draw(DIALOGUE_TOKENS)
    prompts = [Encoded(dialogue + draw(QUERY_TOKENS)) for _ in range(QUERIES)]
    roll_out("plain", vlm, prompts)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form in FORMS:
            seconds[form].append(roll_out(form, vlm, prompts))
        print({form: round(values[-1], 2) for form, values in seconds.items()}, flush=True)
    medians = {form: statistics.median(values) for form, values in seconds.items()}
    report = {
        "what": "rollout of GRPO on a CPU: four queries on one dialogue, eight answers to each; a random model writes all tokens",
        "settings": {
            "dialogue_tokens": DIALOGUE_TOKENS, "queries": QUERIES, "query_tokens": QUERY_TOKENS, "answers": ANSWERS,
            "answer_tokens": ANSWER_TOKENS, "vocab": VOCAB, **SIZES, "threads": options.threads, "rounds": options.rounds,
            "amx_bf16": "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        },
        "seconds": medians,
        "times_plain": {form: medians["plain"] / value for form, value in medians.items()},
        "seconds_of_each_round": seconds,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in ("seconds", "times_plain")}, indent=2))


if __name__ == "__main__":
    main()
