"""SFT step beside TRL's SFTTrainer: tokens a second and peak memory, on the same model, data, batch and threads.

Text only, since TRL takes pictures only through a full processor, which needs torchvision. Both train the same LoRA adapter on the
same random-weight Qwen2-VL with answer-only loss and AdamW. Each measurement is a process of its own; the two alternate; medians.

    python benchmarks/sft.py                 # all, writes benchmarks/results/sft.json
    python benchmarks/sft.py --worker ours   # one measurement, prints JSON
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

PROMPT_TOKENS, ANSWER_TOKENS = 1_000, 40
RESULT = Path(__file__).parent / "results" / "sft.json"


def make_model(vocab: int, **sizes: int) -> Any:
    """A Qwen2-VL with random weights; `sizes` are settings of its text part."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    text = {
        "vocab_size": vocab, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True, **sizes,
    }  # fmt: skip
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": text["hidden_size"], "num_heads": 2},
        image_token_id=3, video_token_id=4, vision_start_token_id=5, vision_end_token_id=6, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config)


def rows(number: int, vocab: int) -> list[list[int]]:
    import random

    chance = random.Random(0)
    return [
        [chance.randrange(10, vocab) for _ in range(PROMPT_TOKENS + ANSWER_TOKENS)]
        for _ in range(number)
    ]


def measure_ours(batch: int, steps: int, vocab: int) -> dict[str, float]:
    """The module's own training step inside Lightning's Trainer, as `ffr train sft` runs it."""
    import lightning as L
    from lightning.pytorch.callbacks import Callback

    from ffr.models.loading import load_vlm
    from ffr.models.lora import add_lora
    from ffr.models.rows import Encoded
    from ffr.models.vlm import Vlm
    from ffr.settings import SftConfig
    from ffr.shipped.tiny import TINY_FOLDER
    from ffr.training.common.loader import StepLoader
    from ffr.training.common.plan import TrainPlan
    from ffr.training.sft.module import SftModule

    tiny = load_vlm(
        TINY_FOLDER
    )  # for its tokenizer and processor only; its ids lie within the vocabulary
    vlm = Vlm(make_model(vocab), tiny.tokenizer, tiny.processor, name="benchmark")
    add_lora(vlm)
    vlm.train()
    config = SftConfig(batch_size=batch, accumulate=1, learning_rate=1e-4)
    data = [Encoded(ids, ANSWER_TOKENS) for ids in rows(batch * (steps + 1), vocab)]
    plan = TrainPlan([1] * len(data), batch_size=batch, accumulate=1, num_processes=1, epochs=1)
    module = SftModule(vlm, config, num_steps=plan.num_steps, fingerprints={})
    loader = StepLoader(plan, data.__getitem__, lambda index: ANSWER_TOKENS, num_workers=0)
    times: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, given: Any, *rest: Any
        ) -> None:
            module.take_step_figures(given)
            times.append(time.perf_counter())

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=1.0, callbacks=[Clock()],
    )  # fmt: skip
    base = peak_mb()
    trainer.fit(module, train_dataloaders=loader)
    return figures(times, batch, base)


def measure_trl(batch: int, steps: int, vocab: int) -> dict[str, float]:
    """TRL's SFTTrainer with peft, on data that is already tokenised."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from ffr.shipped.tiny import TINY_FOLDER

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            times.append(time.perf_counter())

    data = Dataset.from_list(
        [
            {"input_ids": ids, "labels": [-100] * PROMPT_TOKENS + ids[PROMPT_TOKENS:]}
            for ids in rows(batch * (steps + 1), vocab)
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=make_model(vocab),
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=batch, gradient_accumulation_steps=1, num_train_epochs=1,
                learning_rate=1e-4, logging_steps=1000, save_strategy="no", report_to="none", max_length=None,
                gradient_checkpointing=False, use_cpu=True, bf16=False,
                dataset_kwargs={"skip_prepare_dataset": True}, disable_tqdm=True,
            ),
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(TINY_FOLDER),
            peft_config=LoraConfig(
                r=8, lora_alpha=32, task_type="CAUSAL_LM",
                target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
            ),
            callbacks=[Clock()],
        )  # fmt: skip
        base = peak_mb()
        trainer.train()
    return figures(times, batch, base)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures(times: list[float], batch: int, base: float) -> dict[str, float]:
    seconds = statistics.median(after - before for before, after in pairwise(times))
    tokens = batch * (PROMPT_TOKENS + ANSWER_TOKENS)
    return {
        "tokens_per_second": tokens / seconds,
        "seconds_per_step": seconds,
        "peak_mb_above_start": peak_mb() - base,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", choices=["ours", "trl"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.worker:
        import torch

        torch.set_num_threads(options.threads)
        measure = measure_ours if options.worker == "ours" else measure_trl
        print("RESULT " + json.dumps(measure(options.batch, options.steps, options.vocab)))
        return
    found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    for _ in range(options.repeats):
        for name in found:
            command = [sys.executable, __file__, "--worker", name]
            for key in ("batch", "steps", "vocab", "threads"):
                command += [f"--{key}", str(getattr(options, key))]
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": str(options.threads),
                "HF_HUB_OFFLINE": "1",
            }
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            found[name].append(json.loads(line.removeprefix("RESULT ")))
            print(name, found[name][-1], flush=True)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    from ffr.provenance import now, versions

    report = {
        "what": "SFT step, LoRA r=8, text only, answer-only loss",
        "settings": {
            "batch": options.batch, "prompt_tokens": PROMPT_TOKENS, "answer_tokens": ANSWER_TOKENS, "vocab": options.vocab,
            "threads": options.threads, "repeats": options.repeats, "steps": options.steps, "model": "Qwen2-VL, hidden 256, 4 layers",
        },
        "medians": medians,
        "ratio_tokens_per_second": medians["ours"]["tokens_per_second"] / medians["trl"]["tokens_per_second"],
        "ratio_peak_memory": medians["ours"]["peak_mb_above_start"] / medians["trl"]["peak_mb_above_start"],
        "runs": found,
        "versions": versions(),
        "at": now(),
    }  # fmt: skip
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        json.dumps(
            {
                key: report[key]
                for key in ("medians", "ratio_tokens_per_second", "ratio_peak_memory")
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
