"""A server that writes a policy's answers: vLLM, over its OpenAI protocol and its calls for adapters.

An adapter lies in a folder that both see, and is loaded from there under a name; answers are asked
for under that name. Each comes with the ids of its tokens and their log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ffr.retrieval.api import split_name
from ffr.retrieval.api_client import (
    ApiError,
    ChatClient,
    Limits,
    MalformedError,
    RefusedError,
    UnansweredError,
    error_text,
)
from ffr.text import counted, one_line

_ID_MARK = "token_id:"
_HOW_IT_RUNS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and a --max-lora-rank of lora_rank or more"
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer as a server wrote it.

    Args:
        token_ids: Its tokens, the end of the turn last where it was reached.
        logprobs: Their log-probabilities.
        is_cut_off: Whether it ended at the longest length.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_cut_off: bool


@dataclass(frozen=True, slots=True)
class ServedGroup:
    """The answers to one prompt.

    Args:
        num_prompt_tokens: What the server read before it answered.
        answers: The answers.
    """

    num_prompt_tokens: int
    answers: list[ServedAnswer]


class RolloutServer:
    """Hands adapters to a server and takes answers from it; each call is repeated up to a bound.

    Args:
        address: `URL#MODEL`, as of `ffr.retrieval.api.ApiRetriever`.
        key_variable: Environment variable that holds the key.
        limits: How the server is treated.

    Raises:
        UsageError: where the address is of another form, or the key cannot be sent.
    """

    def __init__(self, address: str, key_variable: str, limits: Limits) -> None:
        url, self.model = split_name(address)
        self._key_variable = key_variable
        self._has_answered = False

        def client(**named: Any) -> ChatClient:
            return ChatClient(url, key_variable, limits, has_others=False, **named)

        self._answering = client()
        self._loading = client(path="/load_lora_adapter", reads_json=False)
        self._unloading = client(path="/unload_lora_adapter", reads_json=False)

    @property
    def host(self) -> str:
        """Its address without its path."""
        return self._answering.host

    def check(self) -> None:
        """Asks the model that it serves for one token.

        Raises:
            ApiError: where that does not come with its id and log-probability.
        """
        words = [{"role": "user", "content": "?"}]
        self.answer(
            {"model": self.model, "messages": words, "n": 1, "max_tokens": 1}, "the server's model"
        )

    def load(self, name: str, folder: Path) -> None:
        """Has an adapter loaded.

        Args:
            name: What it is asked for by.
            folder: Where it lies, as peft writes one.

        Raises:
            ApiError: where the server does not do so.
        """
        body = {"lora_name": name, "lora_path": str(folder)}
        advice = f"see that it runs with {_HOW_IT_RUNS}, and reads the adapter under this path"
        self._asked(self._loading, body, f"adapter {folder}", lambda text: text, advice)

    def unload(self, name: str) -> None:
        """Has an adapter let go of.

        Raises:
            ApiError: where the server does not do so.
        """
        advice = f"see that it runs with {_HOW_IT_RUNS}"
        self._asked(
            self._unloading, {"lora_name": name}, f"adapter {name}", lambda text: text, advice
        )

    def answer(self, body: Mapping[str, Any], where: str) -> ServedGroup:
        """The `n` answers to one prompt; several threads may ask.

        Args:
            body: The request, but for what has tokens and log-probabilities come with the answers.
            where: What is asked about, for errors.

        Raises:
            ApiError: where they do not come, or not as they were asked for.
        """
        asked = {**body, "logprobs": True, "return_tokens_as_token_ids": True}
        num = int(body["n"])
        advice = f"see that it serves the model that {self.model!r} names, with room for the prompt"
        return self._asked(
            self._answering, asked, where, lambda found: read_group(found, num), advice
        )

    def cut_off(self) -> None:
        """Ends what is under way, and repeats nothing, until `reset`."""
        self._answering.cut_off()

    def reset(self) -> None:
        """Ready for more."""
        self._answering.reset()

    def _asked(
        self,
        client: ChatClient,
        body: Mapping[str, Any],
        where: str,
        read: Callable[[Any], Found],
        advice: str,
    ) -> Found:
        try:
            found = client.post(body, where, read)
        except UnansweredError as error:
            after = "go on with --resume" if self._has_answered else "then give the same command"
            raise ApiError(f"{error}; see whether it runs at {self.host}, and {after}") from None
        except RefusedError as error:
            if error.status in (401, 403):
                advice = (
                    f"set the right key in {self._key_variable} (rollout_key_env names another "
                    "variable)"
                )
            raise ApiError(
                f"{where}: the server at {self.host} refused with {error.status} "
                f"({one_line(error.reason, 300)}); {advice}"
            ) from None
        self._has_answered = True
        return found


def read_group(found: Any, num: int) -> ServedGroup:
    """The answers to a prompt in what the server sent, as read from JSON.

    Args:
        found: What it sent.
        num: How many answers were asked for.

    Raises:
        MalformedError: where it is not these.

    >>> token = {"token": "token_id:7", "logprob": -0.5}
    >>> choice = {"index": 0, "finish_reason": "stop", "logprobs": {"content": [token]}}
    >>> read_group({"choices": [choice], "usage": {"prompt_tokens": 3}}, 1).answers[0].token_ids
    (7,)
    """
    if isinstance(found, dict) and "error" in found and not found.get("choices"):
        raise MalformedError(
            f"an error in the place of an answer ({one_line(error_text(found), 300)})"
        )
    try:
        choices = sorted(found["choices"], key=lambda choice: int(choice["index"]))
        num_prompt_tokens = int(found["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MalformedError("JSON that is no chat completion with its usage") from None
    if [choice["index"] for choice in choices] != list(range(num)):
        raise MalformedError(f"{counted(len(choices), 'answer')} where {num} were asked for")
    return ServedGroup(num_prompt_tokens, [_answer_of(choice) for choice in choices])


def _answer_of(choice: Mapping[str, Any]) -> ServedAnswer:
    try:
        tokens = choice["logprobs"]["content"]
        ids = tuple(int(token["token"].removeprefix(_ID_MARK)) for token in tokens)
        logprobs = tuple(float(token["logprob"]) for token in tokens)
        are_ids = all(token["token"].startswith(_ID_MARK) for token in tokens)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        are_ids = False
    if not are_ids or not ids:
        raise MalformedError(
            "an answer without the ids of its tokens and their log-probabilities, which vLLM gives "
            "for logprobs and return_tokens_as_token_ids"
        )
    if not all(map(math.isfinite, logprobs)):
        raise MalformedError("a log-probability that is no finite number")
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise MalformedError(f"an answer that ended by {one_line(str(reason), 100)}")
    return ServedAnswer(ids, logprobs, reason == "length")
