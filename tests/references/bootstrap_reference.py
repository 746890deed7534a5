"""Slow, independent bootstrap over whole dialogues: a plain loop that draws, adds up and divides, written from the definition."""

from __future__ import annotations

import random

import fragment_reference


def counts_of(pred, truth, sizes):
    """Confusion counts of one answer: [utterance (TP, FP, FN, TN), image (…)]."""
    return [fragment_reference.confusion(pred[m], truth[m], sizes[m]) for m in range(2)]


def global_figures(list_of_counts):
    """P, R, F1, MCC of utterances, images and jointly, of the summed counts: 12 numbers."""
    figures = []
    for modality in range(2):
        total = [sum(counts[modality][place] for counts in list_of_counts) for place in range(4)]
        figures.append(fragment_reference.ratios(*total))
    return [*figures[0], *figures[1], *fragment_reference.join(*figures)]


def percentile(values, share):
    """Linear between the two nearest in order."""
    values = sorted(values)
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def intervals(list_of_counts, dialogues, num_resamples, seed, level=0.95):
    """[(low, high)] of the 12 global figures."""
    by_dialogue = {}
    for counts, dialogue in zip(list_of_counts, dialogues, strict=True):
        by_dialogue.setdefault(dialogue, []).append(counts)
    names = list(by_dialogue)
    chance = random.Random(seed)
    drawn = []
    for _ in range(num_resamples):
        resample = []
        for _ in names:
            resample += by_dialogue[chance.choice(names)]
        drawn.append(global_figures(resample))
    return [
        (percentile(column, (1 - level) / 2), percentile(column, (1 + level) / 2))
        for column in zip(*drawn, strict=True)
    ]
