"""`ffr serve`: one's chats as a page in the browser of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from ffr.cli.chat_options import ChatCall, answering_options
from ffr.cli.model_options import with_options
from ffr.cli.output import say, say_aside


@click.command()
@click.argument("chats", nargs=-1, metavar="[CHAT]...", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    metavar="N",
    help="Where it answers.  [default: 8377, or a free one where that is taken]",
)
@click.option(
    "--open/--no-open",
    "is_opened",
    default=None,
    help="Start the browser.  [default: where there is a screen]",
)
@with_options(*answering_options)
def serve(chats: tuple[Path, ...], port: int | None, is_opened: bool | None, **call: Any) -> None:
    """Search and read chats on a page in your browser.

    CHAT is what an app exports, as for `ffr retrieve`; without it all chats are shown that were read
    before. The page is served to this machine alone, and only to whoever has the address that is
    printed; it reads, and changes nothing. Ctrl-C ends it.
    """
    from ffr.corpus.store import Store
    from ffr.page.access import Keys
    from ffr.page.app import make_app
    from ffr.page.serving import DEFAULT_PORT, open_port
    from ffr.page.serving import serve as answer

    named = ChatCall(chats=chats, **call)
    with (
        open_port(port) as listening,
        Store(named.index_folder, is_new_allowed=bool(chats)) as store,
    ):
        keys = Keys(listening.getsockname()[1])
        if port is None and keys.port != DEFAULT_PORT:
            say_aside(f"port {DEFAULT_PORT} is taken, so the page is at {keys.port}")
        read = named.read(store)
        archive = named.open(store, read)
        with Store(store.address) as reading:
            app = make_app(archive, reading, keys, read)
            if _has_screen() if is_opened is None else is_opened:
                _start_browser(keys.address_for_once())
            say(f"Open {keys.address} in a browser of this machine; Ctrl-C ends.")
            answer(app, listening)


def _has_screen() -> bool:
    """Whether somebody sits before a terminal with a screen that shows a browser."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _start_browser(address: str) -> None:
    """Opens a page in the browser, which waits until it is answered."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
