"""What GRPO, its rewards and its curriculum are worth on real language: the reader as policy, SFT and longer SFT as controls.

`python benchmarks/reader_ablation.py --out DIR --dialogues DIR [--seeds 0 1 2]` trains a reader once a seed and arm through the `ffr`
command (`ffr train reader`, `ffr train grpo --from RUN`, `ffr eval`) and writes `benchmarks/results/reader_ablation.{json,md}`.
Stopped, the same command goes on: a finished (seed, arm) is a file of DIR and is not done again, a run that was killed is resumed.

DIALOGUES is a folder with `train.jsonl.gz` and `dev.json` (ms-swift form, a record a query; `meta.base_dialogue_id` names the dialogue,
`meta.source_dialogue` what its fragment was taken from) and their pictures. It and the weights stay outside the repository.
`--measure held-out` measures on the last dialogues of the training file instead of dev: rates and steps are chosen there. They, and what
shares a source with them, are never trained on, so that both measurements are of the same trainings.

Every arm of a seed begins with the same SFT run. All GRPO arms take the same number of steps of as many prompts as an SFT step has examples.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# last, and a folder of its own for what `ffr` imports: a file of this one is called as a package is
sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent / "rewards"))

import numpy as np
import numpy.typing as npt
from ffr_command import ffr
from reader_rewards import FOLDER

from ffr.answer import format_answer
from ffr.data.catalog import load_dataset
from ffr.dialogue import Example, Fragment
from ffr.embedding.tagger import load_tagger
from ffr.evaluation.bootstrap import (
    ALL,
    NUM_RESAMPLES,
    Slice,
    draw_dialogues,
    percentile_interval,
    resample_figures,
)
from ffr.evaluation.compare import load_run
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.scoring import ScoredRows, ScoreTable
from ffr.files import replace_json, replaced_file
from ffr.provenance import versions
from ffr.run_log import read_metrics
from ffr.runs import RunRecord
from ffr.settings.yaml import read_yaml_file

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
NAME = "reader_ablation"
FIGURES = ("sample_utterance_f1", "sample_image_f1", "joint_f1")
MEASURED: dict[str, tuple[Slice, str]] = {
    "utterance_f1": (ALL, "sample_utterance_f1"),
    "utterance_f1_where_answered": (("by_truth", "not empty"), "sample_utterance_f1"),
    "image_f1": (ALL, "sample_image_f1"),
    "joint_f1": (ALL, "joint_f1"),
}
"""Figures of the summary: of which queries, and the name that `ffr eval` has for them."""
NUM_HELD_OUT = 60
ABSENT_SHARE = 1 / 6
NOTHING = format_answer(Fragment())
_QUERY = re.compile(r"(<\|query_start\|>).*?(<\|query_end\|>)", re.DOTALL)
BATCH = 32


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Args:
        stage: `reader` or `grpo`.
        words: In the table.
        settings: KEY=VALUE beside those that all of the stage have.
        start: The arm whose run of the same seed it begins with; None for random weights.
        data: File of the data folder, without its ending; `kept` is what the paper's curriculum keeps,
            `absent` has queries of other dialogues too.
    """

    stage: str
    words: str
    settings: tuple[str, ...] = ()
    start: str | None = None
    data: str = "train"


