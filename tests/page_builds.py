"""A small store of two chats with pictures, for tests of the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import PIL.Image

from ffr.chats.chat import Media, Message, Reaction
from ffr.chats.cutting import Cutting
from ffr.chats.stream import ChatStream
from ffr.corpus.adding import add_chat
from ffr.corpus.archive import Archive
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.progress import Progress
from ffr.retrieval.lexical import BaselineRetriever

START = datetime(2023, 5, 12, 18, 0)
HOSTILE = '<img src=x onerror="window.pwned=1"></script><script>window.pwned=1</script>'


def said(sender: str | None, text: str, minutes: float = 0, **more: object) -> Message:
    """A message so many minutes after `START`."""
    return Message(sender, text, START + timedelta(minutes=minutes), **more)  # type: ignore[arg-type]


def picture(file: str) -> dict[str, object]:
    """What a message says that carries a picture."""
    return {"kind": "picture", "media": (Media("picture", file, file),)}


TRIP = (
    said("Ann", "shall we fly to Lisbon in May?", id="m1"),
    said(
        "Bob", "I found a flat in Alfama", 5, reply_to="m1", reactions=(Reaction("👍", ("Ann",)),)
    ),
    said("Bob", "with a balcony", 6, is_edited=True),
    said("Bob", "", 7, **picture("flat.png")),
    said("Ann", "lovely, book the flat 👨‍👩‍👧", 9),
    said(None, "Bob changed the picture of the group", 10, kind="system"),
    said("Ann", "did the dentist call?", 60 * 24),
    said("Bob", "‏אני לא יודע", 60 * 24 + 1),
    said("Bob", "", 60 * 24 + 2, **picture("gone.png")),
    said("Ann", "a voice", 60 * 24 + 3, kind="voice", media=(Media("voice", "a.opus"),)),
)
STRANGE = (
    said("<b>Eve</b>", HOSTILE),
    said("\u202eevE\x1b[31m", "turned \u202e round\x1b[31m :: here", 1),
    said("<b>Eve</b>", "", 2, **picture("odd'\"><b>.png")),
    said("<b>Eve</b>", "forwarded", 3, forwarded_from=HOSTILE),
)


def add(store: Store, messages: Iterable[Message], title: str, source: Path) -> int:
    """Adds a chat of which Ann is the owner; returns its number."""
    made = ChatStream("whatsapp", title)

    def come() -> Iterator[Message]:
        for message in messages:
            if message.sender is not None:
                made.person(message.sender, message.sender, is_me=message.sender == "Ann")
            yield message

    made.messages = come()
    return add_chat(store, made, source, Cutting(), state="s").chat


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Progress]:
    """A bar that shows nothing."""
    yield lambda done, all_: None


def fill(folder: Path) -> Path:
    """A store of the chats `Trip` and `<i>Strange</i>`, whose pictures lie beside it."""
    PIL.Image.new("RGB", (1200, 900), "red").save(folder / "flat.png")
    PIL.Image.new("RGB", (30, 20), "blue").save(folder / "odd'\"><b>.png")
    (folder / "export.txt").write_text("what the chats were read from")
    with Store(folder / "store", is_new_allowed=True) as store:
        add(store, TRIP, "Trip", folder / "export.txt")
        add(store, STRANGE, "<i>Strange</i>", folder / "export.txt")
        index_store(store, [1, 2], None, None, say=lambda _: None, bar=no_bar)
    return folder / "store"


def asked(store: Store, baseline: str = "overlap") -> Archive:
    """The store with a retriever that needs no weights."""
    return Archive(store, BaselineRetriever(baseline), None, None)
