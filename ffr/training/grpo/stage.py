"""GRPO from its settings: start model, order of the data, rewards, module, longest prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ffr.data.judgement import ModelRules
from ffr.encoders import open_encoder
from ffr.errors import ModelError
from ffr.retrieval.rules import EncoderRules, JoinedRules
from ffr.rewards.terms import reward_terms
from ffr.runs import ModelSource, newest_sft_run, resolve_model
from ffr.settings import NEWEST, GrpoConfig
from ffr.training.common.memory import is_lack_of_memory, record_in_words
from ffr.training.common.setup import model_rules
from ffr.training.common.stage import Built, Job, Stage, Start
from ffr.training.curriculum.callback import CurriculumCallback, CurriculumPlots
from ffr.training.grpo.data import GrpoData, prompts_per_step
from ffr.training.grpo.data_order import choose_order
from ffr.training.grpo.module import GrpoModule
from ffr.training.grpo.policy import Policy, Prompt
from ffr.training.grpo.reader_policy import open_reader_policy
from ffr.training.grpo.rollout import Sampler, columns_of
from ffr.training.grpo.samples import SampleLog
from ffr.training.grpo.vlm_policy import open_vlm_policy

_SAVERS = "answers_per_pass, batch_size, rollout_batch, max_new_tokens or max_image_pixels"


class GrpoStage(Stage[GrpoConfig]):
    """Training on the rewards of the model's own answers."""

    def choose_model(self, config: GrpoConfig, root: Path) -> tuple[GrpoConfig, ModelSource]:
        """The settings with the start model named, and where it is.

        `newest` is the newest finished SFT run.

        Raises:
            UsageError: where there is no such run, or the model is not here.
        """
        if config.model != NEWEST:
            return config, resolve_model(config.model)
        run = newest_sft_run(root)
        return dataclasses.replace(config, model=str(run)), resolve_model(str(run))

    def rules(self, config: GrpoConfig, source: ModelSource) -> ModelRules | None:
        """What neither the model nor the encoder of the order reward could take.

        Raises:
            ModelError: where their files cannot be used.
        """
        if source.is_reader:
            # what is too long for it is found when the training is built
            return None
        of_model = model_rules(config, source.location)
        if not config.order_weight or config.encoder == "policy":
            return of_model
        return JoinedRules(of_model, EncoderRules(open_encoder(config.encoder, device="cpu")))

    def build(self, start: Start[GrpoConfig], job: Job) -> Built:
        config = start.config
        is_reader = start.source.is_reader
        policy: Policy = (
            open_reader_policy(start, job)
            if is_reader
            else open_vlm_policy(config, start.source, job.run)
        )
        chosen = choose_order(start, policy, job)
        policy.free()
        if not job.is_dry:
            for note in policy.notes():
                job.say(note)
        data = GrpoData(
            config, start.train_data, policy, order=chosen.order, num_steps=chosen.num_steps
        )
        terms = reward_terms(config, policy.encoder, device=policy.device.type)
        module = GrpoModule(
            policy,
            config,
            num_steps=chosen.num_steps,
            fingerprints={
                **start.fingerprints,
                "model": policy.fingerprint,
                **_way_of_sampling(policy),
            },
            sampler=Sampler(policy, config, terms, columns_of(policy.text, start.train_data)),
        )
        longest, prompt = data.longest()
        if config.startup_check:
            _try(module, prompt, start, longest)
        notes = [
            *([chosen.note] if chosen.note else []),
            *_notes(module),
            f"longest prompt {start.train_data.where(longest)}: {prompt.num_tokens} tokens",
        ]
        callbacks = [
            CurriculumCallback(chosen.order, chosen.levels),
            CurriculumPlots(chosen.measured, has_levels=chosen.levels is not None),
            SampleLog(job.say),
        ]
        return Built(
            module,
            data,
            policy.subject,
            callbacks,
            notes,
            longest_of=data.longest_of,
            savers=_SAVERS,
        )


def _way_of_sampling(policy: Policy) -> dict[str, str]:
    """What a checkpoint says of it: nothing of the plain way, on which earlier ones were begun."""
    return {"way of sampling": "apart"} if policy.samples_apart else {}


def _notes(module: GrpoModule) -> Iterator[str]:
    config = module.config
    yield (
        f"{module.num_steps} steps of {prompts_per_step(config)} prompts with "
        f"{config.num_generations} answers each"
    )
    yield "rewards: " + ", ".join(f"{term.name} × {term.weight:g}" for term in module.sampler.terms)
    yield from module.policy.notes()


def _try(module: GrpoModule, prompt: Prompt, start: Start[GrpoConfig], index: int) -> None:
    """Takes the longest prompt through a pass, so that a lack of memory shows before training.

    Raises:
        ModelError: naming the dialogue.
    """
    config, data = start.config, start.train_data
    try:
        module.policy.try_longest(prompt)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        pixels = None if start.source.is_reader else config.max_image_pixels
        record = record_in_words(data, index, prompt.num_tokens, max_image_pixels=pixels)
        raise ModelError(
            f"there is not enough memory for a step on the longest prompt, {record}, with "
            f"{config.num_generations} answers of up to {config.max_new_tokens} tokens; lower "
            f"{_SAVERS}",
            data.where(index),
        ) from error
