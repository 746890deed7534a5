"""Times reading a large .jsonl beside `json.loads` alone: interleaved runs, medians, and the memory that each takes.

python benchmarks/reading.py [--megabytes 200] [--rounds 5] [--out benchmarks/results/reading.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ffr.data.dataset import open_dataset
from ffr.data.forms.ms_swift import example_to_record
from ffr.data.index import RecordFile
from ffr.dialogue import Dialogue, Example, Fragment, Image, Utterance

_WORDS = [
    "今天",
    "天气",
    "很好",
    "我们",
    "去",
    "公园",
    "照片",
    "猫",
    "火车",
    "晚饭",
    "the",
    "train",
    "leaves",
    "at",
    "nine",
    "and",
    "we",
    "will",
    "have",
    "dinner",
    "later",
]


def write_file(path: Path, num_bytes: int) -> int:
    """Writes generated records of about 34 turns (as the real training set has) and tells how many."""
    chance = random.Random(0)
    written = count = 0
    with path.open("wb") as file:
        while written < num_bytes:
            lines = [
                Utterance(
                    f"user{index % 2 + 1}",
                    (" ".join(chance.choices(_WORDS, k=chance.randint(3, 16))),),
                )
                for index in range(chance.randint(20, 48))
            ]
            for image in range(3):
                lines.insert(
                    chance.randrange(len(lines)),
                    Utterance("user1", (Image(f"images/{image}.jpg"),)),
                )
            ids = sorted(chance.sample(range(len(lines)), 8))
            example = Example(
                Dialogue(f"d{count}", tuple(lines)),
                " ".join(chance.choices(_WORDS, k=6)),
                Fragment(tuple(ids)),
            )
            line = json.dumps(example_to_record(example), ensure_ascii=False).encode() + b"\n"
            written += file.write(line)
            count += 1
    return count


def _json_alone(path: Path) -> int:
    count = 0
    with path.open("rb") as lines:
        for line in lines:
            json.loads(line)
            count += 1
    return count


def _index(path: Path) -> int:
    return len(RecordFile(path))


def _open(path: Path) -> int:
    return len(open_dataset(path, require_images=False))


def _open_and_iterate(path: Path) -> int:
    return sum(1 for _ in open_dataset(path, require_images=False))


WAYS: dict[str, tuple[str, Callable[[Path], int]]] = {
    "json": ("json.loads of every line, nothing kept", _json_alone),
    "index": ("our index of offsets", _index),
    "open": ("open_dataset: index, parse and check all, fingerprint", _open),
    "open+iterate": ("open_dataset, then every example once more", _open_and_iterate),
}


def _peak_mebibytes(way: str, path: Path) -> float:
    """Peak resident memory of a fresh process that does it; `imports` for one that only starts."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import reading; from pathlib import Path\n"
        "if sys.argv[2] in reading.WAYS: reading.WAYS[sys.argv[2]][1](Path(sys.argv[3]))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, here, way, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "reading.json"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.jsonl")
        num_records = write_file(path, arguments.megabytes * 1_000_000)
        megabytes = path.stat().st_size / 1e6
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(arguments.rounds):
            for name, (_, way) in WAYS.items():
                start = time.perf_counter()
                assert way(path) == num_records
                seconds[name].append(time.perf_counter() - start)
        peaks = {name: _peak_mebibytes(name, path) for name in (*WAYS, "imports")}
    base = statistics.median(seconds["json"])
    rows = {
        name: {
            "what": what,
            "median_seconds": round(statistics.median(seconds[name]), 3),
            "all_seconds": [round(value, 3) for value in seconds[name]],
            "megabytes_per_second": round(megabytes / statistics.median(seconds[name]), 1),
            "times_json": round(statistics.median(seconds[name]) / base, 2),
            "peak_mebibytes": round(peaks[name], 1),
        }
        for name, (what, _) in WAYS.items()
    }
    result = {
        "megabytes": round(megabytes, 1),
        "num_records": num_records,
        "rounds": arguments.rounds,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average_at_end": os.getloadavg()[0],
        "peak_mebibytes_of_imports": round(peaks["imports"], 1),
        "ways": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    print(
        f"{megabytes:.0f} MB, {num_records:,} records, median of {arguments.rounds} interleaved rounds"
    )
    for name, row in rows.items():
        print(
            f"{name:13} {row['median_seconds']:7.2f} s {row['megabytes_per_second']:8.1f} MB/s {row['times_json']:6.2f} × json "
            f"{row['peak_mebibytes']:8.1f} MiB  {row['what']}"
        )


if __name__ == "__main__":
    main()
