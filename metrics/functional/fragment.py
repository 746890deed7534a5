"""Precision, recall, F1 and MCC of retrieved fragments, as tensors.

Shapes: N samples; the modality axis is (utterance, image); the count axis is (TP, FP, FN, TN); the
figure axis has the order of `FIGURES`, F long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from ffr.metrics.functional import figures as table
from ffr.metrics.functional.figure import Array
from ffr.metrics.functional.figures import MODALITIES, Modality
from ffr.metrics.functional.inputs import Fragments

Average = Literal["global", "sample"]


def fragment_counts(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int],
    num_images: Iterable[int],
) -> Tensor:
    """Confusion counts of each sample, by modality.

    TP are the ids in both lists, FP those predicted only, FN those true only, TN the ids
    0 … size-1 of the dialogue in neither list. An id that the dialogue does not have is a false
    positive (or negative) like any other and never a true negative.

    Args:
        preds: Predicted fragments, N of them: `Fragment`s, answer texts, or pairs of a list,
            tensor or array of utterance ids and one of image ids.
        targets: True fragments, N of them, likewise.
        num_utterances: Number of utterances of each sample's dialogue.
        num_images: Number of images of each sample's dialogue.

    Returns:
        int64 of shape (N, 2, 4).

    Raises:
        ValueError: where the four differ in length, or something is no fragment, id or size
            (floats, truth values and masks are none).

    >>> fragment_counts([((0, 1), ())], [((1, 2), (0,))], [5], [1])
    tensor([[[1, 1, 1, 2],
             [0, 0, 1, 0]]])
    """
    return torch.from_numpy(table.confusion_counts(preds, targets, num_utterances, num_images))


def figures_from_counts(counts: Tensor) -> Tensor:
    """All figures of confusion counts, in the order of `FIGURES`; a ratio over 0 is 0.

    P = TP/(TP+FP), R = TP/(TP+FN), F1 = 2TP/(2TP+FP+FN),
    MCC = (TP·TN - FP·FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)).

    Args:
        counts: int64 of shape (…, 4); each count under 2^31.

    Returns:
        float64 of shape (…, F), on the CPU.

    >>> figures_from_counts(torch.tensor([1, 1, 1, 2]))
    tensor([0.5000, 0.5000, 0.5000, 0.1667], dtype=torch.float64)
    """
    return torch.from_numpy(table.figures_of(counts.cpu().numpy()))


def sample_figures_from_counts(counts: Tensor) -> Tensor:
    """The figures of each sample; of an empty truth all are 1 for an empty prediction, else 0.

    Args:
        counts: int64 of shape (…, 4).

    Returns:
        float64 of shape (…, F), on the CPU.

    >>> sample_figures_from_counts(torch.tensor([[0, 0, 0, 7], [0, 1, 0, 6], [0, 0, 1, 6]]))[:, 2]
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    return torch.from_numpy(table.sample_figures_of(counts.cpu().numpy()))


def scores_from_counts(counts: Tensor) -> dict[str, Tensor]:
    """All scores of a data set from its samples' counts, in float64.

    Args:
        counts: int64 of shape (N, 2, 4), as `fragment_counts` gives them.

    Returns:
        `utterance_f1`, `image_mcc`, `joint_precision`, …: global, over the summed counts.
        `sample_utterance_f1`, …: means over the samples (the joint figures of those means are
        taken as globally; 0 where there is no sample).
    """
    sums, sample_sums = _sums(counts.cpu().numpy())
    return _fragment_compute(sums, sample_sums, torch.tensor(len(counts)))


def _sums(counts: Array) -> tuple[Tensor, Tensor]:
    """Counts (N, 2, 4) → summed counts (2, 4), summed sample figures in fixed point (2, F)."""
    figures = table.to_fixed_point(table.sample_figures_of(counts))
    return torch.from_numpy(counts.sum(0)), torch.from_numpy(figures.sum(0))


