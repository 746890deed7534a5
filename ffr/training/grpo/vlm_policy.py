"""A vision-language model as what GRPO trains: its decisions are the tokens of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffr.dialogue import Example
from ffr.embedding.policy import PolicyEncoder
from ffr.errors import UsageError
from ffr.models.decoding.loop import Generated
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import BranchLogprobs, PrefixSharing
from ffr.models.vlm import Vlm
from ffr.retrieval.vlm import VlmRetriever
from ffr.runs import ModelSource
from ffr.settings import GrpoConfig
from ffr.training.common.setup import (
    check_packing,
    load_base,
    make_prompt_builder,
    make_trainable,
)
from ffr.training.common.vlm_subject import VlmSubject
from ffr.training.grpo.local_sampling import LocalSampling
from ffr.training.grpo.passes import cut_passes
from ffr.training.grpo.policy import Answers, Pass
from ffr.training.grpo.server_sampling import ServerSampling
from ffr.training.grpo.trial import try_longest


def open_vlm_policy(config: GrpoConfig, source: ModelSource, run: Path | None = None) -> VlmPolicy:
    """The policy that training starts from.

    Args:
        config: Settings.
        source: Where the model is.
        run: The run's folder; None where nothing is trained.

    Raises:
        UsageError: where settings do not go together.
        ModelError: where the model cannot be loaded.
    """
    if not config.lora_rank and config.kl_coefficient:
        raise UsageError(
            "the divergence is taken from the model without its adapter: set lora_rank, or "
            "kl_coefficient=0"
        )
    vlm = load_base(config, source.location)
    vlm.name = source.label
    return VlmPolicy(vlm, config, run)


class VlmPolicy:
    """A `Policy`: the adapter off is the model it started from, the reference of the divergence.

    Args:
        vlm: The model, frozen.
        config: Settings.
        run: The run's folder; None where nothing is trained.
    """

    def __init__(self, vlm: Vlm, config: GrpoConfig, run: Path | None = None) -> None:
        self._config = config
        self._run = run
        self.vlm = vlm
        self.encoder = PolicyEncoder(self.vlm)
        self.samples_still = bool(config.lora_dropout)
        self.sharing: PrefixSharing
        self.sampling: LocalSampling | ServerSampling
        self.builder: PromptBuilder

    def free(self) -> None:
        """Makes weights trainable, and whatever needs the model as it will be trained.

        Raises:
            UsageError: where queries are packed and do not stand behind their dialogue.
        """
        config = self._config
        make_trainable(config, self.vlm)
        self.sharing = PrefixSharing(
            self.vlm,
            is_wanted=config.prompt_sharing == "auto",
            pad_to_multiple_of=config.pad_to_multiple_of,
        )
        self.vlm.train()
        self.builder = make_prompt_builder(config, self.vlm)
        if config.rollout_engine == "server":
            self.sampling = ServerSampling(self.vlm, config, self.builder, self._run)
        else:
            self.sampling = LocalSampling(self.vlm, config, is_cache_shared=self.sharing.is_active)
        if config.pack_queries:
            check_packing(self.builder)

    @property
    def model(self) -> Vlm:
        return self.vlm

    @property
    def device(self) -> torch.device:
        return self.vlm.device

    @property
    def fingerprint(self) -> str:
        return self.vlm.fingerprint

    @property
    def subject(self) -> VlmSubject:
        """The model as a run validates and saves it."""
        return VlmSubject(self.vlm, self.builder)

    @property
    def samples_apart(self) -> bool:
        return self.sampling.is_apart

    def rolling_out(self) -> AbstractContextManager[None]:
        return self.sampling.rolling_out()

    def encode(self, example: Example, where: str) -> Encoded:
        return self.sampling.prompt(example, self.builder(example, where=where), where)

    def text(self, example: Example) -> str:
        return self.builder.opened_prompt(example)

    def sample(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        generator: torch.Generator,
        earlier: Sequence[Answers],
    ) -> list[list[Generated]]:
        return self.sampling.sample(prompts, dialogue_numbers, generator, earlier)

    def cut(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        answers: Sequence[Generated],
    ) -> list[Pass]:
        return cut_passes(
            prompts, dialogue_numbers, answers, self._config, self.vlm.placeholder_ids
        )

    def score(self, item: Pass, *, with_entropy: bool = False) -> BranchLogprobs:
        return self.sharing.score(
            item.prompts,
            item.branches,
            num_scored=item.num_scored,
            temperature=self._config.temperature,
            with_entropy=with_entropy,
        )

    @torch.no_grad()
    def score_still(self, item: Pass, *, of_start: bool) -> Tensor:
        is_off = self._config.lora_rank and of_start
        adapter = self.vlm.model.disable_adapter() if is_off else nullcontext()
        was_training = self.vlm.training
        self.vlm.eval()
        with adapter:
            logprobs = self.score(item).logprobs
        self.vlm.train(was_training)
        return logprobs

    def is_cut_off(self, answer: Generated) -> bool:
        return answer.is_cut_off(self.vlm.stop_ids)

    def retriever(self, name: str) -> VlmRetriever:
        config = self._config
        return VlmRetriever(
            self.vlm,
            name=name,
            template=config.template,
            query_position=config.query_position,
            max_new_tokens=config.max_new_tokens,
            batch_tokens=config.val_batch_tokens,
            with_logprobs=True,
        )

    def try_longest(self, prompt: Any) -> None:
        self.sampling.try_longest(prompt)
        try_longest(self.vlm, self._config, self.sharing, prompt)

    def notes(self) -> list[str]:
        return [
            "prompts pass through the model once for all their answers"
            if self.sharing.is_active
            else "prompts pass through the model once for each answer, which is slow: "
            f"{self.sharing.reason}",
            self.sampling.note,
        ]
