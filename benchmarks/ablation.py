"""What each part of the training is worth on the embedded sets: base, SFT, GRPO in every order of the data, and without its rewards.

`python benchmarks/ablation.py --out DIR [--workers 2] [--seeds 0 1 2]` trains `tiny` once a seed and condition through the `ffr`
command, measures each model on some 450 unseen queries of `sample`'s world (its validation part and that of another generator seed),
and writes `benchmarks/results/ablation.{json,md}`. Stopped, the same command goes on: what is finished is not done again.

`--sft-epochs 1 --steps 64 --epochs 3 --name ablation-short-start` starts from a short cold start, as the paper's is, and lets all GRPO runs take as many
steps, though the paper's curriculum leaves items out; `--conditions` picks some.

GRPO runs start from the SFT run of their own seed, on the part `grpo` that SFT has not seen. `sft-more` is the control that GRPO must be
held against: SFT on that same part instead, from the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ffr_command import ffr

from ffr.data.catalog import load_dataset
from ffr.data.sample import write_sample
from ffr.provenance import versions
from ffr.runs import RunRecord

RESULTS = Path(__file__).parent / "results"
GRPO = ("train", "grpo")
PAPER = (*GRPO, "--curriculum", "paper")
CONDITIONS: dict[str, tuple[str, ...]] = {
    "base": (),
    "sft": ("train", "sft"),
    "sft-more": ("train", "sft", "-o", "split=grpo", "-o", "epochs=1", "-o", "learning_rate=1e-3"),
    # the recipe's rewards: F1 and format
    "grpo": GRPO,
    "grpo-paper": PAPER,
    "grpo-paced": (*GRPO, "--curriculum", "paced"),
    "grpo-online": (*GRPO, "--curriculum", "online"),
    # the paper's rewards, and these without F1; without fragment order they are grpo-paper's
    "grpo-paper-with-order": (*PAPER, "-o", "order_weight=1"),
    "grpo-paper-with-order-without-f1": (*PAPER, "-o", "order_weight=1", "-o", "f1_weight=0"),
}
FIGURES = ("utterance_f1", "image_f1", "joint_f1", "strict_joint_f1", "coherence", "well_formed")
VALIDATION_SEEDS = (0, 1)


def make_validation(out: Path) -> Path:
    """The validation parts of several generator seeds as one file."""
    target = out / "validation" / "validation.jsonl"
    if target.is_file():
        return target
    lines = []
    for seed in VALIDATION_SEEDS:
        write_sample(target.parent / str(seed), "sample", seed)
        for line in (
            (target.parent / str(seed) / "val.jsonl").read_text(encoding="utf-8").splitlines()
        ):
            record = json.loads(line)
            record["dialogue_id"] = f"{seed}_{record['dialogue_id']}"
            record["images"] = [f"{seed}/{image}" for image in record["images"]]
            lines.append(json.dumps(record, ensure_ascii=False))
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def train(out: Path, name: str, seed: int, options: argparse.Namespace) -> str:
    """Trains a condition and returns the model it made."""
    if name == "base":
        return "tiny"
    run = out / f"{name}-{seed}"
    words = list(CONDITIONS[name])
    if (run / "run.json").is_file():
        if RunRecord.load(run).status != "finished":
            ffr(*words[:2], "--resume", str(run), log=out / f"{run.name}.log")
        return str(run)
    start = str(out / f"sft-{seed}")
    if name == "sft" and options.sft_epochs is not None:
        words += ["-o", f"epochs={options.sft_epochs}"]
    if name == "sft-more":
        words += ["--model", start]
    elif words[:2] == list(GRPO):
        words += [
            "--from",
            start,
            "-o",
            f"max_steps={options.steps}",
            "-o",
            f"epochs={options.epochs}",
        ]
        words += ["-o", "val_examples=0", "-o", "show_samples_every_steps=0"]
    ffr(
        *words, "--seed", str(seed), "--out", str(run), "--no-progress", log=out / f"{run.name}.log"
    )
    return str(run)


def measure(out: Path, validation: Path, name: str, seed: int, model: str) -> dict[str, float]:
    """Figures of a model on the validation file."""
    folder = out / "eval" / f"{name}-{seed}"
    if not (folder / "results.json").is_file():
        words = [
            "--model",
            model,
            "--dataset",
            str(validation),
            "--max-new-tokens",
            "256",
            "--coherence",
            "--encoder",
            "tiny-clip",
        ]
        ffr(
            "eval",
            *words,
            "--no-baselines",
            "--out",
            str(folder),
            "--no-progress",
            log=out / f"{name}-{seed}.log",
        )
    summary = json.loads((folder / "results.json").read_text(encoding="utf-8"))["summary"]
    return {
        **{figure: summary["scores"][figure] for figure in FIGURES[:3]},
        "strict_joint_f1": summary["strict_scores"]["joint_f1"],
        "coherence": summary["coherence"]["mean"],
        "well_formed": 1 - summary["answers"]["malformed_share"],
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds."""
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(
        values
    ) > 1 else math.nan


