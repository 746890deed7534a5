"""How far what samples is from what is trained, by precision and by what answers are sampled with: `tiny`, GRPO on the sample set.

Each form is the same short training of its own (`metrics.csv` has the gap of every step); nothing is timed.

    python benchmarks/sampling_gap.py      # writes benchmarks/results/sampling_gap.json
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from ffr.provenance import now, versions
from ffr.settings import GrpoConfig
from ffr.training.common.stage import Job, train
from ffr.training.grpo.stage import GrpoStage

RESULT = Path(__file__).parent / "results" / "sampling_gap.json"
SETTINGS: dict[str, Any] = {
    "model": "tiny", "max_steps": 8, "batch_size": 2, "accumulate": 1, "num_generations": 4, "max_new_tokens": 32,
    "val_examples": 0, "learning_rate": 2e-4, "warmup_share": 0, "num_threads": 1, "gradient_checkpointing": False,
    "resample_attempts": 0, "order_weight": 0.0, "show_samples_every_steps": 0, "accelerator": "cpu",
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "adapters": {},
    "merged": {"sampling_weights": "merged"},
    "guesses": {"draft_tokens": 8},
}
FORMS = [(precision, way) for precision in ("fp32", "bf16") for way in WAYS]


def gaps_of(precision: str, way: str, folder: Path) -> dict[str, float]:
    """Over the steps of a training: the median of the mean gap, the largest gap, the share of tokens at the cap, and the reward."""
    config = GrpoConfig(**SETTINGS, **WAYS[way], precision=precision)  # type: ignore[arg-type]
    run = train(GrpoStage(), config, Job(run=folder, say=lambda text: None, progress=False)).run
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        "gap_mean": statistics.median(float(row["sampling_gap_mean"]) for row in rows),
        "gap_max": max(float(row["sampling_gap_max"]) for row in rows),
        "capped_share": max(float(row["importance_capped_share"] or 0) for row in rows),
        "reward": statistics.fmean(float(row["reward"]) for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (precision, way) in enumerate(FORMS):
            name = f"{precision}, {way}"
            found[name] = gaps_of(precision, way, Path(folder) / str(number))
            print(f"{name:<16} {json.dumps(found[name])}", flush=True)
    report = {
        "what": "|log p in sampling - log p in training|, nats a token; median of the steps' means, and the largest of all",
        "settings": SETTINGS,
        "forms": found,
        "versions": versions(),
        "at": now(),
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
