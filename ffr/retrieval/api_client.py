"""Requests to a chat-completions endpoint.

Paced, repeated after passing faults, bounded in time and size, refusals in a sentence.

The key is read from the environment and goes into the request's header alone: never into a file, a
log or an error.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from ffr.errors import FfrError, UsageError
from ffr.text import one_line

Read = TypeVar("Read")
CHAT_PATH = "/chat/completions"
_MAX_ANSWER_BYTES = 16 << 20
_LONGEST_WAIT = 60.0
"""Seconds that a back-off grows to; a server's own Retry-After may be longer."""
_LONGEST_RETRY_AFTER = 900.0
"""Seconds: a server that wants a longer wait is given up."""
_CONNECT_TIMEOUT = 30.0
_PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_MAX_UNANSWERED = 3
"""Requests in a row without an answer, after which it is seen whether the server answers at all."""
_CONTEXT_WORDS = (
    "context length",
    "context_length",
    "maximum context",
    "max_model_len",
    "too long",
    "too many tokens",
)


class ApiError(FfrError):
    """A server that does not answer as it should; the sentence says what it did and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a server is treated.

    Args:
        concurrency: Requests under way at a time.
        requests_per_minute: Requests begun in a minute at most, repeated ones included; None for no
            bound.
        timeout_s: Seconds from the beginning of a request to the last byte of its answer.
        max_retries: How often a request is repeated after a passing fault.
        first_wait_s: Seconds before the first repetition; doubled each time, up to a minute, and
            shortened by chance by up to a half.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout_s: float = 300.0
    max_retries: int = 6
    first_wait_s: float = 1.0


class UnansweredError(Exception):
    """A request to which no answer came, of a server that answers others."""


class PassingError(Exception):
    """What may go by itself; `wait_s` is how long the server wants to be left alone."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class MalformedError(PassingError):
    """An answer that is not in the protocol."""


