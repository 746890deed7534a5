"""How fast an exported folder is beside its model: same inputs, threads and numbers, in turns.

Each contender is a process of its own, so that memory is its own and neither's threads disturb the
other; they take turns call by call, and one works while the others wait.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ffr import provenance
from ffr.errors import ModelError, UsageError
from ffr.files import temporary_folder

CONTENDERS = ("onnx", "torch", "compile")


@dataclass(frozen=True, slots=True)
class Load:
    """What is run.

    Args:
        folder: The export.
        model: The model it came from; a folder or hub id.
        batch_sizes: Images or texts of a call.
        num_threads: Threads of each contender.
        num_rounds: Calls of each contender and batch size that count.
        device: cpu or cuda.
        image_side: Side of the pictures in pixels.
    """

    folder: str
    model: str
    batch_sizes: tuple[int, ...]
    num_threads: int
    num_rounds: int
    device: str
    image_side: int


def run_bench(load: Load, contenders: Sequence[str] = ("onnx", "torch")) -> dict[str, Any]:
    """Measures an export beside its model.

    Args:
        load: What is run.
        contenders: Of `CONTENDERS`; the first round of each is not counted.

    Returns:
        Versions, the load and for each batch size and contender: median and 95th percentile of
        seconds a call, items a second, peak of memory in bytes above the state before the model was
        loaded, and the ratio of the medians to eager torch.

    Raises:
        ModelError: where a contender fails.
        UsageError: where one is unknown.
    """
    if unknown := sorted(set(contenders) - set(CONTENDERS)):
        raise UsageError(f"contender {unknown[0]!r} is unknown; use {', '.join(CONTENDERS)}")
    with temporary_folder() as place:
        maker = _Worker("inputs", load, str(place))
        try:
            maker.answer()
        finally:
            maker.stop()
        workers = {name: _Worker(name, load, str(place)) for name in contenders}
        try:
            ready = {name: worker.answer() for name, worker in workers.items()}
            results = []
            for size in load.batch_sizes:
                seconds: dict[str, list[float]] = {name: [] for name in contenders}
                busy: dict[str, list[float]] = {name: [] for name in contenders}
                memory: dict[str, int] = {}
                for number in range(load.num_rounds + 1):
                    for name, worker in workers.items():
                        answer = worker.ask({"batch_size": size})
                        memory[name] = answer["peak_bytes"]
                        if number:
                            seconds[name].append(answer["seconds"])
                            busy[name].append(answer["cpu_seconds"])
                results.append(_figures(size, seconds, busy, memory))
        finally:
            for worker in workers.values():
                worker.stop()
    return {
        "load": asdict(load),
        "contenders": ready,
        "results": results,
        "versions": provenance.versions(),
        "time": provenance.now(),
    }


def _figures(
    size: int, seconds: dict[str, list[float]], busy: dict[str, list[float]], memory: dict[str, int]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, taken in seconds.items():
        median = statistics.median(taken)
        rows[name] = {
            "median_seconds": median,
            "p95_seconds": sorted(taken)[min(len(taken) - 1, round(0.95 * (len(taken) - 1)))],
            "items_per_second": size / median,
            "median_cpu_seconds": statistics.median(busy[name]),
            "peak_bytes": memory[name],
        }
    if "torch" in rows:
        for name, row in rows.items():
            # the turns of one round lie side by side in time, so other load meets both
            row["speed_against_torch"] = statistics.median(
                reference / own
                for reference, own in zip(seconds["torch"], seconds[name], strict=True)
            )
            row["cpu_against_torch"] = statistics.median(
                reference / own for reference, own in zip(busy["torch"], busy[name], strict=True)
            )
    return {"batch_size": size, "contenders": rows}


def as_table(result: dict[str, Any]) -> str:
    """The result as a table in Markdown."""
    lines = [
        "| batch | contender | median ms | p95 ms | items/s | against torch | by CPU time | peak "
        "MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["results"]:
        for name, item in row["contenders"].items():
            ratios = " | ".join(
                f"{item[key]:.2f}×" if key in item else ""
                for key in ("speed_against_torch", "cpu_against_torch")
            )
            lines.append(
                f"| {row['batch_size']} | {name} | {1e3 * item['median_seconds']:.1f} | "
                f"{1e3 * item['p95_seconds']:.1f} | "
                f"{item['items_per_second']:.1f} | {ratios} | {item['peak_bytes'] / 1e6:.0f} |"
            )
    return "\n".join(lines)


_START = "import sys; from ffr.exports.contenders import serve; serve(*sys.argv[1:])"


class _Worker:
    """A contender in its process.

    Args:
        name: Which.
        load: What it runs.
        place: Where its inputs lie.
    """

    def __init__(self, name: str, load: Load, place: str) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(load.num_threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, name, json.dumps(asdict(load)), place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what went wrong is in its answer, or nowhere
        return self.answer()

    def answer(self) -> dict[str, Any]:
        stream: IO[str] | None = self._process.stdout
        assert stream is not None
        line = stream.readline()
        if not line:
            raise ModelError(
                f"the contender {self.name} ended (exit status {self._process.wait()}); see its "
                "messages above"
            )
        content: dict[str, Any] = json.loads(line)
        if "error" in content:
            raise ModelError(f"the contender {self.name} failed: {content['error']}")
        return content

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


# -- in a contender's process ----------------------------------------------------------------------


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():
        # what `resource` says on Linux includes the parent's, from before this program was started
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(held.split()[1]) * 1024
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (
        1 if sys.platform == "darwin" else 1024
    )


def serve_calls(prepare: Callable[[], Any], inputs: Callable[[int], Any] | None) -> None:
    """Answers questions on stdin, one a line, until there are no more.

    Args:
        prepare: Loads the contender; what it takes above the memory held before counts as the
            contender's.
        inputs: The inputs of a batch size, not timed; None for a process that only prepares.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(content: dict[str, Any]) -> None:
        out.write(json.dumps(content) + "\n")
        out.flush()

    try:
        start = _resident()
        contender = prepare()
        say({"ready": True, **(contender.about if contender is not None else {})})
        if inputs is None:
            return
        for line in sys.stdin:
            given = inputs(json.loads(line)["batch_size"])
            began, cpu = time.perf_counter(), time.process_time()
            contender.run(given)
            taken, busy = time.perf_counter() - began, time.process_time() - cpu
            say({"seconds": taken, "cpu_seconds": busy, "peak_bytes": max(0, _peak() - start)})
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})  # for the parent, which raises it
        raise
