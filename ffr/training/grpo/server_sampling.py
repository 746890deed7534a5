"""A vision-language model's answers, written by a server that is handed the adapter each step."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ffr.dialogue import Example
from ffr.errors import FfrError
from ffr.files import make_folder, remove
from ffr.models.decoding.loop import Generated
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.saving import save_adapter
from ffr.models.vlm import Vlm
from ffr.retrieval.api_client import ApiError, Limits
from ffr.retrieval.chat_protocol import chat_messages, data_url
from ffr.settings import GrpoConfig
from ffr.training.grpo.policy import Answers
from ffr.training.grpo.rollout_server import RolloutServer, ServedAnswer

ADAPTER_FOLDER = "served_adapter"
"""Of a run: the adapter of the step whose answers are being written."""
_MAX_REQUESTS = 64
"""Under way at a time: a server makes batches of them as it can."""


@dataclass(slots=True, kw_only=True)
class AskedPrompt(Encoded):
    """A prompt with the example that it asks about, which a server is sent.

    Args:
        example: The example.
        where: Its place in the data, for errors.
    """

    example: Example
    where: str


class ServerSampling:
    """Samples by a server; what it wrote is scored by the model that is trained.

    Args:
        vlm: The model with its adapter.
        config: Settings.
        builder: Builds the prompts.
        run: The run's folder; None where nothing is trained.

    Raises:
        UsageError: where the server's name cannot be used.
        ApiError: where it does not answer, or not with what is needed.
    """

    is_apart = True

    def __init__(
        self, vlm: Vlm, config: GrpoConfig, builder: PromptBuilder, run: Path | None
    ) -> None:
        assert config.rollout_server is not None
        self._vlm = vlm
        self._config = config
        self._builder = builder
        limits = Limits(timeout_s=config.rollout_timeout, max_retries=config.rollout_retries)
        self._server = RolloutServer(config.rollout_server, config.rollout_key_env, limits)
        self._folder = None if run is None else _adapter_folder(config, run)
        self._name: str | None = None
        self._server.check()
        self._data_url = functools.lru_cache(maxsize=256)(data_url)

    @property
    def note(self) -> str:
        """What a person should know of it."""
        return (
            f"answers are sampled by the server at {self._server.host}, with an adapter on "
            f"{self._server.model}; their tokens count by importance, "
            f"{self._config.importance_cap:g} at most"
        )

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        """The adapter as it is now is written, loaded by the server, and let go of at the end.

        Raises:
            ApiError: where the server does not load it.
        """
        assert self._folder is not None
        # one that a killed process left
        remove(self._folder)
        make_folder(self._folder)
        # a name that no earlier one had: servers refuse to load one anew
        name = f"ffr-{secrets.token_hex(6)}"
        save_adapter(self._vlm, self._folder / name)
        self._server.load(name, self._folder / name)
        self._name = name
        try:
            yield
        except BaseException:
            # what stopped the step is what counts
            with suppress(FfrError):
                self._server.unload(name)
            raise
        finally:
            self._name = None
            remove(self._folder)
        self._server.unload(name)

    def prompt(self, example: Example, encoded: Encoded, where: str) -> AskedPrompt:
        """An example's prompt as `sample` takes it.

        Args:
            example: The example.
            encoded: Its prompt.
            where: Its place in the data.
        """
        return AskedPrompt(encoded.input_ids, 0, encoded.images, example=example, where=where)

    def sample(
        self,
        prompts: Sequence[AskedPrompt],
        dialogue_numbers: Sequence[int] | None,
        generator: torch.Generator | None,
        earlier: Sequence[Answers] | None = None,
    ) -> list[list[Generated]]:
        """G answers to each prompt, within `rolling_out`.

        Args:
            prompts: As `prompt` makes them.
            dialogue_numbers: Without effect: a server finds what prompts have in common by itself.
            generator: Draws a seed for each prompt.
            earlier: Without effect: nothing is guessed ahead here.

        Raises:
            ApiError: where the answers do not come, or are not this model's.
            DataError: where a picture cannot be opened.
        """
        device = self._vlm.device
        seeds = torch.randint(2**31, (len(prompts),), generator=generator, device=device).tolist()
        self._server.reset()
        pool = ThreadPoolExecutor(min(_MAX_REQUESTS, len(prompts)), thread_name_prefix="ffr-ask")
        try:
            return list(pool.map(self._ask, prompts, seeds))
        except BaseException:
            self._server.cut_off()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def try_longest(self, prompt: Encoded) -> None:
        """Nothing: the memory in which answers are written is the server's."""

    def _ask(self, prompt: AskedPrompt, seed: int) -> list[Generated]:
        group = self._server.answer(self._request(prompt, seed), prompt.where)
        if group.num_prompt_tokens != prompt.num_tokens:
            raise ApiError(
                f"{prompt.where}: the server read {group.num_prompt_tokens} tokens where the model "
                f"that is trained reads {prompt.num_tokens}; have it serve that model, with its "
                "own chat template and no larger pictures than max_image_pixels"
            )
        return [self._generated(answer, prompt.where) for answer in group.answers]

    def _request(self, prompt: AskedPrompt, seed: int) -> dict[str, Any]:
        config, example = self._config, prompt.example
        urls = [
            self._data_url(location, config.max_image_pixels, where=prompt.where)
            for location in example.image_locations()
        ]
        return {
            "model": self._name,
            "messages": chat_messages(self._builder.prompt(example), urls, where=prompt.where),
            "n": config.num_generations,
            "seed": seed,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "stop_token_ids": self._vlm.stop_ids,
            # as when this process samples: no answer may hold a picture's place
            "logit_bias": {str(item): -100 for item in sorted(self._vlm.placeholder_ids)},
        }

    def _generated(self, answer: ServedAnswer, where: str) -> Generated:
        vlm, ids = self._vlm, answer.token_ids
        stops = vlm.stop_ids
        has_ended = ids[-1] in stops
        num_known = vlm.base.get_input_embeddings().weight.shape[0]
        if vlm.placeholder_ids.intersection(ids):
            fault = "with a token that stands for a picture"
        elif not all(0 <= item < num_known for item in ids):
            fault = "with a token that the model has not"
        elif not (has_ended or answer.is_cut_off):
            fault = "that ends with another token than the model's"
        elif not set(stops).isdisjoint(ids[:-1]):
            fault = "that goes on behind its end"
        else:
            words = ids[:-1] if has_ended else ids
            text = vlm.tokenizer.decode(
                words, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            return Generated(text, ids, answer.logprobs)
        raise ApiError(
            f"{where}: the server sent an answer {fault}; have it serve the model that is trained, "
            "with its own tokenizer"
        )


def _adapter_folder(config: GrpoConfig, run: Path) -> Path:
    """Where the adapter lies for the server: in the run, or under its name in the folder that both see."""
    if config.rollout_adapter_dir is None:
        return (run / ADAPTER_FOLDER).absolute()
    return (Path(config.rollout_adapter_dir) / f"{run.name}-{ADAPTER_FOLDER}").absolute()
