"""The LightningModule of GRPO: a policy is moved towards the better of its own answers.

Answers are sampled, rewarded, and compared within their group, which is all answers to one prompt.
One batch is one step of the plan: a rollout of this process's prompts, then one or several
optimizer steps on it. Everything that is drawn comes from a seed of step and process, so that a
step can be done again bit for bit after a kill at any point in it.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C tokens of the longest answer
of a pass.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ffr.models.decoding.loop import Generated
from ffr.settings import GrpoConfig
from ffr.training.common.module import StageModule, StepFault
from ffr.training.curriculum.order import GroupOutcomes
from ffr.training.grpo.advantages import group_advantages
from ffr.training.grpo.figures import StepFigures, step_columns
from ffr.training.grpo.loader import StepPrompts
from ffr.training.grpo.loss import policy_loss, token_weights
from ffr.training.grpo.policy import Pass, Policy
from ffr.training.grpo.rollout import Rollout, Sampler
from ffr.training.grpo.sampling_gap import (
    fault_of_gap,
    gap_sums,
    recorded_logprobs,
    truncated_importance,
)

_EARLIER_KEY = "earlier answers"


class GrpoModule(StageModule[GrpoConfig]):
    """Trains a policy on the rewards of its own answers.

    Args:
        policy: What is trained.
        config: Settings.
        num_steps: Steps of the whole training; the learning rate follows them.
        fingerprints: Names of configuration, data and frozen weights; a checkpoint of another one
            is refused.
        sampler: Makes rollouts.
    """

    def __init__(
        self,
        policy: Policy,
        config: GrpoConfig,
        *,
        num_steps: int,
        fingerprints: dict[str, str],
        sampler: Sampler,
    ) -> None:
        super().__init__(policy.model, config, num_steps=num_steps, fingerprints=fingerprints)
        self.automatic_optimization = False
        self.policy = policy
        self.sampler = sampler
        self.last_rollout: Rollout | None = None
        self.last_advantages: Tensor | None = None
        self.last_groups: GroupOutcomes | None = None
        self._figures = StepFigures([term.name for term in sampler.terms])

    @property
    def steps_done(self) -> int:
        # Lightning counts optimizer steps
        return int(self.trainer.global_step) // self.config.updates_per_rollout

    @property
    def columns(self) -> tuple[str, ...]:
        return step_columns([term.name for term in self.sampler.terms])

    curves_label = "reward"

    @property
    def curves(self) -> dict[str, str]:
        return {"reward": "-", **{f"reward_{term.name}": "-" for term in self.sampler.terms}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        state = self.sampler.earlier.state()
        if state is not None:
            checkpoint[_EARLIER_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if _EARLIER_KEY in checkpoint:
            self.sampler.earlier.load_state(checkpoint[_EARLIER_KEY])

    # -- one step ----------------------------------------------------------------------------------

    def training_step(self, batch: StepPrompts, batch_idx: int) -> None:
        """A whole step: rollout, reference, updates."""
        seed = self.seed_of_batch(batch_idx)
        torch.manual_seed(seed)
        lap = functools.partial(self._figures.lap, device=self.device)
        clock = time.perf_counter()
        rollout = self.sampler.roll_out(
            batch.indices, batch.prompts, batch.dialogue_numbers, seed=seed
        )
        clock = lap("rollout", clock)
        advantages = self._advantages(rollout.rewards)
        passes = self.policy.cut(batch.prompts, batch.dialogue_numbers, rollout.answers)
        for item in passes:
            if self.config.kl_coefficient:
                item.reference = self.policy.score_still(item, of_start=True)
            if self.policy.samples_still:
                item.old = self.policy.score_still(item, of_start=False)
        clock = lap("reference", clock)
        self._note(batch, rollout, advantages)
        num_answers, num_tokens = self._step_size(rollout)
        for number in range(self.config.updates_per_rollout):
            self._update(rollout, passes, advantages, num_answers, num_tokens, is_first=number == 0)
        self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        lap("update", clock)

    def _advantages(self, rewards: Tensor) -> Tensor:
        config = self.config
        if config.scale_advantages != "batch" or self.trainer.world_size == 1:
            return group_advantages(rewards, config.num_generations, scale=config.scale_advantages)
        # (processes, N) → all rewards of the step, those of one process side by side
        gathered = self.all_gather(rewards.to(self.device)).reshape(-1)
        everywhere = group_advantages(gathered, config.num_generations, scale="batch").cpu()
        return everywhere[self.global_rank * len(rewards) :][: len(rewards)]

    def _step_size(self, rollout: Rollout) -> tuple[int, int]:
        """Answers and answer tokens of the step that count, over all processes."""
        lengths = [len(answer.token_ids) for answer in rollout.answers if self._counts(answer)]
        answers, tokens = self.sum_over_processes([float(len(lengths)), float(sum(lengths))])
        return int(answers), int(tokens)

    def _counts(self, answer: Generated) -> bool:
        return not (self.config.mask_cut_off and self.policy.is_cut_off(answer))

    def _update(
        self,
        rollout: Rollout,
        passes: list[Pass],
        advantages: Tensor,
        num_answers: int,
        num_tokens: int,
        *,
        is_first: bool,
    ) -> None:
        config = self.config
        optimizer = self.optimizers()
        optimizer.zero_grad()  # type: ignore[union-attr]
        for item, is_last in zip(passes, [*[False] * (len(passes) - 1), True], strict=True):
            scores = self.policy.score(item, with_entropy=is_first)
            if item.old is None:
                # no weight has moved since the rollout, and nothing is dropped
                item.old = scores.logprobs.detach()
            if is_first:
                self._compare(item, item.old, scores.mask, rollout)
            counts = torch.tensor(
                [self._counts(rollout.answers[number]) for number in item.answers],
                device=scores.mask.device,
            )
            # a masked answer keeps its row, so that rows go on matching `item.answers`
            mask = scores.mask & counts[:, None]
            weights = token_weights(
                mask,
                config.loss_type,
                num_step_answers=num_answers,
                num_step_tokens=num_tokens,
                max_new_tokens=config.max_new_tokens,
            )
            loss, sums = policy_loss(
                scores.logprobs,
                item.old,
                advantages[item.answers].to(scores.logprobs.device),
                mask,
                weights,
                loss_type=config.loss_type,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
                kl_coefficient=config.kl_coefficient,
                reference_logprobs=item.reference,
                importance=item.importance,
            )
            # data-parallel strategies take the mean of the processes' gradients: once a step,
            # whatever number of passes each has
            with nullcontext() if is_last else self.unsynchronized():
                self.manual_backward(loss * self.trainer.world_size)
            if scores.entropy is not None:
                self._figures.add(loss=float(loss.detach()), entropy=float(scores.entropy.sum()))
                self._figures.add(num_scored=float(scores.mask.sum()))
            self._figures.add(**{f"update_{name}": float(value) for name, value in sums.items()})
        self._figures.note_gradient(self.take_sound_gradients())
        if config.max_grad_norm:
            self.clip_gradients(
                optimizer, gradient_clip_val=config.max_grad_norm, gradient_clip_algorithm="norm"
            )
        optimizer.step()  # type: ignore[union-attr]

    def _compare(self, item: Pass, old: Tensor, mask: Tensor, rollout: Rollout) -> None:
        """Sets what was recorded in sampling beside what the policy says before its first update."""
        rows = [rollout.answers[number].logprobs for number in item.answers]
        recorded = recorded_logprobs(rows, mask)
        self._figures.note_gap(*gap_sums(old, recorded, mask))
        if self.policy.samples_apart:
            cap = self.config.importance_cap
            item.importance = truncated_importance(old, recorded, mask, cap=cap)
            self._figures.add(capped=float(((item.importance == cap) & mask).sum()))

    # -- what is said of it ------------------------------------------------------------------------

    def _note(self, batch: StepPrompts, rollout: Rollout, advantages: Tensor) -> None:
        """Keeps what callbacks and the log want to know of the rollout."""
        self.last_rollout, self.last_advantages = rollout, advantages
        groups = rollout.rewards.view(-1, self.config.num_generations)
        means, stds = groups.mean(1), groups.std(1)
        outcomes = [torch.tensor(rollout.indices), means.double(), stds.double()]
        if self.trainer.world_size > 1:
            # every process keeps the same data order, so each must see all outcomes
            outcomes = [
                self.all_gather(item.to(self.device)).reshape(-1).cpu() for item in outcomes
            ]
        self.last_groups = GroupOutcomes(*(item.tolist() for item in outcomes))
        self._figures.note_rollout(
            rollout,
            reward_stds=stds,
            num_cut_off=sum(map(self.policy.is_cut_off, rollout.answers)),
            num_prompt_tokens=sum(prompt.num_tokens for prompt in batch.prompts),
        )

    def take_step_figures(self, batch: StepPrompts) -> dict[str, float]:
        return self._figures.take(self.sum_over_processes, self.max_over_processes)

    def fault_of_step(self, figures: Mapping[str, float]) -> StepFault | None:
        """As of every stage; or that what sampled has drifted too far from what is trained."""
        fault = super().fault_of_step(figures)
        return fault or fault_of_gap(figures["sampling_gap_mean"], self.config)