def table(found: dict[str, dict[int, dict[str, float]]], seeds: Sequence[int]) -> str:
    lines = [
        "| condition | " + " | ".join(FIGURES) + " | joint F1 over SFT |",
        "|" + "---|" * (len(FIGURES) + 2),
    ]
    for name, by_seed in found.items():
        cells = []
        for figure in FIGURES:
            mean, error = mean_and_error([by_seed[seed][figure] for seed in seeds])
            cells.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
        gain, error = mean_and_error(
            [by_seed[s]["joint_f1"] - found["sft"][s]["joint_f1"] for s in seeds]
        )
        lines.append(
            f"| {name} | " + " | ".join(cells) + f" | {100 * gain:+.2f} ± {100 * error:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and evaluations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=48, help="steps of each GRPO run")
    parser.add_argument(
        "--epochs", type=float, default=1, help="passes of each GRPO run over its data at most"
    )
    parser.add_argument(
        "--sft-epochs", type=float, help="passes of SFT over its data; default: the recipe's"
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        choices=list(CONDITIONS),
        default=list(CONDITIONS),
        metavar="NAME",
    )
    parser.add_argument(
        "--name", default="ablation", help="what the files of the results are called"
    )
    parser.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    validation = make_validation(out)
    load_dataset("sample", split="grpo")  # made once, before workers start

    def do(job: tuple[str, int]) -> dict[str, float]:
        name, seed = job
        return measure(out, validation, name, seed, train(out, name, seed, options))

    chosen = [name for name in CONDITIONS if name in ("base", "sft", *options.conditions)]
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in chosen}
    first = [("sft", seed) for seed in options.seeds]
    rest = [
        (name, seed) for name in chosen if name not in ("base", "sft") for seed in options.seeds
    ]
    found["base"] = dict.fromkeys(options.seeds, do(("base", options.seeds[0])))
    with ThreadPoolExecutor(options.workers) as pool:
        for jobs in (first, rest):
            for (name, seed), figures in zip(jobs, pool.map(do, jobs), strict=True):
                found[name][seed] = figures
                print(
                    f"{name} {seed}: "
                    + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()),
                    flush=True,
                )
    text = table(found, options.seeds)
    data = load_dataset(validation)
    report: dict[str, Any] = {
        "seeds": options.seeds,
        "grpo_steps": options.steps,
        "grpo_epochs": options.epochs,
        "sft_epochs": options.sft_epochs or "recipe",
        "validation": {
            "queries": len(data),
            "fingerprint": data.fingerprint,
            "generator_seeds": VALIDATION_SEEDS,
        },
        "conditions": {name: " ".join(CONDITIONS[name]) for name in chosen},
        "figures": found,
        "versions": versions(),
    }
    (RESULTS / f"{options.name}.json").write_text(
        json.dumps(report, indent=1) + "\n", encoding="utf-8"
    )
    (RESULTS / f"{options.name}.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
