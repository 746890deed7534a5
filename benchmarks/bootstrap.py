"""Intervals of all figures by `ffr.evaluation.bootstrap` against a plain loop, on one thread.

The peer draws dialogues with `random.choices`, adds up numpy rows and computes the same figures without slices; it does few
resamples, and its time is scaled to the number that ours does. Run: `python benchmarks/bootstrap.py [--out FILE]`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

import numpy as np

from ffr.answer import format_answer
from ffr.dialogue import Fragment
from ffr.evaluation.bootstrap import NUM_RESAMPLES, interval_table
from ffr.evaluation.scoring import ScoredRows, ScoreTable
from ffr.metrics.functional.figures import figure_names, figures_of, with_joint

NUM_ANSWERS = 10_000


def make_rows(num_dialogues: int, seed: int = 0) -> ScoredRows:
    """10,000 answers on so many dialogues of 20 to 90 lines: a tenth of the truths empty, one answer of thirty malformed."""
    chance, table = random.Random(seed), ScoreTable()
    for number in range(num_dialogues):
        size, language = chance.randint(20, 90), chance.choice(["zh", "en"])
        for _ in range(NUM_ANSWERS // num_dialogues):
            truth = Fragment()
            if chance.random() > 0.1:
                utterances = chance.sample(range(size), chance.randint(1, size // 2))
                truth = Fragment.of(utterances, chance.sample(range(5), chance.randint(0, 3)))
            kept = [item for item in truth.utterance_ids if chance.random() < 0.8]
            answer = format_answer(
                Fragment.of(kept + chance.sample(range(size), 2), truth.image_ids)
            )
            table.add(
                answer if chance.random() > 1 / 30 else f"Here: {answer}",
                truth,
                num_utterances=size,
                num_images=5,
                dialogue=str(number),
                language=language,
            )
    return table.rows()


def plain_loop(rows: ScoredRows, num_resamples: int) -> list[float]:
    """Joint F1's interval by a loop over resamples, with all other figures computed on the way, read both ways."""
    chance = random.Random(0)
    by_dialogue: dict[str, list[int]] = {}
    for row, name in enumerate(rows.dialogues):
        by_dialogue.setdefault(name, []).append(row)
    members = list(by_dialogue.values())
    readings = [
        (rows.counts, rows.sample_figures, rows.exact),
        (rows.strict_counts, rows.strict_sample_figures, rows.exact & rows.valid),
    ]
    found = []
    for _ in range(num_resamples):
        drawn = np.array(
            [row for its_rows in chance.choices(members, k=len(members)) for row in its_rows]
        )
        for place, (counts, samples, exact) in enumerate(readings):
            figures = with_joint(figures_of(counts[drawn].sum(0)))
            with_joint(samples[drawn].mean(0))
            exact[drawn].mean()
            if place == 0:
                found.append(float(figures[figure_names().index("joint_f1")]))
    return [float(value) for value in np.quantile(found, [0.025, 0.975])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-resamples", type=int, default=200)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "bootstrap.json"
    )
    arguments = parser.parse_args()
    results = []
    for num_dialogues in (10_000, 2_500):
        rows = make_rows(num_dialogues)
        wall: list[float] = []
        cpu: list[float] = []
        peer_cpu: list[float] = []
        for _ in range(arguments.rounds):
            start, start_cpu = time.perf_counter(), time.process_time()
            table = interval_table(rows)
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
            start_cpu = time.process_time()
            peer = plain_loop(rows, arguments.peer_resamples)
            peer_cpu.append(
                (time.process_time() - start_cpu) * NUM_RESAMPLES / arguments.peer_resamples
            )
        results.append(
            {
                "num_answers": len(rows),
                "num_dialogues": num_dialogues,
                "num_resamples": NUM_RESAMPLES,
                "num_intervals": sum(
                    len(slices) if isinstance(slices, dict) else 0
                    for name in table
                    if isinstance(table[name], dict)
                    for slices in (
                        [table[name]] if name.endswith("scores") else table[name].values()
                    )
                ),
                "seconds_cpu": round(statistics.median(cpu), 3),
                "all_seconds_cpu": [round(value, 3) for value in cpu],
                "seconds_wall": round(statistics.median(wall), 3),
                "all_seconds_wall": [round(value, 3) for value in wall],
                "peer_seconds_cpu_scaled": round(statistics.median(peer_cpu), 1),
                "times_faster": round(statistics.median(peer_cpu) / statistics.median(cpu), 1),
                "joint_f1": table["scores"]["joint_f1"],
                "peer_joint_f1": peer,
            }
        )
    content = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "load_average_at_end": os.getloadavg()[0],
        "peer_resamples": arguments.peer_resamples,
        "rounds": arguments.rounds,
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for item in results:
        print(
            f"{item['num_answers']:,} answers on {item['num_dialogues']:,} dialogues: {item['num_intervals']} intervals in "
            f"{item['seconds_cpu']} s of CPU ({item['seconds_wall']} s by the clock); a plain loop without slices "
            f"{item['peer_seconds_cpu_scaled']} s: {item['times_faster']}×"
        )


if __name__ == "__main__":
    main()
