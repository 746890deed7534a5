"""A vision-language model as what is trained: validated by its written answers, saved merged."""

from __future__ import annotations

from typing import Any

from ffr.data.dataset import ExampleDataset
from ffr.models.prompts import PromptBuilder
from ffr.models.saving import save_adapter, save_merged
from ffr.models.vlm import Vlm
from ffr.training.common.card import CardFacts, adapter_card, merged_card
from ffr.training.common.module import StageModule
from ffr.training.common.stage import Ended
from ffr.training.common.validation import validate


class VlmSubject:
    """A vision-language model that is trained: a `Subject`.

    Args:
        vlm: The model, with its adapter.
        builder: Builds the prompts, those of validation too.
    """

    def __init__(self, vlm: Vlm, builder: PromptBuilder) -> None:
        self._vlm = vlm
        self._builder = builder

    def validate(self, module: StageModule[Any], data: ExampleDataset) -> dict[str, float]:
        return validate(module, self._vlm, data, self._builder)

    def save(self, ended: Ended[Any]) -> None:
        """Writes `merged/`, a plain transformers folder, and `adapter/` where there is one."""
        start, record = ended.start, ended.record
        prompt_settings = self._builder.prompt_settings
        facts = CardFacts(
            name=ended.run.name,
            config=start.config,
            source=start.source,
            recipe=record.recipe,
            num_examples=len(start.train_data),
            data_fingerprint=record.data_fingerprint,
            architecture=self._vlm.base.config.model_type,
            prompt_settings=prompt_settings,
            figures=ended.figures,
            versions=record.versions,
        )
        if start.config.lora_rank:
            save_adapter(self._vlm, ended.run / "adapter", card=adapter_card(facts))
        merged = ended.run / "merged"
        save_merged(self._vlm, merged, prompt_settings=prompt_settings, card=merged_card(facts))