class RefusedError(Exception):
    """A request that the server will not take, however often it is repeated."""

    def __init__(self, status: int, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.advice = status, reason, advice

    def explained(self, where: str) -> ApiError:
        return ApiError(
            f"{where}: the server refused with {self.status} ({one_line(self.reason, 300)}); "
            f"{self.advice}"
        )


class ChatClient:
    """Posts requests to one address of a server, within limits, from several threads.

    Args:
        url: What stands before the path.
        key_variable: Environment variable that holds the key; where it is not set, requests carry
            none.
        limits: How the server is treated.
        path: What is asked for there.
        reads_json: Whether answers are JSON; else they are given as text.
        has_others: Whether requests stand for themselves, so that after some in a row without an
            answer the server is asked for a word.

    Raises:
        UsageError: where the key cannot be sent.
    """

    def __init__(
        self,
        url: str,
        key_variable: str,
        limits: Limits,
        *,
        path: str = CHAT_PATH,
        reads_json: bool = True,
        has_others: bool = True,
    ) -> None:
        self._wire = Wire(url + path, key_variable, limits.timeout_s, reads_json=reads_json)
        self._has_others = has_others
        self._limits = limits
        self._lock = threading.Lock()
        self._next_start = 0.0  # of the monotonic clock
        self._num_unanswered = 0  # in a row
        self._gives_up = threading.Event()

    def reset(self) -> None:
        """Ready for more, after a failure or an interruption."""
        self._gives_up.clear()
        self._wire.reset()
        self._num_unanswered = 0

    def stop_retrying(self) -> None:
        """Lets what is under way end, and repeats nothing."""
        self._gives_up.set()

    def cut_off(self) -> None:
        """Ends what is under way."""
        self._gives_up.set()
        self._wire.cut_off()

    @property
    def host(self) -> str:
        """The server's address without its path."""
        return self._wire.host

    def post(self, body: Mapping[str, Any], where: str, read: Callable[[Any], Read]) -> Read:
        """Sends a request until it is answered.

        Args:
            body: What is sent, as JSON.
            where: What an error begins with.
            read: Makes of what the server sent what is given back; what it raises as
                `MalformedError` is asked for again.

        Raises:
            UnansweredError: where no answer comes, though the server answers others.
            ApiError: where the server answers nothing, or the work is stopped.
            RefusedError: where the server will not take it.
        """
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        for attempt in range(self._limits.max_retries + 1):
            self._wait_for_turn()
            try:
                answer = read(self._wire.post(content))
                self._num_unanswered = 0
                return answer
            except RefusedError:
                self._num_unanswered = 0
                raise
            except PassingError as error:
                # what reads an answer may have found an error in its place
                reason, wait_s = self._wire.without_key(str(error)), error.wait_s
            if wait_s is not None and wait_s > _LONGEST_RETRY_AFTER:
                raise ApiError(
                    f"{where}: the server sent {one_line(reason, 300)} and wants {wait_s:,.0f} s "
                    "of rest; go on later"
                )
            if attempt == self._limits.max_retries or self._gives_up.is_set():
                break
            backoff = min(self._limits.first_wait_s * 2**attempt, _LONGEST_WAIT) * random.uniform(
                0.5, 1
            )
            if wait_s is not None:
                backoff = max(wait_s, 0.0) + backoff * 0.1
                self._hold_back(wait_s)
            if self._gives_up.wait(backoff):
                break
        times = f"{attempt + 1} times" if attempt else "once"
        sentence = (
            f"{where}: the server was asked {times} and gave no answer, at last "
            f"{one_line(reason, 300)}"
        )
        if not self._gives_up.is_set() and self._answers_others(body, read):
            raise UnansweredError(sentence)
        raise ApiError(
            f"{sentence}; it answers nothing else either: see whether it runs at "
            f"{self._wire.host}, and go on by the same command (answers "
            "so far are kept)"
        )

    def _answers_others(self, body: Mapping[str, Any], read: Callable[[Any], Any]) -> bool:
        """Whether the server is there for other requests, when it has not answered one.

        Few unanswered ones in a row tell nothing; after more it is asked once for a word. So queries
        that it can never answer, however many follow each other, do not keep it from the others.
        """
        if not self._has_others:
            return True
        with self._lock:
            self._num_unanswered += 1
            if self._num_unanswered < _MAX_UNANSWERED:
                return True
        word = {**body, "messages": [{"role": "user", "content": "?"}]}
        self._wait_for_turn()
        try:
            read(self._wire.post(json.dumps(word).encode()))
        except PassingError:
            return False
        except RefusedError:
            pass  # it is there, and says so
        self._num_unanswered = 0
        return True

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


class Wire:
    """One request to one URL at a time, each bounded; several threads may each have one."""

    def __init__(
        self, url: str, key_variable: str, timeout_s: float, *, reads_json: bool = True
    ) -> None:
        self._parts = urllib.parse.urlsplit(url)
        self._reads_json = reads_json
        self._timeout_s = timeout_s
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if any(ord(character) < 33 or ord(character) > 126 for character in self._key):
            raise UsageError(
                f"the key in {key_variable} holds characters that no key has; set it again"
            )
        self._written_key = re.compile(r"\s*".join(map(re.escape, self._key)))
        self._proxy = _proxy_for(self._parts)
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._open: set[socket.socket] = set()

    @property
    def host(self) -> str:
        """The server's address without its path."""
        return f"{self._parts.scheme}://{self._parts.netloc}"

    def reset(self) -> None:
        """Ready for more."""
        self._is_over.clear()

    def cut_off(self) -> None:
        """Ends what is under way."""
        self._is_over.set()
        with self._lock:
            sockets = list(self._open)
        for item in sockets:
            _shut(item)

    def without_key(self, text: str) -> str:
        """A text of the server's without the key, also where blanks or line breaks stand in it.

        What is cut afterwards cannot leave a part of the key behind.
        """
        return self._written_key.sub("[key]", text) if self._key else text

    def post(self, content: bytes) -> Any:
        """What the server sent, as read from JSON, or as text.

        Raises:
            PassingError: where it may go better another time.
            RefusedError: where the server will not take it.
        """
        deadline = _Deadline(self._timeout_s)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Connection": "close",
        }
        headers["User-Agent"] = "ffr"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = min(self._timeout_s, _CONNECT_TIMEOUT)
        connection, path = _connection(self._parts, self._proxy, timeout)
        opened: socket.socket | None = None
        try:
            connection.connect()
            opened = connection.sock
            opened.settimeout(self._timeout_s)
            with self._lock:
                self._open.add(opened)
            if self._is_over.is_set():
                raise PassingError("nothing: the work was stopped")
            # a server that drips bytes keeps every single wait short: the whole is bounded by
            # cutting the connection
            with deadline.cuts(opened):
                connection.request("POST", path, body=content, headers=headers)
                response = connection.getresponse()
                received = response.read(_MAX_ANSWER_BYTES + 1)
                missing = response.length if len(received) <= _MAX_ANSWER_BYTES else 0
            if deadline.is_over:
                raise PassingError(f"no whole answer within {self._timeout_s:g} s")
            if missing:
                raise PassingError(f"a cut connection ({missing} bytes short)")
        except (OSError, ValueError, http.client.HTTPException) as error:
            if deadline.is_over or isinstance(error, TimeoutError):
                raise PassingError(f"no whole answer within {self._timeout_s:g} s") from None
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise PassingError(f"a cut connection ({what})") from None
        finally:
            if opened is not None:
                with self._lock:
                    self._open.discard(opened)
            connection.close()
        return self._checked(response, received)

    def _checked(self, response: http.client.HTTPResponse, received: bytes) -> Any:
        status = response.status
        kind = (response.headers.get_content_type() or "").lower()
        if 300 <= status < 400:
            raise RefusedError(
                status, "it sends on to another address", "name that address in api:URL#MODEL"
            )
        if status != 200:
            reason = (
                error_text(_json_or_none(received))
                or received[:200_000].decode("utf-8", "replace")
                or response.reason
            )
            reason = self.without_key(reason)
            if status in _PASSING_STATUSES and "insufficient_quota" not in reason:
                raise PassingError(
                    f"{status} ({one_line(reason, 300)})",
                    _retry_after(response.headers.get("Retry-After")),
                )
            raise RefusedError(status, reason, self._advice(status, reason))
        if len(received) > _MAX_ANSWER_BYTES:
            raise MalformedError(f"an answer of more than {_MAX_ANSWER_BYTES >> 20} MiB")
        if not self._reads_json:
            return received.decode("utf-8", "replace")
        try:
            return json.loads(received)
        except (ValueError, RecursionError):
            raise MalformedError(f"{kind} that is not JSON ({len(received)} bytes)") from None

    def _advice(self, status: int, reason: str) -> str:
        if status in (401, 403):
            state = "is not set" if not self._key else "is not taken"
            return f"the key in {self._key_variable} {state}; set the right one (--api-key-env names another variable)"
        if any(words in reason.lower() for words in _CONTEXT_WORDS):
            return "cut long dialogues by --window, lower --max-new-tokens, or take a model with a longer context"
        if status == 404:
            return "see whether URL and model are right; the URL ends before /chat/completions, often in /v1"
        return "correct what it names"


def _proxy_for(parts: urllib.parse.SplitResult) -> urllib.parse.SplitResult | None:
    """The proxy that the environment names for an address."""
    found = urllib.request.getproxies().get(parts.scheme)
    return (
        urllib.parse.urlsplit(found)
        if found and not urllib.request.proxy_bypass(parts.hostname or "")
        else None
    )


def _connection(
    parts: urllib.parse.SplitResult, proxy: urllib.parse.SplitResult | None, timeout: float
) -> tuple[http.client.HTTPConnection, str]:
    """A connection to an address, not yet opened, and what to ask for on it."""
    host, port = parts.hostname or "", parts.port
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    if proxy is None:
        return kind(host, port, timeout=timeout), parts.path
    connection = kind(proxy.hostname or "", proxy.port, timeout=timeout)
    if parts.scheme == "http":
        return connection, parts.geturl()
    connection.set_tunnel(host, port)
    return connection, parts.path


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


def error_text(answer: Any) -> str:
    """What an error answer says, whichever of the usual shapes it has."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(error, dict):
        parts = [error.get(name) for name in ("message", "detail", "code", "type")]
        return "; ".join(str(part) for part in parts if isinstance(part, str | int) and part)
    return error if isinstance(error, str) else ""
