"""Models behind an OpenAI-compatible chat-completions endpoint (vLLM, closed models) as a retriever: `api:URL#model`."""

from __future__ import annotations

import base64
import functools
import io
import math
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ffr.dialogue import Example, FilePrompt
from ffr.errors import DataError, FfrError, UsageError
from ffr.images import MAX_IMAGE_PIXELS, open_image
from ffr.prompt import IMAGE_MARK, QueryPosition, prompt_of
from ffr.retrieval.api_client import (
    CHAT_PATH,
    ChatClient,
    Limits,
    MalformedError,
    RefusedError,
    error_text,
)
from ffr.retrieval.interface import Answer, answers_or_failures
from ffr.text import one_line

API_PREFIX = "api:"
_OF_THIS_REQUEST = frozenset({400, 413, 414, 415, 422, 451})
"""Refusals of what one request holds (a content filter, its length).

Others are of the key, the address, the model.
"""
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any one currency."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of one request.

        >>> Prices(2.5, 10.0).cost(1_000_000, 100_000)
        3.5
        """
        total = prompt_tokens * self.per_million_in + completion_tokens * self.per_million_out
        return round(total / 1_000_000, 12)

    def __bool__(self) -> bool:
        return bool(self.per_million_in or self.per_million_out)


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
        self._data_url = functools.lru_cache(maxsize=256)(self._encode_image)
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
            ApiError: where a request fails for good; nothing new is begun then, and what is under
                way is handed out first.
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
        messages = self._messages(example, where)
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
            except RefusedError as error:
                # newer closed models know the length by its second name alone
                if field == "max_tokens" and "max_completion_tokens" in error.reason:
                    self._length_field = "max_completion_tokens"
                    continue
                explained = error.explained(where)
                if error.status in _OF_THIS_REQUEST:
                    return Answer("", failure=str(explained))
                raise explained from None

    def _messages(self, example: Example, where: str) -> list[dict[str, Any]]:
        prompt = self.prompt(example)
        locations = list(example.image_locations())
        texts = prompt.user.split(IMAGE_MARK)
        if len(texts) != len(locations) + 1:
            raise DataError(
                f"the prompt has places for {len(texts) - 1} images but the record has "
                f"{len(locations)}",
                where=where,
            )
        content: Any = prompt.user
        if locations:
            content = []
            for number, text in enumerate(texts):
                if number:
                    url = self._data_url(locations[number - 1], where)
                    content.append({"type": "image_url", "image_url": {"url": url}})
                if text:
                    content.append({"type": "text", "text": text})
        messages = (
            [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
        )
        return [*messages, {"role": "user", "content": content}]

    def _encode_image(self, location: str | Path, where: str) -> str:
        picture = open_image(location, max_image_pixels=self._max_image_pixels, where=where)
        with Path(location).open("rb") as file:
            is_photo = file.read(3) == b"\xff\xd8\xff"
        content = io.BytesIO()
        if is_photo:
            picture.save(content, "JPEG", quality=95, subsampling=0)
        else:
            picture.save(content, "PNG")
        kind = "jpeg" if is_photo else "png"
        return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"

    def _read(self, answer: Any) -> Answer:
        """The answer in what the server sent; raises `MalformedError` where it is none."""
        if isinstance(answer, dict) and "error" in answer and not answer.get("choices"):
            raise MalformedError(
                f"an error in the place of an answer ({one_line(error_text(answer), 300)})"
            )
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise MalformedError("JSON that is no chat completion") from None
        text = _text_of(text)
        if text is None:
            raise MalformedError("a chat completion whose content is no text")
        extra: dict[str, Any] = {}
        if isinstance(reason, str) and reason not in ("stop", "length"):
            extra["finish_reason"] = _writable(reason)
        usage = self._usage(answer.get("usage"))
        if usage:
            extra["usage"] = usage
        logprobs = _read_logprobs(choice.get("logprobs"))
        if logprobs is not None and not all(map(math.isfinite, logprobs)):
            # no JSON can hold them; a line that says so is better than an answer that is lost
            logprobs, extra["logprobs_left_out"] = None, "not all finite"
        return Answer(_writable(text), logprobs, is_cut_off=reason == "length", extra=extra)

    def _usage(self, usage: Any) -> dict[str, Any]:
        if not isinstance(usage, dict):
            return {}
        prompt_tokens, completion_tokens = (
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
        )
        if not (_is_count(prompt_tokens) and _is_count(completion_tokens)):
            return {}
        found = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return found | (
            {"cost": self._prices.cost(prompt_tokens, completion_tokens)} if self._prices else {}
        )


def _text_of(content: Any) -> str | None:
    """The text of an answer, which may come in parts; None where it is none.

    >>> _text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), _text_of(5)
    ('ab', None)
    """
    if content is None:
        return ""  # a refusal, or all tokens went into a thought
    if isinstance(content, list):
        parts = [
            part.get("text")
            for part in content
            if isinstance(part, dict) and part.get("type") == "text"
        ]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return content if isinstance(content, str) else None


def _is_count(value: Any) -> TypeGuard[int]:
    # a larger number is no count of tokens, and no float could hold its price
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _writable(text: str) -> str:
    r"""A text with U+FFFD in the place of half a surrogate pair, which no file can hold.

    >>> _writable("a\ud83d") == "a\ufffd"
    True
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read_logprobs(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(entry["logprob"]) for entry in value["content"])
    except OverflowError:
        return (-math.inf,)
    except (KeyError, TypeError, ValueError):
        return None
