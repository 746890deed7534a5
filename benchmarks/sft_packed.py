"""SFT with packed queries beside separate sequences: examples a second and memory, through the same `SftModule` in Lightning.

Five queries on each dialogue, text only, on the random-weight Qwen2-VL of `sft.py` with a LoRA adapter. A step is the five examples of one
dialogue in every form: packed behind the dialogue; separate, five rows at once; separate, one row at a time. For speed, one process
trains a few steps in each form in turn, round after round, so that a load on the machine meets all forms alike; medians over all
steps but each turn's first. Memory is that of a process of its own. Ratios are against the better of the separate forms.

    python benchmarks/sft_packed.py                   # all, writes benchmarks/results/sft_packed.json
    python benchmarks/sft_packed.py --worker packed   # memory of one form, prints JSON
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
from itertools import pairwise
from pathlib import Path
from typing import Any

from sft import make_model, peak_mb

QUERIES, QUERY_TOKENS, ANSWER_TOKENS, VOCAB = 5, 20, 40, 32_000
FORMS = {"packed": (1, 1), "separate_batched": (QUERIES, 1), "separate_single": (1, QUERIES)}
"""Items in a micro-batch, and micro-batches in a step; an item is a group where queries are packed."""
RESULT = Path(__file__).parent / "results" / "sft_packed.json"


def rows(num_dialogues: int, dialogue_tokens: int) -> list[list[list[int]]]:
    """For each dialogue, the ids of each example: dialogue, query, answer."""
    chance = random.Random(0)

    def draw(number: int) -> list[int]:
        return [chance.randrange(10, VOCAB) for _ in range(number)]

    return [
        [dialogue + draw(QUERY_TOKENS + ANSWER_TOKENS) for _ in range(QUERIES)]
        for dialogue in (draw(dialogue_tokens) for _ in range(num_dialogues))
    ]


def train(form: str, steps: int, dialogue_tokens: int) -> tuple[list[float], float]:
    """Seconds of each step but the first, and the peak memory in MB above that before training."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback

    from ffr.models.loading import load_vlm
    from ffr.models.lora import add_lora
    from ffr.models.packing import pack
    from ffr.models.rows import Encoded
    from ffr.models.shared_prefix import PrefixSharing
    from ffr.models.vlm import Vlm
    from ffr.settings import SftConfig
    from ffr.shipped.tiny import TINY_FOLDER
    from ffr.training.common.loader import StepLoader
    from ffr.training.common.plan import TrainPlan
    from ffr.training.sft.module import SftModule

    tiny = load_vlm(
        TINY_FOLDER
    )  # for its tokenizer and processor only; its ids lie within the vocabulary
    vlm = Vlm(make_model(VOCAB), tiny.tokenizer, tiny.processor, name="benchmark")
    add_lora(vlm)
    vlm.train()
    groups = [
        [Encoded(ids, ANSWER_TOKENS) for ids in group] for group in rows(steps + 1, dialogue_tokens)
    ]
    is_packed = form == "packed"
    items: list[Any] = [row for group in groups for row in group]
    if is_packed:
        items = [pack(group, vlm.placeholder_ids) for group in groups]
    batch_size, accumulate = FORMS[form]
    config = SftConfig(batch_size=batch_size, accumulate=accumulate, gradient_checkpointing=False)
    plan = TrainPlan([1] * len(items), batch_size, accumulate, num_processes=1, epochs=1)
    module = SftModule(
        vlm,
        config,
        num_steps=plan.num_steps,
        fingerprints={},
        sharing=PrefixSharing(vlm) if is_packed else None,
    )
    loader = StepLoader(
        plan, items.__getitem__, lambda index: items[index].num_answer_tokens, num_workers=0
    )
    times: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *rest: Any
        ) -> None:
            if batch.ends_step:
                module.take_step_figures(batch)
                times.append(time.perf_counter())

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, accumulate_grad_batches=accumulate, callbacks=[Clock()],
    )  # fmt: skip
    base = peak_mb()
    trainer.fit(module, train_dataloaders=loader)
    return [after - before for before, after in pairwise(times)], peak_mb() - base


def memory_of(form: str, options: argparse.Namespace) -> float:
    command = [
        sys.executable,
        __file__,
        "--worker",
        form,
        "--steps",
        "1",
        "--threads",
        str(options.threads),
    ]
    command += ["--dialogue-tokens", str(options.dialogue_tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{form} failed:\n{done.stderr[-3000:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return float(json.loads(line.removeprefix("RESULT ")))


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", choices=list(FORMS))
    parser.add_argument("--dialogue-tokens", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--memory-runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        print(
            "RESULT " + json.dumps(train(options.worker, options.steps, options.dialogue_tokens)[1])
        )
        return
    # before anything is trained here: a child's peak counts from that of its parent
    memory = {
        name: [memory_of(name, options) for _ in range(options.memory_runs)] for name in FORMS
    }
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(options.rounds):
        for name in FORMS:
            found = train(name, options.steps, options.dialogue_tokens)[0]
            seconds[name] += found
            print(name, [round(item, 3) for item in found], flush=True)
    medians = {
        name: {
            "examples_per_second": QUERIES / statistics.median(seconds[name]),
            "seconds_per_step": statistics.median(seconds[name]),
            "peak_mb_above_start": statistics.median(memory[name]),
        }
        for name in FORMS
    }
    from ffr.provenance import now, versions

    separate = [name for name in FORMS if name != "packed"]
    fastest = max(separate, key=lambda name: medians[name]["examples_per_second"])
    leanest = min(separate, key=lambda name: medians[name]["peak_mb_above_start"])
    report = {
        "what": "SFT step on the queries of one dialogue: packed behind it against separate sequences; LoRA r=8, text only",
        "settings": {
            "queries": QUERIES, "dialogue_tokens": options.dialogue_tokens, "query_tokens": QUERY_TOKENS,
            "answer_tokens": ANSWER_TOKENS, "vocab": VOCAB, "threads": options.threads, "rounds": options.rounds,
            "timed_steps_a_round": options.steps, "model": "Qwen2-VL, hidden 256, 4 layers", "dtype": "float32",
        },
        "medians": medians,
        "fastest_separate": fastest,
        "ratio_examples_per_second": medians["packed"]["examples_per_second"] / medians[fastest]["examples_per_second"],
        "leanest_separate": leanest,
        "ratio_peak_memory": medians["packed"]["peak_mb_above_start"] / medians[leanest]["peak_mb_above_start"],
        "seconds_of_each_step": seconds,
        "peak_mb_of_each_run": memory,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    shown = (
        "medians",
        "fastest_separate",
        "ratio_examples_per_second",
        "leanest_separate",
        "ratio_peak_memory",
    )
    print(json.dumps({key: report[key] for key in shown}, indent=2))


if __name__ == "__main__":
    main()
