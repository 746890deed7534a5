"""CPU seconds of the commands that read results: `ffr compare`, `gate`, `report` and `show` on the sample.

Each runs in a process of its own, starting the interpreter included. Run: `python benchmarks/readers.py [--out FILE]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = {
    "compare": ["compare", "overlap", "everything"],
    "gate": ["gate", "overlap", "--baseline", "overlap"],
    "report": ["report", "overlap"],
    "show": ["show", "overlap", "--id", "3"],
}
MAX_SECONDS = 1.5


def cpu_seconds(words: list[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "from ffr.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "readers.json"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in ("overlap", "everything"):
            words = ["eval", "--model", f"baseline:{model}", "--dataset", "sample", "--out", model]
            cpu_seconds([*words, "--no-progress"], folder)
        found = {
            command: [round(cpu_seconds(words, folder), 3) for _ in range(arguments.rounds)]
            for command, words in COMMANDS.items()
        }
    medians = {command: statistics.median(seconds) for command, seconds in found.items()}
    content = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average_at_end": os.getloadavg()[0],
        "seconds_cpu": medians,
        "all_seconds_cpu": found,
        "max_seconds": MAX_SECONDS,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for command, seconds in medians.items():
        print(f"ffr {command}: {seconds:.2f} s of CPU")
    if max(medians.values()) > MAX_SECONDS:
        raise SystemExit(f"more than {MAX_SECONDS} s")


if __name__ == "__main__":
    main()
