"""A process of its own that renders chat templates, under bounds of time and memory.

It is started by `ffr.models.rendering` as a file, so that it imports transformers' renderer and
nothing of ffr. Requests and answers are JSON, a line each: its first line says that it is ready.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # not on Windows, where the clock of who asks is the only bound
    resource = None  # type: ignore[assignment]


def _bounded(seconds: int) -> None:
    """From now on so many seconds of the processor; a signal ends the process behind them."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def _bound_memory(num_bytes: int) -> None:
    """So many bytes beyond what is taken now; where they are not enough Python raises."""
    # macOS counts what is merely mapped, and refuses any bound below it
    if resource is not None and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        taken = pages * os.sysconf("SC_PAGE_SIZE")
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + num_bytes, most))


def _answer(request: dict[str, Any], render: Any) -> str:
    """The answer's line: the rendered text, or why there is none."""
    try:
        (text,), _ = render(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["ask"],
            **request["variables"],
        )
        found = {"text": text} if len(text) <= request["max_chars"] else {"reason": "length"}
        return json.dumps(found)
    except MemoryError:
        return json.dumps({"reason": "memory"})
    except Exception as error:  # whatever a stranger's template raises is said in words
        return json.dumps({"reason": f"{type(error).__name__}: {error}"[:2_000]})


def main() -> None:
    """Answers requests until there are no more."""
    # a keyboard's interruption is for the process that asks, whose end ends this one too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from transformers.utils.chat_template_utils import render_jinja_template

    print(json.dumps({"ready": True}), flush=True)
    is_bounded = False
    for line in sys.stdin:
        request = json.loads(line)
        if not is_bounded:
            _bound_memory(request["max_bytes"])
            is_bounded = True
        _bounded(request["seconds"])
        print(_answer(request, render_jinja_template), flush=True)


if __name__ == "__main__":
    main()
