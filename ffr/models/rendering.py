"""Rendering chat templates of strangers: in a process of its own, bounded in time and size.

A template is a program. transformers keeps it from the files and objects of this process, but not
from looping for ever or from asking for all memory there is, and a single operation of it
(`'x' * 10**10`) cannot be stopped from within. So it runs in `template_worker.py`, by transformers'
own renderer, and its process is ended when a bound is met. The template that comes with ffr is no
stranger's and is rendered here: that saves the second that a process takes to start.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from ffr.shipped.tiny import TINY_FOLDER

MAX_SECONDS = 5
"""Of the processor for one rendering; a prompt of a hundred thousand tokens takes some
milliseconds."""
_MAX_WAIT_SECONDS = 120.0
"""Of the clock, also for the start: a machine may be busy with other things."""
_MAX_BYTES = 1 << 29
"""That one rendering may take beyond what the process has at its start."""
_MOST_ADDED, _MOST_TIMES = 1 << 20, 8
"""A rendered text has at most so many characters more than so many times its messages."""


class RenderingError(Exception):
    """A template that cannot be rendered; says why."""


def render(
    template: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], *, ask: bool
) -> str:
    """Renders a chat template as transformers does, within bounds.

    Args:
        template: The template's text.
        messages: The turns.
        variables: What else the template sees: the tokenizer's special tokens by their names.
        ask: Whether the text ends where the answer begins.

    Raises:
        RenderingError: where the template fails, or meets a bound.

    >>> render("{{ messages[0].content }}{{ end }}", [{"content": "hello"}], {"end": "!"}, ask=True)
    'hello!'
    """
    if template == _template_that_comes_with_ffr():
        (text,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=ask, **variables
        )
        return str(text)
    said = len(json.dumps(messages))
    request = {
        "template": template,
        "messages": messages,
        "ask": ask,
        "variables": dict(variables),
        "seconds": MAX_SECONDS,
        "max_bytes": _MAX_BYTES,
        "max_chars": _MOST_ADDED + _MOST_TIMES * said,
    }
    answer = _worker().ask(json.dumps(request, default=str))
    if "text" in answer:
        return str(answer["text"])
    reason = answer["reason"]
    raise RenderingError(_REASONS.get(reason, reason))


_REASONS = {
    "time": "it takes too long for one prompt",
    "memory": f"it takes more than {_MAX_BYTES >> 20} MiB for one prompt",
    "length": "it makes a text far longer than what is said",
}


@functools.cache
def _template_that_comes_with_ffr() -> str:
    return (TINY_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")


class _Worker:
    """The process that renders for this one, started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def ask(self, request: str) -> dict[str, Any]:
        """The worker's answer to a line: a `text`, or the `reason` why there is none."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
                started = self._exchange("")
                if "reason" in started:
                    return started
            return self._exchange(request + "\n")

    def _exchange(self, line: str) -> dict[str, Any]:
        """Sends a line and reads one; the process is ended where none comes in time."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise AssertionError("the process was started with its pipes")
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(_MAX_WAIT_SECONDS, end)
        timer.daemon = True
        timer.start()
        found = ""
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
            found = process.stdout.readline()
        finally:
            timer.cancel()
            if not found.endswith("\n"):
                # it is dead, or the next line it gives would be taken for another answer
                code = self._stop(process)
        if found.endswith("\n"):
            answer: dict[str, Any] = json.loads(found)
            return answer
        if is_late.is_set() or code in _OUT_OF_TIME:
            return {"reason": "time"}
        return {"reason": f"the process that renders it ended with {code}"}

    def _stop(self, process: subprocess.Popen[str]) -> int:
        """Ends the process and tells what it ended with."""
        self._process = None
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)  # one that has closed its end is ending
        process.kill()
        with suppress(OSError):
            process.communicate()
        return process.returncode


_OUT_OF_TIME = {-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)} - {0}


def _start() -> subprocess.Popen[str]:
    # -P: the modules beside the file are none that a library looks for
    command = [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py"))]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


@functools.cache
def _worker_of(process: int) -> _Worker:
    return _Worker()


def _worker() -> _Worker:
    """The worker of this process: one that was forked must not share its parent's."""
    return _worker_of(os.getpid())
