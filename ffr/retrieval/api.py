"""Models behind an OpenAI-compatible chat-completions endpoint (vLLM, closed models) as a retriever: `api:URL#model`."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ffr.dialogue import Example, FilePrompt
from ffr.errors import FfrError, UsageError
from ffr.images import MAX_IMAGE_PIXELS
from ffr.prompt import QueryPosition, prompt_of
from ffr.retrieval.api_client import (
    CHAT_PATH,
    ChatClient,
    Limits,
    RefusedError,
    UnansweredError,
)
from ffr.retrieval.chat_protocol import Prices, chat_messages, data_url, read_completion
from ffr.retrieval.interface import Answer, answers_or_failures

API_PREFIX = "api:"
_OF_THIS_REQUEST = frozenset({400, 413, 414, 415, 422, 451})
"""Refusals of what one request holds (a content filter, its length).

Others are of the key, the address, the model.
"""
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


def split_name(name: str) -> tuple[str, str]:
    """URL and model of `api:URL#model`.

    Raises:
        UsageError: where it is not of that form, or the URL holds what could be a secret.

    >>> split_name("api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B-Instruct")
    ('http://localhost:8000/v1', 'Qwen/Qwen2-VL-2B-Instruct')
    """
    url, mark, model = name.removeprefix(API_PREFIX).partition("#")
    if not mark or not model:
        raise UsageError(
            "an endpoint is written api:URL#MODEL, such as "
            "api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(ord(character) <= 32 or ord(character) > 126 for character in url):
        raise UsageError(
            "the URL of an endpoint begins with http:// or https:// and a host, such as "
            "api:http://localhost:8000/v1#m"
        )
    if parts.username is not None or parts.password is not None or parts.query:
        raise UsageError(
            "the URL of an endpoint holds a user name, a password or a query, which would be "
            "written down with the results; "
            "take them out and put the key into an environment variable (--api-key-env)"
        )
    return url.rstrip("/").removesuffix(CHAT_PATH), model


class ApiRetriever:
    """A model behind a chat-completions endpoint, asked greedily (temperature 0), several requests at a time.

    Args:
        name: `api:URL#model`; the URL is that before `/chat/completions`, such as
            `http://localhost:8000/v1`.
        key_variable: Environment variable that holds the key; where it is not set, requests carry
            none.
        template: Prompt template; None = the file's prompt text.
        query_position: Query before or after the dialogue; None likewise.
        max_new_tokens: Longest answer.
        max_image_pixels: Larger pictures are scaled down before they are sent.
        with_logprobs: Whether to ask for the log-probabilities of the answers' tokens.
        limits: How the server is treated.
        prices: What tokens cost; None to leave costs out.
        label: What tables call it; None = `api:model`.

    Raises:
        UsageError: where the name is of another form, or the key cannot be sent.
    """

    def __init__(
        self,
        name: str,
        *,
        key_variable: str = DEFAULT_KEY_VARIABLE,
        template: str | None = None,
        query_position: QueryPosition | None = None,
        max_new_tokens: int = 512,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        with_logprobs: bool = False,
        limits: Limits | None = None,
        prices: Prices | None = None,
        label: str | None = None,
    ) -> None:
        self._url, self._model = split_name(name)
        self._template = template
        self._query_position = query_position
        self._max_new_tokens = max_new_tokens
        self._max_image_pixels = max_image_pixels
        self._with_logprobs = with_logprobs
        self._limits = limits or Limits()
        self._prices = prices or Prices()
        self._label = label or API_PREFIX + self._model
        self._client = ChatClient(self._url, key_variable, self._limits)
        self._data_url = functools.lru_cache(maxsize=256)(data_url)
        self._length_field = "max_tokens"

    @property
    def name(self) -> str:
        return self._label

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "api",
            "name": self._label,
            "url": self._url,
            "model": self._model,
            "max_image_pixels": self._max_image_pixels,
            "template": self._template,
            "query_position": self._query_position,
            "max_new_tokens": self._max_new_tokens,
            "logprobs": self._with_logprobs,
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        """Each by itself: every answer is written down as soon as it is there."""
        return [[index] for index in range(len(examples))]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example, template=self._template, query_position=self._query_position)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        found = dict(self.answer_as_they_come([example] for example in examples))
        return [found[number][0] for number in range(len(examples))]

    def answer_as_they_come(
        self, batches: Iterable[Sequence[Example]]
    ) -> Iterator[tuple[int, list[Answer]]]:
        """As `ffr.retrieval.interface.ParallelRetriever`.

        Raises:
            ApiError: where the server answers nothing, or refuses whatever is asked; nothing new is
                begun then, and what is under way is handed out first.
        """
        self._client.reset()
        waiting = enumerate(batches)
        pending: dict[Future[list[Answer]], int] = {}
        failure: FfrError | None = None
        pool = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="ffr-api")
        try:
            while True:
                while failure is None and len(pending) < self._limits.concurrency:
                    following = next(waiting, None)
                    if following is None:
                        break
                    number, batch = following
                    pending[pool.submit(self._ask_all, batch)] = number
                if not pending:
                    break
                for done in wait(pending, return_when=FIRST_COMPLETED).done:
                    number = pending.pop(done)
                    try:
                        answers = done.result()
                    except FfrError as error:
                        failure = failure or error
                        self._client.stop_retrying()
                    else:
                        yield number, answers
            if failure is not None:
                raise failure
        finally:
            self._client.cut_off()
            pool.shutdown(cancel_futures=True)

    def _ask_all(self, examples: Sequence[Example]) -> list[Answer]:
        return answers_or_failures(
            lambda asked: [self._ask(example) for example in asked], examples
        )

    def _ask(self, example: Example) -> Answer:
        where = f"dialogue {example.dialogue.id!r}"
        urls = [
            self._data_url(location, self._max_image_pixels, where=where)
            for location in example.image_locations()
        ]
        messages = chat_messages(self.prompt(example), urls, where=where)
        while True:
            field = self._length_field
            body = {
                "model": self._model,
                "messages": messages,
                "temperature": 0,
                field: self._max_new_tokens,
            }
            if self._with_logprobs:
                body["logprobs"] = True
            try:
                return self._client.post(body, where, self._read)
            except UnansweredError as error:
                return Answer("", failure=str(error))
            except RefusedError as error:
                # newer closed models know the length by its second name alone
                if field == "max_tokens" and "max_completion_tokens" in error.reason:
                    self._length_field = "max_completion_tokens"
                    continue
                explained = error.explained(where)
                if error.status in _OF_THIS_REQUEST:
                    return Answer("", failure=str(explained))
                raise explained from None

    def _read(self, answer: Any) -> Answer:
        return read_completion(answer, self._prices)
