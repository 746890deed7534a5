"""Slow, independent fragment metrics: explicit loops over ids and exact fractions, written from the definitions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction


def confusion(pred_ids, true_ids, size):
    """TP, FP, FN, TN by looking at one id after the other."""
    pred_ids, true_ids = list(pred_ids), list(true_ids)
    everything = set(range(size))
    for item in pred_ids + true_ids:
        everything.add(item)
    tp = fp = fn = tn = 0
    for item in sorted(everything):
        predicted, true = item in pred_ids, item in true_ids
        if predicted and true:
            tp += 1
        elif predicted:
            fp += 1
        elif true:
            fn += 1
        else:
            tn += 1
    return tp, fp, fn, tn


def ratios(tp, fp, fn, tn):
    precision = Fraction(tp, tp + fp) if tp + fp else Fraction(0)
    recall = Fraction(tp, tp + fn) if tp + fn else Fraction(0)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    mcc = (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0
    return [float(precision), float(recall), float(f1), mcc]


def join(utterance, image):
    joined = []
    for figure in range(2):
        a, b = utterance[figure], image[figure]
        joined.append(2 * a * b / (a + b) if a + b else 0.0)
    for figure in range(2, 4):
        joined.append((utterance[figure] + image[figure]) / 2)
    return joined


def scores(preds, targets, num_utterances, num_images):
    """The 24 scores of a list of (utterance ids, image ids) pairs."""
    result = {}
    sizes = [num_utterances, num_images]
    totals, means = [], []
    for modality in range(2):
        total = [0, 0, 0, 0]
        per_sample = [[], [], [], []]
        for index in range(len(preds)):
            pred, true = preds[index][modality], targets[index][modality]
            counts = confusion(pred, true, sizes[modality][index])
            total = [a + b for a, b in zip(total, counts, strict=True)]
            row = ratios(*counts)
            if len(list(true)) == 0:
                row = [1.0 if len(list(pred)) == 0 else 0.0] * 4
            for column, value in zip(per_sample, row, strict=True):
                column.append(value)
        totals.append(ratios(*total))
        means.append([math.fsum(column) / len(column) if column else 0.0 for column in per_sample])
    for prefix, figures in (("", totals), ("sample_", means)):
        for modality, row in zip(
            ("utterance", "image", "joint"), (*figures, join(*figures)), strict=True
        ):
            for name, value in zip(("precision", "recall", "f1", "mcc"), row, strict=True):
                result[f"{prefix}{modality}_{name}"] = value
    return result


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def coherence(num_utterances_of_dialogue, utterance_vectors, image_vectors, target_is_empty):
    """`utterance_vectors` maps id → vector; `image_vectors` is a list of (utterance id, vector)."""
    line = []
    for position in range(num_utterances_of_dialogue):
        if position in utterance_vectors:
            line.append(utterance_vectors[position])
        hanging = [vector for host, vector in image_vectors if host == position]
        if hanging:
            line.append([sum(column) / len(hanging) for column in zip(*hanging, strict=True)])
    if not line and target_is_empty:
        return 1.0
    if not line or target_is_empty:
        return 0.0
    if len(line) == 1:
        return 0.5
    neighbours = [cosine(a, b) for a, b in itertools.pairwise(line)]
    return sum(neighbours) / len(neighbours)
