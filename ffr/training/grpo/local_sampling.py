"""A vision-language model's answers, sampled by this process: with its adapter, or with a copy it is folded into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from ffr.dialogue import Example
from ffr.errors import ModelError
from ffr.models.compiled import check_compiler
from ffr.models.decoding.drafts import Drafts, forms_of_answers
from ffr.models.decoding.fixed import FixedSteps
from ffr.models.decoding.loop import Generated
from ffr.models.decoding.sampling import sample_answers
from ffr.models.merged import MergedLinears, free_bytes, merged_bytes
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm
from ffr.settings import GrpoConfig
from ffr.training.grpo.policy import Answers


class LocalSampling:
    """Samples with the model that is trained, as the setting `sampling_weights` says.

    Args:
        vlm: The model with its adapter.
        config: Settings.
        is_cache_shared: Whether all answers to a prompt read one copy of its keys and values.

    Raises:
        ModelError: where there is no room for a copy of the weights, and several processes would
            each find that out for itself.
    """

    def __init__(self, vlm: Vlm, config: GrpoConfig, *, is_cache_shared: bool) -> None:
        self._vlm = vlm
        self._config = config
        self._is_cache_shared = is_cache_shared
        self._merged: MergedLinears | None = None
        wants_copy = config.sampling_weights == "merged"
        self._num_bytes = merged_bytes(vlm) if wants_copy else 0
        self._lack = _lack_of_room(self._num_bytes, free_bytes(vlm.device)) if wants_copy else None
        if self._lack is not None and config.devices > 1:
            raise ModelError(
                "there is no room for the copy of the weights that sampling_weights=merged makes: "
                f"{self._lack}; leave it at adapters"
            )
        self._copies = wants_copy and self._lack is None
        self._fixed: FixedSteps | None = None
        if config.compile_sampling and is_cache_shared:
            check_compiler(vlm.device, "compile_sampling")
            self._fixed = FixedSteps(vlm, is_compiled=True)
        self._forms = forms_of_answers(vlm) if config.draft_tokens else []
        self.is_apart = self._copies or self._fixed is not None
        """Whether answers come from other weights or kernels than those that are trained."""

    @property
    def note(self) -> str:
        """What a person should know of it."""
        said = self._note_of_weights()
        if self._fixed is not None:
            said += "; each token by one compiled step, whose last bits are its own"
        elif self._config.compile_sampling:
            said += "; compile_sampling has no effect, since the answers do not share their prompt"
        if self._config.draft_tokens:
            said += self._note_of_drafts()
        if self.is_apart:
            said += f"; their tokens count by importance, {self._config.importance_cap:g} at most"
        return said

    def _note_of_drafts(self) -> str:
        if not self._is_cache_shared:
            return "; draft_tokens has no effect, since the answers do not share their prompt"
        some = "the form of answers, a prompt's others"
        if self._config.devices == 1:
            some += " and those it got before"
        return f"; up to {self._config.draft_tokens} tokens of each are guessed ahead, from {some}"

    def _note_of_weights(self) -> str:
        if self._lack is not None:
            return (
                "answers are sampled with the adapter beside the weights: there is no room for "
                f"the copy of sampling_weights=merged, {self._lack}"
            )
        if not self._copies:
            return "answers are sampled with the very weights that are trained"
        return (
            "answers are sampled with the adapter folded into a copy of the weights, "
            f"{_in_gib(self._num_bytes)} "
            + ("for good" if self._fixed is not None else "while a step's answers are written")
        )

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        """A step's answers are sampled with one copy of the weights, which is let go of then.

        Where steps are compiled it stays: what is recorded of them reads it where it lies.
        """
        if self._merged is not None:
            self._merged.fold()
        elif self._copies:
            self._merged = MergedLinears(self._vlm)
        try:
            yield
        finally:
            if self._fixed is None:
                self._merged = None

    def prompt(self, example: Example, encoded: Encoded, where: str) -> Encoded:
        """The prompt of an example as `sample` takes it: its tokens."""
        return encoded

    def sample(
        self,
        prompts: Sequence[Encoded],
        dialogue_numbers: Sequence[int] | None,
        generator: torch.Generator | None,
        earlier: Sequence[Answers] | None = None,
        *,
        max_new_tokens: int | None = None,
    ) -> list[list[Generated]]:
        """G answers to each prompt, within `rolling_out`.

        Arguments are those of `sample_answers`; `earlier` as of `Policy`.
        """
        config = self._config
        drafts = None
        if config.draft_tokens:
            before: Sequence[Answers] = earlier or [[] for _ in prompts]
            drafts = Drafts(config.draft_tokens, [[*self._forms, *some] for some in before])
        with nullcontext() if self._merged is None else self._merged.in_place():
            return sample_answers(
                self._vlm,
                prompts,
                num_samples=config.num_generations,
                max_new_tokens=max_new_tokens or config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                generator=generator,
                is_cache_shared=self._is_cache_shared,
                dialogue_numbers=dialogue_numbers,
                fixed=self._fixed,
                drafts=drafts,
            )

    def try_longest(self, prompt: Encoded) -> None:
        """Samples two tokens behind as many copies of a prompt as are answered at once.

        Args:
            prompt: The longest prompt.

        Raises:
            RuntimeError: where the memory does not suffice, as torch says it.
        """
        prompts = [prompt] * self._config.prompts_at_once
        with self.rolling_out():
            self.sample(prompts, None, None, max_new_tokens=2)


def _lack_of_room(needed: int, free: int) -> str | None:
    """How much room there is where it is too little.

    >>> _lack_of_room(3 * 2**30, 2**30)
    '3.0 GiB are needed and 1.0 GiB is free'
    """
    if needed <= free:
        return None
    return f"{_in_gib(needed)} are needed and {_in_gib(free)} is free"


def _in_gib(num_bytes: int) -> str:
    """Bytes in words: GiB, or MiB of what is small.

    >>> _in_gib(2_620_000_000), _in_gib(300_000)
    ('2.4 GiB', '0.3 MiB')
    """
    size = num_bytes / 2**30
    return f"{size:.1f} GiB" if size >= 0.1 else f"{num_bytes / 2**20:.1f} MiB"