def _fragment_update(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
) -> tuple[Tensor, Tensor, int]:
    """What a batch adds to the states: `_sums` and the number of samples."""
    counts = table.confusion_counts(preds, targets, num_utterances, num_images)
    return *_sums(counts), len(counts)


def _fragment_compute(
    counts: Tensor, sample_sums: Tensor, num_samples: Tensor, *, has_sizes: bool = True
) -> dict[str, Tensor]:
    """All scores from the states, in float64; without sizes not those that need them."""
    states = (state.cpu().numpy() for state in (counts, sample_sums, num_samples))
    scores = torch.from_numpy(table.scores_of_sums(*states))
    unknown = set() if has_sizes else table.names_that_need_sizes()
    return {
        name: score
        for name, score in zip(table.score_names(), scores, strict=True)
        if name not in unknown
    }


def fragment_scores(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
) -> dict[str, Tensor]:
    """All figures for utterances, images and jointly, global and as means over samples.

    Source: the evaluator of F2RVLM (arXiv 2508.17714). Global figures are ratios of counts summed
    over the data. TN counts the ids of the dialogue in neither list; the released code takes the
    largest id it finds in the prompt for the dialogue's size, and 20 where it finds none, while
    here the sizes are given.

    Args:
        preds: Predicted fragments, N of them, as `fragment_counts` takes them.
        targets: True fragments.
        num_utterances: Number of utterances of each sample's dialogue; only MCC needs it.
        num_images: Number of images of each sample's dialogue; likewise.

    Returns:
        6·F scalars: `{utterance,image,joint}_{precision,recall,f1,mcc,…}` and the same with
        `sample_` before. Without sizes the figures that need them, such as MCC, are left out.

    Raises:
        ValueError: where the arguments differ in length, or something is no fragment, id or size.

    >>> preds, targets = [((0, 1), ()), ((2,), (0,))], [((0, 1, 2), ()), ((2,), (1,))]
    >>> scores = fragment_scores(preds, targets, [4, 4], [2, 2])
    >>> scores["utterance_recall"], scores["image_f1"], scores["sample_image_f1"]
    (tensor(0.7500), tensor(0.), tensor(0.5000))
    """
    counts, sample_sums, num_samples = _fragment_update(preds, targets, num_utterances, num_images)
    scores = _fragment_compute(
        counts, sample_sums, torch.tensor(num_samples), has_sizes=num_utterances is not None
    )
    return {name: score.float() for name, score in scores.items()}


def _score_name(modality: Modality, average: Average, figure: str) -> str:
    if modality not in MODALITIES:
        known = ", ".join(MODALITIES)
        raise ValueError(f"modality {modality!r} is unknown; choose one of {known}")
    if average not in get_args(Average):
        known = ", ".join(get_args(Average))
        raise ValueError(f"average {average!r} is unknown; choose one of {known}")
    return f"{table.SAMPLE_PREFIX if average == 'sample' else ''}{modality}_{figure}"


def fragment_precision(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Share of the predicted ids that are true; see `fragment_scores`.

    >>> fragment_precision([((0, 1), ())], [((1,), ())], modality="utterance")
    tensor(0.5000)
    """
    name = _score_name(modality, average, "precision")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_recall(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Share of the true ids that are predicted; see `fragment_scores`.

    >>> fragment_recall([((0, 1), ())], [((1,), ())], modality="utterance")
    tensor(1.)
    """
    name = _score_name(modality, average, "recall")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_f1(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Harmonic mean of precision and recall, jointly the plain mean of both; see `fragment_scores`.

    >>> answer = "<|utt_ids_start|>[0, 1]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    >>> fragment_f1([answer], [(torch.tensor([1]), torch.tensor([]))], modality="utterance")
    tensor(0.6667)
    """
    name = _score_name(modality, average, "f1")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_mcc(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int],
    num_images: Iterable[int],
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Matthews correlation over the dialogue's ids, so it needs their number.

    See `fragment_scores`.

    >>> fragment_mcc([((0, 1), ())], [((1,), ())], [3], [0], modality="utterance")
    tensor(0.5000)
    """
    name = _score_name(modality, average, "mcc")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]
