"""Small chats, stores and an encoder of letters, for tests of the corpus."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ffr.chats.chat import Media, Message
from ffr.chats.cutting import Cutting
from ffr.chats.stream import ChatStream
from ffr.corpus.adding import Added, add_chat
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.progress import Progress

START = datetime(2023, 5, 12, 18, 0)


def said(
    sender: str, text: str, minutes: float = 0, *media: Media, kind: str = "text", id_: str = ""
) -> Message:
    """A message so many minutes after `START`."""
    return Message(
        sender,
        text,
        START + timedelta(minutes=minutes),
        kind if not media else media[0].kind,  # type: ignore[arg-type]
        media,
        id_,
    )


TRIP = (
    said("Ann", "shall we fly to Lisbon in May?", 0),
    said("Bob", "I found a flat in Alfama", 5),
    said("Ann", "这周末去公园吗", 10),
    said("Bob", "", 11, Media("picture", "flat.png", "flat.png")),
    said("Ann", "did the dentist call?", 60 * 24),
    said("Bob", "no dentist today", 60 * 24 + 1),
)


def stream(
    messages: Sequence[Message] = TRIP, title: str = "Trip", *, app: str = "whatsapp", id_: str = ""
) -> ChatStream:
    """A chat that is read, of these messages."""
    made = ChatStream(app, title, id=id_)

    def come() -> Iterator[Message]:
        for message in messages:
            if message.sender is not None:
                made.person(message.sender, message.sender, is_me=message.sender == "Ann")
            yield message

    made.messages = come()
    return made


def add(
    store: Store,
    messages: Sequence[Message] = TRIP,
    title: str = "Trip",
    *,
    source: Path | None = None,
    cutting: Cutting | None = None,
    id_: str = "",
) -> Added:
    """Adds a chat to a store."""
    return add_chat(
        store,
        stream(messages, title, id_=id_),
        source or store.folder / "export.txt",
        cutting or Cutting(),
        state="s",
    )


class Letters:
    """An encoder whose vectors count letters: texts that share letters lie close."""

    name = fingerprint = weights_digest = "letters"
    takes_images = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        rows = torch.zeros(len(texts), 64)
        for row, text in zip(rows, texts, strict=True):
            for char in text.casefold():
                row[ord(char) % 64] += 1
        return functional.normalize(rows, dim=-1)


def stored_encoder(store: Store, encoder: Letters | None = None) -> StoredEncoder:
    """An encoder of letters that keeps its vectors in a store."""
    letters = encoder or Letters()
    return StoredEncoder(
        store,
        lambda: letters,  # type: ignore[arg-type, return-value]
        name="letters",
        weights_digest="letters",
        line_prefix="p: ",
    )


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Progress]:
    """A bar that shows nothing."""
    yield lambda done, all_: None


def killed_at(folder: Path, number: int, work: Callable[[Store], object]) -> bool:
    """Works on a store in a child that is killed at its n-th statement; whether it was."""
    child = os.fork()
    if not child:
        left = [number]

        def count(_: str) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            with Store(folder) as store:
                store.database.set_trace_callback(count)
                work(store)
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0
