"""What a search found, for a terminal and as JSON: fragments in their conversations."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from ffr.chats.chat import day_words
from ffr.chats.dialogues import is_line
from ffr.corpus.found import Found, Hit, lines_around
from ffr.corpus.store import Line, Store
from ffr.errors import DataError
from ffr.images import open_thumbnail
from ffr.terminal import PlainConsole
from ffr.text import counted, one_line

CONTEXT_LINES = 2
"""Lines that are shown before and behind a fragment, and around a gap in it."""

MOST_LINES = 24
"""Lines of a fragment that are shown in a terminal; the page and JSON have all."""

_THUMBNAIL_SIDE = 240


def print_found(
    found: Found,
    store: Store,
    console: PlainConsole,
    *,
    environment: Mapping[str, str],
    says_how: bool = False,
) -> None:
    """Prints hits, each in its conversation: its lines behind a `>`, what stands around them dimmed.

    Args:
        found: The hits.
        store: Where they are from.
        console: What is printed to.
        environment: Of the process: some terminals show pictures, and say who they are there.
        says_how: Whether a line behind each hit says how it was found.
    """
    if not found.hits:
        console.print(f"Nothing found; {found.searched}", soft_wrap=True)
        return
    shows_pictures = picture_protocol(environment) if console.is_terminal else None
    for number, hit in enumerate(found.hits, 1):
        console.print(Text(f"{number}  {hit_title(hit)}", style="bold"), soft_wrap=True)
        day = ""
        for line in shown_lines(hit, store):
            if line is None:
                console.print(Text("   …", style="dim"))
                continue
            if line.message.time is not None and day_words(line.message.time) != day:
                day = day_words(line.message.time)
                console.print(Text(f"   {day}", style="dim"))
            _print_line(line, hit, console, shows_pictures)
        if says_how and hit.ways:
            console.print(Text(f"   {how_found(hit)}", style="dim"), soft_wrap=True)
        console.print()
    size = counted(len(found.hits) + found.num_more, "fragment")
    part = f"{len(found.hits):,} of " if found.num_more else ""
    console.print(f"{part}{size}; {found.searched}", soft_wrap=True)


def hit_title(hit: Hit) -> str:
    """Days, chat, people, how much, and how sure, on one line."""
    people = list(dict.fromkeys(line.speaker for line in hit.lines if line.speaker))
    named = ", ".join(one_line(name, 24) for name in people[:4]) + (", …" * (len(people) > 4))
    size = counted(len(hit.lines), "message")
    if hit.pictures:
        size += f", {counted(len(hit.pictures), 'picture')}"
    sure = "" if hit.score is None else f"{hit.score:.2f}{' (weak)' * hit.is_weak}"
    if hit.score is None and "words" in hit.found_by:
        sure = "found by its words"
    days = days_words([line.message.time for line in hit.lines])
    return " · ".join(filter(None, [days, hit.chat.called(32), named, size, sure]))


def how_found(hit: Hit) -> str:
    """By which ways a hit was recalled, its rank in each, and its words of the query, on one line."""
    ways = ", ".join(f"{way} #{rank}" for way, rank in hit.ways.items())
    words = ", ".join(one_line(word, 30) for word in hit.words[:8])
    return f"by {ways}" + (f"; it has {words}" if words else "")


def days_words(times: Sequence[datetime | None]) -> str:
    """The days from the first time to the last, no part of them twice; "" without times.

    >>> days_words([datetime(2023, 5, 12, 18), None, datetime(2023, 5, 13)])
    '12–13 May 2023'
    >>> days_words([datetime(2022, 12, 31), datetime(2023, 1, 1)])
    '31 Dec 2022 – 1 Jan 2023'
    """
    clocks = [time.replace(tzinfo=None) for time in times if time is not None]
    if not clocks:
        return ""
    first, last = min(clocks), max(clocks)
    if first.date() == last.date():
        return day_words(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{day_words(last)}"
    return f"{day_words(first)} – {day_words(last)}"


def shown_lines(hit: Hit, store: Store, most: int | None = MOST_LINES) -> list[Line | None]:
    """The lines of a hit with those around it; None stands for what is left out between.

    Args:
        hit: The hit.
        store: Where it is from.
        most: The most lines of the fragment itself; None for all.
    """
    shown: list[Line | None] = []
    previous: int | None = None
    for line in lines_around(store, hit, CONTEXT_LINES, most):
        if previous is not None and line.place > previous + 1:
            shown.append(None)
        shown.append(line)
        previous = line.place
    if most is not None and len(hit.lines) > most:
        shown.append(None)
    return shown


def _print_line(line: Line, hit: Hit, console: PlainConsole, protocol: str | None) -> None:
    is_chosen = any(line.id == chosen.id for chosen in hit.lines)
    clock = "" if line.message.time is None else f"{line.message.time:%H:%M} "
    said = said_in_words(line)
    if not is_line(line.message):
        console.print(Text(f"   {clock}· {said}", style="dim"), soft_wrap=True)
        return
    # without colours too it is seen what belongs to the fragment
    text = Text(" > " if is_chosen else "   ", style="" if is_chosen else "dim")
    text.append(clock, style="dim")
    text.append(f"{one_line(line.speaker, 30)}  ", style="bold" if is_chosen else "")
    text.append(said)
    console.print(text, soft_wrap=True)
    if protocol is not None and is_chosen:
        for path in line.pictures:
            if path is not None and (escape := picture_escape(path, protocol)) is not None:
                console.file.write(f"   {escape}\n")


def said_in_words(line: Line) -> str:
    """What a message says, on one line, with what it carries in brackets."""
    parts = []
    for media, path in zip(line.message.media, line.pictures, strict=True):
        what = path or " ".join(filter(None, [media.name, "is missing" * (media.file is None)]))
        parts.append(f"[{media.kind} {one_line(what, 160)}]".replace(" ]", "]"))
    if line.message.is_deleted and not line.message.text:
        parts.append("[deleted]")
    elif not line.message.media and not line.message.text:
        parts.append(f"[{line.message.kind}]")
    if line.message.text:
        parts.append(one_line(line.message.text, 400))
    return " ".join(parts)


def picture_protocol(environment: Mapping[str, str]) -> str | None:
    """How the terminal takes pictures: `kitty`, `iterm`, or None where it shows none.

    >>> picture_protocol({"TERM_PROGRAM": "WezTerm"}), picture_protocol({"TERM": "xterm-256color"})
    ('iterm', None)
    """
    if environment.get("TERM") == "xterm-kitty" or environment.get("KITTY_WINDOW_ID"):
        return "kitty"
    if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        return "iterm"
    return None


def picture_escape(path: str, protocol: str) -> str | None:
    """What a terminal is sent to show a small picture; None where it cannot be opened.

    The picture is decoded and packed anew: no byte of the file itself reaches the terminal.

    Args:
        path: Of the picture.
        protocol: As `picture_protocol` gives it.
    """
    try:
        picture = open_thumbnail(path, _THUMBNAIL_SIDE)
    except DataError:
        return None
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    if protocol == "iterm":
        return f"\033]1337;File=inline=1;width={_THUMBNAIL_SIDE}px:{data}\a"
    pieces = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    return "".join(
        f"\033_G{'a=T,f=100,' * (number == 0)}m={int(number + 1 < len(pieces))};{piece}\033\\"
        for number, piece in enumerate(pieces)
    )


def found_as_json(found: Found) -> dict[str, Any]:
    """What a search found, JSON-ready: `found` is False where there is nothing."""
    return {
        "query": found.query,
        "found": bool(found.hits),
        "hits": [_hit_as_json(hit) for hit in found.hits],
        "num_more": found.num_more,
        "num_searched": found.num_searched,
        "num_messages": found.num_messages,
        "num_not_understood": found.num_not_understood,
        "failures": list(found.failures),
        "searched": found.searched,
    }


def _hit_as_json(hit: Hit) -> dict[str, Any]:
    return {
        "chat": hit.chat.title,
        "chat_id": hit.chat.id,
        "app": hit.chat.app,
        "score": hit.score,
        "found_by": list(hit.found_by),
        "ways": dict(hit.ways),
        "words": list(hit.words),
        "is_weak": hit.is_weak,
        "messages": [_line_as_json(line, hit) for line in hit.lines],
    }


def _line_as_json(line: Line, hit: Hit) -> dict[str, Any]:
    message = line.message
    return {
        "id": line.id,
        "place": line.place,
        "time": None if message.time is None else message.time.isoformat(),
        "speaker": line.speaker,
        "is_me": line.is_me,
        "kind": message.kind,
        "text": message.text,
        "media": [
            {
                "kind": media.kind,
                "name": media.name,
                "path": path,
                "is_found": (line.id, number) in hit.pictures,
            }
            for number, (media, path) in enumerate(zip(message.media, line.pictures, strict=True))
        ],
        "line": message.line,
    }