F1_ALONE = ("f1_weight=1", "order_weight=0", "format_weight=0")
ALL_REWARDS = ("f1_weight=1", "format_weight=0.3", "rewards=reader_rewards:order=1")
ARMS = {
    "sft": Arm("reader", "SFT"),
    "sft-longer": Arm("reader", "SFT from random weights, as many steps as SFT and GRPO together"),
    "grpo-f1": Arm("grpo", "GRPO, F1 reward alone", F1_ALONE, "sft"),
    "grpo-all": Arm("grpo", "GRPO, all rewards", ALL_REWARDS, "sft"),
    "grpo-paper": Arm("grpo", "GRPO, all rewards, the paper's curriculum", (*ALL_REWARDS, "curriculum=paper"), "sft"),
    "grpo-paced": Arm("grpo", "GRPO, all rewards, paced curriculum", (*ALL_REWARDS, "curriculum=paced"), "sft"),
    "grpo-kept": Arm("grpo", "GRPO, all rewards, what the paper's curriculum keeps, shuffled", ALL_REWARDS, "sft", "kept"),
    "sft-further": Arm("reader", "SFT, then SFT at GRPO's rate and steps", start="sft"),
    "grpo-absent": Arm("grpo", "GRPO, F1 reward alone, one query in six of another dialogue", F1_ALONE, "sft", "absent"),
}  # fmt: skip
"""In the order in which they are trained: what the paper's curriculum keeps is known after `grpo-paper`."""

