"""The keys of `results.json` that readers of lm-evaluation-harness look for, beside ours.

They say nothing that ours do not; `Results` is made of ours alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ffr.evaluation.figures import SCORE_NAMES

HARNESS_KEYS = (
    "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples",
    "config",
    "git_hash", "date", "transformers_version", "total_evaluation_time_seconds", "model_name",
    "model_source",
    "chat_template_sha", "task_hashes",
)  # fmt: skip
"""At the top of the file, in the order in which they are written."""

_NOT_MEASURED = "N/A"
_FILTER = "none"


def harness_keys(results: Mapping[str, Any]) -> dict[str, Any]:
    """What lm-evaluation-harness would say of an evaluation.

    Its `results` map a task to `FIGURE,none` and `FIGURE_stderr,none`; figures are between 0 and 1
    (MCC between -1 and 1), and larger is better.

    Args:
        results: The fields of `ffr.evaluation.results.Results`.

    >>> found = harness_keys({
    ...     "model": {"label": "tiny", "kind": "vlm"},
    ...     "data": {"dataset": "sample", "split": "val", "num_examples": 4, "fingerprint": "ab"},
    ...     "settings": {"seed": 0}, "schema": 2, "provenance": {}, "intervals": {},
    ...     "summary": {
    ...         "scores": {"joint_f1": 0.5}, "standard_errors": {}, "answers": {"num_scored": 3},
    ...     },
    ... })
    >>> found["results"]["ffr_sample_val"]["joint_f1,none"], found["n-samples"]
    (0.5, {'ffr_sample_val': {'original': 4, 'effective': 3}})
    """
    data, model, provenance = results["data"], results["model"], results["provenance"]
    split = data.get("split")
    task = "_".join(["ffr", str(data["dataset"]), *([split] if split else [])])
    summary = results["summary"]
    scores, errors = summary.get("scores", {}), summary.get("standard_errors", {})
    figures: dict[str, Any] = {"alias": task}
    for name in SCORE_NAMES:
        if name in scores:
            figures[f"{name},{_FILTER}"] = scores[name]
            error = errors.get(name)
            figures[f"{name}_stderr,{_FILTER}"] = _NOT_MEASURED if error is None else error
    versions = provenance.get("versions") or {}
    return {
        "results": {task: figures},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "dataset_path": data["dataset"],
                "test_split": split,
                "output_type": "generate_until",
                "num_fewshot": 0,
                "metric_list": [{"metric": name, "higher_is_better": True} for name in SCORE_NAMES],
            }
        },
        "versions": {task: results["schema"]},
        "n-shot": {task: 0},
        "higher_is_better": {task: dict.fromkeys(SCORE_NAMES, True)},
        "n-samples": {
            task: {
                "original": data["num_examples"],
                "effective": summary.get("answers", {}).get("num_scored"),
            }
        },
        "config": {
            "model": model.get("kind"),
            "model_args": {
                name: value for name, value in model.items() if name not in ("label", "kind")
            },
            "batch_size": model.get("batch_tokens"),
            "device": model.get("device"),
            "bootstrap_iters": results["intervals"].get("num_resamples"),
            "random_seed": results["settings"].get("seed"),
        },
        "git_hash": provenance.get("git_hash"),
        "date": _seconds(provenance.get("started_at")),
        "transformers_version": versions.get("transformers"),
        "total_evaluation_time_seconds": _as_text(provenance.get("seconds")),
        "model_name": model.get("label"),
        "model_source": model.get("kind"),
        "chat_template_sha": model.get("chat_template_sha"),
        "task_hashes": {task: data.get("fingerprint")},
    }


def _seconds(moment: Any) -> float | None:
    """A moment of ISO 8601 as seconds since 1970, as lm-evaluation-harness writes it."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return None


def _as_text(seconds: Any) -> str | None:
    return None if seconds is None else str(seconds)
