"""`ffr eval` beside a plain loop over transformers' `generate`, and shared dialogues beside repeated ones.

- `loop`: every query of the data through `ffr.evaluation.run.evaluate` (plan, batches, answers, predictions and results on disk) against
  the published way, one query at a time: open its pictures, the model's processor, `generate`. Same model, same data, same answers.
- `prefix`: five queries on every long dialogue (some of the data's one after another), the query behind the dialogue, answered behind
  one copy of it against one copy each, both through `VlmRetriever`.

The forms take turns in one process, round after round; medians of wall time and of CPU time, which other load on the machine moves less.
Loading the model is left out, and every turn begins with an empty image cache.

    python benchmarks/eval.py                                  # both, writes benchmarks/results/eval.json
    python benchmarks/eval.py --part prefix --joined 4 --rounds 1 --out /tmp/one.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "eval.json"
QUERIES = 5


def examples_of(name: str, split: str, limit: int | None) -> list[Any]:
    from ffr.data.catalog import load_dataset

    found = list(
        load_dataset(
            name, split=split, require_images=True, echo=lambda text: print(text, file=sys.stderr)
        )
    )
    return found[:limit]


def five_queries_each(examples: list[Any], joined: int, num_dialogues: int | None) -> list[Any]:
    """Long dialogues of some of the data's one after another, each with five of the data's queries."""
    from ffr.dialogue import Dialogue

    one_each = list({example.dialogue.fingerprint: example for example in examples}.values())
    long = [
        Dialogue(str(start), tuple(line for example in one_each[start : start + joined] for line in example.dialogue.utterances))
        for start in range(0, len(one_each) - joined + 1, joined)
    ]  # fmt: skip
    return [
        replace(one_each[number * joined], dialogue=dialogue, query=one_each[(number * joined + step) % len(one_each)].query,
                fragment=None, prompt=None)
        for number, dialogue in enumerate(long[:num_dialogues])
        for step in range(QUERIES)
    ]  # fmt: skip


def plain_loop(vlm: Any, examples: list[Any], max_new_tokens: int) -> list[str]:
    """One query at a time by transformers alone."""
    import torch

    from ffr.images import open_image
    from ffr.models.prompts import PromptBuilder
    from ffr.prompt import IMAGE_MARK

    prompt_of = PromptBuilder(vlm).prompt
    answers = []
    for example in examples:
        prompt = prompt_of(example)
        content: list[dict[str, str]] = []
        for number, text in enumerate(prompt.user.split(IMAGE_MARK)):
            content += [{"type": "image"}] * bool(number) + [{"type": "text", "text": text}]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
            {"role": "user", "content": content},
        ]
        text = vlm.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        pictures = [open_image(location) for location in example.image_locations()]
        inputs = vlm.processor(
            text=[text], images=[pictures] if pictures else None, return_tensors="pt"
        )
        with torch.no_grad():
            output = vlm.base.generate(
                **inputs, max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=vlm.stop_ids,
                temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
            )  # fmt: skip
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        end = next((place for place, item in enumerate(ids) if item in vlm.stop_ids), len(ids))
        answers.append(
            vlm.tokenizer.decode(
                ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
    return answers


def ffr_eval(vlm: Any, examples: list[Any], max_new_tokens: int) -> list[str]:
    """What `ffr eval --no-baselines` does once the model is there."""
    from ffr.data.forms.predictions import read_predictions
    from ffr.evaluation.run import evaluate
    from ffr.retrieval.vlm import VlmRetriever

    with tempfile.TemporaryDirectory() as folder:
        retriever = VlmRetriever(vlm, name="tiny", max_new_tokens=max_new_tokens)
        evaluate(examples, retriever, Path(folder), dataset="benchmark", baselines=())
        return [line.response for line in read_predictions(Path(folder) / "predictions.jsonl")]


def retriever_answers(
    vlm: Any, examples: list[Any], max_new_tokens: int, *, is_prefix_shared: bool
) -> list[str]:
    from ffr.retrieval.vlm import VlmRetriever

    retriever = VlmRetriever(
        vlm,
        name="tiny",
        query_position="last",
        max_new_tokens=max_new_tokens,
        is_prefix_shared=is_prefix_shared,
    )
    found: dict[int, str] = {}
    for batch in retriever.plan(examples):
        answers = retriever.answer([examples[index] for index in batch])
        found |= {index: answer.response for index, answer in zip(batch, answers, strict=True)}
    return [found[index] for index in range(len(examples))]


def num_prompt_tokens(vlm: Any, example: Any) -> int:
    from ffr.models.prompts import PromptBuilder

    return PromptBuilder(vlm, query_position="last")(example).num_tokens


def measure(
    forms: dict[str, Callable[[], list[str]]], vlm: Any, rounds: int, num_dialogues: int
) -> dict[str, Any]:
    """Medians of the forms, which take turns; the first form is the one that is claimed."""
    from ffr.models.features import ImageFeatureCache

    seconds: dict[str, list[float]] = {name: [] for name in forms}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in forms}
    answers: dict[str, list[str]] = {}
    for number in range(rounds):
        # the order turns about, so that a load that comes and goes meets all
        for name in list(forms) if number % 2 else list(forms)[::-1]:
            vlm.tower.cache = ImageFeatureCache(memory_bytes=512 << 20)
            begin, cpu_begin = time.perf_counter(), time.process_time()
            answers[name] = forms[name]()
            seconds[name].append(time.perf_counter() - begin)
            cpu_seconds[name].append(time.process_time() - cpu_begin)
            print(f"round {number} {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    ours, theirs = forms
    num_other = sum(
        mine != other for mine, other in zip(answers[ours], answers[theirs], strict=True)
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    cpu_medians = {name: statistics.median(values) for name, values in cpu_seconds.items()}
    return {
        "num_queries": len(answers[ours]),
        "num_dialogues": num_dialogues,
        "num_answers_that_differ": num_other,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "median_seconds": medians,
        "median_cpu_seconds": cpu_medians,
        "dialogues_per_second": {name: num_dialogues / value for name, value in medians.items()},
        "queries_per_second": {name: len(answers[ours]) / value for name, value in medians.items()},
        "times_as_fast": medians[theirs] / medians[ours],
        "times_as_fast_by_cpu_time": cpu_medians[theirs] / cpu_medians[ours],
        "times_as_fast_by_round": [
            other / mine for mine, other in zip(seconds[ours], seconds[theirs], strict=True)
        ],
    }


def main() -> None:
    import torch
    import transformers

    import ffr.evaluation.run  # noqa: F401 - imports are no part of what is measured
    from ffr.models.loading import load_vlm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["loop", "prefix", "both"], default="both")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dataset", default="sample", help="A named set.")
    parser.add_argument(
        "--joined",
        type=int,
        nargs="+",
        default=[3, 6],
        help="`prefix`: dialogues of the data that make one.",
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, help="The first queries only (`prefix`: dialogues).")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vlm = load_vlm(options.model)
    result: dict[str, Any] = {
        "model": options.model,
        "threads": options.threads,
        "rounds": options.rounds,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared",
    }
    if options.part != "prefix":
        examples = examples_of(options.dataset, options.split, options.limit)
        forms = {
            "ffr_eval": lambda: ffr_eval(vlm, examples, options.max_new_tokens),
            "plain_loop": lambda: plain_loop(vlm, examples, options.max_new_tokens),
        }
        num_dialogues = len({example.dialogue.fingerprint for example in examples})
        result["loop"] = {
            "dataset": options.dataset,
            **measure(forms, vlm, options.rounds, num_dialogues),
        }
    for joined in options.joined if options.part != "loop" else ():
        asked = five_queries_each(
            examples_of(options.dataset, options.split, None), joined, options.limit
        )
        forms = {
            name: lambda asked=asked, is_shared=is_shared: retriever_answers(
                vlm, asked, options.max_new_tokens, is_prefix_shared=is_shared
            )
            for name, is_shared in (("shared", True), ("repeated", False))
        }
        result[f"prefix_{joined}"] = {
            "dataset": options.dataset,
            "mean_turns": statistics.mean(len(example.dialogue.utterances) for example in asked),
            "mean_images": statistics.mean(len(example.dialogue.images) for example in asked),
            "mean_prompt_tokens": statistics.mean(
                num_prompt_tokens(vlm, example) for example in asked
            ),
            **measure(forms, vlm, options.rounds, len(asked) // QUERIES),
        }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for part, found in result.items():
        if isinstance(found, dict) and "times_as_fast" in found:
            print(
                f"{part}: {found['times_as_fast']:.2f} times as fast, {found['num_answers_that_differ']} answers differ"
            )


if __name__ == "__main__":
    main()
