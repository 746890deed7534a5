"""Measures a joint text–image encoder on generated sets: `python scripts/measure_tiny_clip.py --seeds 0 1 2`.

For each seed of the generator `sample` is made anew and its part `val` judged, thresholds taken from its part `train`:
retrieval of a query's utterances and images by cosine similarity, similarities inside and across fragments, and the coherence
of true fragments beside the same with something wrong, or something right missing. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from ffr.data.dataset import open_dataset
from ffr.data.sample.generate import write_sample
from ffr.dialogue import Example, Fragment
from ffr.embedding import Encoder, load_encoder
from ffr.metrics.functional import fragment_order_coherence

NUM_TRAIN = 300
"""Queries of `train` that a threshold is fitted on."""


@dataclass(frozen=True)
class Encoded:
    """A query with the vectors of its dialogue: texts (U, H), pictures (I, H), query (H,)."""

    example: Example
    texts: Tensor
    pictures: Tensor
    query: Tensor

    def coherence(self, fragment: Fragment) -> float:
        assert self.example.fragment is not None
        hangs_on = self.example.dialogue.image_utterance_ids
        return float(
            fragment_order_coherence(
                fragment.utterance_ids,
                self.texts[list(fragment.utterance_ids)],
                [hangs_on[item] for item in fragment.image_ids],
                self.pictures[list(fragment.image_ids)],
                is_target_empty=self.example.fragment.is_empty,
            )
        )


def encode(encoder: Encoder, part: Path, limit: int | None) -> list[Encoded]:
    known: dict[str, tuple[Tensor, Tensor]] = {}
    found = []
    examples = list(open_dataset(part))
    if limit is not None:
        examples = random.Random(0).sample(examples, limit)
    for example in examples:
        dialogue = example.dialogue
        if dialogue.fingerprint not in known:
            texts = encoder.embed_texts([line.text for line in dialogue.utterances])
            pictures = encoder.embed_images(list(example.image_locations()))
            known[dialogue.fingerprint] = texts.float(), pictures.float()
        found.append(
            Encoded(
                example,
                *known[dialogue.fingerprint],
                encoder.embed_texts([example.query])[0].float(),
            )
        )
    return found


def scores(items: Sequence[Encoded], kind: str) -> tuple[Tensor, Tensor]:
    """Cosine of each utterance or image with its query, and whether it belongs to the answer, over all queries."""
    values, labels = [], []
    for item in items:
        assert item.example.fragment is not None
        vectors = item.texts if kind == "utterances" else item.pictures
        fragment = item.example.fragment
        right = set(fragment.utterance_ids if kind == "utterances" else fragment.image_ids)
        values.append(vectors @ item.query)
        labels += [index in right for index in range(len(vectors))]
    return torch.cat(values), torch.tensor(labels)


def f1(values: Tensor, labels: Tensor, threshold: float) -> float:
    named = values >= threshold
    return float(2 * (named & labels).sum() / (named.sum() + labels.sum()))


def best_threshold(values: Tensor, labels: Tensor) -> float:
    candidates = torch.linspace(-1, 1, 401).tolist()
    return max(candidates, key=lambda threshold: f1(values, labels, threshold))


def similarities(items: Sequence[Encoded]) -> dict[str, float]:
    """Mean cosine inside true fragments and from inside to outside, by what meets what."""
    sums: dict[str, list[float]] = {}
    for item in items:
        fragment = item.example.fragment
        assert fragment is not None
        for left_name, left_vectors, left in (
            ("text", item.texts, set(fragment.utterance_ids)),
            ("picture", item.pictures, set(fragment.image_ids)),
        ):
            for right_name, right_vectors, right in (
                ("text", item.texts, set(fragment.utterance_ids)),
                ("picture", item.pictures, set(fragment.image_ids)),
            ):
                cosines = (left_vectors @ right_vectors.T).tolist()
                for row in left:
                    for column in range(len(right_vectors)):
                        if left_name == right_name and row == column:
                            continue
                        same = "same" if column in right else "other"
                        sums.setdefault(f"{left_name}-{right_name} {same}", []).append(
                            cosines[row][column]
                        )
    return {name: round(statistics.fmean(values), 3) for name, values in sums.items()}


def changes(item: Encoded, chance: random.Random) -> dict[str, Fragment]:
    """The true fragment and what is wrong with it in each way that this dialogue allows."""
    fragment = item.example.fragment
    assert fragment is not None
    utterances, images = set(fragment.utterance_ids), set(fragment.image_ids)
    other_utterances = sorted(set(range(len(item.texts))) - utterances)
    other_images = sorted(set(range(len(item.pictures))) - images)
    found = {"true": fragment}
    if len(other_utterances) >= len(utterances) and len(other_images) >= len(images):
        found["random of the same size"] = Fragment.of(
            chance.sample(range(len(item.texts)), len(utterances)),
            chance.sample(range(len(item.pictures)), len(images)),
        )
    if other_utterances:
        found["one wrong utterance more"] = Fragment.of(
            {*utterances, chance.choice(other_utterances)}, images
        )
    if other_images:
        found["one wrong picture more"] = Fragment.of(
            utterances, {*images, chance.choice(other_images)}
        )
        found["all pictures of the dialogue"] = Fragment.of(utterances, range(len(item.pictures)))
    if images:
        found["one right picture less"] = Fragment.of(
            utterances, images - {chance.choice(sorted(images))}
        )
        found["no picture"] = Fragment.of(utterances, ())
        if len(other_images) >= len(images):
            found["pictures exchanged"] = Fragment.of(
                utterances, chance.sample(other_images, len(images))
            )
    return found


def coherences(items: Sequence[Encoded], seed: int) -> dict[str, dict[str, float]]:
    """Mean coherence of each change and of the true fragments it was made of, and how often the change is clearly higher."""
    chance = random.Random(seed)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for item in items:
        fragment = item.example.fragment
        if fragment is None or len(fragment.utterance_ids) + len(fragment.image_ids) < 2:
            continue
        true = item.coherence(fragment)
        for name, changed in changes(item, chance).items():
            pairs.setdefault(name, []).append((true, item.coherence(changed)))
    return {
        name: {
            "true": round(statistics.fmean(true for true, _ in found), 3),
            "changed": round(statistics.fmean(value for _, value in found), 3),
            "changed_higher_by_0.02": round(
                statistics.fmean(value > true + 0.02 for true, value in found), 3
            ),
            "num_fragments": len(found),
        }
        for name, found in pairs.items()
    }


def measure(encoder: Encoder, name: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        write_sample(folder, name, seed)
        val = encode(encoder, folder / "val.jsonl", None)
        train = (
            encode(encoder, folder / "train.jsonl", NUM_TRAIN)
            if (folder / "train.jsonl").is_file()
            else []
        )
    result: dict[str, Any] = {"set": name, "seed": seed, "num_queries": len(val)}
    for kind in ("utterances", "images"):
        values, labels = scores(val, kind)
        result[kind] = {"auc": round(float(binary_auroc(values, labels.long())), 4)}
        if train:
            threshold = best_threshold(*scores(train, kind))
            result[kind] |= {
                "threshold": round(threshold, 3),
                "f1": round(f1(values, labels, threshold), 4),
            }
    result["similarity"] = similarities(val)
    result["coherence"] = coherences(val, seed)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measures a joint text–image encoder on generated sets."
    )
    parser.add_argument(
        "--model",
        default="tiny-clip",
        help="As `load_encoder` takes it; `policy` for the features of `tiny`.",
    )
    parser.add_argument("--sets", nargs="+", default=["sample"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if options.model == "policy":
        from ffr.models.loading import load_vlm

        encoder: Encoder = load_vlm("tiny")
    else:
        encoder = load_encoder(options.model)
    for name in options.sets:
        for seed in options.seeds:
            print(
                json.dumps(measure(encoder, name, seed), ensure_ascii=False, indent=1), flush=True
            )


if __name__ == "__main__":
    main()
