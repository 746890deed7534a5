"""How long a question's vector takes by ONNX Runtime, beside the same encoder in torch.

    python benchmarks/question.py --rounds 30 --out benchmarks/results/question.json

Both ways of `ffr.embedding.sentence.SentenceEncoder`, of e5, in one process and in turn, question by
question, on one thread and on two; medians of the clock and of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reader import QUESTIONS

from ffr.embedding import load_encoder
from ffr.files import replace_json
from ffr.provenance import versions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoder = load_encoder("e5")
    ways: dict[str, Callable[[str], torch.Tensor]] = {
        "onnxruntime": lambda text: encoder.embed_texts([text]),
        "torch": lambda text: encoder.embed_each([text]),
    }
    asked = [f"query: {question}" for question in QUESTIONS]
    apart = max(float((ways["torch"](x) - ways["onnxruntime"](x)).abs().max()) for x in asked)
    found: dict[str, object] = {"largest_difference": apart}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for question in asked:
                for way, embed in ways.items():
                    begun = time.perf_counter(), time.process_time()
                    embed(question)
                    taken[way].append(
                        (time.perf_counter() - begun[0], time.process_time() - begun[1])
                    )
        medians = {
            way: dict(
                zip(
                    ("seconds", "cpu_seconds"),
                    map(statistics.median, zip(*rows, strict=True)),
                    strict=True,
                )
            )
            for way, rows in taken.items()
        }
        ratio = medians["torch"]["seconds"] / medians["onnxruntime"]["seconds"]
        found[f"{threads} threads"] = {**medians, "torch over onnxruntime": ratio}
    found["versions"] = versions()
    print(found)
    if options.out is not None:
        replace_json(options.out, found)


if __name__ == "__main__":
    main()
