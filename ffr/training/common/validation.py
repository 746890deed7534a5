"""Validation while training: loss on true answers, F1 of generated ones, over all processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ffr.answer import read_response
from ffr.data.dataset import ExampleDataset
from ffr.metrics import FragmentScores
from ffr.models.decoding.greedy import generate_answers
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.training.common.loss import answer_nll
from ffr.training.common.module import StageModule


def validate(
    module: StageModule[Any], vlm: Vlm, data: ExampleDataset, builder: PromptBuilder
) -> dict[str, float]:
    """Loss per answer token and F1 over the first `val_examples` examples that have an answer.

    Args:
        module: The module; it is put back into training mode afterwards.
        vlm: The model that it trains.
        data: Validation data.
        builder: Encodes its examples.

    Returns:
        `val_loss`, `val_utterance_f1`, `val_image_f1`, `val_joint_f1` (global, lenient reading) and
        `val_malformed_share`.
    """
    config = module.config
    indices = list(range(min(config.val_examples, len(data))))
    own = indices[module.trainer.global_rank :: module.trainer.world_size]
    was_training = module.training
    module.eval()
    scores = FragmentScores().to(module.device)
    sums = [0.0] * 4  # nll, answer tokens, malformed answers, answers
    with torch.no_grad():
        for batch in _by_tokens(own, data, builder, config.val_batch_tokens):
            positions, encoded = zip(*batch, strict=True)
            with_answers = [
                builder(data[i], with_answer=True, where=data.where(i)) for i in positions
            ]
            logits, targets, _ = vlm.answer_logits(vlm.collate(with_answers, padding_side="right"))
            sums[0] += float(answer_nll(logits, targets))
            sums[1] += len(targets)
            answers = generate_answers(vlm, list(encoded), max_new_tokens=config.max_new_tokens)
            for index, answer in zip(positions, answers, strict=True):
                example = data[index]
                size = (len(example.dialogue.utterances), len(example.dialogue.images))
                read = read_response(vlm.opened_thought + answer.text)
                assert example.fragment is not None
                scores.update([read.fragment], [example.fragment], [size[0]], [size[1]])
                sums[2] += not read.is_well_formed
                sums[3] += 1
    nll, num_tokens, num_malformed, num_answers = module.sum_over_processes(sums)
    figures = {name: float(value) for name, value in scores.compute().items()}
    module.train(was_training)
    return {
        "val_loss": nll / num_tokens,
        "val_utterance_f1": figures["utterance_f1"],
        "val_image_f1": figures["image_f1"],
        "val_joint_f1": figures["joint_f1"],
        "val_malformed_share": num_malformed / num_answers,
    }


def _by_tokens(
    indices: Sequence[int], data: ExampleDataset, builder: PromptBuilder, max_tokens: int
) -> Iterator[list[tuple[int, Encoded]]]:
    """Encoded prompts in batches of like length, each of at most `max_tokens`, or one prompt."""
    prompts = [(index, builder(data[index], where=data.where(index))) for index in indices]
    prompts.sort(key=lambda pair: pair[1].num_tokens)
    batch: list[tuple[int, Encoded]] = []
    for pair in prompts:
        if batch and (len(batch) + 1) * pair[1].num_tokens > max_tokens:
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch
