"""Models behind an OpenAI-compatible chat-completions endpoint (vLLM, closed models) as a retriever: `api:URL#model`.

The key is read from the environment and goes into the request's header alone: never into a file, a log or an error.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import json
import os
import random
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeGuard

from ffr.dialogue import Example, FilePrompt
from ffr.errors import DataError, FfrError, UsageError
from ffr.evaluation.retrievers import Answer
from ffr.images import MAX_IMAGE_PIXELS, open_image
from ffr.prompt import IMAGE_MARK, QueryPosition, prompt_of

API_PREFIX = "api:"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
_PATH = "/chat/completions"
_MAX_ANSWER_BYTES = 16 << 20
_LONGEST_WAIT = 60.0
"""Seconds that a back-off grows to; a server's own Retry-After may be longer."""
_LONGEST_RETRY_AFTER = 900.0
"""Seconds: a server that wants a longer wait is given up."""
_CONNECT_TIMEOUT = 30.0
_PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_CONTEXT_WORDS = ("context length", "context_length", "maximum context", "max_model_len", "too long", "too many tokens")


class ApiError(FfrError):
    """A server that does not answer as it should; the sentence says what it did and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a server is treated.

    Args:
        concurrency: Requests under way at a time.
        requests_per_minute: Requests begun in a minute at most, repeated ones included; None for no bound.
        timeout_s: Seconds from the beginning of a request to the last byte of its answer.
        max_retries: How often a request is repeated after a passing fault.
        first_wait_s: Seconds before the first repetition; doubled each time, up to a minute, and shortened by chance by up to a half.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout_s: float = 300.0
    max_retries: int = 6
    first_wait_s: float = 1.0


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
        raise UsageError("an endpoint is written api:URL#MODEL, such as api:http://localhost:8000/v1#Qwen/Qwen2-VL-2B")
    try:
        parts = urllib.parse.urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(ord(character) <= 32 or ord(character) > 126 for character in url):
        raise UsageError(
            "the URL of an endpoint begins with http:// or https:// and a host, such as api:http://localhost:8000/v1#m"
        )
    if parts.username is not None or parts.password is not None or parts.query:
        raise UsageError(
            "the URL of an endpoint holds a user name, a password or a query, which would be written down with the results; "
            "take them out and put the key into an environment variable (--api-key-env)"
        )
    return url.rstrip("/").removesuffix(_PATH), model


class ApiRetriever:
    """A model behind a chat-completions endpoint, asked greedily (temperature 0), several requests at a time.

    Args:
        name: `api:URL#model`; the URL is that before `/chat/completions`, such as `http://localhost:8000/v1`.
        key_variable: Environment variable that holds the key; where it is not set, requests carry none.
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
        self._client = _Client(self._url, key_variable, self._limits)
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

    def answer_as_they_come(self, batches: Iterable[Sequence[Example]]) -> Iterator[tuple[int, list[Answer]]]:
        """As `ffr.evaluation.retrievers.ParallelRetriever`.

        Raises:
            ApiError: where a request fails for good; nothing new is begun then, and what is under way is handed out first.
            DataError: where a picture cannot be opened, likewise.
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
        return [self._ask(example) for example in examples]

    def _ask(self, example: Example) -> Answer:
        where = f"dialogue {example.dialogue.id!r}"
        messages = self._messages(example, where)
        while True:
            field = self._length_field
            body = {"model": self._model, "messages": messages, "temperature": 0, field: self._max_new_tokens}
            if self._with_logprobs:
                body["logprobs"] = True
            try:
                return self._client.post(body, where, self._read)
            except _RefusedError as error:
                # newer closed models know the length by its second name alone
                if field == "max_tokens" and "max_completion_tokens" in error.reason:
                    self._length_field = "max_completion_tokens"
                    continue
                raise error.explained(where) from None

    def _messages(self, example: Example, where: str) -> list[dict[str, Any]]:
        prompt = self.prompt(example)
        locations = list(example.image_locations())
        texts = prompt.user.split(IMAGE_MARK)
        if len(texts) != len(locations) + 1:
            raise DataError(
                f"the prompt has places for {len(texts) - 1} images but the record has {len(locations)}", where=where
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
        messages = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
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
        """The answer in what the server sent; raises `_MalformedError` where it is none."""
        if isinstance(answer, dict) and "error" in answer and not answer.get("choices"):
            raise _MalformedError(f"an error in the place of an answer ({_short(_error_text(answer))})")
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"]
            reason = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise _MalformedError("JSON that is no chat completion") from None
        if text is None:
            text = ""  # a refusal, or all tokens went into a thought
        if not isinstance(text, str):
            raise _MalformedError("a chat completion whose content is no text")
        extra: dict[str, Any] = {}
        if isinstance(reason, str) and reason not in ("stop", "length"):
            extra["finish_reason"] = reason
        usage = self._usage(answer.get("usage"))
        if usage:
            extra["usage"] = usage
        return Answer(text, _read_logprobs(choice.get("logprobs")), is_cut_off=reason == "length", extra=extra)

    def _usage(self, usage: Any) -> dict[str, Any]:
        if not isinstance(usage, dict):
            return {}
        prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not (_is_count(prompt_tokens) and _is_count(completion_tokens)):
            return {}
        found = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return found | ({"cost": self._prices.cost(prompt_tokens, completion_tokens)} if self._prices else {})


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_logprobs(value: Any) -> tuple[float, ...] | None:
    try:
        return tuple(float(entry["logprob"]) for entry in value["content"])
    except (KeyError, TypeError, ValueError):
        return None


class _PassingError(Exception):
    """What may go by itself; `wait_s` is how long the server wants to be left alone."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _MalformedError(_PassingError):
    """An answer that is not in the protocol."""


