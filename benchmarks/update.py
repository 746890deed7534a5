"""GRPO's update on a CPU: what the shared prompt, the shared dialogue and branches in blocks are worth.

The model and the dialogue of `rollout.py`: 800 tokens, four queries of 25 and eight answers of 40 tokens to each, bfloat16 autocast, all weights
trained; forward and backward pass of all 32 answers, the optimizer left out. The forms take turns in one process, round after round, so
that a load on the machine meets all alike; medians over the rounds.

`repeated` is the peer: every answer behind a prompt of its own, eight rows at once, as TRL's GRPOTrainer does it, though with logits at the
answers' tokens alone. `one_by_one` shares each prompt among its answers; `packed` shares the dialogue among the queries too, with the branches
in blocks, and `packed_in_one` with all branches in one masked row.

    python benchmarks/update.py      # writes benchmarks/results/update.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from unittest import mock

import torch
from rollout import ANSWER_TOKENS, ANSWERS, DIALOGUE_TOKENS, QUERIES, QUERY_TOKENS
from sft_cpu import SIZES, VOCAB, make_vlm

from ffr.models import packing
from ffr.models.packing import pack
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.provenance import now, versions

RESULT = Path(__file__).parent / "results" / "update.json"
FORMS = ("repeated", "one_by_one", "packed_in_one", "packed")


class Update:
    """The pass of all answers, in each form.

    Args:
        seed: Of the dialogue, the queries, the answers and the weights of their log-probabilities.
    """

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)

        def draw(number: int) -> list[int]:
            return [chance.randrange(10, VOCAB) for _ in range(number)]

        dialogue = draw(DIALOGUE_TOKENS)
        self.queries = []
        for _ in range(QUERIES):
            prompt = dialogue + draw(QUERY_TOKENS)
            self.queries.append(
                [Encoded(prompt + draw(ANSWER_TOKENS), ANSWER_TOKENS) for _ in range(ANSWERS)]
            )
        self.advantages = torch.randn(
            QUERIES, ANSWERS, generator=torch.Generator().manual_seed(seed)
        )
        self.vlm = make_vlm()
        self.vlm.train()
        self.shared, self.repeated = (
            PrefixSharing(self.vlm),
            PrefixSharing(self.vlm, is_wanted=False),
        )
        assert self.shared.is_active

    def run(self, form: str) -> tuple[float, float, float]:
        """Seconds, loss, and the norm of the gradient."""
        self.vlm.zero_grad(set_to_none=True)
        sharing = self.repeated if form == "repeated" else self.shared
        parts = list(zip(self.queries, self.advantages, strict=True))
        if form.startswith("packed"):
            parts = [([row for rows in self.queries for row in rows], self.advantages.flatten())]
        in_one = mock.patch.object(
            packing, "SMALLEST_BLOCK", 10**9 if form == "packed_in_one" else packing.SMALLEST_BLOCK
        )
        total = 0.0
        start = time.perf_counter()
        with in_one, torch.autocast("cpu", torch.bfloat16):
            for rows, advantages in parts:
                group = pack(rows, self.vlm.placeholder_ids)
                scores = sharing.score(group.prompts, group.branches, num_scored=group.num_scored)
                loss = -(scores.logprobs.mean(1) * advantages).sum() / self.advantages.numel()
                loss.backward()
                total += float(loss.detach())
        seconds = time.perf_counter() - start
        norms = [p.grad.norm() for p in self.vlm.parameters() if p.grad is not None]
        return seconds, total, float(torch.stack(norms).norm())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    update = Update(0)
    first = {form: update.run(form) for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form in FORMS:
            seconds[form].append(update.run(form)[0])
        print({form: round(values[-1], 2) for form, values in seconds.items()}, flush=True)
    medians = {form: statistics.median(values) for form, values in seconds.items()}
    report = {
        "what": "forward and backward pass of GRPO's update on a CPU: four queries on one dialogue, eight answers to each",
        "settings": {
            "dialogue_tokens": DIALOGUE_TOKENS, "queries": QUERIES, "query_tokens": QUERY_TOKENS, "answers": ANSWERS,
            "answer_tokens": ANSWER_TOKENS, "vocab": VOCAB, **SIZES, "threads": options.threads, "rounds": options.rounds,
            "amx_bf16": "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        },
        "seconds": medians,
        "times_repeated": {form: medians["repeated"] / value for form, value in medians.items()},
        "loss": {form: loss for form, (_, loss, _) in first.items()},
        "gradient_norm": {form: norm for form, (_, _, norm) in first.items()},
        "seconds_of_each_round": seconds,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        json.dumps(
            {key: report[key] for key in ("seconds", "times_repeated", "loss", "gradient_norm")},
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
