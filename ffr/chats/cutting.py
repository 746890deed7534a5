"""A chat → dialogues: cut where people paused, and where it would grow too long for a model.

A chat of years is no dialogue. It is cut where nobody wrote for a while; what is still longer than
a model can take is cut at its longest pause, and where there are no times, by length alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ffr.chats.chat import Message, seconds_of
from ffr.errors import UsageError
from ffr.text import described

DEFAULT_PAUSE_HOURS = 8.0
DEFAULT_MAX_MESSAGES = 120
_MOST_MESSAGES = 2**53
# a cut for length leaves at least this share of the longest on either side
_LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Cutting:
    """How a chat is cut.

    Args:
        pause_hours: Nobody wrote for so long; 0 cuts at no pause.
        max_messages: The most that a dialogue holds; 0 for no bound.

    Raises:
        UsageError: where one is no number from 0.

    >>> Cutting(pause_hours=0, max_messages=0).is_whole
    True
    """

    pause_hours: float = DEFAULT_PAUSE_HOURS
    max_messages: int = DEFAULT_MAX_MESSAGES

    def __post_init__(self) -> None:
        if not (
            isinstance(self.pause_hours, int | float)
            and isinstance(self.max_messages, int)
            and 0 <= self.pause_hours < math.inf
            and 0 <= self.max_messages <= _MOST_MESSAGES
        ):
            raise UsageError(
                f"a chat cannot be cut at pauses of {described(self.pause_hours)} hours and after "
                f"{described(self.max_messages)} messages; give numbers from 0 that can be counted"
            )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut."""
        return not self.pause_hours and not self.max_messages

    @property
    def words(self) -> str:
        """How it cuts, in words, for a line of output."""
        parts = [f"at pauses of {self.pause_hours:g} hours"] if self.pause_hours else []
        parts += [f"after {self.max_messages} messages at most"] if self.max_messages else []
        return "cut " + " and ".join(parts) if parts else "not cut"


def cut_seconds(times: Iterable[float | None], cutting: Cutting) -> Iterator[int]:
    """How many messages each dialogue holds, in order.

    Args:
        times: Of each message, in order, in seconds; None where it has none.
        cutting: Where to cut.

    >>> list(cut_seconds([0, 60, 10 * 3600, None], Cutting(pause_hours=8)))
    [2, 2]
    >>> list(cut_seconds([None] * 5, Cutting(max_messages=2)))
    [2, 2, 1]
    >>> list(cut_seconds([0, 1, 2, 900, 901], Cutting(max_messages=4)))  # at the longest pause
    [3, 2]
    """
    pauses: list[float] = []  # before each message of the open dialogue; of its first, 0
    previous: float | None = None
    for seconds in times:
        pause = 0.0 if seconds is None or previous is None else max(0.0, seconds - previous)
        previous = seconds if seconds is not None else previous
        if pauses and cutting.pause_hours and pause >= cutting.pause_hours * 3600:
            yield len(pauses)
            pauses = []
        pauses.append(pause if pauses else 0.0)
        if cutting.max_messages and len(pauses) > cutting.max_messages:
            least = max(1, int(cutting.max_messages * _LEAST_SHARE))
            # of equal pauses the last: without times that is the bound itself
            first = max(range(least, len(pauses)), key=lambda number: (pauses[number], number))
            yield first
            pauses = [0.0, *pauses[first + 1 :]]
    if pauses:
        yield len(pauses)


def cut_messages(messages: Iterable[Message], cutting: Cutting) -> Iterator[list[Message]]:
    """The messages of each dialogue, in order.

    Args:
        messages: Of one chat, in order; what the app itself says among them counts as any other.
        cutting: Where to cut.
    """
    listed = list(messages)
    times = [None if message.time is None else seconds_of(message.time) for message in listed]
    start = 0
    for size in cut_seconds(times, cutting):
        yield listed[start : start + size]
        start += size
