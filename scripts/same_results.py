"""Whether two checkouts give the same results: short seeded trainings, evaluations and exports in both, side by side.

Floats differ from one processor to the next, so a refactoring is judged by running the checkout before it and the one after it
in one go on one machine:

    python scripts/same_results.py BEFORE AFTER [--mended learning_rate,no_signal_share]

Each job runs in both checkouts one after the other, with one thread, in folders of their own. What is compared: the rows of
`metrics.csv` (not speed and memory), the bytes of merged weights, answers and figures of evaluations, and vectors of exported
graphs. Exit code 1 where anything differs that was not named as mended.

With `--rounds N` each job is repeated N times in turn in both, and the medians of its CPU seconds
and their ratio (before over after: above 1 is faster) are printed and written by `--times FILE`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOT_REPEATABLE = {
    "tokens_per_second",
    "peak_memory_mb",
    "seconds_rollout",
    "seconds_reference",
    "seconds_update",
}
TIMEOUT_SECONDS = 900
SFT = [
    "-o", "max_steps=6", "-o", "batch_size=4", "-o", "val_examples=4", "-o", "val_every_steps=3",
    "-o", "lora_dropout=0.1", "-o", "num_threads=1",
]  # fmt: skip
GRPO = [
    "-o", "max_steps=3", "-o", "batch_size=2", "-o", "accumulate=2", "-o", "num_generations=4", "-o", "max_new_tokens=40",
    "-o", "val_examples=3", "-o", "val_every_steps=2", "-o", "num_threads=1", "-o", "lora_dropout=0.1",
    "-o", "resample_attempts=1",
]  # fmt: skip
ORDER = ["-o", "order_weight=1", "-o", "encoder=tiny-clip"]
JOBS: dict[str, list[str]] = {
    "sft": ["train", "sft", *SFT, "--out", "sft"],
    "sft packed": ["train", "sft", *SFT, "-o", "pack_queries=true", "-o", "lora_rank=0", "--out", "sft-packed"],
    "grpo": ["train", "grpo", "--from", "sft", *GRPO, *ORDER, "--out", "grpo"],
    "grpo paper": ["train", "grpo", "--from", "sft", "--curriculum", "paper", *GRPO, "--out", "grpo-paper"],
    "grpo packed": [
        "train", "grpo", "--from", "sft", *GRPO, "-o", "pack_queries=true", "-o", "updates_per_rollout=2", "--out", "grpo-packed",
    ],
    "eval": ["eval", "--model", "sft", "--dataset", "sample", "--limit", "24", "--device", "cpu", "--out", "eval"],
    "eval constrained": [
        "eval", "--model", "tiny", "--dataset", "sample", "--limit", "12", "--constrained", "--device", "cpu",
        "--out", "eval-constrained",
    ],
    "eval windows": [
        "eval", "--model", "tiny", "--dataset", "wechat-sample", "--limit", "3", "--window", "20", "--overlap", "5",
        "--device", "cpu", "--out", "eval-windows",
    ],
    "eval embedding": [
        "eval", "--model", "embedding:tiny-clip", "--dataset", "sample", "--coherence", "--device", "cpu", "--out", "eval-embedding",
    ],
    "export text": ["export", "onnx", "--model", "tiny-clip", "--part", "text", "--out", "text"],
    "export fragment": ["export", "onnx", "--model", "tiny-clip", "--part", "fragment", "--out", "fragment"],
    "export vision": ["export", "onnx", "--model", "tiny", "--part", "vision", "--out", "vision"],
}  # fmt: skip


def packages_of(checkout: Path, scratch: Path) -> Path:
    """A folder for PYTHONPATH in which the four packages of a checkout have their installed names."""
    package = scratch / "path" / "ffr"
    package.mkdir(parents=True)
    for entry in (checkout / "ffr").iterdir():
        (package / entry.name).symlink_to(entry)
    for name in ("cli", "metrics", "exports"):
        (package / name).symlink_to(checkout / name)
    return package.parent


def run_job(words: list[str], folder: Path, path: Path) -> float:
    """Runs one command of a checkout in its folder and tells the CPU seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", "from ffr.cli.main import main; main()", *words],
        cwd=folder,
        env={
            **os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "FFR_DATA_HOME": str(folder / "data"),
            "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "100",
        },
        capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(
            f"{folder.name}: ffr {' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def metrics_of(run: Path) -> dict[str, Any]:
    """The columns of a run's `metrics.csv`, as text, so that they are compared to the last digit."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0] if name not in NOT_REPEATABLE}


def weights_of(run: Path) -> dict[str, Any]:
    """SHA-256 of the merged weights."""
    return {
        "merged weights": hashlib.sha256(
            (run / "merged" / "model.safetensors").read_bytes()
        ).hexdigest()[:16]
    }


def answers_of(out: Path) -> dict[str, Any]:
    """Answers with their log-probabilities, and all figures, of an evaluation."""
    lines = [
        json.loads(line)
        for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    figures = {
        f"{table} {name}": value
        for table in ("scores", "strict_scores", "standard_errors", "coherence")
        for name, value in results["summary"].get(table, {}).items()
    }
    return {
        "responses": [line["response"] for line in lines],
        "log-probabilities": [line.get("logprobs") for line in lines],
        "intervals": results["intervals"],
        **figures,
    }


def vectors_of(folder: Path) -> dict[str, Any]:
    """What an exported graph makes of fixed numbers, and the largest difference that its own check found."""
    import numpy as np
    import onnxruntime

    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), quiet, providers=["CPUExecutionProvider"]
    )
    draw = np.random.default_rng(0)
    feed = {}
    for item in session.get_inputs():
        shape = [side if isinstance(side, int) else 4 for side in item.shape]
        if "int" in item.type:
            feed[item.name] = np.ones(
                shape, dtype=item.type.removeprefix("tensor(").removesuffix(")")
            )
        else:
            feed[item.name] = draw.standard_normal(shape).astype(np.float32)
    try:
        found = [
            hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()[:16]
            for part in session.run(None, feed)
        ]
    except Exception as error:  # a shape that the graph does not take says nothing of the checkout
        found = [type(error).__name__]
    return {
        "vectors": found,
        "parity": json.loads((folder / "export.json").read_text(encoding="utf-8")).get("parity"),
    }


def look(job: str, folder: Path) -> dict[str, Any]:
    """What a job left in a folder."""
    out = folder / JOBS[job][-1]
    readers: list[Callable[[Path], dict[str, Any]]] = [vectors_of]
    if job.startswith(("sft", "grpo")):
        readers = [metrics_of, weights_of]
    elif job.startswith("eval"):
        readers = [answers_of]
    return {name: value for reader in readers for name, value in reader(out).items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--mended", default="", help="figures that are meant to differ, with commas"
    )
    parser.add_argument(
        "--jobs",
        default=",".join(JOBS),
        help="which jobs, with commas; trainings and evaluations need sft",
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each job is run in both")
    parser.add_argument("--times", type=Path, help="JSON file for the CPU seconds")
    options = parser.parse_args()
    times: dict[str, dict[str, Any]] = {}
    mended = set(options.mended.split(",")) - {""}
    num_equal, different = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        sides = []
        for name, checkout in (("before", options.before), ("after", options.after)):
            folder = Path(scratch) / name
            folder.mkdir()
            sides.append((folder, packages_of(checkout.resolve(), folder)))
        for job in options.jobs.split(","):
            seconds: list[list[float]] = [[], []]
            for number in range(options.rounds):
                # in turn, and each first every other time: a machine's moods meet both alike
                for side in (0, 1) if number % 2 == 0 else (1, 0):
                    folder, path = sides[side]
                    shutil.rmtree(folder / JOBS[job][-1], ignore_errors=True)
                    seconds[side].append(run_job(JOBS[job], folder, path))
            medians = [statistics.median(values) for values in seconds]
            times[job] = {
                "before": seconds[0], "after": seconds[1], "medians": medians, "ratio": medians[0] / medians[1],
            }  # fmt: skip
            before, after = (look(job, folder) for folder, _ in sides)
            names = [
                name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
            ]
            num_equal += len(before.keys() | after.keys()) - len(names)
            wrong = sorted(set(names) - mended)
            different += [
                f"{job}: {name}: {str(before.get(name))[:160]} → {str(after.get(name))[:160]}"
                for name in wrong
            ]
            note = (
                f" (mended: {', '.join(sorted(set(names) & mended))})"
                if set(names) & mended
                else ""
            )
            verdict = "DIFFERS in " + ", ".join(wrong) if wrong else "equal"
            print(f"{job:18} {times[job]['ratio']:.2f}x  {verdict}{note}", flush=True)
    for line in different:
        print(line)
    if options.times is not None:
        content = {"rounds": options.rounds, "threads": 1, "unit": "CPU seconds", "jobs": times}
        options.times.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{num_equal} quantities equal, {len(different)} differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
