"""Precision, recall, F1 and MCC of retrieved fragments: confusion counts over ids, and the ratios made of them.

Shapes: N samples; the modality axis is (utterance, image); the count axis is (TP, FP, FN, TN); the figure axis is
(precision, recall, F1, MCC).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

Modality = Literal["utterance", "image", "joint"]
Average = Literal["global", "sample"]

FIGURES = ("precision", "recall", "f1", "mcc")
MODALITIES: tuple[Modality, ...] = get_args(Modality)

SAMPLE_SCALE = 2**40
"""Per-sample figures are summed as whole multiples of 2^-40, so that no order of batches or processes changes a bit."""


class HasFragmentIds(Protocol):
    """Anything that names utterances and images by id, such as `ffr.dialogue.Fragment`."""

    @property
    def utterance_ids(self) -> Collection[int]: ...

    @property
    def image_ids(self) -> Collection[int]: ...


FragmentLike = HasFragmentIds | tuple[Iterable[int], Iterable[int]]
"""An object with `utterance_ids` and `image_ids`, or the pair of them; a repeated id counts once."""


def _id_sets(fragment: FragmentLike) -> tuple[set[int], set[int]]:
    if isinstance(fragment, tuple):
        utterance_ids, image_ids = fragment
    else:
        utterance_ids, image_ids = fragment.utterance_ids, fragment.image_ids
    sets = set(utterance_ids), set(image_ids)
    if any(item < 0 for ids in sets for item in ids):
        raise ValueError(f"ids count from 0, but a fragment names {min(min(ids, default=0) for ids in sets)}")
    return sets


def fragment_counts(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
) -> Tensor:
    """Confusion counts of each sample, by modality.

    TP are the ids in both lists, FP those predicted only, FN those true only, TN the ids 0 … size-1 of the dialogue
    in neither list. An id that the dialogue does not have is a false positive (or negative) like any other and never
    a true negative.

    Args:
        preds: Predicted fragments, N of them.
        targets: True fragments, N of them.
        num_utterances: Number of utterances of each sample's dialogue.
        num_images: Number of images of each sample's dialogue.

    Returns:
        int64 of shape (N, 2, 4).

    Raises:
        ValueError: where the four differ in length, or an id or a size is negative.

    >>> fragment_counts([((0, 1), ())], [((1, 2), (0,))], [5], [1])
    tensor([[[1, 1, 1, 2],
             [0, 0, 1, 0]]])
    """
    lengths = {len(preds), len(targets), len(num_utterances), len(num_images)}
    if len(lengths) != 1:
        raise ValueError(
            f"{len(preds)} predictions, {len(targets)} targets, {len(num_utterances)} and {len(num_images)} dialogue "
            "sizes: their numbers must be equal"
        )
    rows: list[list[list[int]]] = []
    for pred, target, *sizes in zip(preds, targets, num_utterances, num_images, strict=True):
        if min(sizes) < 0:
            raise ValueError(f"a dialogue cannot have {min(sizes)} utterances or images")
        row: list[list[int]] = []
        for predicted, true, size in zip(_id_sets(pred), _id_sets(target), sizes, strict=True):
            num_named_inside = sum(item < size for item in predicted | true)
            row.append(
                [len(predicted & true), len(predicted - true), len(true - predicted), size - num_named_inside],
            )
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), 2, 4)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Numerator over denominator in float64; 0 where the denominator is 0."""
    safe = torch.where(denominator == 0, 1, denominator)
    return torch.where(denominator == 0, 0.0, numerator.double() / safe.double())


