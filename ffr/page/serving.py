"""The page's server: a port of this machine alone, and the life of the process on it."""

from __future__ import annotations

import os
import socket

import uvicorn
from starlette.types import ASGIApp

from ffr.errors import UsageError

DEFAULT_PORT = 8377
_ONLY_HERE = "127.0.0.1"
_SECONDS_TO_END = 2


def open_port(port: int | None) -> socket.socket:
    """A socket that listens on this machine alone.

    Args:
        port: Its port; None for `DEFAULT_PORT`, or any that is free where that is taken.

    Raises:
        UsageError: where the port that was asked for is taken.

    >>> with open_port(None) as listening:
    ...     listening.getsockname()[0]
    '127.0.0.1'
    """
    try:
        return _listening(DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return _listening(0)
        raise UsageError(
            f"--port {port} cannot be had ({error.strerror}); name another, or none"
        ) from error


def _listening(port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # where it would let another program take the port over
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((_ONLY_HERE, port))
        opened.listen(64)
    except OSError:
        opened.close()
        raise
    return opened


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answers until Ctrl-C or another signal ends it.

    Args:
        app: The application.
        listening: Where it is asked.

    Raises:
        KeyboardInterrupt: at Ctrl-C.
    """
    config = uvicorn.Config(
        app,
        # an access log would hold what was looked for, and the key
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    uvicorn.Server(config).run(sockets=[listening])
    # a signal alone ends it: one that this process was started to ignore is not raised again
    raise KeyboardInterrupt
