"""A GRPO step on a GPU with a random-weight Qwen2-VL-2B, all its ways side by side with TRL (text only) in one run.

Prints JSON and a table: seconds of a step and its parts, a token's share of the rollout, the share of the device's own matrix product that
update and reference reach (MFU), peak memory of the tensors, and how far what samples is from what is trained. The model has the real
sizes in bf16, gradient checkpointing on, LoRA r=8; a prompt has 4,000 tokens with 8 images of 256 tokens each, TRL's as many of text alone.

    python benchmarks/gpu/step.py --out step.json
    python benchmarks/gpu/step.py --prompt-tokens 8000 --answers 16 --rounds 3
    python benchmarks/gpu/step.py --cpu     # a minute: does it run here at all?
    python benchmarks/gpu/step.py --least --out benchmarks/results/gpu-least.json   # no GPU: what a step takes at least, by data sheets

`merged-guessed` guesses eight tokens ahead. A random model repeats nothing, so its time a token is that of a pass of nine; how many passes a
token takes with a trained one was counted by benchmarks/drafts.py.

Work that counts in MFU is what the step needs at least, the prompt once for all answers, whatever a way does beyond it:
forward `2 N T`, and backward through activations as much again, of N weights of linear layers on T tokens; `4 W` a pair of
tokens that attention looks at, of width W in each layer, thrice that with backward; `2 H V` a token that is scored.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TINY = {
    "prompt_tokens": 400,
    "answers": 4,
    "answer_tokens": 8,
    "images": 2,
    "size": "tiny",
    "rounds": 1,
}
NEEDED = {
    "torch": "pip install torch",
    "transformers": "pip install transformers",
    "peft": "pip install peft",
    "lightning": "pip install lightning",
    "ffr.training.grpo.module": "pip install -e . in the repository",
}
CHOSEN = "shared,merged,merged-guessed,trl"
CARDS = {"H100 SXM": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
"""Operations and bytes a second by the makers' data sheets."""


def missing(names: dict[str, str]) -> str | None:
    """What cannot be imported, with what to do; None where all can."""
    for name, remedy in names.items():
        try:
            importlib.import_module(name)
        except (
            Exception
        ) as error:  # a package that is there may break on another's release: no less missing
            reason = " ".join(str(error).split())[:200]
            return f"{name} cannot be imported ({type(error).__name__}: {reason}); {remedy}"
    return None


def work_of(
    size: Any, *, prompt_tokens: int, answers: int, answer_tokens: int
) -> tuple[float, float]:
    """Floating-point operations that reference and update of a step need at least (see the head of this file).

    Args:
        size: Sizes of the model, as `grpo_step.Size`.
        prompt_tokens: P.
        answers: G.
        answer_tokens: C of each.
    """
    width, head = size.hidden, size.hidden // size.heads
    # q and o, k and v, then gate, up and down
    weights = 2 * width * width + 2 * width * size.kv_heads * head + 3 * width * size.intermediate
    scored = answers * answer_tokens
    # a token looks at those before it and itself, an answer's at the prompt as well
    pairs = prompt_tokens * (prompt_tokens + 1) / 2
    pairs += answers * answer_tokens * (prompt_tokens + (answer_tokens + 1) / 2)
    linear = 2 * size.layers * weights * (prompt_tokens + scored)
    attention = 4 * size.layers * width * pairs
    output = 2 * width * size.vocab * scored
    return linear + attention + output, 2 * linear + 3 * attention + 2 * output


def least_of(size: Any, case: dict[str, int]) -> dict[str, Any]:
    """What a step takes at least on cards by their data sheets: derived, not measured.

    Writing answers is bound by the weights, which each token reads once for all answers, and the prompt's keys and values; prefill, reference
    and update by their operations. Pictures, whose features are kept, count for nothing.

    Args:
        size: Sizes of the model, as `grpo_step.Size`.
        case: `prompt_tokens`, `answers` and `answer_tokens`.
    """
    reference, update = work_of(size, **case)
    prefill = work_of(size, **{**case, "answers": 0})[0]
    head = size.hidden // size.heads
    weights = 2 * size.hidden**2 + 2 * size.hidden * size.kv_heads * head
    weights += 3 * size.hidden * size.intermediate
    kept = 2 * size.layers * size.kv_heads * head * case["prompt_tokens"]
    bytes_a_token = 2 * (size.layers * weights + size.vocab * size.hidden + kept)
    cards = {}
    for name, (flops, bandwidth) in CARDS.items():
        seconds = {
            "rollout": prefill / flops + case["answer_tokens"] * bytes_a_token / bandwidth,
            "reference": reference / flops,
            "update": update / flops,
        }
        cards[name] = {
            "flops": flops,
            "bytes_a_second": bandwidth,
            "ms_a_token": 1000 * bytes_a_token / bandwidth,
            "seconds": {**seconds, "step": sum(seconds.values())},
        }
    return {
        "what": "the least that one GRPO step takes, derived from data sheets (dense bf16)",
        "model": asdict(size),
        "case": case,
        "operations": {"prefill": prefill, "reference": reference, "update": update},
        "bytes_a_token": bytes_a_token,
        "cards": cards,
    }