class _RefusedError(Exception):
    """A request that the server will not take, however often it is repeated."""

    def __init__(self, status: int, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.advice = status, reason, advice

    def explained(self, where: str) -> ApiError:
        return ApiError(f"{where}: the server refused with {self.status} ({_short(self.reason)}); {self.advice}")


class _Client:
    """Posts requests to one URL, within limits, from several threads."""

    def __init__(self, url: str, key_variable: str, limits: Limits) -> None:
        self._parts = urllib.parse.urlsplit(url + _PATH)
        self._limits = limits
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if any(ord(character) < 33 or ord(character) > 126 for character in self._key):
            raise UsageError(f"the key in {key_variable} holds characters that no key has; set it again")
        self._proxy = self._find_proxy()
        self._lock = threading.Lock()
        self._next_start = 0.0  # of the monotonic clock
        self._gives_up = threading.Event()
        self._is_over = threading.Event()
        self._open: set[socket.socket] = set()

    def _find_proxy(self) -> urllib.parse.SplitResult | None:
        host = self._parts.hostname or ""
        found = urllib.request.getproxies().get(self._parts.scheme)
        return urllib.parse.urlsplit(found) if found and not urllib.request.proxy_bypass(host) else None

    def reset(self) -> None:
        """Ready for more, after a failure or an interruption."""
        self._gives_up.clear()
        self._is_over.clear()

    def stop_retrying(self) -> None:
        """Lets what is under way end, and repeats nothing."""
        self._gives_up.set()

    def cut_off(self) -> None:
        """Ends what is under way."""
        self._gives_up.set()
        self._is_over.set()
        with self._lock:
            sockets = list(self._open)
        for item in sockets:
            _shut(item)

    def post(self, body: Mapping[str, Any], where: str, read: Any) -> Answer:
        """Sends a request until it is answered.

        Raises:
            ApiError: where it fails for good, or too often.
            _RefusedError: where the server will not take it.
        """
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        for attempt in range(self._limits.max_retries + 1):
            self._wait_for_turn()
            try:
                answer: Answer = read(self._post_once(content))
                return answer
            except _RefusedError as error:
                error.reason = self._without_key(error.reason)
                raise
            except _PassingError as error:
                reason, wait_s = self._without_key(str(error)), error.wait_s
            if wait_s is not None and wait_s > _LONGEST_RETRY_AFTER:
                raise ApiError(
                    f"{where}: the server sent {_short(reason)} and wants {wait_s:,.0f} s of rest; go on later"
                )
            if attempt == self._limits.max_retries or self._gives_up.is_set():
                break
            backoff = min(self._limits.first_wait_s * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1)
            if wait_s is not None:
                backoff = max(wait_s, 0.0) + backoff * 0.1
                self._hold_back(wait_s)
            if self._gives_up.wait(backoff):
                break
        times = f"{attempt + 1} times" if attempt else "once"
        raise ApiError(
            f"{where}: the server was asked {times} and gave no answer, at last {_short(reason)}; see whether it runs at "
            f"{self._parts.scheme}://{self._parts.netloc}, and go on by the same command (answers so far are kept)"
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _hold_back(self, seconds: float) -> None:
        """A server that wants rest gets it from all threads."""
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + seconds)

    def _wait_for_turn(self) -> None:
        pace = 60 / self._limits.requests_per_minute if self._limits.requests_per_minute else 0.0
        with self._lock:
            start = max(self._next_start, time.monotonic())
            if pace:
                self._next_start = start + pace
        seconds = start - time.monotonic()
        if seconds > 0 and self._gives_up.wait(seconds):
            raise ApiError("stopped before it was asked")

    def _post_once(self, content: bytes) -> Any:
        """What the server sent, as read from JSON."""
        deadline = _Deadline(self._limits.timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        headers["User-Agent"] = "ffr"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection, path = self._connection()
        opened: socket.socket | None = None
        try:
            connection.connect()
            opened = connection.sock
            opened.settimeout(self._limits.timeout_s)
            with self._lock:
                self._open.add(opened)
            if self._is_over.is_set():
                raise _PassingError("nothing: the work was stopped")
            # a server that drips bytes keeps every single wait short: the whole is bounded by cutting the connection
            with deadline.cuts(opened):
                connection.request("POST", path, body=content, headers=headers)
                response = connection.getresponse()
                received = response.read(_MAX_ANSWER_BYTES + 1)
                missing = response.length if len(received) <= _MAX_ANSWER_BYTES else 0
            if deadline.is_over:
                raise _PassingError(f"no whole answer within {self._limits.timeout_s:g} s")
            if missing:
                raise _PassingError(f"a cut connection ({missing} bytes short)")
        except (OSError, ValueError, http.client.HTTPException) as error:
            if deadline.is_over or isinstance(error, TimeoutError):
                raise _PassingError(f"no whole answer within {self._limits.timeout_s:g} s") from None
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise _PassingError(f"a cut connection ({what})") from None
        finally:
            if opened is not None:
                with self._lock:
                    self._open.discard(opened)
            connection.close()
        return self._checked(response, received)

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        parts, timeout = self._parts, min(self._limits.timeout_s, _CONNECT_TIMEOUT)
        host, port = parts.hostname or "", parts.port
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        if self._proxy is None:
            return kind(host, port, timeout=timeout), parts.path
        connection = kind(self._proxy.hostname or "", self._proxy.port, timeout=timeout)
        if parts.scheme == "http":
            return connection, parts.geturl()
        connection.set_tunnel(host, port)
        return connection, parts.path

    def _checked(self, response: http.client.HTTPResponse, received: bytes) -> Any:
        status = response.status
        kind = (response.headers.get_content_type() or "").lower()
        if 300 <= status < 400:
            raise _RefusedError(status, "it sends on to another address", "name that address in api:URL#MODEL")
        if status != 200:
            reason = (
                _error_text(_json_or_none(received)) or received[:2000].decode("utf-8", "replace") or response.reason
            )
            if status in _PASSING_STATUSES and "insufficient_quota" not in reason:
                raise _PassingError(f"{status} ({_short(reason)})", _retry_after(response.headers.get("Retry-After")))
            raise _RefusedError(status, reason, self._advice(status, reason))
        if len(received) > _MAX_ANSWER_BYTES:
            raise _MalformedError(f"an answer of more than {_MAX_ANSWER_BYTES >> 20} MiB")
        try:
            return json.loads(received)
        except (ValueError, RecursionError):
            raise _MalformedError(f"{kind} that is not JSON ({len(received)} bytes)") from None

    def _advice(self, status: int, reason: str) -> str:
        if status in (401, 403):
            state = "is not set" if not self._key else "is not taken"
            return f"the key in {self._key_variable} {state}; set the right one (--api-key-env names another variable)"
        if any(words in reason.lower() for words in _CONTEXT_WORDS):
            return "cut long dialogues by --window, lower --max-new-tokens, or take a model with a longer context"
        if status == 404:
            return "see whether URL and model are right; the URL ends before /chat/completions, often in /v1"
        return "correct what it names"


class _Deadline:
    """Cuts a connection when its time is up."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.is_over = False

    @contextlib.contextmanager
    def cuts(self, opened: socket.socket) -> Iterator[None]:
        def end() -> None:
            self.is_over = True
            _shut(opened)

        timer = threading.Timer(max(0.0, self._end - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _shut(opened: socket.socket) -> None:
    # the plain socket's method: that of TLS would take the session from under the thread that reads
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _retry_after(value: str | None) -> float | None:
    """Seconds in a Retry-After header: a number, or a date.

    >>> _retry_after("2.5"), _retry_after("soon"), _retry_after("Thu, 01 Jan 1970 00:00:00 GMT")
    (2.5, None, 0.0)
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _error_text(answer: Any) -> str:
    """What an error answer says, whichever of the usual shapes it has."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, dict):
        parts = [error.get(name) for name in ("message", "detail", "code", "type")]
        return "; ".join(str(part) for part in parts if isinstance(part, str | int) and part)
    return error if isinstance(error, str) else ""


def _short(text: str) -> str:
    """One line of at most 300 characters.

    >>> _short("a  b "), len(_short("x" * 1000))
    ('a b', 300)
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 300 else line[:299] + "…"
