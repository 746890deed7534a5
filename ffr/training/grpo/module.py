"""The LightningModule of GRPO: a policy is moved towards the better of its own answers.

Answers are sampled, rewarded, and compared within their group, which is all answers to one prompt.
One batch is one step of the plan: a rollout of this process's prompts, then one or several
optimizer steps on it. Everything that is drawn comes from a seed of step and process, so that a
step can be done again bit for bit after a kill at any point in it.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C tokens of the longest answer
of a pass.
"""

from __future__ import annotations

import itertools
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from ffr.errors import ModelError
from ffr.models.decoding.sampling import sample_answers
from ffr.models.packing import neighbours_of, pack
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import GrpoConfig
from ffr.training.common.module import StageModule
from ffr.training.curriculum.order import GroupOutcomes
from ffr.training.grpo.advantages import group_advantages
from ffr.training.grpo.loader import StepPrompts
from ffr.training.grpo.loss import policy_loss, token_weights
from ffr.training.grpo.rollout import Rollout, Sampler


@dataclass
class _Pass:
    """Prompts and answers that go through the model at once.

    Args:
        prompts: The prompts; of prompts on one dialogue, what they have in common.
        branches: The answers' ids to each, in front of them what a prompt has for itself.
        num_scored: For each branch, how many of its ids are the answer.
        answers: Which of the step's N answers these are, in order.
        reference: (len(answers), C) log-probabilities under the model it started from; None where
            they are not needed.
        old: The same under the policy that sampled, known after the first update.
    """

    prompts: list[Encoded]
    branches: list[list[list[int]]]
    num_scored: list[list[int]]
    answers: list[int]
    reference: Tensor | None = None
    old: Tensor | None = None


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
        self._sums: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

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
        rollout = self.sampler.roll_out(batch.indices, batch.prompts, batch.dialogue_numbers, seed=seed)
        clock = self._lap("rollout", clock)
        advantages = self._advantages(rollout.rewards)
        passes = self._passes(batch, rollout)
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
        self._seconds[name] = self._seconds.get(name, 0.0) + now - since
        return now

    def _advantages(self, rewards: Tensor) -> Tensor:
        config = self.config
        if config.scale_advantages != "batch" or self.trainer.world_size == 1:
            return group_advantages(rewards, config.num_generations, scale=config.scale_advantages)
        # (processes, N) → all rewards of the step, those of one process side by side
        gathered = self.all_gather(rewards.to(self.device)).reshape(-1)
        everywhere = group_advantages(gathered, config.num_generations, scale="batch").cpu()
        return everywhere[self.global_rank * len(rewards) :][: len(rewards)]

    def _passes(self, batch: StepPrompts, rollout: Rollout) -> list[_Pass]:
        """Cuts the step into passes of `batch_size` prompts, each with `answers_per_pass` answers.

        Where prompts on one dialogue are packed, each dialogue has its own pass: beside another one
        its row would be filled up.
        """
        size, width = self.config.num_generations, self.config.batch_size
        at_once = self.config.answers_per_pass or size
        passes = []
        for start in range(0, len(batch.prompts), width):
            parts = neighbours_of(
                batch.prompts[start : start + width],
                batch.dialogue_numbers[start : start + width],
                self.vlm.placeholder_ids,
            )
            # prompts keep their number in the step: their answers lie at number · G
            numbers = itertools.count(start)
            numbered = [[(next(numbers), prompt) for prompt in part] for part in parts]
            for together in [[part] for part in numbered] if self.config.pack_queries else [numbered]:
                for first in range(0, size, at_once):
                    places = range(first, min(first + at_once, size))
                    passes.append(self._pass(together, places, rollout))
        return passes

    def _pass(self, parts: list[list[tuple[int, Encoded]]], places: range, rollout: Rollout) -> _Pass:
        """Some of the answers to prompts, of which those of a part stand behind one dialogue."""
        item = _Pass([], [], [], [])
        for part in parts:
            rows = []
            for number, prompt in part:
                answers = [number * self.config.num_generations + place for place in places]
                # answers of a prompt lie side by side, so that `answers` gives rows of advantages
                for ids in (list(rollout.answers[answer].token_ids) for answer in answers):
                    rows.append(Encoded(prompt.input_ids + ids, len(ids), prompt.images))
                item.answers += answers
            packed = pack(rows, self.vlm.placeholder_ids)
            item.prompts += packed.prompts
            item.branches += packed.branches
            item.num_scored += packed.num_scored
        return item

    @torch.no_grad()
    def _reference(self, item: _Pass) -> Tensor:
        adapter = self.vlm.model.disable_adapter() if self.config.lora_rank else nullcontext()
        was_training = self.vlm.training
        self.vlm.eval()
        with adapter:
            logprobs = self.sharing.score(
                item.prompts, item.branches, num_scored=item.num_scored, temperature=self.config.temperature
            ).logprobs
        self.vlm.train(was_training)
        return logprobs

    def _step_size(self, rollout: Rollout) -> tuple[int, int]:
        """Answers and answer tokens of the step that count, over all processes."""
        lengths = [
            len(answer.token_ids) for number, answer in enumerate(rollout.answers) if self._counts(rollout, number)
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
        passes: list[_Pass],
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
            counts = torch.tensor([self._counts(rollout, number) for number in item.answers], device=scores.mask.device)
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
                self._add(loss=float(loss.detach()), entropy=float(scores.entropy.sum()))
                self._add(num_scored=float(scores.mask.sum()))
            self._add(**{f"update_{name}": float(value) for name, value in sums.items()})
        norm = self.gradient_norm()
        if not torch.isfinite(torch.tensor(norm)):
            raise ModelError(
                f"the gradient of step {self.steps_done + 1} is not finite; lower the learning rate, or train in bf16 or fp32"
            )
        self._sums["grad_norm"] = norm
        if config.max_grad_norm:
            self.clip_gradients(optimizer, gradient_clip_val=config.max_grad_norm, gradient_clip_algorithm="norm")
        optimizer.step()  # type: ignore[union-attr]

    def _unsynchronized(self) -> AbstractContextManager[None]:
        """Gradients of a backward pass stay with the process, to be added to those of its next."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    # -- what is said of it ------------------------------------------------------------------------

    def _add(self, **figures: float) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _note(self, batch: StepPrompts, rollout: Rollout, advantages: Tensor) -> None:
        """Keeps what callbacks and the log want to know of the rollout."""
        self.last_rollout, self.last_advantages = rollout, advantages
        groups = rollout.rewards.view(-1, self.config.num_generations)
        means, stds = groups.mean(1), groups.std(1)
        outcomes = (torch.tensor(rollout.indices, dtype=torch.float64), means.double(), stds.double())
        if self.trainer.world_size > 1:
            # every process keeps the same data order, so each must see all outcomes
            outcomes = tuple(self.all_gather(part.to(self.device)).reshape(-1).cpu() for part in outcomes)  # type: ignore[assignment]
        self.last_groups = GroupOutcomes(
            [int(item) for item in outcomes[0].tolist()], outcomes[1].tolist(), outcomes[2].tolist()
        )
        numbers = range(len(rollout.answers))
        self._add(
            num_answers=float(len(rollout.answers)),
            num_prompts=float(len(rollout.indices)),
            reward=float(rollout.rewards.sum()),
            reward_std=float(stds.sum()),
            answer_tokens=float(sum(len(answer.token_ids) for answer in rollout.answers)),
            cut_off=float(sum(self._is_cut_off(rollout, number) for number in numbers)),
            dull=float(rollout.num_without_signal),
            attempts=float(rollout.num_attempts),
            prompt_tokens=float(sum(prompt.num_tokens for prompt in batch.prompts)),
            **{
                f"term_{term.name}": float(rollout.values[:, number].sum())
                for number, term in enumerate(self.sampler.terms)
            },
        )

    def take_step_figures(self, batch: StepPrompts) -> dict[str, float]:
        grad_norm = self._sums.pop("grad_norm")
        names = sorted(self._sums)
        sums = dict(zip(names, self.sum_over_processes([self._sums[name] for name in names]), strict=True))
        answers, prompts, tokens = sums["num_answers"], sums["num_prompts"], max(1.0, sums["update_num_tokens"])
        figures = {
            "loss": sums["loss"],
            "grad_norm": grad_norm,
            "reward": sums["reward"] / answers,
            "reward_std": sums["reward_std"] / prompts,
            **{f"reward_{term.name}": sums[f"term_{term.name}"] / answers for term in self.sampler.terms},
            "clipped_low_share": sums["update_clipped_low"] / tokens,
            "clipped_high_share": sums["update_clipped_high"] / tokens,
            "entropy": sums["entropy"] / max(1.0, sums["num_scored"]),
            "answer_tokens": sums["answer_tokens"] / answers,
            "cut_off_share": sums["cut_off"] / answers,
            "no_signal_share": sums["dull"] / prompts,
            "resampled": sums["attempts"],
            "num_tokens": sums["prompt_tokens"] + sums["answer_tokens"],
            **{f"seconds_{name}": self._seconds.get(name, 0.0) for name in ("rollout", "reference", "update")},
        }
        if "update_kl" in sums:
            figures["kl"] = sums["update_kl"] / tokens
        self._sums, self._seconds = {}, {}
        return figures

    # -- before the first step ---------------------------------------------------------------------

    def try_longest(self, prompt: Encoded) -> None:
        """Takes a prompt through prefill and a backward pass with longest answers; changes nothing.

        Args:
            prompt: The longest prompt; as many copies are taken as go through the model at once.
        """
        config, vlm = self.config, self.vlm
        prompts = [prompt] * config.batch_size
        at_once = config.answers_per_pass or config.num_generations
        usable = next(item for item in range(len(vlm.tokenizer)) if item not in vlm.placeholder_ids)
        sample_answers(
            vlm,
            [prompt] * config.prompts_at_once,
            num_samples=config.num_generations,
            max_new_tokens=2,
            is_cache_shared=self.sampler.is_cache_shared,
        )
        # B prompts, each with the answers of a pass, each of the greatest length
        branches = [[[usable] * config.max_new_tokens] * at_once] * len(prompts)
        if config.pack_queries:
            # all of a batch may be on one dialogue; what each has for itself is short beside its
            # answers
            prompts, branches = [prompt], [branches[0] * len(prompts)]
        vlm.train()
        # times 0: the memory of a backward pass, and gradients that move nothing
        torch.autograd.backward(self.sharing.score(prompts, branches).logprobs.sum() * 0)
        self.zero_grad(set_to_none=True)