def operations_a_second(device: str, side: int) -> float:
    """What the device's own product of two square matrices reaches, median of ten: bf16 on a GPU, float32 on a CPU."""
    import torch

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    one = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[2:])


def with_derived(point: dict[str, Any], size: Any, rate: float) -> dict[str, Any]:
    """A point with what follows from its medians: milliseconds a token, and MFU of reference and update.

    Args:
        point: As `grpo_step.measure` gives it.
        size: Sizes of its model.
        rate: What `operations_a_second` gives.
    """
    case = point["case"]
    reference, update = work_of(
        size,
        prompt_tokens=case["prompt_tokens"],
        answers=case["answers"],
        answer_tokens=case["answer_tokens"],
    )
    for found in point["variants"].values():
        median = found["median"]
        if "rollout" not in median:
            continue
        found["derived"] = {
            "rollout_ms_a_token": 1000 * median["rollout"] / case["answer_tokens"],
            "mfu_reference": reference / median["reference"] / rate,
            "mfu_update": update / median["update"] / rate,
        }
    return {**point, "matmul_operations_a_second": rate}


def table(point: dict[str, Any]) -> str:
    """The whole table of a point, a row a way; ratios are TRL's time by it."""
    lines = [
        "| way | step s | TRL ÷ it | rollout s | ms a token | reference s | MFU | update s | MFU | peak MB | gap mean | gap max |",
        "|---|" + "---:|" * 11,
    ]
    trl = point["variants"].get("trl", {}).get("median", {}).get("seconds")
    for way, found in point["variants"].items():
        median, derived = found["median"], found.get("derived", {})
        cells = [
            _cell(median.get("seconds"), ".3f"),
            _cell(None if trl is None else trl / median["seconds"], ".2f"),
            _cell(median.get("rollout"), ".3f"),
            _cell(derived.get("rollout_ms_a_token"), ".2f"),
            _cell(median.get("reference"), ".3f"),
            _cell(derived.get("mfu_reference"), ".1%"),
            _cell(median.get("update"), ".3f"),
            _cell(derived.get("mfu_update"), ".1%"),
            _cell(median.get("peak_mb_above_start"), ",.0f"),
            _cell(median.get("sampling_gap_mean"), ".2g"),
            _cell(median.get("sampling_gap_max"), ".2g"),
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cpu", action="store_true", help="a small model on the CPU, to see that it runs"
    )
    parser.add_argument(
        "--least", action="store_true", help="what a step takes at least, without a GPU"
    )
    parser.add_argument("--prompt-tokens", type=int, default=4_000)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--answer-tokens", type=int, default=40)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--ways",
        default=CHOSEN,
        help="which of those of benchmarks/grpo_step.py, with commas: %(default)s",
    )
    parser.add_argument("--no-gradient-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    return parser.parse_args(arguments)


def say_least(options: argparse.Namespace) -> None:
    from grpo_step import SIZES

    case = {name: getattr(options, name) for name in ("prompt_tokens", "answers", "answer_tokens")}
    text = json.dumps(least_of(SIZES["2b"], case), indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if reason := missing(NEEDED):
        raise SystemExit(reason)
    if options.least:
        say_least(options)
        return
    import torch

    if not options.cpu and not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no GPU; run this where there is one, or try it out with --cpu"
        )
    from grpo_step import SIZES, VARIANTS, Case, measure

    from ffr.provenance import now, versions

    case = Case(
        prompt_tokens=options.prompt_tokens, answers=options.answers, answer_tokens=options.answer_tokens, images=options.images,
        size="2b", device="cuda", threads=8, rounds=options.rounds, gradient_checkpointing=not options.no_gradient_checkpointing,
    )  # fmt: skip
    if options.cpu:
        case = replace(Case(**TINY), gradient_checkpointing=case.gradient_checkpointing)
    chosen = options.ways.split(",")
    if unknown := [way for way in chosen if way not in VARIANTS]:
        raise SystemExit(f"there is no way {unknown[0]!r}; name some of {', '.join(VARIANTS)}")
    without_trl = None
    if any(way.startswith("trl") for way in chosen):
        without_trl = missing({"datasets": "pip install datasets", "trl": "pip install trl"})
    if without_trl:
        chosen = [way for way in chosen if not way.startswith("trl")]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    # before the workers, which have the device to themselves then
    rate = operations_a_second(case.device, 8192 if case.device == "cuda" else 512)
    point = with_derived(
        measure(case, dict.fromkeys(chosen, case.rounds), say), SIZES[case.size], rate
    )
    report: dict[str, Any] = {
        "what": "one GRPO step, LoRA r=8 on all linears of the decoder, KL 0.04, one prompt; TRL text only",
        "device": torch.cuda.get_device_name() if case.device == "cuda" else "cpu",
        "model": asdict(SIZES[case.size]),
        **point,
        "left_out": without_trl,
        "versions": versions(),
        "at": now(),
    }
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    say(table(point))
    if failed := [way for way in chosen if way in point["errors"]]:
        raise SystemExit(f"{', '.join(failed)} failed, as is said above")


if __name__ == "__main__":
    main()
