"""The script of a GPU's step: its counts by hand, its table, and that it runs where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from script_modules import script

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "step.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with script(SCRIPT) as module:
        yield module


SIZE = SimpleNamespace(hidden=4, heads=2, kv_heads=1, intermediate=8, layers=3, vocab=10)


def test_the_work_of_a_step_by_hand(bench: ModuleType) -> None:
    """P=5, G=2, C=3: a layer's weights are q and o of 4×4, k and v of 4×2, and three of 4×8."""
    weights = 2 * 16 + 2 * 8 + 3 * 32
    # 1 + … + 5, and of each answer 6 + 7 + 8
    pairs = 15 + 2 * 21
    linear, attention = 2 * 3 * weights * (5 + 6), 4 * 3 * 4 * pairs
    output = 2 * 4 * 10 * 6
    found = bench.work_of(SIZE, prompt_tokens=5, answers=2, answer_tokens=3)
    assert found == (
        linear + attention + output,
        2 * linear + 3 * attention + 2 * output,
    )


def test_the_known_count_of_qwen2_vl_2b(bench: ModuleType) -> None:
    """1.31 G weights of linear layers; P=4000, G=8, C=40: 13.1 and 28.7 TFLOP, as they were derived before."""
    size = SimpleNamespace(
        hidden=1536, heads=12, kv_heads=2, intermediate=8960, layers=28, vocab=151_936
    )
    reference, update = bench.work_of(size, prompt_tokens=4000, answers=8, answer_tokens=40)
    assert reference == pytest.approx(13.1e12, rel=0.02)
    assert update == pytest.approx(28.7e12, rel=0.05)


def test_the_table(bench: ModuleType) -> None:
    ours = {"seconds": 2.0, "rollout": 1.2, "reference": 0.3, "update": 0.5}
    gaps = {"sampling_gap_mean": 0.001, "sampling_gap_max": 0.02}
    point = {
        "case": {"prompt_tokens": 5, "answers": 2, "answer_tokens": 3},
        "variants": {
            "merged": {"median": {**ours, **gaps, "peak_mb_above_start": 1296.4}},
            "trl": {"median": {"seconds": 5.0, "peak_mb_above_start": 8304.0}},
        },
    }
    reference, update = bench.work_of(SIZE, prompt_tokens=5, answers=2, answer_tokens=3)
    made = bench.with_derived(point, SIZE, rate=10 * reference)
    derived = made["variants"]["merged"]["derived"]
    assert derived["rollout_ms_a_token"] == pytest.approx(400)
    assert derived["mfu_reference"] == pytest.approx(1 / 3)
    assert derived["mfu_update"] == pytest.approx(update / reference / 5)
    assert "derived" not in made["variants"]["trl"]
    share = f"{derived['mfu_update']:.1%}"
    assert bench.table(made).splitlines()[2:] == [
        f"| merged | 2.000 | 2.50 | 1.200 | 400.00 | 0.300 | 33.3% | 0.500 | {share} | 1,296 | 0.001 | 0.02 |",
        "| trl | 5.000 | 1.00 | – | – | – | – | – | – | 8,304 | – | – |",
    ]


def test_it_says_what_is_missing(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no GPU; run this where there is one, or try it"):
        bench.main([])
    monkeypatch.setattr(bench, "NEEDED", {"no_such_package": "pip install it"})
    with pytest.raises(SystemExit, match=r"no_such_package cannot be imported .* pip install it"):
        bench.main(["--cpu"])


def test_the_page_says_what_the_results_say(bench: ModuleType) -> None:
    results = SCRIPT.parents[1] / "results"
    page = " ".join((SCRIPT.parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8").split())
    found = json.loads((results / "gpu-grpo_step.json").read_text(encoding="utf-8"))
    for way, name in (("shared", "ours"), ("trl", "TRL")):
        median = found["variants"][way]["median"]
        parts = [f"{median[part]:.2f} s" for part in ("seconds", "rollout", "reference", "update")]
        parts.insert(2, f"{1000 * median['rollout'] / found['case']['answer_tokens']:.1f} ms")
        row = " | ".join([*parts, f"{median['peak_mb_above_start']:,.0f} MB"])
        assert f"| {name} | {row} |" in page
    least = json.loads((results / "gpu-least.json").read_text(encoding="utf-8"))
    size = SimpleNamespace(**least["model"])
    card = least["cards"]["H200"]
    assert json.loads(json.dumps(card)) == bench_card(bench, size, least["case"])
    assert f"at least {card['seconds']['step']:.2f} s" in page
    assert f"{card['ms_a_token']:.2f} ms a token" in page
    forms = json.loads((results / "rollout_ops.json").read_text(encoding="utf-8"))["forms"]
    for form in ("adapters in float32", "merged weights"):
        assert f"{forms[form]['kernels_a_token']:,.0f}" in page
        assert forms[form]["waits_a_token"] == 0


def bench_card(bench: ModuleType, size: SimpleNamespace, case: dict[str, int]) -> dict[str, Any]:
    """The H200's least, counted anew."""
    reference, update = bench.work_of(size, **case)
    prefill = bench.work_of(size, **{**case, "answers": 0})[0]
    # 1.31 G weights of layers and 0.23 G of the embedding, and 28,672 bytes of keys and values a token, as known
    read = 2 * (1_310_195_712 + 151_936 * 1536) + 28_672 * case["prompt_tokens"]
    seconds = {
        "rollout": prefill / 989e12 + case["answer_tokens"] * read / 4.8e12,
        "reference": reference / 989e12,
        "update": update / 989e12,
    }
    seconds["step"] = sum(seconds.values())
    return {
        "flops": 989e12,
        "bytes_a_second": 4.8e12,
        "ms_a_token": 1000 * read / 4.8e12,
        "seconds": seconds,
    }


@pytest.mark.slow
def test_it_runs_without_a_gpu(tmp_path: Path) -> None:
    """All ways, TRL's too, in one call."""
    out = tmp_path / "step.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cpu", "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["variants"]) == {"shared", "merged", "merged-guessed", "trl"}
    for way in ("shared", "merged", "merged-guessed"):
        assert 0 < found["variants"][way]["median"]["sampling_gap_max"] < 1e-3
    assert all(item["derived"]["mfu_update"] > 0 for item in found["variants"].values())
    assert done.stderr.count("\n| ") == 5