def figures_from_counts(counts: Tensor) -> Tensor:
    """Precision, recall, F1 and MCC of confusion counts; a ratio with denominator 0 is 0.

    P = TP/(TP+FP), R = TP/(TP+FN), F1 = 2TP/(2TP+FP+FN),
    MCC = (TP·TN - FP·FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)).

    Args:
        counts: int64 of shape (…, 4); each count under 2^31.

    Returns:
        float64 of shape (…, 4), on the CPU.

    >>> figures_from_counts(torch.tensor([1, 1, 1, 2]))
    tensor([0.5000, 0.5000, 0.5000, 0.1667], dtype=torch.float64)
    """
    tp, fp, fn, tn = counts.cpu().unbind(-1)
    # the product is taken in two halves, so that a perfect answer comes out as 1 and not as 1 + 2e-16
    spread = ((tp + fp).double() * (tp + fn)).sqrt() * ((tn + fp).double() * (tn + fn)).sqrt()
    mcc = _divide(tp * tn - fp * fn, spread).clamp(-1.0, 1.0)
    return torch.stack((_divide(tp, tp + fp), _divide(tp, tp + fn), _divide(2 * tp, 2 * tp + fp + fn), mcc), dim=-1)


def sample_figures_from_counts(counts: Tensor) -> Tensor:
    """The four figures of each sample; where the truth is empty all are 1 for an empty prediction and 0 for any other.

    Args:
        counts: int64 of shape (…, 4).

    Returns:
        float64 of shape (…, 4), on the CPU.

    >>> sample_figures_from_counts(torch.tensor([[0, 0, 0, 7], [0, 1, 0, 6], [0, 0, 1, 6]]))[:, 2]
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    tp, fp, fn, _ = counts.cpu().unbind(-1)
    is_truth_empty = ((tp + fn) == 0).unsqueeze(-1)
    is_pred_empty = ((tp + fp) == 0).unsqueeze(-1)
    return torch.where(is_truth_empty, is_pred_empty.double(), figures_from_counts(counts))


def joint_figures(figures: Tensor) -> Tensor:
    """Joins the two modalities: P and R are harmonic means (0 where both are 0), F1 and MCC plain means.

    Args:
        figures: float64 of shape (…, 2, 4).

    Returns:
        float64 of shape (…, 4).

    >>> joint_figures(torch.tensor([[0.5, 1.0, 0.6, 0.4], [1.0, 0.0, 0.2, 0.0]]))
    tensor([0.6667, 0.0000, 0.4000, 0.2000], dtype=torch.float64)
    """
    utterance, image = figures.double().unbind(-2)
    harmonic = _divide(2 * utterance * image, utterance + image)
    plain = (utterance + image) / 2
    return torch.cat((harmonic[..., :2], plain[..., 2:]), dim=-1)


def name_figures(figures: Tensor, *, prefix: str = "") -> dict[str, Tensor]:
    """Names the figures of both modalities and adds the joint ones: `utterance_precision`, …, `joint_mcc`.

    Args:
        figures: float64 of shape (…, 2, 4).
        prefix: Stands before each name.

    Returns:
        Twelve tensors of shape (…).
    """
    rows = (*figures.unbind(-2), joint_figures(figures))
    return {
        f"{prefix}{modality}_{figure}": row[..., column]
        for modality, row in zip(MODALITIES, rows, strict=True)
        for column, figure in enumerate(FIGURES)
    }


def scores_from_counts(counts: Tensor) -> dict[str, Tensor]:
    """All 24 scores of a data set from its samples' counts, in float64.

    Args:
        counts: int64 of shape (N, 2, 4), as `fragment_counts` gives them.

    Returns:
        `utterance_f1`, `image_mcc`, `joint_precision`, …: global, over the summed counts. `sample_utterance_f1`, …:
        means over the samples (the joint P and R of those means are taken as globally; 0 where there is no sample).
    """
    sample_sums = _fixed_point_sum(sample_figures_from_counts(counts))
    return _fragment_compute(counts.sum(0), sample_sums, torch.tensor(len(counts)))


def _fixed_point_sum(values: Tensor) -> Tensor:
    """Sums the first axis of `values` as int64 multiples of 1/SAMPLE_SCALE."""
    return (values * SAMPLE_SCALE).round().to(torch.int64).sum(0)


def _fixed_point_mean(sums: Tensor, num: Tensor) -> Tensor:
    return _divide(sums.cpu(), num.cpu() * SAMPLE_SCALE)


def _fragment_update(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
) -> tuple[Tensor, Tensor, int]:
    """Summed counts (2, 4), summed sample figures in fixed point (2, 4), and the number of samples."""
    counts = fragment_counts(preds, targets, num_utterances, num_images)
    return counts.sum(0), _fixed_point_sum(sample_figures_from_counts(counts)), len(counts)


def _fragment_compute(counts: Tensor, sample_sums: Tensor, num_samples: Tensor) -> dict[str, Tensor]:
    """The 24 scores from the states, in float64."""
    sample_means = _fixed_point_mean(sample_sums, num_samples)
    return name_figures(figures_from_counts(counts)) | name_figures(sample_means, prefix="sample_")


def fragment_scores(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
) -> dict[str, Tensor]:
    """Precision, recall, F1 and MCC for utterances, images and jointly, global and as means over samples.

    Source: the evaluator of F2RVLM (arXiv 2508.17714). Global figures are ratios of counts summed over the data. TN
    counts the ids of the dialogue in neither list; the released code takes the largest id it finds in the prompt for
    the dialogue's size, and 20 where it finds none, while here the sizes are given.

    Args:
        preds: Predicted fragments, N of them.
        targets: True fragments.
        num_utterances: Number of utterances of each sample's dialogue (of use to MCC only).
        num_images: Number of images of each sample's dialogue.

    Returns:
        24 scalars: `{utterance,image,joint}_{precision,recall,f1,mcc}` and the same with `sample_` before.

    Raises:
        ValueError: where the arguments differ in length, or an id or a size is negative.

    >>> scores = fragment_scores([((0, 1), ()), ((2,), (0,))], [((0, 1, 2), ()), ((2,), (1,))], [4, 4], [2, 2])
    >>> scores["utterance_recall"], scores["image_f1"], scores["sample_image_f1"]
    (tensor(0.7500), tensor(0.), tensor(0.5000))
    """
    counts, sample_sums, num_samples = _fragment_update(preds, targets, num_utterances, num_images)
    scores = _fragment_compute(counts, sample_sums, torch.tensor(num_samples))
    return {name: score.float() for name, score in scores.items()}


def _score_name(modality: Modality, average: Average, figure: str) -> str:
    if modality not in MODALITIES:
        raise ValueError(f"modality {modality!r} is unknown; choose one of {', '.join(MODALITIES)}")
    if average not in get_args(Average):
        raise ValueError(f"average {average!r} is unknown; choose one of {', '.join(get_args(Average))}")
    return f"{'sample_' if average == 'sample' else ''}{modality}_{figure}"


def fragment_precision(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Share of the predicted ids that are true; see `fragment_scores`.

    >>> fragment_precision([((0, 1), ())], [((1,), ())], [3], [0], modality="utterance")
    tensor(0.5000)
    """
    name = _score_name(modality, average, "precision")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_recall(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Share of the true ids that are predicted; see `fragment_scores`.

    >>> fragment_recall([((0, 1), ())], [((1,), ())], [3], [0], modality="utterance")
    tensor(1.)
    """
    name = _score_name(modality, average, "recall")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_f1(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Harmonic mean of precision and recall, jointly the plain mean of the two modalities' F1; see `fragment_scores`.

    >>> fragment_f1([((0, 1), ())], [((1,), ())], [3], [0], modality="utterance")
    tensor(0.6667)
    """
    name = _score_name(modality, average, "f1")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]


def fragment_mcc(
    preds: Sequence[FragmentLike],
    targets: Sequence[FragmentLike],
    num_utterances: Sequence[int],
    num_images: Sequence[int],
    *,
    modality: Modality = "joint",
    average: Average = "global",
) -> Tensor:
    """Matthews correlation of predicted and true ids over the dialogue's ids; see `fragment_scores`.

    >>> fragment_mcc([((0, 1), ())], [((1,), ())], [3], [0], modality="utterance")
    tensor(0.5000)
    """
    name = _score_name(modality, average, "mcc")
    return fragment_scores(preds, targets, num_utterances, num_images)[name]
