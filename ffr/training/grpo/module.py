"""The LightningModule of GRPO: a policy is moved towards the better of its own answers.

Answers are sampled, rewarded, and compared within their group, which is all answers to one prompt.
One batch is one step of the plan: a rollout of this process's prompts, then one or several
optimizer steps on it. Everything that is drawn comes from a seed of step and process, so that a
step can be done again bit for bit after a kill at any point in it.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C tokens of the longest answer
of a pass.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import GrpoConfig
from ffr.training.common.module import StageModule
from ffr.training.curriculum.order import GroupOutcomes
from ffr.training.grpo.advantages import group_advantages
from ffr.training.grpo.figures import StepFigures
from ffr.training.grpo.loader import StepPrompts
from ffr.training.grpo.loss import policy_loss, token_weights
from ffr.training.grpo.passes import Pass, cut_passes
from ffr.training.grpo.rollout import Rollout, Sampler


class GrpoModule(StageModule[GrpoConfig]):
    """Trains a policy on the rewards of its own answers.

    Args:
        vlm: The model, with an adapter; the adapter off is the model it started from, the reference
            of the divergence.
        config: Settings.
        num_steps: Steps of the whole training; the learning rate follows them.
        fingerprints: Names of configuration, data and frozen weights; a checkpoint of another one
            is refused.
        sharing: Scores answers behind their prompts.
        sampler: Makes rollouts.
    """

    def __init__(
        self,
        vlm: Vlm,
        config: GrpoConfig,
        *,
        num_steps: int,
        fingerprints: dict[str, str],
        sharing: PrefixSharing,
        sampler: Sampler,
    ) -> None:
        super().__init__(vlm, config, num_steps=num_steps, fingerprints=fingerprints)
        self.automatic_optimization = False
        self.sharing = sharing
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
        return (
            "loss", "reward", "reward_std", *(f"reward_{term.name}" for term in self.sampler.terms), "kl",
            "clipped_low_share", "clipped_high_share", "entropy", "answer_tokens", "cut_off_share",
            "no_signal_share", "resampled", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens",
            "seconds_rollout", "seconds_reference", "seconds_update", "peak_memory_mb",
            "level_easy", "level_medium", "level_confusing", "level_hard",
            "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
        )  # fmt: skip

    curves_label = "reward"

    @property
    def curves(self) -> dict[str, str]:
        return {"reward": "-", **{f"reward_{term.name}": "-" for term in self.sampler.terms}}

    # -- one step ----------------------------------------------------------------------------------

    def training_step(self, batch: StepPrompts, batch_idx: int) -> None:
        """A whole step: rollout, reference, updates."""
        seed = (self.config.seed * 1_000_003 + batch_idx * 4_099 + self.global_rank) % 2**63
        torch.manual_seed(seed)
        clock = time.perf_counter()
        rollout = self.sampler.roll_out(
            batch.indices, batch.prompts, batch.dialogue_numbers, seed=seed
        )
        clock = self._lap("rollout", clock)
        advantages = self._advantages(rollout.rewards)
        passes = cut_passes(batch, rollout, self.config, self.vlm.placeholder_ids)
        if self.config.kl_coefficient:
            for item in passes:
                item.reference = self._reference(item)
        clock = self._lap("reference", clock)
        self._note(batch, rollout, advantages)
        num_answers, num_tokens = self._step_size(rollout)
        for number in range(self.config.updates_per_rollout):
            self._update(rollout, passes, advantages, num_answers, num_tokens, is_first=number == 0)
        self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        self._lap("update", clock)

    def _lap(self, name: str, since: float) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._figures.note_seconds(name, now - since)
        return now

    def _advantages(self, rewards: Tensor) -> Tensor:
        config = self.config
        if config.scale_advantages != "batch" or self.trainer.world_size == 1:
            return group_advantages(rewards, config.num_generations, scale=config.scale_advantages)
        # (processes, N) → all rewards of the step, those of one process side by side
        gathered = self.all_gather(rewards.to(self.device)).reshape(-1)
        everywhere = group_advantages(gathered, config.num_generations, scale="batch").cpu()
        return everywhere[self.global_rank * len(rewards) :][: len(rewards)]

    @torch.no_grad()
    def _reference(self, item: Pass) -> Tensor:
        adapter = self.vlm.model.disable_adapter() if self.config.lora_rank else nullcontext()
        was_training = self.vlm.training
        self.vlm.eval()
        with adapter:
            logprobs = self.sharing.score(
                item.prompts,
                item.branches,
                num_scored=item.num_scored,
                temperature=self.config.temperature,
            ).logprobs
        self.vlm.train(was_training)
        return logprobs

    def _step_size(self, rollout: Rollout) -> tuple[int, int]:
        """Answers and answer tokens of the step that count, over all processes."""
        lengths = [
            len(answer.token_ids)
            for number, answer in enumerate(rollout.answers)
            if self._counts(rollout, number)
        ]
        answers, tokens = self.sum_over_processes([float(len(lengths)), float(sum(lengths))])
        return int(answers), int(tokens)

    def _counts(self, rollout: Rollout, number: int) -> bool:
        return not (self.config.mask_cut_off and self._is_cut_off(rollout, number))

    def _is_cut_off(self, rollout: Rollout, number: int) -> bool:
        return rollout.answers[number].token_ids[-1] not in self.vlm.stop_ids

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
            scores = self.sharing.score(
                item.prompts,
                item.branches,
                num_scored=item.num_scored,
                temperature=config.temperature,
                with_entropy=is_first,
            )
            if is_first:
                # no weight has moved since the rollout
                item.old = scores.logprobs.detach()
            assert item.old is not None
            counts = torch.tensor(
                [self._counts(rollout, number) for number in item.answers],
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
            )
            # data-parallel strategies take the mean of the processes' gradients: once a step,
            # whatever number of passes each has
            with nullcontext() if is_last else self._unsynchronized():
                self.manual_backward(loss * self.trainer.world_size)
            if scores.entropy is not None:
                self._figures.add(loss=float(loss.detach()), entropy=float(scores.entropy.sum()))
                self._figures.add(num_scored=float(scores.mask.sum()))
            self._figures.add(**{f"update_{name}": float(value) for name, value in sums.items()})
        norm = self.take_sound_gradients()
        # that of the last update, but one that is not finite is not forgotten over the next
        if math.isfinite(self._figures.grad_norm):
            self._figures.grad_norm = norm
        if config.max_grad_norm:
            self.clip_gradients(
                optimizer, gradient_clip_val=config.max_grad_norm, gradient_clip_algorithm="norm"
            )
        optimizer.step()  # type: ignore[union-attr]

    def _unsynchronized(self) -> AbstractContextManager[None]:
        """Gradients of a backward pass stay with the process, to be added to those of its next."""
        strategy = self.trainer.strategy
        return (
            strategy.block_backward_sync()
            if isinstance(strategy, ParallelStrategy)
            else nullcontext()
        )

    # -- what is said of it ------------------------------------------------------------------------

    def _note(self, batch: StepPrompts, rollout: Rollout, advantages: Tensor) -> None:
        """Keeps what callbacks and the log want to know of the rollout."""
        self.last_rollout, self.last_advantages = rollout, advantages
        groups = rollout.rewards.view(-1, self.config.num_generations)
        means, stds = groups.mean(1), groups.std(1)
        outcomes = (
            torch.tensor(rollout.indices, dtype=torch.float64),
            means.double(),
            stds.double(),
        )
        if self.trainer.world_size > 1:
            # every process keeps the same data order, so each must see all outcomes
            outcomes = tuple(
                self.all_gather(part.to(self.device)).reshape(-1).cpu() for part in outcomes
            )  # type: ignore[assignment]
        self.last_groups = GroupOutcomes(
            [int(item) for item in outcomes[0].tolist()], outcomes[1].tolist(), outcomes[2].tolist()
        )
        self._figures.note_rollout(
            rollout,
            reward_stds=stds,
            num_cut_off=sum(
                self._is_cut_off(rollout, number) for number in range(len(rollout.answers))
            ),
            num_prompt_tokens=sum(prompt.num_tokens for prompt in batch.prompts),
        )

    def take_step_figures(self, batch: StepPrompts) -> dict[str, float]:
        return self._figures.take(self.sum_over_processes)
