"""The table of gaps in benchmarks/README.md is that of the result file."""

from __future__ import annotations

import json
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = {
    "fp32, adapters": "float32, adapters",
    "fp32, merged": "float32, merged weights",
    "fp32, guesses": "float32, adapters, eight guesses",
    "bf16, adapters": "bfloat16, adapters",
    "bf16, merged": "bfloat16, merged weights",
    "bf16, guesses": "bfloat16, adapters, eight guesses",
}


def test_the_table_of_gaps_is_that_of_the_results() -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    path = BENCHMARKS / "results" / "sampling_gap.json"
    forms = json.loads(path.read_text(encoding="utf-8"))["forms"]
    assert set(forms) == set(NAMES)
    for form, found in forms.items():
        assert f"| {NAMES[form]} | {found['gap_mean']:.1e} | {found['gap_max']:.1e} |" in page
        assert found["capped_share"] == 0
    for precision in ("fp32", "bf16"):
        plain, merged, guessed = (
            forms[f"{precision}, {way}"]["reward"] for way in ("adapters", "merged", "guesses")
        )
        assert abs(plain - merged) < 3e-5
        assert abs(plain - guessed) < (3e-5 if precision == "fp32" else 4e-4)
