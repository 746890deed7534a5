"""A small store of two chats with pictures, for tests of the page."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import PIL.Image
import uvicorn

from ffr.chats.chat import Media, Message, Reaction
from ffr.chats.cutting import Cutting
from ffr.chats.stream import ChatStream
from ffr.corpus.adding import add_chat
from ffr.corpus.archive import Archive
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.dialogue import Example
from ffr.page.access import Keys
from ffr.page.app import make_app
from ffr.page.serving import open_port
from ffr.progress import Progress
from ffr.retrieval.interface import Answer
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
    """The store with a retriever that needs no weights; `everything` is sure of none and of all."""
    kind = _Everything if baseline == "everything" else BaselineRetriever
    return Archive(store, kind(baseline), None, None)


class _Everything(BaselineRetriever):
    """Without scores, by which hits are left out beside others."""

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        return [replace(answer, score=None) for answer in super().answer(examples)]


def long_chat(num_lines: int, draw: random.Random) -> Iterator[Message]:
    """A chat of years: lines of one to forty words, some pictures, a pause each fifty."""
    minutes = 0.0
    for number in range(num_lines):
        minutes += 600 if number % 50 == 0 else draw.uniform(0.2, 9)
        sender = draw.choice(["Ann", "Bob", "Cem"])
        if number % 97 == 5:
            yield said(sender, "", minutes, **picture("flat.png"))
        else:
            words = " ".join(draw.choices(_WORDS, k=draw.choice([1, 4, 9, 40])))
            yield said(sender, f"{number}: {words}", minutes)


_WORDS = [
    "the",
    "flat",
    "boat",
    "we",
    "tomorrow",
    "nice",
    "公园",
    "see",
    "you",
    "at",
    "eight",
    "cat",
    "dog",
    "train",
    "ticket",
    "ok",
    "haha",
]


@contextmanager
def served(folder: Path, baseline: str = "overlap") -> Iterator[Keys]:
    """A server on a store, in a thread, for a browser."""
    listening = open_port(0)
    keys = Keys(listening.getsockname()[1])
    with Store(folder) as store, Store(folder) as reading:
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(asked(store, baseline), reading, keys), log_level="error", lifespan="off"
            )
        )
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield keys
        server.should_exit = True
        thread.join(20)
