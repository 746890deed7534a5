"""A reader as what is trained: validated by its answers, calibrated, saved with its card.

Shapes: V validation examples, n units of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ffr.data.dataset import ExampleDataset
from ffr.dialogue import Fragment
from ffr.files import replace_text
from ffr.metrics import FragmentScores
from ffr.models.saving import CARD_FILE
from ffr.reader.model import Reader
from ffr.runs import READER
from ffr.training.common.calibration import calibrate
from ffr.training.common.module import StageModule
from ffr.training.common.reader_card import reader_card
from ffr.training.common.reader_items import ReaderItem, UnitTable, batch_of, stranger_items
from ffr.training.common.reader_loss import reader_loss
from ffr.training.common.stage import Ended

_BATCH = 64
_STRANGERS_EACH = 3
"""Queries of other dialogues that each validation example's dialogue is asked for calibration."""


class ReaderSubject:
    """A reader that is trained: a `Subject`.

    Args:
        reader: The reader.
        validation: Validation data with its vectors; None for none.
        nothing_weight: As the loss has it.
        calibrates: Whether its probabilities are calibrated on the validation data at the end.
        picture_weight: What the reader's is to be once it is trained, for a network that learns with
            another one makes up for it; None for its own.
    """

    def __init__(
        self,
        reader: Reader,
        validation: UnitTable | None,
        *,
        nothing_weight: float,
        calibrates: bool,
        picture_weight: float | None = None,
    ) -> None:
        self._reader = reader
        self._validation = validation
        self._nothing_weight = nothing_weight
        self._calibrates = calibrates
        self._picture_weight = picture_weight

    @torch.no_grad()
    def validate(self, module: StageModule[Any], data: ExampleDataset) -> dict[str, float]:
        """Loss per example, and F1 of the answers over all examples together.

        Args:
            module: The module; it is put back into training mode afterwards.
            data: Validation data.

        Returns:
            `val_loss`, `val_utterance_f1`, `val_image_f1`, `val_joint_f1`.
        """
        assert self._validation is not None
        indices = list(range(min(module.config.val_examples, len(data))))
        own = indices[module.trainer.global_rank :: module.trainer.world_size]
        was_training = module.training
        module.eval()
        scores = FragmentScores().to(module.device)
        losses = 0.0
        for start in range(0, len(own), _BATCH):
            items = [self._validation.item(index) for index in own[start : start + _BATCH]]
            losses += float(self._losses(items).sum())
        for index in own:
            example = data[index]
            query = self._validation.query(index)[None]
            (found,) = self._reader.predict(self._validation.units(index), query)
            assert example.fragment is not None
            size = len(example.dialogue.utterances), len(example.dialogue.images)
            answer = Fragment(found.utterance_ids, found.image_ids)
            scores.update([answer], [example.fragment], [size[0]], [size[1]])
        loss, count = module.sum_over_processes([losses, float(len(own))])
        figures = {name: float(value) for name, value in scores.compute().items()}
        module.train(was_training)
        return {
            "val_loss": loss / count,
            **{f"val_{name}": figures[name] for name in ("utterance_f1", "image_f1", "joint_f1")},
        }

    def _losses(self, items: Sequence[ReaderItem]) -> torch.Tensor:
        inputs, labels = batch_of(items)
        units, nothing = self._reader.logits(inputs)
        return reader_loss(units, nothing, labels, inputs.mask, nothing_weight=self._nothing_weight)

    def save(self, ended: Ended[Any]) -> None:
        """Writes `reader/`, with its card, calibrated where the stage does so."""
        config, record = ended.start.config, ended.record
        if self._picture_weight is not None:
            self._reader.settings = replace(
                self._reader.settings, picture_weight=self._picture_weight
            )
        if self._calibrates and self._validation is not None and config.val_examples:
            indices = range(min(config.val_examples, len(self._validation.data)))
            calibrate(
                self._reader,
                [self._validation.item(index) for index in indices],
                stranger_items(self._validation, indices, each=_STRANGERS_EACH, seed=config.seed),
            )
        notes = {
            "stage": config.stage,
            "seed": config.seed,
            "data_fingerprint": record.data_fingerprint,
            "started_from": ended.start.source.label if ended.start.source.run is None
            else ended.start.source.run.name,
        }  # fmt: skip
        self._reader.settings = replace(self._reader.settings, notes=notes)
        folder = ended.run / READER
        self._reader.save(folder)
        replace_text(folder / CARD_FILE, reader_card(ended, self._reader.settings))
