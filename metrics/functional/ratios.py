"""The four published figures: precision, recall, F1 and the Matthews correlation.

Source: the evaluator of F2RVLM (arXiv 2508.17714). A ratio with denominator 0 is 0.
"""

from __future__ import annotations

import numpy as np

from ffr.metrics.functional.figure import Array, Figure, divide


def precision(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    """TP / (TP + FP): the share of the predicted ids that are true."""
    return divide(tp, tp + fp)


def recall(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    """TP / (TP + FN): the share of the true ids that are predicted."""
    return divide(tp, tp + fn)


def f1(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    """2TP / (2TP + FP + FN): the harmonic mean of precision and recall."""
    return divide(2 * tp, 2 * tp + fp + fn)


def mcc(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    """(TP·TN - FP·FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)): correlation of predicted and true."""
    # the product is taken in two halves, so that a perfect answer gives 1 and not 1 + 2e-16
    left = np.sqrt((tp + fp).astype(np.float64) * (tp + fn))
    right = np.sqrt((tn + fp).astype(np.float64) * (tn + fn))
    return np.clip(divide(tp * tn - fp * fn, left * right), -1.0, 1.0)


PRECISION = Figure("precision", "P", "precision", precision, joint="harmonic", needs_sizes=False)
RECALL = Figure("recall", "R", "recall", recall, joint="harmonic", needs_sizes=False)
F1 = Figure("f1", "F1", "F1", f1, needs_sizes=False)
MCC = Figure("mcc", "MCC", "MCC", mcc)
