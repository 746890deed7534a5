"""Memory and speed of a long SFT on a CPU, where every step has another length.

oneDNN compiles a kernel for each shape and keeps 1,024 of them (`plain`); `ffr train` keeps 128 (`few_kernels`); lengths filled up to multiples of
64 tokens (`pad_to_multiple_of`) leave few shapes, of which memory that was freed fits again (`padded`, with 128 kernels). A decoder of
SmolLM2-135M's width and four layers, all weights trained by AdamW under bfloat16 autocast, on texts of 600 to 1,800 tokens with eight branches of
20 to 70; each form in a process of its own, in turns, round after round. Tokens that fill up are not counted.

    python benchmarks/cpu_memory.py      # writes benchmarks/results/cpu_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from sft_cpu import SIZES, VOCAB, make_vlm

from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.provenance import now, versions

FORMS = {"plain": (1_024, 1), "few_kernels": (128, 1), "padded": (128, 64)}
"""Kernels that oneDNN keeps, and what lengths are a multiple of."""
LAYERS = 4
RESULT = Path(__file__).parent / "results" / "cpu_memory.json"


def resident_mb() -> float:
    """This process's memory in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def train(num_steps: int, multiple: int) -> list[tuple[int, float, float]]:
    """Tokens, seconds and memory in MB of each step."""
    chance = random.Random(0)

    def draw(number: int) -> list[int]:
        return [chance.randrange(10, VOCAB) for _ in range(number)]

    vlm = make_vlm(num_hidden_layers=LAYERS)
    sharing = PrefixSharing(vlm, pad_to_multiple_of=multiple)
    vlm.train()
    optimizer = torch.optim.AdamW([p for p in vlm.parameters() if p.requires_grad], lr=1e-5)
    steps = []
    for _ in range(num_steps):
        prompt = Encoded(draw(chance.randint(600, 1_800)))
        branches = [draw(chance.randint(20, 70)) for _ in range(8)]
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            scores = sharing.score([prompt], [branches])
            loss = -scores.logprobs.sum() / scores.mask.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens = prompt.num_tokens + sum(map(len, branches))
        steps.append((tokens, time.perf_counter() - start, resident_mb()))
    return steps


def run(form: str, options: argparse.Namespace) -> list[tuple[int, float, float]]:
    capacity = FORMS[form][0]
    environment = {
        **os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(capacity), "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [
        sys.executable,
        __file__,
        "--worker",
        form,
        "--steps",
        str(options.steps),
        "--threads",
        str(options.threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stderr[-3000:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return [tuple(step) for step in json.loads(line.removeprefix("RESULT "))]


def figures(steps: list[tuple[int, float, float]]) -> dict[str, float]:
    """Memory and speed early and late; the first steps, which compile what all shapes need, are left out."""
    fifth = len(steps) // 5

    def speed(part: list[tuple[int, float, float]]) -> float:
        return sum(item[0] for item in part) / sum(item[1] for item in part)

    return {
        "mb_after_a_fifth": round(steps[fifth - 1][2]),
        "mb_at_the_end": round(steps[-1][2]),
        "tokens_per_second_second_fifth": round(speed(steps[fifth : 2 * fifth]), 1),
        "tokens_per_second_last_fifth": round(speed(steps[-fifth:]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", choices=list(FORMS), help="one run, prints JSON")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        print("RESULT " + json.dumps(train(options.steps, FORMS[options.worker][1])))
        return
    rounds: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form in FORMS:
            rounds[form].append(figures(run(form, options)))
            print(form, rounds[form][-1], flush=True)
    report = {
        "what": "SFT on a CPU with a new length at every step: memory and speed by the kernels that oneDNN keeps and by filling up",
        "settings": {
            "steps": options.steps, "threads": options.threads, "rounds": options.rounds, "vocab": VOCAB,
            **SIZES, "num_hidden_layers": LAYERS,
            "amx_bf16": "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        },
        "medians": {
            form: {key: statistics.median(item[key] for item in found) for key in found[0]} for form, found in rounds.items()
        },
        "rounds": rounds,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["medians"], indent=2))


if __name__ == "__main__":
    main()