COMPARISONS = (
    ("grpo-f1", "sft"), ("grpo-f1", "sft-longer"), ("grpo-f1", "sft-further"),
    ("grpo-all", "sft"), ("grpo-all", "sft-longer"), ("grpo-all", "sft-further"), ("grpo-all", "grpo-f1"),
    ("grpo-paper", "sft"), ("grpo-paper", "sft-longer"), ("grpo-paper", "grpo-all"), ("grpo-paper", "grpo-kept"),
    ("grpo-paced", "sft-longer"), ("grpo-paced", "grpo-all"), ("grpo-paced", "sft"), ("grpo-kept", "sft"), ("grpo-kept", "sft-longer"), ("grpo-kept", "grpo-all"),
    ("sft-longer", "sft"), ("sft-further", "sft"),
    ("grpo-absent", "sft"), ("grpo-absent", "sft-longer"), ("grpo-absent", "sft-further"), ("grpo-absent", "grpo-f1"),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What decides the trainings.

    Args:
        dialogues: Dialogues that are trained on.
        sft_steps: Optimizer steps of SFT, of 32 examples.
        grpo_steps: Of GRPO, of 32 prompts.
        learning_rate: Of GRPO, and of SFT that goes on beside it.
        num_generations: Answers to a prompt.
        resample_attempts: As the setting of that name.
    """

    dialogues: int = 140
    sft_steps: int = 240
    grpo_steps: int = 120
    learning_rate: float = 1e-3
    num_generations: int = 16
    resample_attempts: int = 1

    def settings(self, name: str, seed: int) -> list[str]:
        """KEY=VALUE of an arm."""
        arm = ARMS[name]
        # max_steps alone decides how long; so many epochs are never reached
        common = [
            f"seed={seed}",
            f"batch_size={BATCH}",
            "accumulate=1",
            "epochs=100",
            "val_examples=0",
        ]
        common += ["checkpoint_every_steps=50", "keep_checkpoints=1", "num_threads=1"]
        if arm.stage == "grpo":
            steps = self.grpo_steps
            common += [
                f"num_generations={self.num_generations}",
                f"resample_attempts={self.resample_attempts}",
            ]
            common += [
                f"learning_rate={self.learning_rate:g}",
                "show_samples_every_steps=0",
                "order_weight=0",
            ]
        elif arm.start:
            steps = self.grpo_steps
            common += [f"learning_rate={self.learning_rate:g}"]
        else:
            steps = self.sft_steps + (self.grpo_steps if name == "sft-longer" else 0)
        if arm.stage == "reader":
            common.append("rejoined=4")
        return [*common, f"max_steps={steps}", *arm.settings]


# -- data -----------------------------------------------------------------------------------------


def divided(
    records: Iterable[Mapping[str, Any]], num_dialogues: int, num_held_out: int = NUM_HELD_OUT
) -> tuple[list[int], list[int]]:
    """The places of the records that are trained on, and of those that are held out.

    Held out are the last dialogues; trained on are the first that share no source with them.

    Args:
        records: With `meta.base_dialogue_id` and `meta.source_dialogue`.
        num_dialogues: How many are trained on, at most.
        num_held_out: How many are held out.
    """
    places: dict[str, list[int]] = {}
    sources: dict[str, set[str]] = {}
    for place, record in enumerate(records):
        meta = record["meta"]
        places.setdefault(meta["base_dialogue_id"], []).append(place)
        found = sources.setdefault(meta["base_dialogue_id"], set())
        if meta.get("source_dialogue"):
            found.add(meta["source_dialogue"])
    names = list(places)
    held_out = names[len(names) - num_held_out :]
    taken = set().union(*(sources[name] for name in held_out))
    free = [name for name in names[: len(names) - num_held_out] if not sources[name] & taken]
    return (
        [place for name in free[:num_dialogues] for place in places[name]],
        [place for name in held_out for place in places[name]],
    )


def absent_queries(
    records: Sequence[Mapping[str, Any]], share: float = ABSENT_SHARE, seed: int = 0
) -> list[dict[str, Any]]:
    """Records that ask a dialogue for what another one is about: nothing answers them.

    The query is of the dialogue's language, and of no source and no concept that the dialogue is asked for.

    Args:
        records: With `meta.base_dialogue_id`, `lang`, `source_dialogue`, `concept` and `query_text`.
        share: Of all queries, those of the records among them.
        seed: Of what is drawn.
    """
    keys = ("source_dialogue", "concept", "query_text")
    asked: dict[str, set[Any]] = {}
    for record in records:
        meta = record["meta"]
        asked.setdefault(meta["base_dialogue_id"], set()).update(
            (key, meta.get(key)) for key in keys
        )
    answered = [record for record in records if record["solution"] != NOTHING]
    draws, found = random.Random(seed), []
    for number in range(round(len(records) * share / (1 - share))):
        place = draws.choice(records)
        meta = place["meta"]
        others = [
            record["meta"]["query_text"] for record in answered
            if record["meta"]["lang"] == meta["lang"]
            and not asked[meta["base_dialogue_id"]] & {
                (key, record["meta"][key]) for key in keys if record["meta"].get(key)
            }
        ]  # fmt: skip
        query = draws.choice(others)
        said = {
            "user": lambda text, query=query: _QUERY.sub(
                lambda marks: marks[1] + query + marks[2], text, 1
            ),
            "assistant": lambda text: NOTHING,
        }
        messages = [
            {**message, "content": said.get(message["role"], str)(message["content"])}
            for message in place["messages"]
        ]
        found.append({
            **place,
            "dialogue_id": f"{place['dialogue_id']}_absent{number}",
            "messages": messages,
            "solution": NOTHING,
            "meta": {"base_dialogue_id": meta["base_dialogue_id"], "lang": meta["lang"], "query_text": query},
        })  # fmt: skip
    return found


def write_data(out: Path, dialogues: Path, num_dialogues: int) -> None:
    """Writes `train.jsonl`, `held-out.jsonl` and the words of their pictures, where they are not there."""
    words = out / "words.json"
    if words.is_file():
        return
    with gzip.open(dialogues / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.readlines()
    parts = divided(map(json.loads, lines), num_dialogues)
    for name, places in zip(("train", "held-out"), parts, strict=True):
        write_lines(out / "data" / f"{name}.jsonl", [lines[place] for place in places])
    data = load_dataset(out / "data" / "train.jsonl", image_root=dialogues)
    pictures = sorted({path for example in data for path in example.image_locations()}, key=str)
    replace_json(words, dict(zip(map(str, pictures), load_tagger().words(pictures), strict=True)))


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A file of lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as write:
        write("".join(lines).encode())


def kept_lines(lines: Sequence[str], table: Path) -> list[str]:
    """The lines of a data file that a table of difficulties keeps.

    Args:
        lines: One an item.
        table: `difficulty.csv` of these items.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [lines[int(row["index"])] for row in rows if row["kept"] == "1"]


# -- one seed, one arm ----------------------------------------------------------------------------


@dataclass
class Ablation:
    """The trainings and measurements of a folder.

    Args:
        out: The folder.
        dialogues: Where dialogues and pictures are.
        plan: What decides the trainings.
        measure: `dev` or `held-out`.
        run: Runs the `ffr` command.
    """

    out: Path
    dialogues: Path
    plan: Plan
    measure: str = "dev"
    run: Callable[..., None] = ffr

    def folder(self, name: str, seed: int) -> Path:
        return self.out / "runs" / f"{name}-{seed}"

    def result(self, name: str, seed: int) -> Path:
        return self.out / "results" / self.measure / f"{name}-{seed}.json"

    def asked(self) -> Path:
        """The data that is measured on."""
        if self.measure == "dev":
            return self.dialogues / "dev.json"
        return self.out / "data" / "held-out.jsonl"

    def train(self, name: str, seed: int) -> None:
        """Trains an arm to its end, from where it stands."""
        arm, run = ARMS[name], self.folder(name, seed)
        own = [item for item in arm.settings if item.startswith("rewards=")]
        log = self.out / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        if (run / "run.json").is_file():
            if RunRecord.load(run).status != "finished":
                # a run's own settings never name code that is run
                words = [word for item in own for word in ("-o", item)]
                self.run("train", arm.stage, "--resume", str(run), *words, "--no-progress", log=log)
            return
        words = ["train", arm.stage]
        if arm.start:
            words += ["--from", str(self.folder(arm.start, seed))]
        words += ["--dataset", str(self.data(name, seed)), "--image-root", str(self.dialogues)]
        # rates and noise of a recipe must not hang on where a training begins
        words += ["--config", "reader" if arm.stage == "grpo" or arm.start else "scratch"]
        for item in [*self.plan.settings(name, seed), f"encoder_cache_dir={self.out / 'vectors'}"]:
            words += ["-o", item]
        self.run(*words, "--out", str(run), "--no-progress", log=log)

    def data(self, name: str, seed: int) -> Path:
        """The file that an arm is trained on."""
        train = self.out / "data" / "train.jsonl"
        if ARMS[name].data == "train":
            return train
        if ARMS[name].data == "absent":
            return self.with_absent(train, self.out / "data" / "absent.jsonl")
        kept = self.out / "data" / f"kept-{seed}.jsonl"
        if not kept.is_file():
            said = (self.out / "logs" / f"grpo-paper-{seed}.log").read_text(encoding="utf-8")
            tables = re.findall(r"difficulties: (.+difficulty\.csv)", said)
            if not tables:
                raise SystemExit(f"grpo-kept needs grpo-paper of seed {seed} first; name both")
            lines = train.read_text(encoding="utf-8").splitlines(keepends=True)
            write_lines(kept, kept_lines(lines, Path(tables[-1])))
        return kept

    def with_absent(self, train: Path, target: Path) -> Path:
        """The training data and queries of other dialogues, made where they are not there."""
        if not target.is_file():
            lines = train.read_text(encoding="utf-8").splitlines(keepends=True)
            added = absent_queries([json.loads(line) for line in lines])
            more = [json.dumps(record, ensure_ascii=False) + "\n" for record in added]
            write_lines(target, [*lines, *more])
        return target

    def do(self, name: str, seed: int) -> dict[str, Any]:
        """The result of a seed and an arm, made where it is not there."""
        target = self.result(name, seed)
        if target.is_file():
            found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
            if found["plan"] != asdict(self.plan):
                raise SystemExit(f"{target} is of another plan; take another --out")
            return found
        self.train(name, seed)
        run, folder = self.folder(name, seed), self.out / "eval" / self.measure / f"{name}-{seed}"
        words = [
            "--model",
            str(run),
            "--dataset",
            str(self.asked()),
            "--image-root",
            str(self.dialogues),
        ]
        words += ["--encoder-cache", str(self.out / "vectors"), "--no-baselines", "--no-progress"]
        self.run("eval", *words, "--out", str(folder), log=self.out / "logs" / f"{run.name}.log")
        measured = load_run(folder)
        settings = read_yaml_file(run / "config.yaml").value
        content = {
            "arm": name,
            "seed": seed,
            "plan": asdict(self.plan),
            "scores": {figure: measured.results.summary["scores"][figure] for figure in FIGURES},
            "data": measured.results.data,
            "responses": list(measured.responses),
            "training": training_figures(read_metrics(run / "metrics.csv")),
            "settings": {
                key: value for key, value in settings.items()
                if key not in ("model", "dataset", "image_root", "encoder_cache_dir", "seed")
            },
        }  # fmt: skip
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_json(target, content)
        return content


def training_figures(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a training says of itself: steps, seconds, and figures over the first and last fifth of its steps.

    >>> training_figures([{"step": 1, "reward": 1.0}, {"step": 2, "reward": 2.0}])["reward"]
    {'first_fifth': 1.0, 'last_fifth': 2.0}
    """
    names = ("loss", "reward", "reward_std", "reward_f1", "reward_order", "kl", "entropy",
             "no_signal_share", "grad_norm")  # fmt: skip
    found: dict[str, Any] = {"steps": int(max((row["step"] for row in rows), default=0))}
    spent = [
        sum(row.get(f"seconds_{part}", 0.0) for part in ("rollout", "reference", "update"))
        for row in rows
    ]
    if any(spent):
        found["seconds_of_steps"] = round(sum(spent), 1)
    for name in names:
        values = [row[name] for row in rows if name in row]
        fifth = max(1, len(values) // 5)
        if values:
            found[name] = {
                "first_fifth": round(statistics.fmean(values[:fifth]), 4),
                "last_fifth": round(statistics.fmean(values[-fifth:]), 4),
            }
    return found


# -- figures --------------------------------------------------------------------------------------


def rows_of(examples: Sequence[Example], responses: Sequence[str]) -> ScoredRows:
    """The scored answers of one run."""
    table = ScoreTable()
    for example, response in zip(examples, responses, strict=True):
        table.add_example(example, response)
    return table.rows()


@dataclass(frozen=True, eq=False)
class Answered:
    """What one run answered.

    Args:
        points: Figure of `MEASURED` → its value.
        drawn: Figure → (R,) in every resample of the dialogues, which are the same for all runs.
        empties: Queries without an answer that were left unanswered, and others, wrongly.
    """

    points: dict[str, float]
    drawn: dict[str, npt.NDArray[np.float64]]
    empties: tuple[int, int]


def answered(rows: ScoredRows, num: int = NUM_RESAMPLES) -> Answered:
    """The figures of one run.

    Args:
        rows: Its scored answers.
        num: Resamples.
    """
    found = resample_figures(rows, num_resamples=num)
    points, drawn = {}, {}
    for name, (part, figure) in MEASURED.items():
        of_part = rows if part == ALL else rows.of(*part)
        points[name] = of_part.all_scores()[figure]
        drawn[name] = found[part][:, FIGURE_NAMES.index(figure)]
    return Answered(points, drawn, empties(rows))


def interval_over_seeds(
    by_seed: npt.NDArray[np.float64], *, draw_seeds: bool = True
) -> tuple[float, float]:
    """95 % interval of a mean over seeds, dialogues and seeds drawn with replacement.

    A row holds one seed's figure in every resample of the dialogues, all rows in the same resamples. Few seeds
    make their part too small by the factor (S - 1) / S of its variance.

    Args:
        by_seed: (S, R).
        draw_seeds: False takes every seed once: dialogues alone.

    >>> interval_over_seeds(np.array([[1.0, 1.0], [1.0, 1.0]]))
    (1.0, 1.0)
    """
    num_seeds, num = by_seed.shape
    weights = np.ones((num, num_seeds))
    if draw_seeds:
        weights = np.concatenate(list(draw_dialogues(num_seeds, num, seed=1)))
    means = (weights * by_seed.T).sum(1) / num_seeds
    low, high = percentile_interval(means)
    return float(low), float(high)


def difference(
    first: Mapping[int, Answered], second: Mapping[int, Answered], figure: str
) -> dict[str, Any]:
    """A figure of the first arm less that of the second, seed by seed and dialogue by dialogue.

    Args:
        first: Seed → what was answered.
        second: Likewise; the seeds that both have count.
        figure: Of `MEASURED`.
    """
    seeds = sorted(first.keys() & second.keys())
    each = [first[seed].points[figure] - second[seed].points[figure] for seed in seeds]
    gaps = np.stack([first[seed].drawn[figure] - second[seed].drawn[figure] for seed in seeds])
    low, high = interval_over_seeds(gaps)
    return {
        "mean": round(statistics.fmean(each), 4),
        "95": [round(low, 4), round(high, 4)],
        "95_dialogues_alone": [
            round(end, 4) for end in interval_over_seeds(gaps, draw_seeds=False)
        ],
        "seeds": seeds,
        "each_seed": [round(value, 4) for value in each],
        # one seed does not tell how trainings differ
        "beyond_error": None if len(seeds) < 2 else not low <= 0 <= high,
    }


def empties(rows: ScoredRows) -> tuple[int, int]:
    """How many queries without an answer were left unanswered, and how many others wrongly."""
    says_nothing = rows.counts[:, :, :2].sum((1, 2)) == 0
    is_absent = np.array([name == "empty" for name in rows.slices["by_truth"]])
    return int((says_nothing & is_absent).sum()), int((says_nothing & ~is_absent).sum())


def summary(
    examples: Sequence[Example],
    results: Mapping[str, Mapping[int, Mapping[str, Any]]],
    num: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """Figures of all arms and their paired differences.

    Args:
        examples: What was measured on.
        results: Arm → seed → its result.
        num: Resamples.
    """
    runs = {
        name: {
            seed: answered(rows_of(examples, item["responses"]), num)
            for seed, item in sorted(found.items())
        }
        for name, found in results.items()
    }
    arms = {}
    for name, its_runs in runs.items():
        found: dict[str, Any] = {"seeds": list(its_runs)}
        for figure in MEASURED:
            each = [run.points[figure] for run in its_runs.values()]
            drawn = np.stack([run.drawn[figure] for run in its_runs.values()])
            found[figure] = {
                "mean": round(statistics.fmean(each), 4),
                "95": [round(end, 4) for end in interval_over_seeds(drawn)],
                "each_seed": [round(value, 4) for value in each],
            }
        found["absent_left_unanswered"] = [run.empties[0] for run in its_runs.values()]
        found["wrongly_unanswered"] = [run.empties[1] for run in its_runs.values()]
        found["training"] = [results[name][seed]["training"] for seed in its_runs]
        arms[name] = found
    return {
        "arms": arms,
        "differences": {
            f"{first} - {second}": {
                figure: difference(runs[first], runs[second], figure) for figure in MEASURED
            }
            for first, second in COMPARISONS
            if runs.get(first, {}).keys() & runs.get(second, {}).keys()
        },
    }


# -- table ----------------------------------------------------------------------------------------


def percent(figure: Mapping[str, Any], form: str = ".1f") -> str:
    """A figure and its interval in percent.

    >>> percent({"mean": 0.02, "95": [-0.01, 0.05]}, "+.1f")
    '+2.0 (-1.0 to +5.0)'
    """
    mean, low, high = (format(100 * value, form) for value in (figure["mean"], *figure["95"]))
    return f"{mean} ({low} to {high})"


def table(found: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    num_absent = found["measured"]["absent"]
    num_others = found["measured"]["queries"] - num_absent
    lines = [
        "Percent; in brackets 95 % intervals, dialogues and seeds drawn with replacement.",
        "",
        "| arm | seeds | utterance F1 | of it, queries with an answer | image F1 | joint F1 | "
        f"of {num_absent} absent queries left unanswered | of {num_others} others wrongly |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in found["arms"].items():
        cells = [f"`{name}`: {ARMS[name].words}", ", ".join(map(str, arm["seeds"]))]
        cells += [percent(arm[figure]) for figure in MEASURED]
        cells += [
            f"{statistics.fmean(arm[key]):.1f}"
            for key in ("absent_left_unanswered", "wrongly_unanswered")
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| difference | utterance F1 | each seed | of it, queries with an answer | image F1 | joint F1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, gaps in found["differences"].items():
        cells = [percent(gaps[figure], "+.1f") for figure in MEASURED]
        each = ", ".join(f"{100 * value:+.1f}" for value in gaps["utterance_f1"]["each_seed"])
        lines.append("| " + " | ".join([name, cells[0], each, *cells[1:]]) + " |")
    for figure in MEASURED:
        lines += ["", verdict(found["differences"], figure)]
    return "\n".join(lines) + "\n"


def verdict(differences: Mapping[str, Any], figure: str) -> str:
    """Which differences of a figure are beyond the error, and which are not."""
    beyond = {
        name: gaps[figure] for name, gaps in differences.items() if gaps[figure]["beyond_error"]
    }
    said = [f"{name} ({100 * gap['mean']:+.1f})" for name, gap in beyond.items()]
    single = [name for name, gaps in differences.items() if gaps[figure]["beyond_error"] is None]
    others = [name for name in differences if name not in beyond and name not in single]
    return (
        f"{figure.replace('_', ' ').replace('f1', 'F1')}, beyond the error: "
        f"{', '.join(said) or 'nothing'}. Not beyond it: {', '.join(others) or 'nothing'}."
        + (f" Of one seed, so not told: {', '.join(single)}." if single else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for data, runs and results")
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--measure", choices=("dev", "held-out"), default="dev")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the plan"
    )
    parser.add_argument("--summary-only", action="store_true", help="of what is there")
    options = parser.parse_args()
    changes = dict(item.split("=", 1) for item in options.set)
    plan = replace(
        Plan(), **{key: type(getattr(Plan(), key))(value) for key, value in changes.items()}
    )
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER] = str(out)
    # where `ffr` finds the order reward
    os.environ["PYTHONPATH"] = str(HERE / "rewards")
    ablation = Ablation(out, options.dialogues.resolve(), plan, options.measure)
    write_data(out, ablation.dialogues, plan.dialogues)
    names = [name for name in ARMS if name in options.arms]
    done: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
    # arm by arm, so that what is stopped has the first arms with all seeds
    for name in names:
        for seed in options.seeds:
            if options.summary_only and not ablation.result(name, seed).is_file():
                continue
            done[name][seed] = ablation.do(name, seed)
            scores = done[name][seed]["scores"]
            said = ", ".join(f"{key} {scores[key]:.4f}" for key in FIGURES)
            print(f"{name} {seed}: {said}", flush=True)
    done = {name: found for name, found in done.items() if found}
    if not done:
        raise SystemExit("no arm has a result yet")
    data = load_dataset(ablation.asked(), image_root=ablation.dialogues)
    train = load_dataset(out / "data" / "train.jsonl", image_root=ablation.dialogues)
    found = {
        "plan": asdict(plan),
        "trained_on": {
            "queries": len(train),
            "dialogues": plan.dialogues,
            "fingerprint": train.fingerprint,
        },
        "measured": {
            "on": options.measure,
            "queries": len(data),
            "dialogues": len({example.dialogue.fingerprint for example in data}),
            "absent": sum(
                example.fragment is not None and example.fragment.is_empty for example in data
            ),
            "fingerprint": data.fingerprint,
        },
        **summary(data, done),
        "settings": {name: next(iter(found.values()))["settings"] for name, found in done.items()},
        "versions": versions(),
    }
    text = table(found)
    print(text)
    folder = RESULTS if options.measure == "dev" else out
    replace_json(folder / f"{NAME}.json", found)
    with replaced_file(folder / f"{NAME}.md") as write:
        write(text.encode())


if __name__ == "__main__":
    main()
