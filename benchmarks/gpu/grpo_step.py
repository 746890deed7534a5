"""A GRPO step on a GPU with a random-weight Qwen2-VL-2B: prompts shared, prompts repeated, and TRL (text only) where it is installed.

One call measures all and prints JSON: seconds of a whole step and its parts, peak memory of the tensors. The model has the real sizes in
bf16, gradient checkpointing on, LoRA r=8; a prompt has 4,000 tokens with 8 images of 256 tokens each, TRL's as many of text alone.

    python benchmarks/gpu/grpo_step.py
    python benchmarks/gpu/grpo_step.py --prompt-tokens 8000 --answers 16 --rounds 3
    python benchmarks/gpu/grpo_step.py --tiny     # a minute on a CPU: does it run here at all?
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a small model on the CPU, to see that it runs"
    )
    parser.add_argument("--prompt-tokens", type=int, default=4_000)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--answer-tokens", type=int, default=40)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--variants",
        help="only these of shared, repeated, repeated-uncached, trl, trl-rows; with commas",
    )
    parser.add_argument("--no-gradient-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    options = parser.parse_args()
    if reason := missing(NEEDED):
        raise SystemExit(reason)
    import torch

    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no GPU; run this where there is one, or try it out with --tiny"
        )
    without_trl = missing({"datasets": "pip install datasets", "trl": "pip install trl"})

    from grpo_step import SIZES, VARIANTS, Case, measure, table

    from ffr.provenance import now, versions

    case = Case(
        prompt_tokens=options.prompt_tokens, answers=options.answers, answer_tokens=options.answer_tokens, images=options.images,
        size="2b", device="cuda", threads=8, rounds=options.rounds, gradient_checkpointing=not options.no_gradient_checkpointing,
    )  # fmt: skip
    if options.tiny:
        case = replace(Case(**TINY), gradient_checkpointing=case.gradient_checkpointing)
    chosen = options.variants.split(",") if options.variants else ["shared", "repeated", "trl"]
    if unknown := [variant for variant in chosen if variant not in VARIANTS]:
        raise SystemExit(f"there is no variant {unknown[0]!r}; name some of {', '.join(VARIANTS)}")
    if without_trl:
        chosen = [variant for variant in chosen if not variant.startswith("trl")]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    point = measure(case, dict.fromkeys(chosen, case.rounds), say)
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
    say(table([point]))
    if "shared" in point["errors"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
